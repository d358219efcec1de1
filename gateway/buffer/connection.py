"""A lane file's one connection: its schema, its settings, and the transaction as which everything is written."""

import sqlite3
from contextlib import suppress
from pathlib import Path

from gateway.buffer.fault import Unwritable, fault
from gateway.durable import flush_names

PAGE = 1024
_CHECKED_AT_OPENING = 32 * 1024 * 1024
"""Larger files are checked while they are used, slice by slice: `LaneFile.check`."""
SCHEMA = """
CREATE TABLE IF NOT EXISTS meta(key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS epoch(number INTEGER PRIMARY KEY, id TEXT NOT NULL, machine TEXT NOT NULL, last INTEGER);
CREATE TABLE IF NOT EXISTS boot(id TEXT PRIMARY KEY, origin INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS block(
    first INTEGER PRIMARY KEY, count INTEGER NOT NULL, boot_id TEXT NOT NULL, boot INTEGER NOT NULL,
    wall INTEGER NOT NULL, clock TEXT NOT NULL, level INTEGER NOT NULL, crc INTEGER NOT NULL, body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS point(number INTEGER PRIMARY KEY, entry TEXT NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS settled(uplink TEXT PRIMARY KEY, spans TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS skip(uplink TEXT PRIMARY KEY, reasons TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS state(key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS dead(
    number INTEGER PRIMARY KEY, uplink TEXT, epoch TEXT, seq INTEGER, at INTEGER, reason TEXT, record TEXT);
CREATE TABLE IF NOT EXISTS ballast(body BLOB NOT NULL);
"""


def connect(path: Path | None, *, grow: int, max_bytes: int) -> sqlite3.Connection:
    """Open or create a lane file, None in memory. `buffer.fault` says what is wrong with it."""
    is_new = path is not None and not path.exists()
    try:
        db = sqlite3.connect(path or ":memory:", isolation_level=None, check_same_thread=False)
        try:
            db.executescript(
                f"PRAGMA page_size={PAGE}; PRAGMA locking_mode=EXCLUSIVE; PRAGMA journal_mode=WAL;"
                f"PRAGMA synchronous=FULL; PRAGMA wal_autocheckpoint={max(64, grow // PAGE)};"
                f"PRAGMA journal_size_limit=-1; PRAGMA max_page_count={max_bytes // PAGE};"
                "PRAGMA cache_size=-256; PRAGMA foreign_keys=OFF;"
            )
            db.executescript(SCHEMA)
            is_small = path is not None and path.stat().st_size <= _CHECKED_AT_OPENING
            if is_small and db.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
                raise sqlite3.DatabaseError("database disk image is malformed")
        except sqlite3.Error:
            db.close()
            raise
        if is_new and path is not None:
            flush_names(path.parent)
    except sqlite3.Error as error:
        raise fault(f"{path} cannot be opened", error) from error
    except OSError as error:
        raise Unwritable(f"the buffer {path} cannot be opened: {error}") from error
    return db


class Transaction:
    """BEGIN IMMEDIATE … COMMIT; rolled back and told as StorageError when anything in it fails."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def __enter__(self) -> None:
        try:
            self._db.execute("BEGIN IMMEDIATE")
        except sqlite3.Error as error:
            raise fault("takes no writes", error) from error

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        try:
            if error is None:
                self._db.execute("COMMIT")
                return
        except sqlite3.Error as failure:
            error = failure
        # Where even the rollback fails, the first failure is the one to tell.
        with suppress(sqlite3.Error):
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
        if isinstance(error, sqlite3.Error):
            raise fault("could not write", error) from error
