"""What SQLite says when the disk does not do its part, sorted by what is to be done about it."""

import sqlite3

from gateway.errors import StorageError


class Full(StorageError):
    """No room, by the lane's bound or on the disk: nothing was written, and the file is as good as before."""


class Damaged(StorageError):
    """The file's content is not what was written: it is moved aside and salvaged."""


class Unwritable(StorageError):
    """The disk is read-only, dying or gone. After it the connection is never used again: what a failed fsync
    has left in the page cache looks written and is not.
    """


def fault(what: str, error: sqlite3.Error) -> StorageError:
    """`what` failed: a sentence, as the class that says what to do."""
    name = getattr(error, "sqlite_errorname", "")
    say = f"the buffer {what}: {error}"
    if name.startswith("SQLITE_FULL"):
        return Full(say)
    if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")) or "malformed" in str(error):
        return Damaged(say)
    return Unwritable(say)
