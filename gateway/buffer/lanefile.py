"""One lane on disk: a SQLite file with one exclusive connection, used by one thread only.

Measured choices (DECISIONS.md): WAL kept and grown beforehand, `synchronous=FULL`, 1 KB pages, one row
a block of records, settlements written in the transaction of the next commit. Nothing here is async.
"""

import os
import secrets
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from gateway.buffer.block import MAX_RECORDS, Anchor, Block, crc, pack, unpack
from gateway.errors import StorageError
from gateway.model import ClockState, Json, Receipt
from gateway.ranges import Ranges, Span

_FORMAT = 1
_PAGE = 1024
_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta(key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS block(
    first INTEGER PRIMARY KEY, count INTEGER NOT NULL, boot_id TEXT NOT NULL, boot INTEGER NOT NULL,
    wall INTEGER NOT NULL, clock TEXT NOT NULL, crc INTEGER NOT NULL, body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS point(number INTEGER PRIMARY KEY, entry TEXT NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS settled(uplink TEXT PRIMARY KEY, spans TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS state(key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS dead(uplink TEXT, seq INTEGER, reason TEXT, PRIMARY KEY(uplink, seq)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS ballast(body BLOB NOT NULL);
"""
_DEAD_KEPT = 10_000


@dataclass(slots=True)
class Group:
    """What one commit makes durable together."""

    anchor: Anchor | None = None
    rows: list[Any] = field(default_factory=list)
    points: list[tuple[int, str]] = field(default_factory=list)
    state: dict[str, Json] = field(default_factory=dict)
    receipts: list[tuple[str, Receipt]] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.rows or self.points or self.state or self.receipts)


class LaneFile:
    """All of it raises StorageError when SQLite cannot do what was asked; the connection is then not used again."""

    def __init__(self, path: Path, *, grow: int, max_bytes: int) -> None:
        self.path = path
        self.max_bytes = max_bytes
        self.quarantined: Path | None = None
        """Where an unreadable file was moved at the start, to be told as an event."""
        try:
            self._open(grow)
        except sqlite3.DatabaseError as error:
            if not _is_damage(error):
                raise StorageError(f"the buffer {path} cannot be opened: {error}") from error
            self.quarantined = _quarantine(path)
            self._open(grow)

    def _open(self, grow: int) -> None:
        is_new = not self.path.exists()
        self._db = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        try:
            self._db.executescript(f"PRAGMA page_size={_PAGE}; PRAGMA locking_mode=EXCLUSIVE; PRAGMA journal_mode=WAL;")
            self._db.executescript(
                f"PRAGMA synchronous=FULL; PRAGMA wal_autocheckpoint={max(64, grow // _PAGE)};"
                f"PRAGMA journal_size_limit=-1; PRAGMA max_page_count={self.max_bytes // _PAGE};"
                "PRAGMA cache_size=-256; PRAGMA foreign_keys=OFF;"
            )
            self._db.executescript(_SCHEMA)
            if self._db.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
                raise sqlite3.DatabaseError("database disk image is malformed")
            self._read_start(grow)
        except sqlite3.DatabaseError:
            self._db.close()
            raise
        if is_new:
            _sync_folder(self.path.parent)

    def _read_start(self, grow: int) -> None:
        db = self._db
        db.execute("BEGIN IMMEDIATE")
        meta = dict(db.execute("SELECT key, value FROM meta"))
        if "epoch" not in meta:
            meta = {"epoch": secrets.token_hex(4), "format": str(_FORMAT), "next": "1"}
            db.executemany("INSERT INTO meta VALUES(?, ?)", meta.items())
        db.execute("COMMIT")
        self._grow(grow)
        if meta["format"] != str(_FORMAT):
            raise StorageError(f"{self.path} has format {meta['format']}; this version reads {_FORMAT}")
        self.epoch = meta["epoch"]
        self.points = {entry: number for number, entry in db.execute("SELECT number, entry FROM point")}
        self.state: dict[str, Json] = {
            key: orjson.loads(text) for key, text in db.execute("SELECT key, value FROM state")
        }
        self.settled = {
            uplink: Ranges(orjson.loads(text)) for uplink, text in db.execute("SELECT uplink, spans FROM settled")
        }
        last_row = db.execute("SELECT first + count FROM block ORDER BY first DESC LIMIT 1").fetchone()
        ends = [spans.spans()[-1][1] + 1 for spans in self.settled.values() if len(spans)]
        self.next = max([int(meta["next"]), last_row[0] if last_row else 1, *ends])

    def _grow(self, size: int) -> None:
        """Grow the log now and keep a reserve of pages: each later growth would cost the file system's journal.

        A full disk is no reason not to start.
        """
        with suppress(sqlite3.OperationalError, StorageError), _Transaction(self._db):
            self._db.execute("DELETE FROM ballast")
            self._db.execute("INSERT INTO ballast VALUES(zeroblob(?))", (min(size, self.max_bytes // 4),))

    def uplinks(self, wanted: Mapping[str, str]) -> dict[str, Ranges]:
        """Enrol the uplinks that take this lane (name -> 'oldest' | 'now'); those gone stop holding rows.

        Returns what each has settled so far.
        """
        with _Transaction(self._db):
            self._db.execute("UPDATE meta SET value=? WHERE key='next'", (str(self.next),))
            for gone in set(self.settled) - set(wanted):
                self._db.execute("DELETE FROM settled WHERE uplink=?", (gone,))
                del self.settled[gone]
            for name, start in wanted.items():
                if name not in self.settled:
                    oldest = self._db.execute("SELECT min(first) FROM block").fetchone()[0] or self.next
                    below = self.next if start == "now" else oldest
                    self.settled[name] = Ranges([(1, below - 1)] if below > 1 else [])
                    self._store_settled(name)
            if wanted:
                self._delete_settled(1, self.next)
        return {name: Ranges(spans) for name, spans in self.settled.items()}

    def commit(self, group: Group) -> int:
        """Make `group` durable in one transaction and return the seq after its last record."""
        first = self.next
        with _Transaction(self._db):
            if group.points:
                self._db.executemany("INSERT OR IGNORE INTO point VALUES(?, ?)", group.points)
            for start in range(0, len(group.rows), MAX_RECORDS):
                self._insert(first + start, group.rows[start : start + MAX_RECORDS], group.anchor)
            for key, value in group.state.items():
                if value is None:
                    self._db.execute("DELETE FROM state WHERE key=?", (key,))
                else:
                    self._db.execute("INSERT OR REPLACE INTO state VALUES(?, ?)", (key, orjson.dumps(value).decode()))
            settled = self._settle(group.receipts)
        self.settled = settled
        self.next = first + len(group.rows)
        return self.next

    def _insert(self, first: int, rows: Sequence[Any], anchor: Anchor | None) -> None:
        assert anchor is not None, "a group with rows has its anchor"
        body = pack(rows)
        check = crc(first, len(rows), anchor, body)
        values = (first, len(rows), anchor.boot_id, anchor.boot, anchor.wall, anchor.clock.value, check, body)
        self._db.execute("INSERT INTO block VALUES(?, ?, ?, ?, ?, ?, ?, ?)", values)

    def _settle(self, receipts: Sequence[tuple[str, Receipt]]) -> dict[str, Ranges]:
        """Move the uplinks' ranges and delete what all have settled; the result holds once this is committed."""
        before, touched = self.settled, set[str]()
        self.settled = {name: Ranges(spans) for name, spans in before.items()} if receipts else before
        low, high = self.next, 0
        for uplink, receipt in receipts:
            spans = self.settled.get(uplink)
            if spans is None or receipt.epoch != self.epoch:
                continue
            touched.add(uplink)
            done: list[Span] = list(receipt.accepted)
            for seq, reason, retryable in receipt.rejected:
                if not retryable:
                    done.append((seq, seq))
                    self._bury(uplink, seq, reason)
            for first, last in done:
                spans.add(first, min(last, self.next - 1))
                low, high = min(low, first), max(high, last)
        for uplink in touched:
            self._store_settled(uplink)
        if high:
            self._delete_settled(low, high)
        after, self.settled = self.settled, before
        return after

    def _store_settled(self, uplink: str) -> None:
        spans = orjson.dumps(self.settled[uplink].spans()).decode()
        self._db.execute("INSERT OR REPLACE INTO settled VALUES(?, ?)", (uplink, spans))

    def _bury(self, uplink: str, seq: int, reason: str) -> None:
        self._db.execute("INSERT OR IGNORE INTO dead VALUES(?, ?, ?)", (uplink, seq, reason[:200]))
        self._db.execute(
            "DELETE FROM dead WHERE uplink=? AND seq <= (SELECT seq FROM dead WHERE uplink=? "
            "ORDER BY seq DESC LIMIT 1 OFFSET ?)",
            (uplink, uplink, _DEAD_KEPT),
        )

    def _delete_settled(self, low: int, high: int) -> None:
        rows = self._db.execute(
            "SELECT first, count FROM block WHERE first >= coalesce("
            "(SELECT max(first) FROM block WHERE first <= ?), 0) AND first <= ?",
            (low, high),
        ).fetchall()
        done = [
            (first,)
            for first, count in rows
            if all(spans.covers(first, first + count - 1) for spans in self.settled.values())
        ]
        self._db.executemany("DELETE FROM block WHERE first=?", done)

    def read(self, first: int, last: int, max_bytes: int) -> list[Block]:
        """Blocks that touch first..last, in order, until their JSON passes `max_bytes` (one at least)."""
        blocks: list[Block] = []
        size = 0
        try:
            rows = self._db.execute(
                "SELECT first, count, boot_id, boot, wall, clock, crc, body FROM block WHERE first >= coalesce("
                "(SELECT max(first) FROM block WHERE first <= ?), 0) AND first <= ? ORDER BY first",
                (first, last),
            )
            for at, count, boot_id, boot, wall, clock, check, body in rows:
                if at + count <= first:
                    continue
                anchor = Anchor(boot_id, boot, wall, ClockState(clock))
                is_whole = crc(at, count, anchor, body) == check
                plain = unpack(body) if is_whole else b""
                blocks.append(Block(at, count, anchor, orjson.loads(plain) if is_whole else None, len(plain)))
                size += len(plain)
                if size >= max_bytes:
                    break
        except sqlite3.DatabaseError as error:
            raise StorageError(f"the buffer {self.path.name} cannot be read: {error}") from error
        return blocks

    def depth(self) -> tuple[int, int, int | None]:
        """(records held, bytes used on disk, UTC ms of the oldest block or None)."""
        held = self._db.execute("SELECT coalesce(sum(count), 0) FROM block").fetchone()[0]
        oldest = self._db.execute("SELECT wall FROM block ORDER BY first LIMIT 1").fetchone()
        pages = self._db.execute("PRAGMA page_count").fetchone()[0]
        free = self._db.execute("PRAGMA freelist_count").fetchone()[0]
        return held, (pages - free) * _PAGE, oldest[0] if oldest else None

    def close(self) -> None:
        self._db.close()


class _Transaction:
    """BEGIN IMMEDIATE … COMMIT; rolled back and told as StorageError when anything in it fails."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def __enter__(self) -> None:
        try:
            self._db.execute("BEGIN IMMEDIATE")
        except sqlite3.Error as error:
            raise StorageError(f"the buffer takes no writes: {error}") from error

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        try:
            if error is None:
                self._db.execute("COMMIT")
                return
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
        except sqlite3.Error as failure:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise StorageError(f"the buffer could not commit: {failure}") from failure
        if isinstance(error, sqlite3.Error):
            raise StorageError(f"the buffer could not write: {error}") from error


def _is_damage(error: sqlite3.DatabaseError) -> bool:
    return getattr(error, "sqlite_errorname", "") in ("SQLITE_CORRUPT", "SQLITE_NOTADB") or "malformed" in str(error)


def _quarantine(path: Path) -> Path:
    """Move a damaged file and its log aside, never deleting anything."""
    folder = path.parent / "quarantine" / f"{path.stem}-{secrets.token_hex(4)}"
    folder.mkdir(parents=True)
    for suffix in ("", "-wal", "-shm"):
        part = path.with_name(path.name + suffix)
        if part.exists():
            part.rename(folder / part.name)
    _sync_folder(path.parent)
    return folder


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
