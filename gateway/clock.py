"""The wall clock, the boot clock, and what is known of them: the only place that asks the machine for the time."""

import ctypes
import time
from pathlib import Path

from gateway.model import ClockState

_TIMESYNC = Path("/run/systemd/timesync/synchronized")
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_TIME_ERROR = 5
_STALE_MS = 10_000


class SystemClock:
    """The machine's own clocks. `trusted` says that something else answers for the time (a container's host)."""

    def __init__(self, *, trusted: bool = False) -> None:
        self.boot_id = _BOOT_ID.read_text().strip().replace("-", "")[:8]
        self._trusted = trusted
        self._state = ClockState.UNSYNCED
        self._asked = -_STALE_MS

    def wall(self) -> int:
        """UTC, milliseconds."""
        return time.time_ns() // 1_000_000

    def boot(self) -> int:
        """Milliseconds since boot, counting suspend."""
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000

    def state(self) -> ClockState:
        """Synchronised once timesyncd or the kernel's own flag says so; asked at most every 10 s."""
        if self.boot() - self._asked >= _STALE_MS:
            self._asked = self.boot()
            synced = self._trusted or _TIMESYNC.exists() or _kernel_synchronised()
            if synced:
                self._state = ClockState.SYNCED
            elif self._state is not ClockState.UNSYNCED:
                self._state = ClockState.HOLDOVER
        return self._state


def _kernel_synchronised() -> bool:
    """adjtimex(2) in its reading mode: TIME_ERROR means that nobody disciplines this clock."""
    timex = ctypes.create_string_buffer(256)
    try:
        adjtimex = ctypes.CDLL(None, use_errno=True).adjtimex
    except AttributeError:
        return False
    result = int(adjtimex(timex))
    return 0 <= result < _TIME_ERROR
