"""The kernel's word that the clock was set. Nothing here sets it: the kernel's own account of the timer is read."""

import asyncio
import ctypes
import struct
from collections.abc import Iterator
from pathlib import Path

from gateway.steps import SetAlarm


def timers() -> Iterator[int]:
    for link in Path("/proc/self/fd").iterdir():
        try:
            if str(link.readlink()) == "anon_inode:[timerfd]":
                yield int(link.name)
        except FileNotFoundError:
            continue  # the one that lists the folder


def flags(timer: int) -> dict[str, str]:
    lines = Path(f"/proc/self/fdinfo/{timer}").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


async def test_the_alarm_is_a_timer_of_the_wall_clock_that_the_kernel_cancels_when_it_is_set() -> None:
    before = set(timers())
    with SetAlarm().armed():
        (timer,) = set(timers()) - before
        told = flags(timer)
        assert (told["clockid"], told["settime flags"]) == ("0", "03"), "TFD_TIMER_ABSTIME, TFD_TIMER_CANCEL_ON_SET"
    assert set(timers()) == before, "and leaves nothing behind"


async def test_the_alarm_waits_as_long_as_it_is_told_and_wakes_at_once_when_it_rings_each_time() -> None:
    alarm, loop = SetAlarm(), asyncio.get_running_loop()
    before = set(timers())
    with alarm.armed():
        began = loop.time()
        assert await alarm.wait(0.05) is False
        assert loop.time() - began >= 0.05
        (timer,) = set(timers()) - before
        for _ in range(3):
            long_ago = struct.pack("@llll", 0, 0, 0, 1)
            assert ctypes.CDLL(None).timerfd_settime(timer, 1, long_ago, None) == 0
            assert await alarm.wait(5) is True
        assert loop.time() - began < 5
        assert await alarm.wait(0.05) is False
