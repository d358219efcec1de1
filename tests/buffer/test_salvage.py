"""What is left of a damaged lane: every record that reads, under its own identity, and nothing that is not so."""

import json
import secrets
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from gateway.buffer.block import Anchor
from gateway.buffer.connection import PAGE
from gateway.buffer.epoch import EPOCH_BITS, Epoch
from gateway.buffer.fault import Full, Unwritable
from gateway.buffer.group import Group
from gateway.buffer.lanefile import LaneFile
from gateway.buffer.points import LOST, Points
from gateway.buffer.resume import Past, Remains
from gateway.buffer.wal import Log
from gateway.errors import StorageError
from gateway.model import ClockState, Point, Receipt
from gateway.ranges import Ranges

POWER, ENERGY = Point("here/feeder/power", "power_active", "W"), Point("here/feeder/energy", "energy_active", "Wh")
ANCHOR = Anchor("b007b007", 0, 1_795_305_600_000, ClockState.SYNCED)
RECORDS = 60
FRAME = 24 + PAGE


def opened(path: Path, **options: Any) -> LaneFile:
    return LaneFile(path, **{"grow": 64 * 1024, "max_bytes": 8 * 1024 * 1024} | options)


def written(path: Path, **options: Any) -> LaneFile:
    """A lane of RECORDS blocks of one reading, which counts them; the first ten are settled."""
    file, points, new = opened(path, **options), Points(), list[tuple[int, str]]()
    points.know([POWER, ENERGY])
    points.number(POWER.id, new)
    points.number(ENERGY.id, new)
    file.uplinks({"city": "oldest"})
    file.commit(Group(points=new))
    for number in range(1, RECORDS + 1):
        file.commit(Group(ANCHOR, [[1, 0, float(number)]], state={"last": number}))
    file.commit(Group(receipts=[("city", Receipt(file.epoch, ((1, 10),)))]))
    return file


def held(file: LaneFile) -> dict[int, float]:
    return {block.first: block.rows[0][2] for block in file.read(1, 2**62, 10**9) if block.rows}


def damage(path: Path, kind: str, key: str) -> None:
    """Change one fact as a flipped bit would, behind SQLite's back as far as its CRC is concerned."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        done = db.execute("UPDATE fact SET value = value || ' ' WHERE kind=? AND key=?", (kind, key))
        assert done.rowcount == 1


@pytest.mark.fault
def test_garbage_in_the_log_costs_what_it_covers_and_not_what_came_after(tmp_path: Path) -> None:
    """As a power cut finds it: all records are in the log, which is damaged in the middle."""
    file = written(tmp_path / "running.sqlite", grow=1024 * 1024)
    for suffix in ("", "-wal"):
        shutil.copy(tmp_path / f"running.sqlite{suffix}", tmp_path / f"billing.sqlite{suffix}")
    file.close()
    log = tmp_path / "billing.sqlite-wal"
    raw = bytearray(log.read_bytes())
    live = [at for at in range(32, len(raw) - FRAME + 1, FRAME) if raw[at + 8 : at + 16] == raw[16:24]]
    middle = live[len(live) - 60] + 24
    raw[middle : middle + PAGE] = secrets.token_bytes(PAGE)
    log.write_bytes(raw)
    again = opened(tmp_path / "billing.sqlite")
    assert again.quarantined
    assert again.epoch != file.epoch, "no number is given twice"
    found = held(again)
    assert all(value == seq for seq, value in found.items())
    assert RECORDS in found, "the newest"
    assert len(found) >= RECORDS - 10 - 5
    again.close()


def test_the_torn_end_of_a_log_is_left_to_sqlite(tmp_path: Path) -> None:
    file = written(tmp_path / "billing.sqlite")
    log = tmp_path / "billing.sqlite-wal"
    whole = log.read_bytes()
    file.close()
    copy = tmp_path / "copy"
    copy.write_bytes(whole)
    assert Log(copy, PAGE).mend()
    assert copy.read_bytes() == whole
    salts = whole[16:24]
    frames = [at for at in range(32, len(whole) - FRAME + 1, FRAME) if whole[at + 8 : at + 16] == salts]
    torn = bytearray(whole)
    torn[frames[-1] + 512 : frames[-1] + FRAME] = bytes(FRAME - 512)
    copy.write_bytes(torn)
    assert Log(copy, PAGE).mend()
    assert copy.read_bytes() == torn
    copy.write_bytes(b"")
    assert Log(copy, PAGE).mend()


@pytest.mark.fault
def test_a_salvage_that_was_cut_off_is_taken_up_again(tmp_path: Path) -> None:
    path = tmp_path / "billing.sqlite"
    written(path).close()
    aside = tmp_path / "quarantine" / "billing-0123"
    aside.mkdir(parents=True)
    path.rename(aside / path.name)
    (aside / "billing.new").write_bytes(b"half")
    again = opened(path)
    assert again.quarantined == aside
    assert sorted(held(again)) == list(range(11, RECORDS + 1))
    assert again.settled["city"].covers(1, 10)
    again.close()
    assert opened(path).quarantined is None, "once"


@pytest.mark.fault
@pytest.mark.parametrize("moved", [(), ("-wal",), ("",), ("-wal", "")])
def test_a_file_and_its_log_are_never_parted(tmp_path: Path, moved: tuple[str, ...]) -> None:
    """A power cut in the middle of moving them aside: of the last records, all are in the log."""
    file = written(tmp_path / "running.sqlite", grow=1024 * 1024)
    aside = tmp_path / "quarantine" / "billing-0123"
    aside.mkdir(parents=True)
    for suffix in ("", "-wal"):
        folder = aside if suffix in moved else tmp_path
        shutil.copy(tmp_path / f"running.sqlite{suffix}", folder / f"billing.sqlite{suffix}")
    file.close()
    again = opened(tmp_path / "billing.sqlite")
    assert again.quarantined == aside
    assert sorted(held(again)) == list(range(11, RECORDS + 1))
    assert again.epoch != file.epoch
    again.close()


@pytest.mark.fault
def test_a_salvage_that_finds_no_room_is_taken_up_again_too(tmp_path: Path) -> None:
    path = tmp_path / "billing.sqlite"
    written(path).close()
    damage(path, "state", "last")
    with pytest.raises(Full):
        opened(path, max_bytes=6 * PAGE)
    again = opened(path)
    assert sorted(held(again)) == list(range(11, RECORDS + 1))
    again.close()


@pytest.mark.fault
def test_a_damaged_file_that_cannot_be_moved_aside_is_a_disk_that_refuses(tmp_path: Path) -> None:
    path = tmp_path / "billing.sqlite"
    path.write_bytes(b"garbage" * 1000)
    (tmp_path / "quarantine").touch()
    with pytest.raises(Unwritable, match="cannot be opened"):
        opened(path)


@pytest.mark.fault
def test_a_number_whose_point_is_lost_is_never_given_to_another(tmp_path: Path) -> None:
    path = tmp_path / "billing.sqlite"
    written(path).close()
    damage(path, "point", "1")
    again = opened(path)
    assert again.quarantined
    assert again.points == {1: LOST, 2: json.dumps(["here/feeder/energy", "energy_active", "Wh"]).replace(", ", ",")}
    points = Points()
    points.adopt(again.points)
    points.know([POWER, ENERGY])
    new: list[tuple[int, str]] = []
    assert (points.number(POWER.id, new), points.number(ENERGY.id, new)) == (3, 2)
    assert points.entry(1) is None
    again.close()


@pytest.mark.fault
def test_an_uplink_whose_settlements_are_lost_gets_all_that_is_left(tmp_path: Path) -> None:
    """Even one that starts with what is new: nobody knows that it is not."""
    path = tmp_path / "billing.sqlite"
    written(path).close()
    damage(path, "settled", "city")
    again = opened(path)
    again.uplinks({"city": "now"})
    assert again.claim("city") == RECORDS - 10
    again.close()


@pytest.mark.fault
def test_state_that_is_not_as_it_was_written_is_none(tmp_path: Path) -> None:
    path = tmp_path / "billing.sqlite"
    written(path).close()
    damage(path, "state", "last")
    again = opened(path)
    assert again.quarantined
    assert "last" not in again.state
    again.close()


def from_memory(number: int) -> Past:
    """Three records that a lane in memory holds under an epoch of its own, of which the first is settled."""
    memory = LaneFile(None, grow=64 * 1024, max_bytes=2**20, past=Past(((number - 1) << EPOCH_BITS) + 1, {}, {}))
    memory.uplinks({"city": "now"})
    for value in (1.0, 2.0, 3.0):
        memory.commit(Group(ANCHOR, [[1, 0, value]]))
    memory.commit(Group(receipts=[("city", Receipt(memory.epoch, ((1, 1),)))]))
    assert memory.epochs[-1].number == number
    return Past(None, {}, {}, memory.remains())


@pytest.mark.parametrize("number", [1_200_000, 1_900_000])
def test_records_of_memory_are_deliverable_wherever_their_epoch_lies(tmp_path: Path, number: int) -> None:
    """Memory numbers its epoch without knowing the file's, which may have taken over another's already."""
    path = tmp_path / "telemetry.sqlite"
    written(path).close()
    opened(path, past=from_memory(1_500_000)).close()
    again = opened(path, past=from_memory(number))
    assert again.claim("city") == RECORDS - 10 + 2 + 2
    assert len({epoch.id for epoch in again.epochs}) == len(again.epochs) >= 4
    again.commit(Group(ANCHOR, [[1, 0, 9.0]]))
    assert again.claim("city") == RECORDS - 10 + 2 + 2 + 1
    again.close()


def test_an_epoch_number_that_is_taken_is_not_taken_twice(tmp_path: Path) -> None:
    path = tmp_path / "telemetry.sqlite"
    written(path).close()
    opened(path, past=from_memory(1_500_000)).close()
    with pytest.raises(StorageError, match="has an epoch 1500000 already"):
        opened(path, past=from_memory(1_500_000))
    again = opened(path)
    assert again.claim("city") == RECORDS - 10 + 2, "the file is as it was"
    again.close()


def test_what_memory_holds_keeps_its_identity(tmp_path: Path) -> None:
    path = tmp_path / "telemetry.sqlite"
    written(path).close()
    past = from_memory(1_500_000)
    assert isinstance(past.memory, Remains)
    again = opened(path, past=past)
    assert Epoch(1_500_000, past.memory.epoch.id, "", past.memory.last) in again.epochs
    base = past.memory.epoch.base
    assert Ranges((first, first) for first in held(again) if first > base).spans() == [(base + 2, base + 3)]
    again.close()
