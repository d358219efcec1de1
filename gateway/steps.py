"""Notice that somebody sets the wall clock, when it happens: the kernel cancels a timer of ours (timerfd_create(2)).

Where it cannot tell (a container whose host sets its clock otherwise) one just waits, and looks afterwards.
"""

import asyncio
import ctypes
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager

_ABSTIME, _CANCEL_ON_SET = 1, 2
_ITIMERSPEC = "@llll"
_NEVER = 2**31 - 1 if struct.calcsize("@l") == 4 else 2**40


class SetAlarm:
    def __init__(self) -> None:
        self._rung = asyncio.Event()

    @contextmanager
    def armed(self) -> Iterator[None]:
        """On the running loop."""
        loop = asyncio.get_running_loop()
        try:
            timer = int(ctypes.CDLL(None).timerfd_create(0, os.O_NONBLOCK | os.O_CLOEXEC))
        except AttributeError:
            timer = -1
        if timer < 0:
            yield
            return
        try:
            _arm(timer)
            loop.add_reader(timer, self._ring, timer)
            yield
        finally:
            loop.remove_reader(timer)
            os.close(timer)

    async def wait(self, seconds: float) -> bool:
        """Whether the clock was set within `seconds`; returns at once when it is."""
        try:
            async with asyncio.timeout(seconds):
                await self._rung.wait()
        except TimeoutError:
            return False
        self._rung.clear()
        return True

    def _ring(self, timer: int) -> None:
        try:
            os.read(timer, 8)
        except BlockingIOError:
            return
        except OSError:  # ECANCELED: that is the news
            pass
        _arm(timer)
        self._rung.set()


def _arm(timer: int) -> None:
    when = struct.pack(_ITIMERSPEC, 0, 0, _NEVER, 0)
    ctypes.CDLL(None).timerfd_settime(timer, _ABSTIME | _CANCEL_ON_SET, when, None)
