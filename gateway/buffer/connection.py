"""A lane file's one connection: its schema, its settings, and the transaction as which everything is written."""

import sqlite3
from contextlib import suppress
from pathlib import Path

from gateway.buffer.fault import Damaged, Unwritable, fault
from gateway.buffer.wal import Log
from gateway.durable import flush_names

PAGE = 1024
FORMAT = 3
"""Of the schema, as SQLite's `user_version`."""
HEAD = b"SQLite format 3\0" + PAGE.to_bytes(2, "big") + bytes((2, 2, 0, 64, 32, 32))
"""The first bytes of every lane file: SQLite takes some flipped bits there for a write protection."""
_UNFINISHED = HEAD[:18] + b"\1\1" + HEAD[20:]
"""Until the log is switched on."""
_CHECKED_AT_OPENING = 32 * 1024 * 1024
"""Of larger files only the facts; the blocks are checked while they are used, slice by slice: `LaneFile.check`."""
_FACT = """CREATE TABLE fact(
    kind TEXT NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL, crc INTEGER NOT NULL,
    PRIMARY KEY(kind, key)) WITHOUT ROWID"""
_BLOCK = """CREATE TABLE block(
    first INTEGER PRIMARY KEY, count INTEGER NOT NULL, boot_id TEXT NOT NULL, boot INTEGER NOT NULL,
    wall INTEGER NOT NULL, clock TEXT NOT NULL, level INTEGER NOT NULL, crc INTEGER NOT NULL, body BLOB NOT NULL)"""
_DEAD = "CREATE TABLE dead(number INTEGER PRIMARY KEY, letter BLOB NOT NULL, crc INTEGER NOT NULL)"
_BALLAST = "CREATE TABLE ballast(body BLOB NOT NULL)"
SCHEMA = (_FACT, _BLOCK, _DEAD, _BALLAST)


def connect(path: Path | None, *, grow: int, max_bytes: int) -> sqlite3.Connection:
    """Open or create a lane file, None in memory. `buffer.fault` says what is wrong with it."""
    is_new = path is None or not path.exists()
    try:
        if path and not is_new:
            look_before(path)
        db = sqlite3.connect(path or ":memory:", isolation_level=None, check_same_thread=False)
        try:
            _set_up(db, grow, max_bytes)
            if path and is_new:
                flush_names(path.parent)
            elif path:
                _look_into(db, is_small=path.stat().st_size <= _CHECKED_AT_OPENING)
        except (sqlite3.Error, Damaged, OSError, UnicodeDecodeError):
            db.close()
            raise
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorname", "") == "SQLITE_ERROR":
            # No disk that refuses: SQLite cannot make sense of what is there.
            raise Damaged(f"the buffer {path} cannot be opened: {error}") from error
        raise fault(f"{path} cannot be opened", error) from error
    except UnicodeDecodeError as error:
        # Of what SQLite says about a damaged name.
        raise Damaged(f"the buffer {path} cannot be opened: {error}") from error
    except OSError as error:
        raise Unwritable(f"the buffer {path} cannot be opened: {error}") from error
    return db


def look_before(path: Path) -> None:
    """Damaged where SQLite would not notice, and forget what is behind it."""
    with path.open("rb") as file:
        head = file.read(len(HEAD))
    if head not in (HEAD, _UNFINISHED) and any(head):
        raise Damaged(f"the buffer {path} is damaged in its first bytes")
    log = path.with_name(f"{path.name}-wal")
    if log.exists() and not Log(log, PAGE).mend():
        raise Damaged(f"the log of the buffer {path} is damaged")


def _set_up(db: sqlite3.Connection, grow: int, max_bytes: int) -> None:
    db.text_factory = lenient
    db.executescript(
        f"PRAGMA page_size={PAGE}; PRAGMA locking_mode=EXCLUSIVE; PRAGMA journal_mode=WAL;"
        f"PRAGMA synchronous=FULL; PRAGMA wal_autocheckpoint={max(64, grow // PAGE)};"
        f"PRAGMA journal_size_limit=-1; PRAGMA max_page_count={max_bytes // PAGE};"
        "PRAGMA cache_size=-128; PRAGMA foreign_keys=OFF;"
    )
    if db.execute("PRAGMA page_count").fetchone()[0] <= 1:
        db.executescript(f"BEGIN; {'; '.join(SCHEMA)}; PRAGMA user_version={FORMAT}; COMMIT")


def _look_into(db: sqlite3.Connection, *, is_small: bool) -> None:
    check = "PRAGMA quick_check(1)" if is_small else "PRAGMA quick_check('fact')"
    if not is_ours(db) or db.execute(check).fetchone()[0] != "ok":
        raise Damaged("the buffer is damaged")


def lenient(text: bytes) -> str:
    """Text that the disk has damaged is still read: the CRC beside it tells that it is not what was written."""
    return text.decode(errors="replace")


def is_ours(db: sqlite3.Connection) -> bool:
    """Whether the tables are as this version makes them."""
    return tuple(sql for (sql,) in db.execute("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL")) == SCHEMA


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
