"""A clock that is set late: anchors, what is dated by them, steps, and what follows the time of day."""

import asyncio
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import pytest

from gateway.buffer import Buffer
from gateway.clock import SystemClock, built
from gateway.delivery import Delivery
from gateway.model import ClockState, Event, Lane, Point, Reading
from gateway.testing import LoopMachine, MemoryPlatform, jumped
from gateway.timekeeping import LOOK_EVERY, SAVE_EVERY, Timekeeping, is_trusted

GATEWAY = "cab-017"
POINTS = [Point("cab-017/feeder/power", "power_active", "W"), Point("lp-1/pm/pm25", "pm25", "ug/m3")]
YEARS_1970 = -2_531_779_200_000
DAY = 24 * 3_600_000


class Boot:
    """One boot of a gateway's machine with its buffer, timekeeping and one uplink."""

    def __init__(self, folder: Path, platform: MemoryPlatform, machine: LoopMachine, *, only: tuple[str, ...] = ()):
        self.machine, self.platform = machine, platform
        self.clock = SystemClock(machine)
        self.buffer = Buffer(folder, GATEWAY, self.clock)
        state = self.buffer.state("gateway/")
        self.time = Timekeeping(self.clock, GATEWAY, state.emit, state)
        self.delivery = Delivery(
            "city", platform, self.buffer, gateway=GATEWAY, linger=0.0, only=only, fixes=self.time.fixes
        )
        self.truth: dict[int, int] = {}

    async def __aenter__(self) -> Self:
        await self.buffer.open()
        self.buffer.know(POINTS)
        for lane in self.buffer.lanes.values():
            await lane.enrol({"city": "oldest"})
        self.time.resume()
        self._tasks = [asyncio.create_task(run()) for run in (self.buffer.run, self.time.run, self.delivery.run)]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        for outcome in await asyncio.gather(*self._tasks, return_exceptions=True):
            if isinstance(outcome, Exception):
                raise outcome
        await self.buffer.close()

    async def read(self, value: int) -> None:
        """One reading of each point whose value is known, with the true time at which it was taken."""
        self.truth[value] = self.machine.true()
        await self.buffer.emit([Reading(point.id, value, self.clock.boot()) for point in POINTS])

    async def event(self, say: str) -> None:
        await self.buffer.emit([Event("told", "lp-1/pm", self.clock.boot(), say)], lane=Lane.EVENT)

    async def delivered(self) -> None:
        await self.buffer.lanes[Lane.TELEMETRY].flush()
        async with asyncio.timeout(60):
            await self.delivery.drained()


def told(platform: MemoryPlatform, kind: str) -> list[dict[str, Any]]:
    events = [row[2] for batch in platform.arrivals for row in batch.events]
    return [event for event in events if event.get("event") == kind]


def values(platform: MemoryPlatform) -> dict[int, tuple[ClockState, int]]:
    """By value: the clock state of its batch, and its UTC."""
    return {row[3]: (batch.clock, batch.time + row[2]) for batch in platform.arrivals for row in batch.readings}


def test_what_waits_when_the_clock_is_set_goes_out_with_its_true_time(tmp_path: Path) -> None:
    async def main() -> None:
        platform = MemoryPlatform()
        async with Boot(tmp_path, platform, LoopMachine(ahead=YEARS_1970)) as boot:
            platform.cut()
            await boot.read(1)
            await asyncio.sleep(3600)
            await boot.read(2)
            boot.machine.synchronise()
            await asyncio.sleep(2 * LOOK_EVERY)
            await boot.read(3)
            platform.mend()
            await boot.delivered()
        seen = values(platform)
        assert {value: state for value, (state, _) in seen.items()} == {
            1: ClockState.CORRECTED, 2: ClockState.CORRECTED, 3: ClockState.SYNCED,
        }  # fmt: skip
        for batch in platform.arrivals:
            for row in batch.readings:
                assert abs(batch.time + row[2] - boot.truth[row[3]]) <= (batch.error or 0), "within what is stated"
                assert batch.up is None
        (anchor,) = told(platform, "clock_anchor")
        assert anchor["more"]["boot"] == "b007b007"

    jumped(main())


def test_what_went_out_unsynchronised_carries_its_boot_clock_and_the_anchor_dates_it(tmp_path: Path) -> None:
    async def main() -> None:
        platform = MemoryPlatform()
        async with Boot(tmp_path, platform, LoopMachine(ahead=YEARS_1970)) as boot:
            await boot.read(1)
            await asyncio.sleep(60)
            boot.machine.step(5 * DAY)
            await asyncio.sleep(60)
            await boot.read(2)
            await boot.delivered()
            assert not told(platform, "clock_anchor")
            (stepped,) = told(platform, "clock_stepped")
            assert stepped["more"] == {"by_ms": 5 * DAY}
            boot.machine.synchronise()
            await asyncio.sleep(2 * LOOK_EVERY)
            await boot.delivered()
        (anchor,) = told(platform, "clock_anchor")
        dated = {}
        for batch in platform.arrivals:
            for row in batch.readings:
                assert batch.clock is ClockState.UNSYNCED
                assert batch.up is not None
                dated[row[3]] = anchor["more"]["offset"] + batch.up + row[2]
        assert set(dated) == {1, 2}
        assert all(abs(dated[value] - boot.truth[value]) <= anchor["more"]["error_ms"] for value in dated)

    jumped(main())


def test_records_of_one_unsynchronised_boot_hang_together_whatever_was_done_to_its_clock(tmp_path: Path) -> None:
    async def main() -> None:
        platform = MemoryPlatform()
        platform.cut()
        async with Boot(tmp_path, platform, LoopMachine(ahead=-DAY)) as boot:
            for value in range(6):
                await boot.read(value)
                await asyncio.sleep(60)
                boot.machine.step(-3_600_000 if value % 2 else 2 * DAY)
            platform.mend()
            await boot.delivered()
        times = [time for _, (_, time) in sorted(values(platform).items())]
        gaps = [later - earlier for earlier, later in pairwise(times)]
        assert all(abs(gap - 60_000) < 50 for gap in gaps), gaps

    jumped(main())


def test_an_earlier_boot_that_was_never_set_stays_unsynced_and_in_order_and_one_that_was_is_corrected(
    tmp_path: Path,
) -> None:
    async def main() -> None:
        platform = MemoryPlatform()
        platform.cut()
        async with Boot(tmp_path, platform, LoopMachine("never", ahead=-DAY)) as boot:
            await boot.read(1)
            await asyncio.sleep(600)
            await boot.read(2)
        async with Boot(tmp_path, platform, LoopMachine("late", ahead=YEARS_1970)) as second:
            await second.read(3)
            second.machine.synchronise()
            await asyncio.sleep(2 * LOOK_EVERY)
        async with Boot(tmp_path, platform, LoopMachine("third", ahead=-DAY)) as third:
            await third.read(4)
            platform.mend()
            await third.delivered()
        states = {value: state for value, (state, _) in values(platform).items()}
        assert states == {
            1: ClockState.UNSYNCED, 2: ClockState.UNSYNCED, 3: ClockState.CORRECTED, 4: ClockState.UNSYNCED,
        }  # fmt: skip
        rows = [(batch.boot, row[0], row[3]) for batch in platform.arrivals for row in batch.readings]
        assert [value for _, _, value in sorted(rows, key=lambda row: row[1])] == [1, 1, 2, 2, 3, 3, 4, 4]
        assert abs(values(platform)[3][1] - second.truth[3]) <= 600
        assert values(platform)[4][1] > second.truth[3], (
            "the floor: the third boot knows when the second's clock was set"
        )

    jumped(main())


def test_an_anchor_is_told_once_a_boot_and_goes_to_uplinks_that_take_no_event_of_the_gateway(tmp_path: Path) -> None:
    async def main() -> None:
        platform = MemoryPlatform()
        machine = LoopMachine()
        machine.synchronise()
        for _ in range(3):
            async with Boot(tmp_path, platform, machine, only=("lp-1/*",)) as boot:
                await asyncio.sleep(3 * LOOK_EVERY)
                await boot.event("mine")
                await boot.delivered()
        assert len(told(platform, "clock_anchor")) == 1
        assert len(told(platform, "told")) == 3

    jumped(main())


def test_silence_of_the_time_server_and_its_return_are_told(tmp_path: Path) -> None:
    async def main() -> None:
        platform = MemoryPlatform()
        async with Boot(tmp_path, platform, LoopMachine()) as boot:
            boot.machine.synchronise()
            await asyncio.sleep(2 * 3600)
            await boot.read(1)
            await boot.delivered()
            boot.machine.synchronise()
            await asyncio.sleep(60)
            await boot.read(2)
            await boot.delivered()
        (lost,) = told(platform, "clock_holdover")
        assert lost["more"]["error_ms"] >= 500 + 420
        assert len(told(platform, "clock_synced")) == 1
        states = {value: state for value, (state, _) in values(platform).items()}
        assert states == {1: ClockState.HOLDOVER, 2: ClockState.SYNCED}
        errors = [batch.error for batch in platform.arrivals if batch.readings]
        assert errors == [pytest.approx(500 + 720, abs=20), pytest.approx(500, abs=20)]

    jumped(main())


def test_after_a_power_cut_no_clock_is_more_than_ten_minutes_before_what_it_was(tmp_path: Path) -> None:
    async def main() -> None:
        platform = MemoryPlatform()
        machine = LoopMachine("first")
        machine.synchronise()
        async with Boot(tmp_path, platform, machine) as boot:
            await asyncio.sleep(3600)
            last = machine.true()
            await boot.buffer.lanes[Lane.TELEMETRY].flush()
        assert last > built(), "else the floor of the build would do"
        after = SystemClock(LoopMachine("second", ahead=YEARS_1970))
        buffer = Buffer(tmp_path, GATEWAY, after)
        await buffer.open()
        state = buffer.state("gateway/")
        Timekeeping(after, GATEWAY, state.emit, state).resume()
        assert last - SAVE_EVERY - 2 * LOOK_EVERY * 1000 <= after.wall() <= last
        assert after.state() is ClockState.UNSYNCED
        await buffer.close()

    jumped(main())


def test_a_restart_without_a_time_server_goes_on_in_holdover(tmp_path: Path) -> None:
    async def main() -> None:
        platform = MemoryPlatform()
        machine = LoopMachine()
        machine.synchronise()
        async with Boot(tmp_path, platform, machine) as boot:
            await asyncio.sleep(1800)
            await boot.time.save()
        machine._touched = None  # as chrony, which leaves no file
        await asyncio.sleep(3600)
        async with Boot(tmp_path, platform, machine) as boot:
            assert boot.clock.state() is ClockState.HOLDOVER
            assert boot.clock.error() == pytest.approx(500 + 540, abs=10)

    jumped(main())


def test_lamps_stay_lit_while_nobody_knows_the_time() -> None:
    """A stub of a lighting control: full light unless it may follow its program."""

    async def main() -> None:
        machine = LoopMachine(ahead=YEARS_1970)
        clock = SystemClock(machine)

        def level() -> int:
            hour = clock.wall() // 3_600_000 % 24
            return 50 if is_trusted(clock) and (hour >= 23 or hour < 5) else 100

        seen = []
        for hour in range(48):
            if hour == 24:
                machine.synchronise()
                await asyncio.sleep(LOOK_EVERY + 1)
            seen.append(level())
            await asyncio.sleep(3600)
        assert seen[:24] == [100] * 24, "a day of a clock that shows some time of day, and nobody knows which"
        assert 50 in seen[24:], "after that the program is followed, in holdover too"
        machine.step(2 * 3_600_000)
        assert not is_trusted(clock), "somebody has set it, and nobody knows how well"
        machine.synchronise()
        assert is_trusted(clock)
        await asyncio.sleep(10 * DAY / 1000)
        assert clock.state() is ClockState.HOLDOVER
        assert not is_trusted(clock), "ten days later it may be off by more than a minute"
        assert level() == 100

    jumped(main())
