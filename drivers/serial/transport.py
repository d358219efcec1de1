"""The wire: a serial device or a serial server, as something that is read, written and given up.

pyserial opens and configures a device; from then on its descriptor is ours. Its own write() hangs an event loop on
a full buffer (pyserial #280), and the asyncio layers on top of it spin after a hang-up, so the descriptor is read
and written by os.read and os.write when the loop says it is ready. Every error is one sentence and one action.
"""

import asyncio
import contextlib
import errno
import grp
import os
import pwd
import socket
import termios
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

import serial

from drivers.serial.settings import Line, Settings
from gateway.errors import LinkError

CHUNK = 4096
AT_ONCE = 64 * 1024
OPEN_WITHIN = 5.0
CLOSE_WITHIN = 2.0
KEEPALIVE = {"TCP_KEEPIDLE": 20, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}
"""A serial server that lost its power is noticed after 35 s, even if no sensor has anything to say."""


class Wire(Protocol):
    async def read(self) -> bytes:
        """All bytes that are there, at least one. LinkError: the wire is gone."""

    async def write(self, sent: bytes, within: float) -> None:
        """Hand all of `sent` to the wire within so many seconds. LinkError: it could not be done."""

    async def wake(self, seconds: float) -> None:
        """Hold the line in a break for so long, where that can be done from here."""

    async def close(self) -> None:
        """Give it up; bytes not yet sent are lost."""


@contextlib.asynccontextmanager
async def opened(name: str, settings: Settings, line: Line) -> AsyncIterator[Wire]:
    """The wire of link `name`. LinkError: it could not be opened, and why."""
    wire = await (_connect(name, settings.port) if settings.port.startswith("tcp://") else _open(name, settings, line))
    try:
        yield wire
    finally:
        await wire.close()


async def _open(name: str, settings: Settings, line: Line) -> "DeviceWire":
    baud, line_format = settings.baud or line.baud, settings.format or line.format
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(OPEN_WITHIN):
            # Given up half-way, the port that the thread still opens closes itself when it is collected.
            port = await loop.run_in_executor(None, _configured, name, settings.port, baud, line_format)
            # A lock binds only those who ask for it: gpsd, a modem prober or a getty do not.
            others = await loop.run_in_executor(None, readers, settings.port)
    except TimeoutError:
        raise LinkError(f"{settings.port} for `{name}` does not open. Unplug its adapter and plug it back.") from None
    if others:
        port.close()
        raise LinkError(also_read(name, settings.port, others))
    return DeviceWire(name, port)


def _configured(name: str, path: str, baud: int, line_format: str) -> serial.Serial:
    bits, parity, stop = tuple(line_format)
    try:
        return serial.Serial(
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
        raise LinkError(why_not_open(name, path, error, f"{baud} Bd, {line_format}")) from None


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
    others = readers(path)
    if others:
        return others[0]
    own = [f"another link of this gateway (pid {os.getpid()})"] if os.getpid() in _pids(path) else []
    return own[0] if own else "another program"


def _identity(path: Path) -> tuple[int, int]:
    """A device number alone is not one: each mount of devpts counts its ptys from 0."""
    found = path.stat()
    return found.st_dev, found.st_rdev


def _pids(path: str) -> list[int]:
    """The processes that have the device open, as far as /proc tells us."""
    try:
        device = _identity(Path(path))
    except OSError:
        return []
    found = []
    for opened_file in Path("/proc").glob("[0-9]*/fd/*"):
        with contextlib.suppress(OSError):
            if _identity(opened_file) == device:
                found.append(int(opened_file.parts[2]))
    return sorted(set(found))


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


class DeviceWire:
    """A tty that pyserial has opened and configured."""

    def __init__(self, name: str, port: serial.Serial) -> None:
        self._name = name
        self._port = port
        self._fd: int = port.fileno()

    async def read(self) -> bytes:
        received = bytearray()
        loop = asyncio.get_running_loop()
        while not received:
            await _ready(self._fd, loop.add_reader, loop.remove_reader)
            try:
                # Drained, so that the last frame in it is the newest that there is.
                while len(received) < AT_ONCE:
                    some = os.read(self._fd, CHUNK)
                    if not some:
                        break
                    received += some
            except BlockingIOError:
                if not received:
                    await self._look_for_thieves()
                continue
            except OSError:
                pass
            if not received:
                raise self._gone()
        return bytes(received)

    async def _look_for_thieves(self) -> None:
        """There were bytes, and then there were none: somebody else has read them. LinkError: it is known who."""
        path = str(self._port.port)
        others = await asyncio.get_running_loop().run_in_executor(None, readers, path)
        if others:
            raise LinkError(also_read(self._name, path, others))

    async def write(self, sent: bytes, within: float) -> None:
        rest = memoryview(sent)
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(within):
                while rest:
                    try:
                        rest = rest[os.write(self._fd, rest) :]
                    except BlockingIOError:
                        await _ready(self._fd, loop.add_writer, loop.remove_writer)
        except TimeoutError:
            raise LinkError(f"`{self._name}` takes no bytes. Unplug its adapter and plug it back.") from None
        except OSError:
            raise self._gone() from None

    async def wake(self, seconds: float) -> None:
        # An adapter that knows no break makes it itself, or the sensors need none.
        with contextlib.suppress(OSError):
            self._port.break_condition = True
            try:
                await asyncio.sleep(seconds)
            finally:
                self._port.break_condition = False

    def _gone(self) -> LinkError:
        return LinkError(f"The adapter for `{self._name}` is unplugged: {self._port.port} hung up. Plug it back.")

    async def close(self) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_WITHIN):
                await loop.run_in_executor(None, _abandon, self._port)


def _abandon(port: serial.Serial) -> None:
    # Closing waits up to 30 s for bytes that a stuck peer never takes; thrown away first, it does not.
    with contextlib.suppress(termios.error):
        termios.tcflush(port.fileno(), termios.TCIOFLUSH)
    port.close()


async def _ready(fd: int, add: Callable[..., None], remove: Callable[[int], bool]) -> None:
    ready = asyncio.get_running_loop().create_future()
    add(fd, _settle, ready)
    try:
        await ready
    finally:
        remove(fd)


def _settle(ready: "asyncio.Future[None]") -> None:
    if not ready.done():
        ready.set_result(None)


async def _connect(name: str, address: str) -> "StreamWire":
    url = urlsplit(address)
    try:
        async with asyncio.timeout(OPEN_WITHIN):
            reader, writer = await asyncio.open_connection(url.hostname, url.port)
    except TimeoutError:
        raise LinkError(f"The serial server for `{name}` is silent: {address}. Check its power and cable.") from None
    except socket.gaierror:
        raise LinkError(f"The serial server for `{name}` has no address: {address}. Check the name.") from None
    except OSError as error:
        said = os.strerror(error.errno) if error.errno else "nothing answers"
        raise LinkError(
            f"The serial server for `{name}` cannot be reached: {address}: {said}. Check its power and its port."
        ) from None
    link = writer.get_extra_info("socket")
    link.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in KEEPALIVE.items():
        link.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
    return StreamWire(name, address, reader, writer)


class StreamWire:
    """A serial server's raw TCP port: the UART's line parameters are set there."""

    def __init__(self, name: str, address: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._name, self._address = name, address
        self._reader, self._writer = reader, writer

    async def read(self) -> bytes:
        try:
            received = await self._reader.read(AT_ONCE)
        except OSError:
            received = b""
        if not received:
            raise self._gone()
        return received

    async def write(self, sent: bytes, within: float) -> None:
        try:
            async with asyncio.timeout(within):
                self._writer.write(sent)
                await self._writer.drain()
        except OSError:
            raise self._gone() from None

    async def wake(self, seconds: float) -> None:
        """A raw TCP port carries no break: the serial server has to make it."""

    def _gone(self) -> LinkError:
        return LinkError(
            f"The serial server for `{self._name}` closed the connection: {self._address}. Check its power and cable."
        )

    async def close(self) -> None:
        self._writer.transport.abort()
        with contextlib.suppress(OSError):
            async with asyncio.timeout(CLOSE_WITHIN):
                await self._writer.wait_closed()
