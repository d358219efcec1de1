"""The wire: a serial device or a serial server, as something that is read, written and given up."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable
from typing import Protocol

from drivers.serial.settings import Line, Settings
from gateway import tty
from gateway.errors import LinkError

CHUNK = 4096
AT_ONCE = 64 * 1024
CLOSE_WITHIN = 2.0


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
    wire = await (_connect(name, settings.port) if tty.is_server(settings.port) else _open(name, settings, line))
    try:
        yield wire
    finally:
        await wire.close()


async def _open(name: str, settings: Settings, line: Line) -> "DeviceWire":
    baud, line_format = settings.baud or line.baud, settings.format or line.format
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(tty.OPEN_WITHIN):
            # Given up half-way, the port that the thread still opens closes itself when it is collected.
            port = await loop.run_in_executor(None, tty.opened, name, settings.port, baud, line_format, line.flow)
    except TimeoutError:
        raise LinkError(f"{settings.port} for `{name}` does not open. Unplug its adapter and plug it back.") from None
    return DeviceWire(name, port)


class DeviceWire:
    """A tty that pyserial has opened and configured."""

    def __init__(self, name: str, port: tty.Port) -> None:
        self._name = name
        self._port = port
        self._fd = port.descriptor

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
        others = await asyncio.get_running_loop().run_in_executor(None, tty.readers, self._port.path)
        if others:
            raise LinkError(tty.also_read(self._name, self._port.path, others))

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
            await self._port.hold_break(seconds)

    def _gone(self) -> LinkError:
        return LinkError(f"The adapter for `{self._name}` is unplugged: {self._port.path} hung up. Plug it back.")

    async def close(self) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_WITHIN):
                await loop.run_in_executor(None, self._port.close)


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
    reader = asyncio.StreamReader()
    transport, protocol = await tty.connected(name, address, lambda: asyncio.StreamReaderProtocol(reader))
    writer = asyncio.StreamWriter(transport, protocol, reader, asyncio.get_running_loop())
    return StreamWire(name, address, reader, writer)


class StreamWire:
    """A serial server's raw TCP port: the UART's line parameters are set there."""

    def __init__(self, name: str, address: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._name, self._address = name, address
        self._reader, self._writer = reader, writer

    async def read(self) -> bytes:
        try:
            received = await self._reader.read(CHUNK)
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
