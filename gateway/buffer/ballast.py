"""A file that holds nothing but room: released when the disk is full, so that a lane can open and delete.

A log that SQLite must make anew at a start needs some; without it a full disk would stay full for ever.
"""

import os
from contextlib import suppress
from pathlib import Path

SIZE = 8 * 1024 * 1024


def hold(folder: Path) -> None:
    """Make the file where there is plenty of room, at the start; a disk that refuses is no reason not to start."""
    with suppress(OSError):
        free = os.statvfs(folder)
        file = folder / "ballast"
        if file.exists() or free.f_bavail * free.f_frsize < 4 * SIZE:
            return
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, SIZE)
        finally:
            os.close(descriptor)


def release(folder: Path) -> bool:
    """Whether there was something to release."""
    try:
        (folder / "ballast").unlink()
    except OSError:
        return False
    return True
