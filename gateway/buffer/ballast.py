"""A file that holds nothing but room: released when the disk is full, so that a lane can open and delete.

A log that SQLite must make anew at a start needs some; without it a full disk would stay full for ever.
"""

import os
from contextlib import suppress
from pathlib import Path

SIZE = 8 * 1024 * 1024
SHORT = 2 * SIZE
"""Bytes: with less than these left, lanes do not grow into the disk's end."""
_WORTH_IT = 256 * 1024
_LOGS = 1024 * 1024
"""What the lanes' logs may still need beside their files."""


class Ballast:
    """Of one buffer's folder."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._file = folder, folder / "ballast"

    def hold(self) -> None:
        """Make the file, of a quarter of what is free at most; a disk that refuses is no reason not to start."""
        with suppress(OSError):
            size = min(SIZE, self._free() // 4)
            if size < _WORTH_IT or self._file.exists():
                return
            descriptor = os.open(self._file, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(descriptor, 0, size)
            except OSError:
                self._file.unlink()
            finally:
                os.close(descriptor)

    def release(self) -> None:
        """Where the disk is short: a lane that has only come to its own bound leaves the ballast alone."""
        with suppress(OSError):
            if self._free() < SHORT:
                self._file.unlink()

    def room(self, *, yields: bool) -> int | None:
        """Bytes by which a lane may grow while the disk is short, None while it is not: one that can yield by none, the
        others share what is left.
        """
        try:
            free = self._free()
        except OSError:
            return None
        if free >= SHORT:
            self.hold()
            return None
        return 0 if yields else max(0, free - _LOGS) // 3

    def _free(self) -> int:
        """Bytes that the disk has left, beside the ballast."""
        found = os.statvfs(self._folder)
        return found.f_bavail * found.f_frsize
