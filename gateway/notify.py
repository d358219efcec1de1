"""Telling systemd how we are, sd_notify(3): ready, alive, stopping, and one line of status.

Does nothing where no service manager listens.
"""

import os
import socket


class Notifier:
    """Speaks to the socket in NOTIFY_SOCKET: a path, or an abstract name written with a leading `@`."""

    def __init__(self) -> None:
        address = os.environ.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self.watchdog = _watchdog_seconds()
        """Seconds within which `alive` must be called, or None where nobody counts; call it twice as often."""

    def ready(self) -> None:
        self._tell("READY=1")

    def alive(self) -> None:
        self._tell("WATCHDOG=1")

    def status(self, say: str) -> None:
        """One line for `systemctl status`."""
        self._tell("STATUS=" + say.replace("\n", " "))

    def stopping(self) -> None:
        self._tell("STOPPING=1")

    def _tell(self, state: str) -> None:
        """Never waits and never fails: a service manager that does not listen is not our fault to die of."""
        if not self._address:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as out:
            try:
                out.sendto(state.encode(), self._address)
            except OSError:
                return


def _watchdog_seconds() -> float | None:
    """WATCHDOG_USEC, where it is meant for this process (sd_watchdog_enabled(3))."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    try:
        microseconds = int(os.environ["WATCHDOG_USEC"])
    except (KeyError, ValueError):
        return None
    return microseconds / 1e6 if microseconds > 0 else None
