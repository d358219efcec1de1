"""Ptys in jumped time."""

import fcntl
import os
import struct
import time
from collections import Counter
from contextlib import suppress

from gateway.testing import JumpingLoop

LOST = 0.5
"""Real seconds after which bytes on a pty are lost, not late: its port was flushed."""
TIOCGPTN = 0x80045430
"""Linux: the number of the pty whose master this is."""


class PtyLoop(JumpingLoop):
    """Counts the bytes on ptys whose both ends are here. They go through a kernel thread, which a busy machine lets
    wait: time does not jump over their arrival; where there are none, nothing is waited for.
    """

    def __init__(self) -> None:
        super().__init__(grace=0.05)
        self._under_way: Counter[_End] = Counter()
        self._late: dict[_End, int] = {}
        self._since = 0.0
        self._real = os.read, os.write, os.close
        os.read, os.write, os.close = self._read, self._write, self._shut

    def close(self) -> None:
        os.read, os.write, os.close = self._real
        super().close()

    def _patience(self) -> float:
        watched = {_end(fd) for fd in self._selector.get_map()} if self._under_way else ()  # type: ignore[attr-defined]
        if not (late := {end: self._under_way[end] for end in watched if self._under_way[end] > 0}):
            return super()._patience()
        if late != self._late:
            self._late, self._since = late, time.monotonic()
        if time.monotonic() - self._since < LOST:
            return LOST
        self._under_way.clear()
        return super()._patience()

    def _is_quiet(self, watched: int) -> bool:
        return _end(watched) is not None

    def _read(self, fd: int, length: int) -> bytes:
        data = self._real[0](fd, length)
        if end := _end(fd):
            self._under_way[end] -= len(data)
        return data

    def _write(self, fd: int, data: bytes) -> int:
        length = self._real[1](fd, data)
        if end := _end(fd):
            self._under_way[end[0], not end[1]] += length
        return length

    def _shut(self, fd: int) -> None:
        if end := _end(fd):
            self._under_way[end[0], True] = self._under_way[end[0], False] = 0
        self._real[2](fd)


_End = tuple[int, bool] | None
"""The number of a pty, and whether it is its master; None: something else."""


def _end(fd: int) -> _End:
    with suppress(OSError):
        return struct.unpack("i", fcntl.ioctl(fd, TIOCGPTN, bytes(4)))[0], True
    with suppress(OSError):
        name = os.ttyname(fd)
        return (int(name.rpartition("/")[2]), False) if name.startswith("/dev/pts/") else None
    return None
