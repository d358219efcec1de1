"""A serial port, opened and configured by pyserial; who holds it; and what its kernel has counted.

pyserial's own reads and writes are not used: its write() hangs an event loop on a full buffer (pyserial #280).
Every error is one sentence and one action.
"""

import contextlib
import errno
import fcntl
import grp
import os
import pwd
import struct
import termios
from pathlib import Path

import serial

from gateway.errors import LinkError

_TIOCGICOUNT = 0x545D
_COUNTS = struct.Struct("20i")
"""Of Linux's struct serial_icounter_struct: cts, dsr, rng, dcd, rx, tx, frame, overrun, parity, brk, …"""


def opened(name: str, path: str, baud: int, line_format: str) -> serial.Serial:
    """The port of link `name`, ours alone. LinkError: it could not be opened, and why. It may block."""
    bits, parity, stop = tuple(line_format)
    try:
        port = serial.Serial(
            port=path,
            baudrate=baud,
            bytesize=int(bits),
            parity=parity,
            stopbits=int(stop),
            timeout=0,
            # VMIN 1: an empty port says EAGAIN, and nothing but a hang-up reads as b"".
            inter_byte_timeout=0,
            exclusive=True,
        )
    except (OSError, ValueError, termios.error) as error:
        raise LinkError(_why_not(name, path, error, f"{baud} Bd, {line_format}")) from None
    # A lock binds only those who ask for it: a modem prober or a getty does not.
    if others := holders(path):
        port.close()
        raise LinkError(f"{path} for `{name}` is held by {', '.join(others)}. Stop it.")
    return port


def abandon(port: serial.Serial) -> None:
    """Close it; bytes not yet sent are lost. Thrown away first, closing does not wait up to 30 s for them."""
    with contextlib.suppress(termios.error):
        termios.tcflush(port.fileno(), termios.TCIOFLUSH)
    port.close()


def errors(descriptor: int) -> int | None:
    """Bytes that came with a framing or parity error, or as a break, since boot; None: its kernel does not count."""
    try:
        counted: tuple[int, ...] = _COUNTS.unpack(fcntl.ioctl(descriptor, _TIOCGICOUNT, bytes(_COUNTS.size)))
    except OSError:
        return None
    return counted[6] + counted[8] + counted[9]


def holders(path: str) -> list[str]:
    """The other programs that have the device open, as far as /proc tells us."""
    try:
        device = _identity(Path(path))
    except OSError:
        return []
    found = set()
    for file in Path("/proc").glob("[0-9]*/fd/*"):
        pid = file.parts[2]
        try:
            if int(pid) != os.getpid() and _identity(file) == device:
                found.add(f"{Path('/proc', pid, 'comm').read_text().strip()} (pid {pid})")
        except OSError:
            continue
    return sorted(found)


def _identity(path: Path) -> tuple[int, int]:
    """A device number alone is not one: each mount of devpts counts its ptys from 0."""
    found = path.stat()
    return found.st_dev, found.st_rdev


def _why_not(name: str, path: str, error: Exception, asked: str) -> str:
    number = error.errno if isinstance(error, OSError) else None
    match number:
        case errno.ENOENT | errno.ENODEV | errno.ENXIO:
            return f"The adapter for `{name}` is not there: {path} does not exist. Plug it in."
        case errno.EACCES | errno.EPERM:
            user, group = pwd.getpwuid(os.geteuid()).pw_name, _group(path)
            return (
                f"{path} for `{name}` may not be opened by user {user}. "
                f"Type `sudo usermod -aG {group} {user}` and restart the gateway."
            )
        case errno.EAGAIN | errno.EBUSY:
            who = ", ".join(holders(path)) or "another program, or another link of this gateway"
            return f"{path} for `{name}` is held by {who}. Stop it."
        case None | errno.ENOTTY | errno.EISDIR if not isinstance(error, ValueError):
            return f"{path} for `{name}` is not a serial port. Write one that `ls /dev/serial/by-id` shows."
        case None:
            return f"{path} for `{name}` cannot be set to {asked}. Choose a speed and format that the adapter has."
        case _:
            return f"{path} for `{name}` cannot be opened: {os.strerror(number)}. Unplug its adapter and plug it back."


def _group(path: str) -> str:
    """The group that owns the device; where that is root's or unknown, the one that Debian gives serial ports."""
    try:
        group = grp.getgrgid(Path(path).stat().st_gid).gr_name
    except (OSError, KeyError):
        return "dialout"
    return "dialout" if group == "root" else group
