"""The wall clock, the boot clock, and how far each may be trusted: the only place that asks the machine for the time.

A clock is synchronised while somebody has compared it with the world's of late: systemd-timesyncd touches a file each
time it does, chrony and ntpd tell the kernel. When they fall silent, or somebody else sets it, it runs on by itself
(holdover), and the error that is stated grows. A boot whose clock was never compared is unsynchronised, however right
it looks.
"""

import ctypes
import struct
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import gateway
from gateway.model import ClockState

CLOCK_ANCHOR = "clock_anchor"
"""The event that dates what its boot recorded before the clock was set."""
DRIFT_PPM = 100
"""Of a clock that runs by itself: crystals are sold as 50 ppm at most, and a pole is hotter than a desk."""
_AT_SYNC = 500
"""Milliseconds that a clock may be off when it has just been compared: timesyncd lets 400 of them run out slowly."""
_SILENT_AFTER = 4_200_000
"""Milliseconds: timesyncd asks every 2048 s at most, and one answer may be lost."""
_KERNEL_SILENT = 2_100
_KERNEL_GROWTH = 2000
"""The kernel's own bound grows by a millisecond in so many that nobody compares the clock."""
STEP = 500
"""Milliseconds of the wall clock against the boot clock, from one look to the next, that are no drift."""
_STALE_MS = 10_000
_TIMESYNC = Path("/run/systemd/timesync/synchronized")
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_TIME_ERROR = 5
_TIMEX = "@illli"
"""The head of struct timex: modes, offset, freq, maxerror, esterror."""


class Machine(Protocol):
    """What a machine says of its time; `RealMachine`, and what tests put in its place."""

    boot_id: str

    def wall(self) -> int:
        """UTC as the kernel has it, milliseconds."""

    def boot(self) -> int:
        """Milliseconds since boot, counting suspend."""

    def touched(self) -> int | None:
        """UTC milliseconds at which timesyncd last compared the clock; None where it has not in this boot."""

    def bound(self) -> int | None:
        """Milliseconds that a kernel whose clock somebody disciplines allows for; None where nobody does."""


class RealMachine:
    def __init__(self) -> None:
        self.boot_id = _BOOT_ID.read_text().strip().replace("-", "")[:8]

    def wall(self) -> int:
        return time.time_ns() // 1_000_000

    def boot(self) -> int:
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000

    def touched(self) -> int | None:
        try:
            return _TIMESYNC.stat().st_mtime_ns // 1_000_000
        except OSError:
            return None

    def bound(self) -> int | None:
        """adjtimex(2) in its reading mode. A unit with ProtectClock answers EPERM: then nothing is known."""
        timex = ctypes.create_string_buffer(256)
        try:
            result = int(ctypes.CDLL(None).adjtimex(timex))
        except AttributeError:
            return None
        return int(struct.unpack_from(_TIMEX, timex)[3]) // 1000 if 0 <= result < _TIME_ERROR else None


@dataclass(frozen=True, slots=True)
class Fix:
    """At `at` of the boot clock UTC was `at + offset`, within `error`; all milliseconds."""

    offset: int
    at: int
    error: int

    def error_at(self, boot: int) -> int:
        """How far UTC reckoned from here may be off at another moment of the same boot."""
        return self.error + abs(boot - self.at) * DRIFT_PPM // 1_000_000


class SystemClock:
    """`ports.Clock` of a machine. `trusted`: something else answers for the time (a container's host)."""

    def __init__(self, machine: Machine | None = None, *, trusted: bool = False) -> None:
        self._machine = machine or RealMachine()
        self.boot_id = self._machine.boot_id
        self._trusted = trusted
        self._state = ClockState.SYNCED if trusted else ClockState.UNSYNCED
        self._since = self._floor_at = self.boot()
        self._asked = -_STALE_MS
        self._ahead, self._step = self._machine.wall() - self.boot(), 0
        self._touched: int | None = None
        self._compared: tuple[int, int] | None = None
        """(boot clock, how far off it may have been) of the last comparison with the world's."""
        self._floor = built()

    def wall(self) -> int:
        wall = self._machine.wall()
        if self._state is ClockState.UNSYNCED:
            # A Pi without a battery starts in the past, and the true time is beyond this one for certain.
            return max(wall, self._floor + self.boot() - self._floor_at)
        return wall

    def boot(self) -> int:
        return self._machine.boot()

    def state(self) -> ClockState:
        """Asked at most every 10 s, and whenever somebody has set the clock."""
        now = self.boot()
        ahead = self._machine.wall() - now
        if abs(ahead - self._ahead) >= STEP:
            self._note_step(ahead - self._ahead)
        self._ahead = ahead
        if now - self._asked >= _STALE_MS and not self._trusted:
            self._asked = now
            state = self._look(now)
            if state is not self._state:
                self._state, self._since = state, now
        return self._state

    def since(self) -> int:
        return self._since

    def error(self) -> int | None:
        if self._compared is None or self._trusted:
            return None
        at, error = self._compared
        return error + max(0, self.boot() - at) * DRIFT_PPM // 1_000_000

    def take_step(self) -> int:
        """By how many milliseconds the clock was set since this was last asked; 0 where it was not."""
        self.state()
        taken, self._step = self._step, 0
        return taken

    def resume(self, floor: int, compared: tuple[int, int] | None) -> None:
        """What was known when the gateway stopped: a time that is past, and this boot's last comparison."""
        self._floor, self._floor_at = max(self._floor, floor), self.boot()
        self._compared = self._compared or compared
        self._asked = -_STALE_MS

    @property
    def compared(self) -> tuple[int, int] | None:
        """(boot clock, milliseconds off at most) of the last comparison in this boot, to be given to `resume`."""
        return self._compared

    def _note_step(self, by: int) -> None:
        """Whether it was set well or badly, the next comparison tells; until then it may be off by as much."""
        self._step += by
        if self._compared is not None:
            at, error = self._compared
            self._compared = at, error + abs(by)
        self._asked = -_STALE_MS

    def _look(self, now: int) -> ClockState:
        touched, bound = self._machine.touched(), self._machine.bound()
        found = [self._compared] if self._compared else []
        if touched is not None and touched != self._touched:
            self._touched = touched
            found.append((now - max(0, self._machine.wall() - touched), _AT_SYNC))
        if bound is not None and (bound <= _KERNEL_SILENT or not found):
            found.append((now - bound * _KERNEL_GROWTH, max(bound, _AT_SYNC)))
        self._compared = max(found, default=None)
        if self._compared is None:
            return ClockState.UNSYNCED
        at, error = self._compared
        is_vouched_for = now - at < _SILENT_AFTER and error <= _KERNEL_SILENT
        return ClockState.SYNCED if is_vouched_for else ClockState.HOLDOVER


def built() -> int:
    """When this gateway was built or installed, UTC milliseconds: no true time is before it."""
    return Path(gateway.__file__).stat().st_mtime_ns // 1_000_000
