"""A lane and its bounds over a long time: what yields, in which order, and that every number is accounted for."""

import asyncio
import random
import sqlite3
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from gateway.buffer import Buffer
from gateway.buffer.block import Anchor
from gateway.buffer.fault import Unwritable
from gateway.buffer.group import Group
from gateway.buffer.lane import RING
from gateway.buffer.lanefile import LaneFile
from gateway.buffer.sweep import Bounds, Sweep
from gateway.errors import StorageError
from gateway.model import ClockState, Event, Lane, Point, Reading
from gateway.ranges import Ranges
from gateway.testing import LoopClock

POWER = Point("here/feeder/power", "power_active", "W")
WALL = 1_795_305_600_000
ENTRIES = {1: ["here/feeder/power", "power_active", "W"], 2: ["here/feeder/energy", "energy_active", "Wh"]}
EVERY = 20_000
QUARTER = 900_000


class Street:
    """A power and an energy reading every 20 s into a lane of 80 KB, swept after every ten minutes."""

    def __init__(self) -> None:
        self.file = LaneFile(None, grow=8 * 1024, max_bytes=80 * 1024)
        self.file.uplinks({"city": "oldest"})
        self.sweeping = Sweep(self.file, Bounds(80 * 1024, thins=True), ENTRIES.__getitem__)
        self.said: dict[tuple[int, int], list[float]] = defaultdict(list)
        """(point, quarter of an hour) -> its values."""
        self._dice, self._at = random.Random(1), 0

    def run(self, ten_minutes: int) -> None:
        for _ in range(ten_minutes):
            anchor, rows = Anchor("b007", self._at, WALL + self._at, ClockState.SYNCED), list[Any]()
            for offset in range(0, 600_000, EVERY):
                energy = (self._at + offset) / 1000
                for number, value in ((1, self._dice.uniform(-5000, 5000)), (2, energy)):
                    rows.append([number, offset, value])
                    self.said[number, (WALL + self._at + offset) // QUARTER].append(value)
            self.file.commit(Group(anchor, rows))
            self._at += 600_000
            while self.sweeping.run("b007", self._at, Ranges()):
                pass

    def levels(self) -> set[int]:
        return {block.level for block in self.file.read(1, 2**62, 10**9)}

    def aggregates(self, level: int) -> list[tuple[int, list[Any]]]:
        """(UTC, row) of each."""
        blocks = [block for block in self.file.read(1, 2**62, 10**9) if block.level == level]
        return [(block.anchor.wall + row[1], row) for block in blocks for row in block.rows or ()]

    def reasons(self) -> set[str]:
        return {why for _, _, why in self.file.skipped("city", 1, self.file.next - 1)}


def test_minutes_become_quarters_of_an_hour_and_only_then_the_oldest_goes() -> None:
    street = Street()
    while 1 not in street.levels():
        street.run(1)
    assert street.reasons() == {"thinned"}
    while 2 not in street.levels():
        street.run(6)
    assert street.reasons() == {"thinned"}, "nothing is given up while thinning makes room"
    street.run(60)
    whole = 0
    for at, row in street.aggregates(2):
        about, values = row[5]["aggregate"], street.said[row[0], at // QUARTER]
        assert about["seconds"] == 900
        if about["n"] == len(values) == QUARTER // EVERY:
            whole += 1
            assert (about["min"], about["max"], about["last"]) == (min(values), max(values), values[-1])
            assert about["mean"] == pytest.approx(sum(values) / len(values))
            assert row[2] == (about["last"] if row[0] == 2 else about["mean"]), "a counter keeps its last"
    assert whole > 10
    while "expired" not in street.reasons():
        street.run(60)
    held = Ranges((block.first, block.last) for block in street.file.read(1, 2**62, 10**9))
    skipped = Ranges((a, b) for a, b, _ in street.file.skipped("city", 1, street.file.next - 1))
    both = Ranges([*held, *skipped])
    assert both.spans() == [(1, street.file.next - 1)], "every number is there, or told as skipped"
    assert street.file.used() <= street.file.max_bytes


def test_a_lane_file_is_set_up_as_measured(tmp_path: Path) -> None:
    """At each start: a clean end takes the log away."""
    path = tmp_path / "billing.sqlite"
    for _ in range(2):
        file = LaneFile(path, grow=128 * 1024, max_bytes=64 * 1024 * 1024)
        settings = ("page_size", "journal_mode", "synchronous", "locking_mode", "max_page_count", "wal_autocheckpoint")
        found = [file.db.execute(f"PRAGMA {name}").fetchone()[0] for name in settings]
        assert found == [1024, "wal", 2, "exclusive", 65536, 128]
        assert path.with_name("billing.sqlite-wal").stat().st_size >= 128 * 1024, "grown beforehand"
        assert not path.with_name("billing.sqlite-shm").exists(), "nobody else can open it"
        file.close()


async def test_memory_holds_two_megabytes_and_tells_what_it_gives_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    buffer = Buffer(tmp_path, "cab-017", LoopClock(), commit_every=0.01)
    await buffer.open()
    buffer.know([POWER])
    lane = buffer.lanes[Lane.TELEMETRY]
    await lane.enrol({"city": "oldest"})

    def refuse(**_: Any) -> LaneFile:
        raise Unwritable("read-only file system")

    monkeypatch.setattr(lane, "_disk", refuse)
    await lane._renew(Unwritable("disk I/O error"))
    assert lane.is_volatile
    async with asyncio.TaskGroup() as tasks:
        writer = tasks.create_task(buffer.run())
        texts = [random.Random(n).randbytes(600).hex() for n in range(200)]
        async with asyncio.timeout(30):
            while not (gone := lane.skipped("city", 1, lane.head)) or gone[-1][2] != "expired":
                await buffer.emit([Reading(POWER.id, text, 60_000) for text in texts])
                await lane.flush()
        size = await lane.ask(lambda file: file.used())
        writer.cancel()
    assert size <= RING
    newest = await lane.read(lane.head - 1, lane.head, 1)
    assert newest[-1].rows
    await buffer.close()


@pytest.mark.fault
async def test_after_a_failed_flush_the_connection_is_never_used_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a failed fsync leaves in the page cache looks written: its records were refused, and must not come back."""
    buffer = Buffer(tmp_path, "cab-017", LoopClock())
    await buffer.open()
    lane = buffer.lanes[Lane.BILLING]
    await lane.enrol({"city": "oldest"})
    commit, failed = LaneFile.commit, list[LaneFile]()

    def fail_late(file: LaneFile, group: Group) -> int:
        end = commit(file, group)
        if not failed:
            failed.append(file)
            raise Unwritable("the buffer could not write: disk I/O error")
        return end

    async with asyncio.TaskGroup() as tasks:
        writer = tasks.create_task(buffer.run())
        await buffer.emit([Event("note", "line", 60_000, "before")], lane=Lane.BILLING)
        monkeypatch.setattr(LaneFile, "commit", fail_late)
        with pytest.raises(StorageError):
            await buffer.emit([Event("note", "line", 60_000, "refused")], lane=Lane.BILLING, state={"key": 1})
        async with asyncio.timeout(10):
            await buffer.emit([Event("note", "line", 60_000, "after")], lane=Lane.BILLING)
        writer.cancel()
    with pytest.raises(sqlite3.ProgrammingError):
        failed[0].db.execute("SELECT 1")
    blocks = await lane.read(1, 2**62, 10**9)
    assert [row[2]["say"] for block in blocks for row in block.rows or ()] == ["before", "after"]
    assert buffer.state("").get("key") is None
    assert not lane.is_volatile
    await buffer.close()
