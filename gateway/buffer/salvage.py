"""A damaged lane file: moved aside, and everything that still reads taken over row by row.

The records keep their positions, and so the epoch and seq under which a platform may hold them already.
"""

import secrets
import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from gateway.buffer.block import COLUMNS, INSERT, MAX_RECORDS, block_of
from gateway.buffer.skips import CORRUPT, Skips
from gateway.durable import flush_names, make_folder

QUARANTINES = 2
_TABLES = ("meta", "epoch", "boot", "point", "settled", "skip", "state", "dead")
_HIGHEST = 2**62
_AT_ONCE = 256


@dataclass(frozen=True, slots=True)
class Salvaged:
    """Records that were taken over from a damaged file, and those between them that were not."""

    records: int = 0
    lost: int = 0


def quarantine(path: Path) -> Path:
    """Move a damaged file and its log aside; of this lane's, the newest QUARANTINES are kept."""
    place = path.parent / "quarantine"
    folder = place / f"{path.stem}-{secrets.token_hex(4)}"
    make_folder(folder)
    for suffix in ("", "-wal", "-shm"):
        part = path.with_name(path.name + suffix)
        if part.exists():
            part.rename(folder / part.name)
    flush_names(folder)
    flush_names(path.parent)
    kept = sorted(place.glob(f"{path.stem}-*"), key=lambda each: each.stat().st_mtime_ns)
    for old in kept[:-QUARANTINES]:
        shutil.rmtree(old, ignore_errors=True)
    return folder


def salvage(damaged: Path, into: sqlite3.Connection) -> Salvaged:
    """Copy what can be read of `damaged` into a new lane file; holes between its records are skipped as corrupt."""
    try:
        old = sqlite3.connect(damaged, isolation_level=None)
    except sqlite3.Error:
        return Salvaged()
    with closing(old):
        into.execute("BEGIN IMMEDIATE")
        try:
            for table in _TABLES:
                _copy_table(old, into, table)
            found = _copy_blocks(old, into)
            into.execute("COMMIT")
        except sqlite3.Error:
            # What does not fit or does not read is left in quarantine; the lane starts in any case.
            with suppress(sqlite3.Error):
                into.execute("ROLLBACK")
            return Salvaged()
    return found


def _copy_table(old: sqlite3.Connection, into: sqlite3.Connection, table: str) -> None:
    with suppress(sqlite3.Error):
        rows = old.execute(f"SELECT * FROM {table}")  # noqa: S608 - one of _TABLES
        places = ", ".join("?" * len(rows.description))
        while True:
            row = rows.fetchone()
            if row is None:
                break
            if _reads(table, row):
                into.execute(f"INSERT OR IGNORE INTO {table} VALUES({places})", row)


def _reads(table: str, row: Sequence[Any]) -> bool:
    """Whether what the lane will read as JSON or numbers still is that."""
    try:
        match table:
            case "settled" | "skip" | "state":
                orjson.loads(row[1])
            case "meta":
                return bool(row[0] != "next" or int(row[1]) > 0)
            case "epoch":
                return isinstance(row[0], int) and isinstance(row[1], str) and row[1].isalnum()
            case "point":
                return isinstance(orjson.loads(row[1]), list)
    except (ValueError, TypeError):
        return False
    return True


def _copy_blocks(old: sqlite3.Connection, into: sqlite3.Connection) -> Salvaged:
    """Copy whole blocks of known epochs; note what lies between two blocks of one epoch as corrupt."""
    known = {number for (number,) in into.execute("SELECT number FROM epoch")}
    records, lost, end, skips = 0, 0, 0, Skips()
    for row in _rows(old):
        block = block_of(row)
        if block.rows is None:
            continue
        if (number := block.first >> 40) not in known:
            # Its name is lost with its row: a new one may store a record twice, but loses none.
            known.add(number)
            into.execute("INSERT INTO epoch VALUES(?, ?, '', NULL)", (number, secrets.token_hex(4)))
        if end and block.first > end + 1 and block.first >> 40 == end >> 40:
            skips.add(CORRUPT, end + 1, block.first - 1)
            lost += block.first - 1 - end
        into.execute(INSERT.replace("INSERT", "INSERT OR IGNORE"), row)
        records, end = records + block.count, block.last
    if skips:
        into.execute("INSERT OR REPLACE INTO skip VALUES('', ?)", (orjson.dumps(skips.json()).decode(),))
    return Salvaged(records, lost)


def _rows(old: sqlite3.Connection) -> Iterator[Sequence[Any]]:
    """Every block row that can be reached, ascending, however many pages of the tree are garbage.

    Behind a page that does not read, the next that does is looked for in growing leaps, and then backwards
    to the end of the damage.
    """
    at = 0
    while at < _HIGHEST:
        rows, stumbled = _ascending(old, at)
        yield from rows
        if rows:
            at = rows[-1][0] + 1
        if stumbled:
            leap = 1
            beyond: list[Sequence[Any]] = []
            while stumbled and not beyond and at + leap < _HIGHEST:
                leap *= 2
                beyond, stumbled = _ascending(old, at + leap, 1)
            after = beyond[0][0] if beyond else _HIGHEST
            yield from _descending(old, at, after)
            at = after
        elif len(rows) < _AT_ONCE:
            return


def _ascending(old: sqlite3.Connection, at: int, limit: int = _AT_ONCE) -> tuple[list[Sequence[Any]], bool]:
    return _until_error(old, f"SELECT {COLUMNS} FROM block WHERE first >= ? ORDER BY first LIMIT {limit}", (at,))  # noqa: S608 - numbers


def _descending(old: sqlite3.Connection, low: int, high: int) -> list[Sequence[Any]]:
    query = f"SELECT {COLUMNS} FROM block WHERE first >= ? AND first < ? ORDER BY first DESC LIMIT {MAX_RECORDS}"  # noqa: S608 - constants
    return _until_error(old, query, (low, high))[0][::-1]


def _until_error(old: sqlite3.Connection, query: str, values: Sequence[int]) -> tuple[list[Sequence[Any]], bool]:
    found: list[Sequence[Any]] = []
    try:
        found.extend(old.execute(query, values))
    except sqlite3.Error:
        return found, True
    return found, False
