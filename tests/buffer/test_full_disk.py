"""A disk without a byte left, and room on it again; one that lets nobody look."""

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from gateway.buffer.overview import overview
from gateway.errors import StorageError
from gateway.model import Lane
from tests.buffer.test_faults import fill, running, small_file


class _FullDisk:
    """A connection to a file on a disk without a byte left: it reads, and writes neither the log nor the file."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self.db, self.is_full = db, True

    def __getattr__(self, name: str) -> Any:
        return getattr(self.db, name)

    def execute(self, statement: str, *values: Any) -> Any:
        if self.is_full and statement.startswith(("INSERT", "DELETE", "PRAGMA wal_checkpoint")):
            error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorname = "SQLITE_FULL"
            raise error
        return self.db.execute(statement, *values)


@pytest.mark.parametrize("lane", [Lane.BILLING, Lane.EVENT, Lane.TELEMETRY])
async def test_a_disk_without_a_byte_left_costs_no_more_than_what_it_refuses(tmp_path: Path, lane: Lane) -> None:
    """Not even the log can be emptied to make room: the gateway lives on and writes when there is room again."""
    async with running(tmp_path / "buffer") as buffer:
        disk: Any = _FullDisk(buffer.lanes[lane]._file.db)
        buffer.lanes[lane]._file.db = disk
        with pytest.raises(StorageError, match="full"):
            await fill(buffer, 1, lane)
        assert "full" in (buffer.lanes[lane].error or "")
        disk.is_full = False
        await fill(buffer, 1, lane)
        assert buffer.lanes[lane].error is None


def test_a_folder_that_cannot_be_looked_into_is_no_bug_of_the_gateways_own(tmp_path: Path) -> None:
    """Another user's, or on a dying disk; root may look everywhere, but not under such a name."""
    seen = overview(Lane.EVENT, small_file(tmp_path / "event.sqlite", 3), Path("/" + 5000 * "x"))
    assert (seen.waiting, seen.quarantined) == (3, 0)
