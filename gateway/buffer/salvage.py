"""A damaged lane file: moved aside, and everything that still reads taken over row by row.

The records keep their positions, and so the epoch and seq under which a platform may hold them already. The new
file is made beside the damaged one and gets its place when it is whole: a start that is cut off is taken up again.
"""

import secrets
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import orjson

from gateway.buffer.block import COLUMNS, EVENT, INSERT, MAX_RECORDS, block_of
from gateway.buffer.connection import FORMAT, HEAD, PAGE, Transaction, is_ours, lenient
from gateway.buffer.deadletters import is_whole
from gateway.buffer.epoch import EPOCH_BITS, Epoch
from gateway.buffer.facts import Facts, whole
from gateway.buffer.points import LOST
from gateway.buffer.skips import CORRUPT, EVERYBODY, Skips
from gateway.buffer.wal import Log
from gateway.durable import flush_names, make_folder
from gateway.ranges import Ranges

QUARANTINES = 2
_HIGHEST = 2**62
_AT_ONCE = 256


@dataclass(frozen=True, slots=True)
class Salvaged:
    """Records that were taken over from a damaged file, and those between them that were not."""

    records: int = 0
    lost: int = 0


def quarantine(path: Path) -> Path:
    """Move a damaged file and its log aside; of this lane's, the newest QUARANTINES are kept."""
    folder = path.parent / "quarantine" / f"{path.stem}-{secrets.token_hex(4)}"
    make_folder(folder)
    _move(path, folder)
    for old in _quarantines(path)[:-QUARANTINES]:
        shutil.rmtree(old, ignore_errors=True)
    return folder


def unfinished(path: Path) -> Path | None:
    """Where a damaged file is, while there is no other in its place: a start was cut off that had to move it aside, or
    to salvage it. A file and a log that are apart are brought together, as neither says anything without the other.
    """
    aside = _quarantines(path)
    if not aside or (path.exists() and (aside[-1] / path.name).exists()):
        return None
    _move(path, aside[-1])
    return aside[-1]


def _move(path: Path, folder: Path) -> None:
    for suffix in ("-wal", "-shm", ""):
        part = path.with_name(path.name + suffix)
        if part.exists():
            part.rename(folder / part.name)
    flush_names(folder)
    flush_names(path.parent)


def _quarantines(path: Path) -> list[Path]:
    """Of one lane, the newest last."""
    return sorted((path.parent / "quarantine").glob(f"{path.stem}-*"), key=lambda each: each.stat().st_mtime_ns)


def rebuild(path: Path, aside: Path, connect: Callable[[Path], sqlite3.Connection]) -> Salvaged:
    """Make a lane file of what can be read of the damaged one in `aside`. StorageError: the disk does not take it."""
    new = aside / f"{path.stem}.new"
    for part in aside.glob(f"{new.name}*"):
        part.unlink()
    with closing(connect(new)) as into:
        into.execute("PRAGMA wal_checkpoint")
        found = salvage(aside / path.name, into, new.read_bytes()[:PAGE])
    new.rename(path)
    flush_names(path.parent)
    flush_names(aside)
    return found


def salvage(damaged: Path, into: sqlite3.Connection, fresh: bytes) -> Salvaged:
    """Copy what can be read; holes between records are skipped as corrupt. `fresh`: the first page of a new file."""
    try:
        old = _open(damaged, fresh)
    except sqlite3.Error:
        return Salvaged()
    with closing(old):
        with Transaction(into):
            _copy_facts(old, into)
            _copy_dead(old, into)
        return _copy_blocks(old, into)


def _open(damaged: Path, fresh: bytes) -> sqlite3.Connection:
    log = damaged.with_name(f"{damaged.name}-wal")
    if log.exists() and not (found := Log(log, PAGE)).mend():
        found.splice()
    try:
        with closing(_connect(damaged)) as old:
            [[version]] = old.execute("PRAGMA user_version")
            is_readable = version != FORMAT or is_ours(old)
    except (sqlite3.Error, UnicodeDecodeError):
        is_readable = False
    size, rest = divmod(damaged.stat().st_size, PAGE)
    with damaged.open("r+b") as file:
        first = file.read(PAGE)
        if rest == 0 < size and not (is_readable and first.startswith(HEAD)):
            # The first page is the same in every lane file, but for its sizes and its list of free pages.
            damaged.with_name("first-page").write_bytes(first)
            file.seek(0)
            file.write(fresh[:28] + size.to_bytes(4, "big") + bytes(8) + fresh[40:92] + fresh[24:28] + fresh[96:])
    return _connect(damaged)


def _connect(damaged: Path) -> sqlite3.Connection:
    old = sqlite3.connect(damaged, isolation_level=None)
    old.text_factory = lenient
    return old


def _facts(db: sqlite3.Connection) -> Facts:
    facts = Facts()
    facts.db = db
    return facts


def _copy_facts(old: sqlite3.Connection, into: sqlite3.Connection) -> None:
    """From both ends: a page that does not read hides what is behind it."""
    found: list[tuple[str | None, str, bytes]] = []
    for order in ("ASC", "DESC"):
        with suppress(sqlite3.Error):
            found.extend(whole(old, order))
    for kind, key, value in found:
        if kind is not None:
            _facts(into).put(kind, key, orjson.Fragment(value))


def _copy_dead(old: sqlite3.Connection, into: sqlite3.Connection) -> None:
    rows, _ = _until_error(old, "SELECT number, letter, crc FROM dead", ())
    into.executemany("INSERT INTO dead VALUES(?, ?, ?)", [row for row in rows if is_whole(row[1], row[2])])


def _copy_blocks(old: sqlite3.Connection, into: sqlite3.Connection) -> Salvaged:
    """Copy whole blocks; note what lies between two blocks of one epoch as corrupt."""
    facts = _facts(into)
    facts.load()
    epochs, points = {epoch.number for epoch in facts.epochs}, set(facts.points)
    settled = list(facts.settled.values()) or [Ranges()]
    records, lost, end, skips = 0, 0, 0, facts.skips[EVERYBODY]
    rows = _rows(old)
    while some := list(islice(rows, _AT_ONCE)):
        with Transaction(into):
            for row in some:
                block = block_of(row)
                if block.rows is None or block.first <= end:
                    continue
                if (number := block.first >> EPOCH_BITS) not in epochs:
                    # Its name is lost with its row: a new one may store a record twice, but loses none.
                    epochs.add(number)
                    facts.store_epoch(Epoch(number, secrets.token_hex(4), "", None))
                for nameless in {each[0] for each in block.rows} - points - {EVENT}:
                    points.add(nameless)
                    facts.store_point(nameless, LOST)
                if end and block.first > end + 1 and number == end >> EPOCH_BITS:
                    for hole in _wanted(end + 1, block.first - 1, settled, skips):
                        skips.add(CORRUPT, *hole)
                        lost += hole[1] - hole[0] + 1
                into.execute(INSERT, row)
                records, end = records + block.count, block.last
    if skips:
        with Transaction(into):
            facts.store_skips(EVERYBODY, skips)
    return Salvaged(records, lost)


def _wanted(first: int, last: int, settled: Sequence[Ranges], skips: Skips) -> Ranges:
    """What of a hole somebody still waits for."""
    wanted = Ranges(span for spans in settled for span in spans.missing(first, last))
    for a, b, _ in skips.within(first, last):
        wanted.remove(a, b)
    return wanted


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
