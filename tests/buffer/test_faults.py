"""The buffer under faults: damage, a foreign machine, a disk that refuses, room that runs out."""

import asyncio
import json
import secrets
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.buffer import Buffer, LaneBuffer
from gateway.buffer.ballast import Ballast
from gateway.buffer.block import Anchor
from gateway.buffer.fault import Full, Unwritable
from gateway.buffer.group import Group
from gateway.buffer.lanefile import LaneFile
from gateway.buffer.skips import Skips
from gateway.buffer.sweep import Bounds, Sweep
from gateway.errors import StorageError
from gateway.model import ClockState, Event, Lane, Point, Reading, Receipt
from gateway.ranges import Ranges
from gateway.testing import LoopClock, jumped

POWER = Point("here/feeder/power", "power_active", "W")
ANCHOR = Anchor("b007b007", 0, 1_795_305_600_000, ClockState.SYNCED)
ENTRIES = {1: ["here/feeder/power", "power_active", "W"], 2: ["here/feeder/energy", "energy_active", "Wh"]}


@asynccontextmanager
async def running(folder: Path, **options: Any) -> AsyncIterator[Buffer]:
    buffer = Buffer(folder, "cab-017", LoopClock(), commit_every=0.01, **options)
    await buffer.open()
    buffer.know([POWER])
    for lane in buffer.lanes.values():
        await lane.enrol({"city": "oldest"})
    async with asyncio.TaskGroup() as tasks:
        writer = tasks.create_task(buffer.run())
        yield buffer
        writer.cancel()
    await buffer.close()


async def fill(buffer: Buffer, count: int, lane: Lane = Lane.TELEMETRY) -> None:
    for number in range(count):
        await buffer.emit([Reading(POWER.id, float(number), 60_000)], lane=lane)
        await buffer.lanes[lane].flush()


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110 - what another thread does has no event
            await asyncio.sleep(0.02)


async def values(lane: LaneBuffer) -> dict[int, float]:
    blocks = await lane.read(1, 2**62, 10**9)
    return {block.first + n: row[2] for block in blocks for n, row in enumerate(block.rows or ())}


def small_file(path: Path | None, rows: int = 200, **options: Any) -> LaneFile:
    """A lane file with `rows` blocks of one reading and an uplink that waits for all of them."""
    file = LaneFile(path, grow=64 * 1024, max_bytes=options.pop("max_bytes", 8 * 1024 * 1024), **options)
    file.uplinks({"city": "oldest"})
    for number in range(rows):
        points = [(n, json.dumps(entry)) for n, entry in ENTRIES.items()] if number == 0 else []
        anchor = replace(ANCHOR, boot=number * 1000, wall=ANCHOR.wall + number * 1000)
        file.commit(Group(anchor, [[1, 0, float(number)]], points))
    return file


@pytest.mark.parametrize("page", [3, 20, 77])
def test_a_damaged_file_is_salvaged_row_by_row_and_the_records_keep_their_identity(tmp_path: Path, page: int) -> None:
    path = tmp_path / "telemetry.sqlite"
    file = small_file(path, 400)
    epoch = file.epoch
    file.commit(Group(state={"next": 7}))
    root = dict(file.db.execute("SELECT name, rootpage FROM sqlite_schema WHERE type='table'"))
    file.close()
    raw = bytearray(path.read_bytes())
    assert page not in (number - 1 for name, number in root.items() if name == "fact")
    raw[page * 1024 : page * 1024 + 1024] = secrets.token_bytes(1024)
    path.write_bytes(raw)
    again = LaneFile(path, grow=64 * 1024, max_bytes=8 * 1024 * 1024)
    if again.quarantined is None:
        pytest.skip("that page held nothing")
    assert again.epoch != epoch
    assert [known.id for known in again.epochs[:-1]] == [epoch]
    held = again.read(1, 2**62, 10**9)
    assert sum(block.count for block in held) > 300
    assert all(block.rows[0][2] == block.first - 1 for block in held if block.rows), "each under its own number"
    assert again.next == again.epochs[-1].base + 1
    assert again.commit(Group(ANCHOR, [[1, 0, 1.0]])) == again.epochs[-1].base + 2
    holes = Ranges([(block.first, block.last) for block in held]).missing(1, held[-1].last if held else 1)
    inner = [hole for hole in holes if hole[0] > held[0].first]
    skipped = again.skips.get("", Skips())
    assert all(skipped.within(*hole) == [(*hole, "corrupt")] for hole in inner)
    again.close()


async def test_salvaged_and_new_records_are_both_deliverable(tmp_path: Path) -> None:
    async with running(tmp_path) as buffer:
        await fill(buffer, 20)
        epoch = buffer.lanes[Lane.TELEMETRY].epoch
    path = tmp_path / "telemetry.sqlite"
    db = sqlite3.connect(path)
    [[root]] = db.execute("SELECT rootpage FROM sqlite_schema WHERE name='dead'").fetchall()
    db.close()
    raw = bytearray(path.read_bytes())
    raw[(root - 1) * 1024 : root * 1024] = secrets.token_bytes(1024)
    path.write_bytes(raw)
    async with running(tmp_path) as buffer:
        lane = buffer.lanes[Lane.TELEMETRY]
        assert lane.quarantined
        assert lane.salvaged.records == 20
        await fill(buffer, 1)
        held = await values(lane)
        assert len(held) == 21
        assert {lane.epoch_at(position)[0] for position in held} == {epoch, lane.epoch}
        lane.settle("city", Receipt(epoch, ((1, 20),)))
        lane.settle("city", Receipt(lane.epoch, ((1, 1),)))
        await lane.flush()
        assert (await lane.depth())[0] == 0


@pytest.mark.fault
def test_at_most_two_quarantines_are_kept(tmp_path: Path) -> None:
    for _ in range(4):
        (tmp_path / "event.sqlite").write_bytes(b"garbage" * 1000)
        LaneFile(tmp_path / "event.sqlite", grow=64 * 1024, max_bytes=10**7).close()
    assert len(list((tmp_path / "quarantine").iterdir())) == 2


def test_a_file_on_another_machine_begins_a_new_epoch_and_keeps_its_records(tmp_path: Path) -> None:
    path = tmp_path / "telemetry.sqlite"
    small_file(path, 10, machine="a").close()
    same = LaneFile(path, grow=64 * 1024, max_bytes=10**7, machine="a")
    assert (len(same.epochs), same.next) == (1, 11)
    same.close()
    cloned = LaneFile(path, grow=64 * 1024, max_bytes=10**7, machine="b")
    assert len(cloned.epochs) == 2
    assert sum(block.count for block in cloned.read(1, 2**62, 10**9)) == 10
    assert cloned.settled["city"].missing(1, cloned.next - 1) == [(1, 10)], "nothing between the epochs is waited for"
    cloned.close()


@pytest.mark.fault
async def test_while_the_disk_refuses_telemetry_goes_on_in_memory_and_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path) as buffer:
        lane, billing = buffer.lanes[Lane.TELEMETRY], buffer.lanes[Lane.BILLING]
        await fill(buffer, 3)
        durable = lane.epoch
        disk, is_broken = LaneFile.commit, True

        def commit(file: LaneFile, group: Group) -> int:
            if is_broken and file.path:
                raise Unwritable("disk I/O error")
            return disk(file, group)

        monkeypatch.setattr(LaneFile, "commit", commit)
        opening = lane._disk

        def refuse(**_: Any) -> LaneFile:
            raise Unwritable("read-only file system")

        for each in (lane, billing):
            each._disk = refuse  # type: ignore[assignment]
        await buffer.emit([Reading(POWER.id, 3.0, 60_000)])
        await until(lambda: lane.is_volatile and lane.committed == 1)
        assert lane.error
        volatile = lane.epoch
        assert volatile != durable
        for _ in range(3):
            with pytest.raises(StorageError):
                await buffer.emit([Reading(POWER.id, 1.0, 60_000)], lane=Lane.BILLING)
        assert list((await values(lane)).values()) == [3.0], "live forwarding goes on"
        is_broken = False
        lane._disk = opening
        lane._reopen_at = lane._sweep_at = 0.0
        lane._wake.set()
        await until(lambda: not lane.is_volatile)
        assert lane.epoch not in (durable, volatile)
        held = await values(lane)
        assert sorted(held.values()) == [0.0, 1.0, 2.0, 3.0], "what memory held is on the disk, under its epoch"
        assert {lane.epoch_at(position)[0] for position in held} == {durable, volatile}
        await fill(buffer, 1)
        assert len(await values(lane)) == 5


def test_a_disk_that_refuses_at_the_start_is_tried_again_every_half_minute(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path) as buffer:
            await fill(buffer, 1)
        (tmp_path / "telemetry.sqlite").rename(tmp_path / "away")
        (tmp_path / "telemetry.sqlite").mkdir()
        async with running(tmp_path) as buffer:
            lane = buffer.lanes[Lane.TELEMETRY]
            assert lane.is_volatile
            await fill(buffer, 2)
            assert len(await values(lane)) == 2
            (tmp_path / "telemetry.sqlite").rmdir()
            (tmp_path / "away").rename(tmp_path / "telemetry.sqlite")
            await asyncio.sleep(75)
            assert not lane.is_volatile
            assert len(await values(lane)) == 3, "what lay on the disk, and what memory held"

    jumped(main())


def sweep(file: LaneFile, boot: int = 0, sent: Ranges | None = None, **bounds: Any) -> None:
    """All that a sweep has to do."""
    sweeping = Sweep(file, Bounds(**({"max_bytes": file.max_bytes} | bounds)), ENTRIES.__getitem__)
    for _ in range(5000):
        if not sweeping.run(ANCHOR.boot_id, boot, sent or Ranges()):
            return
    raise AssertionError("it does not end")


def thinned(**options: Any) -> LaneFile:
    """512 KB of a lane, filled to above 80 % with a power and an energy reading a second."""
    file = small_file(None, 1, max_bytes=512 * 1024)
    number = 0
    while file.used() < 0.85 * file.max_bytes:
        rows = [
            row
            for n in range(number, number + 10)
            for row in ([1, n * 1000, secrets.randbelow(10**6) / 7], [2, n * 1000, n])
        ]
        file.commit(Group(ANCHOR, rows))
        number += 10
    sweep(file, thins=True, **options)
    return file


def test_telemetry_thins_to_minutes_that_name_what_they_replace() -> None:
    file = thinned()
    assert file.used() <= 0.8 * file.max_bytes
    levels = [block for block in file.read(1, file.next, 10**9) if block.level == 1]
    assert levels
    rows = [row for block in levels for row in block.rows or ()]
    gauge = next(row for row in rows if row[0] == 1 and row[5]["aggregate"]["n"] == 60)
    about = gauge[5]["aggregate"]
    assert about["min"] <= gauge[2] == about["mean"] <= about["max"]
    assert about["seconds"] == 60
    counter = next(row for row in rows if row[0] == 2)
    assert counter[2] == counter[5]["aggregate"]["last"], "a counter keeps its last"
    skipped = file.skips[""].within(1, file.next)
    assert {why for _, _, why in skipped} == {"thinned"}
    named = Ranges(span for row in rows for span in row[5]["aggregate"]["replaces"])
    assert named.spans() == [(first, last) for first, last, _ in skipped]


def test_on_a_full_disk_telemetry_stays_within_what_it_has(tmp_path: Path) -> None:
    """Far below its own bound; and grows again when there is room."""

    class Disk(Ballast):
        free = 10**9

        def _free(self) -> int:
            return self.free

    ballast, file = Disk(tmp_path), small_file(tmp_path / "telemetry.sqlite", 1, max_bytes=64 * 1024 * 1024)
    sweeping = Sweep(file, Bounds(file.max_bytes, thins=True), ENTRIES.__getitem__, ballast)

    def fill(rounds: int) -> int:
        for _ in range(rounds):
            rows = [[1, n * 1000, secrets.randbelow(10**6) / 7] for n in range(100)]
            try:
                file.commit(Group(ANCHOR, rows))
            except Full:
                file.release_reserve()
            while sweeping.run(ANCHOR.boot_id, 0, Ranges()):
                pass
        return (tmp_path / "telemetry.sqlite").stat().st_size

    before = fill(120)
    ballast.free = 0
    assert fill(150) <= before + 64 * 1024
    assert file.skips[""].within(1, file.next), "told"
    ballast.free = 10**9
    assert fill(300) > before + 100 * 1024
    file.close()


def test_what_may_be_at_a_platform_is_never_thinned() -> None:
    file = thinned(sent=Ranges([(1, 10**6)]))
    assert {block.level for block in file.read(1, file.next, 10**9)} == {0}
    assert {why for _, _, why in file.skips[""].within(1, file.next)} == {"expired"}, "then the oldest goes"


def test_billing_never_yields() -> None:
    file = small_file(None, 1, max_bytes=256 * 1024)
    with pytest.raises(StorageError, match="full"):  # noqa: PT012 - which one is refused depends on page sizes
        while True:
            file.commit(Group(ANCHOR, [[1, 0, secrets.token_hex(500)]]))
    held = file.waiting()
    sweep(file, drops=False)
    assert file.waiting() == held
    assert not file.skips[""]


def test_records_too_old_expire_by_the_time_the_gateway_was_up() -> None:
    file = small_file(None, 100)
    sweep(file, boot=100_000, max_age=60)
    assert file.skips[""].within(1, 100) == [(1, 40, "expired")]
    assert file.waiting() == 60


def test_an_uplink_beyond_its_quota_loses_only_its_own_claim() -> None:
    file = small_file(None, 500)
    file.uplinks({"city": "oldest", "utility": "oldest"})
    sweep(file, quotas={"utility": file.used() // 2})
    assert file.claim("city") == 500
    assert 200 < file.claim("utility") < 300
    first, _, why = file.skips["utility"].within(1, 500)[0]
    assert (first, why) == (1, "expired")
    assert sum(block.count for block in file.read(1, 500, 10**9)) == 500


def test_what_is_settled_is_kept_for_a_while_and_yields_first() -> None:
    file = small_file(None, 100, keep_settled=True)
    file.commit(Group(receipts=[("city", Receipt(file.epoch, ((1, 60),)))]))
    sweep(file, boot=100_000, keep_after_ack=70)
    assert file.read(1, 100, 10**9)[0].first == 32, "older than 70 s"
    assert file.waiting() == 40
    file.max_bytes = 1024
    sweep(file, boot=100_000, keep_after_ack=10**6)
    assert not file.skips[""].within(1, 60), "what everybody has is no loss"


def test_dead_letters_are_bounded_and_show_the_record(tmp_path: Path) -> None:
    file = small_file(tmp_path / "telemetry.sqlite", 5)
    file.commit(Group(receipts=[("city", Receipt(file.epoch, (), ((3, "unknown_device", False),)))]))
    [letter] = file.dead.newest(9)
    assert (letter.uplink, letter.seq, letter.reason) == ("city", 3, "unknown_device")
    assert json.loads(letter.record) == [ENTRIES[1], 2.0]
    assert letter.at == ANCHOR.wall + 2000
    for _ in range(3):
        first = file.next
        file.commit(Group(ANCHOR, [[-1, 0, {"event": "x" * 600_000}]]))
        file.commit(Group(receipts=[("city", Receipt(file.epoch, (), ((first, "too_large", False),)))]))
    assert file.dead.count() == 1, "1 MB of them"
    file.close()


@pytest.mark.fault
async def test_events_give_up_the_oldest_when_their_lane_is_full(tmp_path: Path) -> None:
    async with running(tmp_path, bounds=dict.fromkeys(Lane, 512 * 1024)) as buffer:
        for _ in range(300):
            await buffer.emit([Event("note", "line", 60_000, secrets.token_hex(1500))], lane=Lane.EVENT)
        lane = buffer.lanes[Lane.EVENT]
        assert lane.head == 301
        skipped = lane.skipped("city", 1, 300)
        assert skipped[0][0] == 1
        assert {why for _, _, why in skipped} == {"expired"}


async def test_the_oldest_go_by_the_time_that_the_gateway_was_up_whatever_its_wall_clock_showed(
    tmp_path: Path,
) -> None:
    """Somebody sets the clock back by ten years: what comes then is not older for it."""
    async with running(tmp_path, bounds=dict.fromkeys(Lane, 512 * 1024)) as buffer:
        for number in range(300):
            if number == 30:
                buffer._clock.start -= 10 * 365 * 86_400_000  # type: ignore[attr-defined]
            await buffer.emit([Event("note", "line", 60_000, secrets.token_hex(1500))], lane=Lane.EVENT)
        skipped = buffer.lanes[Lane.EVENT].skipped("city", 1, 300)
        assert [span[0] for span in skipped] == [1], "one range, from the first on"


async def test_the_loop_never_waits_for_a_slow_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every commit takes 200 ms in the lane's thread, as on a card whose flushes do."""
    commit = LaneFile.commit

    def slow(file: LaneFile, group: Group) -> int:
        time.sleep(0.2)
        return commit(file, group)

    monkeypatch.setattr(LaneFile, "commit", slow)
    lags = []
    async with running(tmp_path) as buffer:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(20), asyncio.TaskGroup() as producers:
            for number in range(100):
                reading = Reading(POWER.id, float(number), 60_000)
                producers.create_task(buffer.emit([reading], lane=Lane.BILLING))
                producers.create_task(buffer.emit([reading]))
            for _ in range(100):
                began = loop.time()
                await asyncio.sleep(0.005)
                lags.append(loop.time() - began - 0.005)
        assert buffer.lanes[Lane.BILLING].head == 101
    assert max(lags) < 0.05
