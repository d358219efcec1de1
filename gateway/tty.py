"""A serial port, or the raw TCP port of a serial server: how it is named, opened, and who else has it.

pyserial opens and configures a device; from then on its descriptor belongs to the driver. Its own write() hangs an
event loop on a full buffer (pyserial #280), and the asyncio layers on top of it spin after a hang-up. Every error is
one sentence and one action. pyserial and termios are loaded when a device is first opened: a gateway without one
pays nothing for them.
"""

import asyncio
import contextlib
import errno
import fcntl
import glob
import grp
import os
import pwd
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar
from urllib.parse import urlsplit

from gateway.diagnostic import Mistake
from gateway.errors import LinkError

if TYPE_CHECKING:
    import serial

OPEN_WITHIN = 5.0
KEEPALIVE = {"TCP_KEEPIDLE": 20, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}
"""A serial server that lost its power is noticed after 35 s, even if nobody has anything to say."""
_SCHEME = "tcp://"
_TIOCGICOUNT = 0x545D
_COUNTS = struct.Struct("20i")
"""Of Linux's struct serial_icounter_struct: cts, dsr, rng, dcd, rx, tx, frame, overrun, parity, brk, …"""

Spoken = TypeVar("Spoken", bound=asyncio.BaseProtocol)


def is_server(port: str) -> bool:
    """Whether `port` is a serial server's, else it is a device."""
    return port.startswith(_SCHEME)


def checked(
    port: str, fix: str = "Write `/dev/serial/by-id/…` (see `ls /dev/serial/by-id`) or `tcp://host:port`."
) -> str:
    """`port` as it is written. Mistake: it names neither a device nor a serial server."""
    if is_server(port):
        try:
            _server(port)
        except ValueError:
            raise Mistake("bad_port", f"`{port}` does not say which host and port", fix) from None
    elif not port.startswith("/"):
        raise Mistake("bad_port", f"`{port}` is neither a device nor a serial server", fix)
    return port


def _server(port: str) -> tuple[str, int]:
    """(host, TCP port) of a serial server. ValueError: it does not say them."""
    url = urlsplit(port)
    if not url.hostname or not url.port or url.path.strip("/"):
        raise ValueError(port)
    return url.hostname, url.port


class Port:
    """A serial device, open and configured. Its owner reads and writes `descriptor` when the loop says it is ready."""

    def __init__(self, opened: "serial.Serial") -> None:
        self._serial = opened
        self.path = str(opened.port)
        self.descriptor: int = opened.fileno()

    def errors(self) -> int | None:
        """Bytes with a framing or parity error, or breaks, that its kernel counted since boot; None: it does not."""
        try:
            counted: tuple[int, ...] = _COUNTS.unpack(fcntl.ioctl(self.descriptor, _TIOCGICOUNT, bytes(_COUNTS.size)))
        except OSError:
            return None
        return counted[6] + counted[8] + counted[9]

    async def hold_break(self, seconds: float) -> None:
        """Hold the line low for so long. OSError: the adapter cannot."""
        self._serial.break_condition = True
        try:
            await asyncio.sleep(seconds)
        finally:
            self._serial.break_condition = False

    def close(self) -> None:
        """Bytes not yet sent are lost. Thrown away first, closing does not wait up to 30 s for them. It may block."""
        import termios

        with contextlib.suppress(termios.error):
            termios.tcflush(self.descriptor, termios.TCIOFLUSH)
        self._serial.close()


Flow = Literal["none", "rts_cts", "xon_xoff"]
"""Who stops the other when it is too fast: nobody, two wires, or two bytes in the stream."""


def opened(name: str, path: str, baud: int, line_format: str, flow: Flow = "none") -> Port:
    """The device of link `name`, ours alone. LinkError: it could not be opened, and why. It may block."""
    import termios

    import serial

    bits, parity, stop = tuple(line_format)
    try:
        port = serial.Serial(
            port=path,
            baudrate=baud,
            bytesize=int(bits),
            parity=parity,
            stopbits=int(stop),
            rtscts=flow == "rts_cts",
            xonxoff=flow == "xon_xoff",
            timeout=0,
            # VMIN 1: an empty port says EAGAIN, and nothing but a hang-up reads as b"".
            inter_byte_timeout=0,
            exclusive=True,
        )
        if parity != "N":
            _check_parity(port.fileno())
    except (OSError, ValueError, termios.error) as error:
        raise LinkError(why_not_open(name, path, error, f"{baud} Bd, {line_format}")) from None
    # A lock binds only those who ask for it: gpsd, a modem prober or a getty do not.
    if others := readers(path):
        port.close()
        raise LinkError(also_read(name, path, others))
    return Port(port)


def _check_parity(descriptor: int) -> None:
    """pyserial leaves the check off: a byte that fails it would be read as it came. So it is read as 0, which no text
    has and no checksum forgives."""
    import termios

    mode = termios.tcgetattr(descriptor)
    mode[0] |= termios.INPCK
    termios.tcsetattr(descriptor, termios.TCSANOW, mode)


def why_not_open(name: str, path: str, error: Exception, asked: str) -> str:
    """One sentence and one action for what pyserial raised."""
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
            return f"{path} for `{name}` is held by {_holder(path)}. Stop it."
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


def _holder(path: str) -> str:
    """Who has the device open, as far as /proc tells us."""
    if others := readers(path):
        return others[0]
    mine = os.getpid() in _pids(path)
    return f"another link of this gateway (pid {os.getpid()})" if mine else "another program"


def readers(path: str) -> list[str]:
    """The other programs that have the device open: each takes bytes that we then do not see."""
    found = []
    for pid in _pids(path):
        with contextlib.suppress(OSError):
            if pid != os.getpid():
                found.append(f"{Path('/proc', str(pid), 'comm').read_text().strip()} (pid {pid})")
    return found


def also_read(name: str, path: str, others: list[str]) -> str:
    return f"{path} for `{name}` is also read by {', '.join(others)}: each loses bytes to the other. Stop it."


def _pids(path: str) -> list[int]:
    """The processes that have the device open, as far as /proc tells us."""
    try:
        device = _identity(Path(path))
    except OSError:
        return []
    found = set()
    for opened_file in glob.iglob("/proc/[0-9]*/fd/*"):  # noqa: PTH207 - Path.glob raises where a process ends meanwhile
        with contextlib.suppress(OSError):
            if _identity(Path(opened_file)) == device:
                found.add(int(opened_file.split("/")[2]))
    return sorted(found)


def _identity(path: Path) -> tuple[int, int]:
    """A device number alone is not one: each mount of devpts counts its ptys from 0."""
    found = path.stat()
    return found.st_dev, found.st_rdev


async def connected(name: str, port: str, protocol: Callable[[], Spoken]) -> tuple[asyncio.Transport, Spoken]:
    """A connection to the serial server of link `name`. LinkError: there is none to be had, and why."""
    host, number = _server(port)
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(OPEN_WITHIN):
            transport, spoken = await loop.create_connection(protocol, host, number)
    except TimeoutError:
        raise LinkError(f"The serial server for `{name}` is silent: {port}. Check its power and cable.") from None
    except socket.gaierror:
        raise LinkError(f"The serial server for `{name}` has no address: {port}. Check the name.") from None
    except OSError as error:
        said = os.strerror(error.errno) if error.errno else "nothing answers"
        raise LinkError(
            f"The serial server for `{name}` cannot be reached: {port}: {said}. Check its power and its port."
        ) from None
    link = transport.get_extra_info("socket")
    link.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in KEEPALIVE.items():
        link.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
    return transport, spoken
