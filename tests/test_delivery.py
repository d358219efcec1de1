"""From the buffer to a platform: order, settlement by receipts, outages of any length, filters that are not losses."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from gateway.batch import BACKLOG, LIVE, Batch, encode
from gateway.buffer import Buffer
from gateway.compose import seqs
from gateway.delivery import Delivery
from gateway.errors import REFUSED, TOO_LARGE, UplinkError
from gateway.model import Event, Lane, Point, Reading, Receipt
from gateway.ranges import Ranges
from gateway.supervise import Watch, supervise
from gateway.testing import LoopClock, MemoryPlatform, jumped

POWER = Point("here/feeder/power", "power_active", "W")
DUST = Point("lp-1/pm/pm25", "pm25", "ug/m3")

Act = Callable[[Buffer, MemoryPlatform, Delivery], Awaitable[None]]


def on_a_street(
    folder: Path,
    act: Act,
    *,
    lanes: tuple[Lane, ...] = tuple(Lane),
    only: tuple[str, ...] = (),
    platform: MemoryPlatform | None = None,
) -> None:
    """Run `act` beside a buffer and a supervised delivery into a platform in memory, in jumped time."""
    platform = platform or MemoryPlatform()

    async def main() -> None:
        buffer = Buffer(folder, "cab-017", LoopClock())
        await buffer.open()
        buffer.know([POWER, DUST])
        for lane in buffer.lanes.values():
            await lane.enrol({"city": "oldest"} if lane.lane in lanes else {})
        delivery = Delivery("city", platform, buffer, gateway="cab-017", lanes=lanes, only=only)
        downs: list[str] = []

        async def down(say: str) -> None:
            downs.append(say)

        async with asyncio.TaskGroup() as tasks:
            running = [
                tasks.create_task(buffer.run()),
                tasks.create_task(supervise("city", delivery.run, watch=Watch(), down=down)),
            ]
            await act(buffer, platform, delivery)
            for task in running:
                task.cancel()
        assert not [say for say in downs if "error of the gateway's own" in say]
        await buffer.close()

    jumped(main())


async def produce(buffer: Buffer, seconds: int, every: int = 1) -> None:
    """Two readings for each second, handed over `every` so many seconds."""
    loop = asyncio.get_running_loop()
    due = loop.time()
    for _ in range(0, seconds, every):
        at = buffer.lanes[Lane.TELEMETRY]._clock.boot()
        await buffer.emit([Reading(POWER.id, 230.5, at), Reading(DUST.id, 0.0, at)] * every)
        due += every
        await asyncio.sleep(due - loop.time())


def delivered(platform: MemoryPlatform, lane: Lane = Lane.TELEMETRY) -> Ranges:
    return Ranges([(seq, seq) for at, _, seq in platform.records if at is lane])


def test_every_record_arrives_once_and_is_deleted(tmp_path: Path) -> None:
    async def act(buffer: Buffer, platform: MemoryPlatform, delivery: Delivery) -> None:
        await produce(buffer, 100)
        await platform.until(lambda it: len(it.records) == 200)
        await asyncio.sleep(5)
        assert delivered(platform) == Ranges([(1, 200)])
        assert platform.twice == 0
        held, _, _ = await buffer.lanes[Lane.TELEMETRY].depth()
        assert held == 0

    on_a_street(tmp_path, act)


def test_a_platform_gone_for_ten_hours_gets_live_first_then_the_backlog_each_ascending(tmp_path: Path) -> None:
    async def act(buffer: Buffer, platform: MemoryPlatform, delivery: Delivery) -> None:
        await produce(buffer, 30)
        platform.cut()
        await produce(buffer, 36_000, every=100)
        before = len(platform.arrivals)
        platform.delay = 2.0
        platform.mend()
        await produce(buffer, 120)
        await platform.until(lambda it: len(it.records) == 2 * (30 + 36_000 + 120), within=600)
        assert delivered(platform) == Ranges([(1, 2 * 36_150)])
        assert platform.twice == 0
        after = platform.arrivals[before:]
        live = [batch.span[0] for batch in after if batch.mode == LIVE]
        late = [batch.span[0] for batch in after if batch.mode == BACKLOG]
        assert live == sorted(live)
        assert late == sorted(late)
        assert min(live) > max(late), "what is live starts at the head"
        first_live = next(i for i, batch in enumerate(after) if batch.mode == LIVE)
        last_late = max(i for i, batch in enumerate(after) if batch.mode == BACKLOG)
        assert first_live < last_late, "live does not wait for the backlog's end"
        times = [batch.time + row[2] for batch in after for row in batch.readings]
        assert max(times) - min(times) >= 36_000 * 1000, "true times, not the time of sending"

    on_a_street(tmp_path, act)


def test_lost_answers_send_again_and_the_platform_knows_the_records(tmp_path: Path) -> None:
    async def act(buffer: Buffer, platform: MemoryPlatform, delivery: Delivery) -> None:
        platform.answers = False
        await produce(buffer, 20)
        platform.answers = True
        await asyncio.sleep(120)
        assert delivered(platform) == Ranges([(1, 40)])
        assert platform.twice > 0
        held, _, _ = await buffer.lanes[Lane.TELEMETRY].depth()
        assert held == 0

    on_a_street(tmp_path, act)


def test_a_record_that_the_platform_never_takes_does_not_block_the_others(tmp_path: Path) -> None:
    async def act(buffer: Buffer, platform: MemoryPlatform, delivery: Delivery) -> None:
        platform.refuse = lambda seq: "unknown_device" if seq == 7 else None
        await produce(buffer, 20)
        await asyncio.sleep(60)
        assert delivered(platform) == Ranges([(1, 6), (8, 40)])
        held, _, _ = await buffer.lanes[Lane.TELEMETRY].depth()
        assert held == 0

    on_a_street(tmp_path, act)


def test_what_an_uplink_does_not_take_is_skipped_with_its_reason(tmp_path: Path) -> None:
    async def act(buffer: Buffer, platform: MemoryPlatform, delivery: Delivery) -> None:
        await produce(buffer, 20)
        await platform.until(lambda it: len(it.records) == 20)
        assert {batch.points for batch in platform.arrivals} == {(("here/feeder/power", "power_active", "W"),)}
        assert {why for batch in platform.arrivals for _, _, why in batch.skip} == {"not_selected"}
        everything = delivered(platform)
        for spans in platform.skipped.values():
            for first, last in spans:
                everything.add(first, last)
        assert everything == Ranges([(1, 40)]), "nothing is unaccounted for"

    on_a_street(tmp_path, act, lanes=(Lane.TELEMETRY,), only=("here/*",))


def test_billing_and_events_go_before_telemetry(tmp_path: Path) -> None:
    async def act(buffer: Buffer, platform: MemoryPlatform, delivery: Delivery) -> None:
        await produce(buffer, 5)
        platform.cut()
        await asyncio.sleep(60)
        await produce(buffer, 600)
        await buffer.emit([Event("link_down", "line", 60_000, "gone")], lane=Lane.EVENT)
        await buffer.emit([Event("transaction_begin", "cp-1/evse", 60_000)], lane=Lane.BILLING)
        before = len(platform.arrivals)
        platform.mend()
        await platform.until(lambda it: len(it.records) == 2 * 605 + 2, within=120)
        assert [batch.lane for batch in platform.arrivals[before : before + 3]] == ["billing", "event", "telemetry"]

    on_a_street(tmp_path, act)


def test_what_is_most_urgent_takes_the_next_place_billing_event_live_backlog(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One place, and the backlog has it while all the others come: each takes it in its turn."""
    monkeypatch.setattr("gateway.delivery.MAX_BYTES", 4096)
    monkeypatch.setattr("gateway.delivery.BACKLOG_RATE", 1e9)
    platform = MemoryPlatform(delay=5.0, window=1)

    async def act(buffer: Buffer, _: MemoryPlatform, delivery: Delivery) -> None:
        platform.cut()
        await produce(buffer, 600, every=300)
        before = len(platform.arrivals)
        platform.mend()
        await platform.until(lambda it: len(it.arrivals) > before, within=60)
        at = buffer.lanes[Lane.TELEMETRY]._clock.boot()
        await buffer.emit([Reading(POWER.id, 230.5, at)] * 60)
        await buffer.emit([Event("link_down", "line", 60_000, "gone")], lane=Lane.EVENT)
        await buffer.emit([Event("transaction_begin", "cp-1/evse", 60_000)], lane=Lane.BILLING)
        await platform.until(lambda it: len(it.records) == 2 * 600 + 60 + 2, within=6000)
        order = [(batch.lane, batch.mode) for batch in platform.arrivals[before:]]
        billing = order.index((Lane.BILLING, LIVE))
        assert order[billing : billing + 4] == [
            (Lane.BILLING, LIVE), (Lane.EVENT, LIVE), (Lane.TELEMETRY, LIVE), (Lane.TELEMETRY, BACKLOG),
        ]  # fmt: skip
        assert set(order[:billing]) == {(Lane.TELEMETRY, BACKLOG)}, "they did not all wait for the same place"

    on_a_street(tmp_path, act, platform=platform)


def test_low_names_the_oldest_record_that_is_still_to_come(tmp_path: Path) -> None:
    async def act(buffer: Buffer, platform: MemoryPlatform, delivery: Delivery) -> None:
        await produce(buffer, 50)
        await platform.until(lambda it: len(it.records) == 100)
        stored = Ranges()
        for batch in platform.arrivals:
            assert stored.first_missing(1) >= batch.low, "a receiver that counts holes below low finds none"
            stored.add(*batch.span)

    on_a_street(tmp_path, act)


def refuse(*bad: int, code: str = REFUSED) -> Callable[[Batch], None]:
    def look(batch: Batch) -> None:
        if set(bad) & set(seqs(batch)):
            raise UplinkError("The platform does not take it.", code)

    return look


@pytest.mark.parametrize("bad", [(1,), (7,), (40,), (3, 4, 39)])
def test_a_refused_batch_is_halved_until_the_bad_record_alone_is_a_dead_letter(
    tmp_path: Path, bad: tuple[int, ...]
) -> None:
    async def act(buffer: Buffer, platform: MemoryPlatform, delivery: Delivery) -> None:
        platform.look = refuse(*bad)
        await produce(buffer, 20)
        await asyncio.sleep(60)
        assert sorted(seq for _, _, seq in platform.records) == [seq for seq in range(1, 41) if seq not in bad]
        why = {(first, last): why for batch in platform.arrivals for first, last, why in batch.skip}
        assert why == {(seq, seq): "dead_letter" for seq in bad}
        assert platform.twice == 0
        lane = buffer.lanes[Lane.TELEMETRY]
        assert lane.settled("city").covers(1, 40)
        assert (await lane.depth())[0] == 0

    on_a_street(tmp_path, act)


def test_a_platform_that_refuses_everything_costs_no_record(tmp_path: Path) -> None:
    async def act(buffer: Buffer, platform: MemoryPlatform, delivery: Delivery) -> None:
        def never(_: Batch) -> None:
            raise UplinkError("The platform does not take it.", REFUSED)

        platform.look = never
        await produce(buffer, 20)
        await asyncio.sleep(300)
        assert not platform.records
        platform.look = lambda _: None
        await platform.until(lambda it: len(it.records) == 40, within=60)
        assert {why for batch in platform.arrivals for _, _, why in batch.skip} == set()

    on_a_street(tmp_path, act)


def test_a_failing_connection_is_never_poison(tmp_path: Path) -> None:
    async def act(buffer: Buffer, platform: MemoryPlatform, delivery: Delivery) -> None:
        platform.look = refuse(7, code="")
        await produce(buffer, 20)
        await asyncio.sleep(300)
        assert not any(batch.skip for batch in platform.arrivals)
        platform.look = lambda _: None
        await platform.until(lambda it: len(it.records) == 40, within=60)

    on_a_street(tmp_path, act)


def test_a_payload_too_large_is_learnt_and_split(tmp_path: Path) -> None:
    async def act(buffer: Buffer, platform: MemoryPlatform, delivery: Delivery) -> None:
        refused: list[int] = []

        def look(batch: Batch) -> None:
            if len(encode(batch)) > 4000:
                refused.append(len(encode(batch)))
                raise UplinkError("It is too large.", TOO_LARGE)

        await produce(buffer, 10)
        platform.cut()
        await produce(buffer, 4000, every=100)
        platform.look = look
        platform.mend()
        await platform.until(lambda it: len(it.records) == 8020, within=600)
        assert delivered(platform) == Ranges([(1, 8020)])
        assert len(refused) < 60, "after a few it knows what passes"
        assert not any(batch.skip for batch in platform.arrivals)

    on_a_street(tmp_path, act)


async def test_a_failed_send_comes_out_as_itself_not_in_a_group(tmp_path: Path) -> None:
    buffer = Buffer(tmp_path, "cab-017", LoopClock(), commit_every=0.01)
    await buffer.open()
    buffer.know([POWER])
    for lane in buffer.lanes.values():
        await lane.enrol({"city": "oldest"})
    platform = MemoryPlatform()
    platform.look = refuse(1, code="")
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        running = tasks.create_task(buffer.run())
        await buffer.emit([Reading(POWER.id, 1.0, 60_000)])
        with pytest.raises(UplinkError, match=re.escape("does not take it.")):
            await Delivery("city", platform, buffer, gateway="cab-017").run()
        running.cancel()
    await buffer.close()


def test_telemetry_keeps_a_tenth_however_much_there_is_of_events(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.delivery.BACKLOG_RATE", 1e9)

    async def act(buffer: Buffer, platform: MemoryPlatform, delivery: Delivery) -> None:
        platform.cut()
        await produce(buffer, 40_000, every=1000)
        said = [Event("note", "line", 60_000, "x" * 8000)] * 5
        async with asyncio.TaskGroup() as tasks:
            for _ in range(200):
                tasks.create_task(buffer.emit(said, lane=Lane.EVENT))
        before = len(platform.arrivals)
        platform.mend()
        await platform.until(lambda it: len(it.records) == 80_000 + 1000, within=120)
        lanes = [batch.lane for batch in platform.arrivals[before:]]
        while_events = lanes[: len(lanes) - lanes[::-1].index(Lane.EVENT)]
        assert len(while_events) > 200
        assert while_events.count(Lane.TELEMETRY) >= len(while_events) // 10 - 1

    on_a_street(tmp_path, act)


class Counting(MemoryPlatform):
    """Knows how many batches, and bytes of them, were under way at once."""

    under_way = size = most = largest = 0

    async def send(self, batch: Batch) -> Receipt:
        size = len(encode(batch))
        self.under_way, self.size = self.under_way + 1, self.size + size
        self.most, self.largest = max(self.most, self.under_way), max(self.largest, self.size)
        try:
            return await super().send(batch)
        finally:
            self.under_way, self.size = self.under_way - 1, self.size - size


@pytest.mark.parametrize(("window", "backlog"), [(1, 1), (20, 15), (100, 75)])
def test_as_many_batches_are_under_way_as_the_platform_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, window: int, backlog: int
) -> None:
    monkeypatch.setattr("gateway.delivery.MAX_BYTES", 512)
    monkeypatch.setattr("gateway.delivery.BACKLOG_RATE", 1e9)
    platform = Counting(delay=2.0, window=window)

    async def act(buffer: Buffer, _: MemoryPlatform, delivery: Delivery) -> None:
        platform.cut()
        await produce(buffer, 5000, every=500)
        platform.mend()
        await platform.until(lambda it: len(it.records) == 10_000, within=6000)
        assert platform.most == backlog, "a place is kept for what is live"
        said = [Event("note", "line", 60_000, "x" * 400)] * 4
        async with asyncio.TaskGroup() as tasks:
            for _ in range(100):
                tasks.create_task(buffer.emit(said, lane=Lane.EVENT))
        await platform.until(lambda it: len(it.records) == 10_400, within=6000)
        assert platform.most == window

    on_a_street(tmp_path, act, platform=platform)


def test_a_wide_window_is_not_filled_with_large_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.delivery.BACKLOG_RATE", 1e9)
    platform = Counting(delay=1.0, window=100)

    async def act(buffer: Buffer, _: MemoryPlatform, delivery: Delivery) -> None:
        platform.cut()
        await produce(buffer, 50_000, every=1000)
        platform.mend()
        await platform.until(lambda it: len(it.records) == 100_000, within=600)
        assert 4 < platform.most <= 8
        assert 200_000 < platform.largest < 600_000

    on_a_street(tmp_path, act, platform=platform)


def test_the_backlog_keeps_its_pace(tmp_path: Path) -> None:
    async def act(buffer: Buffer, platform: MemoryPlatform, delivery: Delivery) -> None:
        platform.cut()
        await produce(buffer, 20_000, every=1000)
        began = asyncio.get_running_loop().time()
        platform.mend()
        await platform.until(lambda it: len(it.records) == 40_000, within=120)
        assert asyncio.get_running_loop().time() - began > 40_000 / 5000 - 1

    on_a_street(tmp_path, act)
