"""A relay on loopback that does to TCP connections what real networks do.

Ours, because `tc netem` needs root and a kernel module, and because a broker's acknowledgement can only be swallowed
by somebody who can read it.
"""

import asyncio
import socket
import struct
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import StrEnum
from urllib.parse import urlsplit, urlunsplit

_PUBACK = 4
_ROOM = 4096
"""Bytes of a slow connection that wait in here: who sends more feels how slow it is."""
_RESET_AT_CLOSE = struct.pack("ii", 1, 0)


class Fault(StrEnum):
    NONE = "none"
    DELAY = "delay"
    """Each byte arrives `delay` seconds late; nothing is slower."""
    BLACK_HOLE = "black hole"
    """Nothing arrives, in either direction, and nobody is told. What went into it is lost: such a connection never
    works again, new ones are taken and not answered."""
    RESET = "reset"
    """Every connection ends with an RST, now and as soon as a new one is made."""
    REFUSE = "refuse"
    """Nobody listens; connections that stand are reset."""
    SWALLOW_PUBACK = "swallowed PUBACK"
    """MQTT: the broker has the message and says so, and the publisher never hears of it."""
    TRICKLE = "trickle"
    """`rate` bytes a second, one by one."""
    HALF_CLOSE = "half-close"
    """The far side ends its half of the connection, and goes on reading."""


class FaultProxy:
    """Relays connections to `url`, as its fault allows. Use `before`."""

    def __init__(self, url: str, *, delay: float = 0.3, rate: float = 2000.0) -> None:
        self.delay, self.rate = delay, rate
        self.swallowed = 0
        """PUBACKs that nobody got."""
        self.connections = 0
        """Taken so far."""
        self._far = urlsplit(url)
        self._port = 0
        self._fault = Fault.NONE
        self._server: asyncio.Server | None = None
        self._open: set[_Connection] = set()
        self._none_open = asyncio.Event()
        self._none_open.set()

    @classmethod
    @asynccontextmanager
    async def before(cls, url: str) -> "AsyncIterator[FaultProxy]":
        proxy = cls(url)
        await proxy._listen()
        try:
            yield proxy
        finally:
            await proxy._deafen()
            async with asyncio.timeout(5):
                await proxy._none_open.wait()

    @property
    def url(self) -> str:
        """`url` through the proxy."""
        return urlunsplit(self._far._replace(netloc=f"127.0.0.1:{self._port}"))

    @property
    def fault(self) -> Fault:
        return self._fault

    async def have(self, fault: Fault) -> None:
        """From now on, also for connections that stand."""
        self._fault = fault
        match fault:
            case Fault.REFUSE:
                await self._deafen()
                return
            case Fault.RESET:
                self._reset_all()
            case Fault.BLACK_HOLE:
                for connection in self._open:
                    connection.is_lost = True
            case Fault.HALF_CLOSE:
                for connection in self._open:
                    connection.end_half()
            case _:
                pass
        await self._listen()

    async def _listen(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(
                self._relay, "127.0.0.1", self._port, reuse_address=True, limit=_ROOM
            )
            # Those that it accepts inherit it: the kernel must not hide how slow we are.
            self._server.sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _ROOM)
            self._port = self._server.sockets[0].getsockname()[1]

    async def _deafen(self) -> None:
        if self._server is not None:
            server, self._server = self._server, None
            server.close()
            self._reset_all()
            await server.wait_closed()

    def _reset_all(self) -> None:
        for connection in self._open:
            connection.reset()

    async def _relay(self, near_reader: asyncio.StreamReader, near: asyncio.StreamWriter) -> None:
        self.connections += 1
        connection = _Connection(self, near)
        if self._fault is Fault.RESET:
            connection.reset()
            return
        connection.is_lost = self._fault is Fault.BLACK_HOLE
        self._open.add(connection)
        self._none_open.clear()
        try:
            await connection.relay(near_reader, self._far.hostname or "", self._far.port or 0)
        except* OSError:
            pass
        finally:
            connection.reset()
            self._open.discard(connection)
            if not self._open:
                self._none_open.set()


class _Connection:
    def __init__(self, proxy: FaultProxy, near: asyncio.StreamWriter) -> None:
        self._proxy = proxy
        self._near = near
        self._far: asyncio.StreamWriter | None = None
        self.is_lost = False

    async def relay(self, near_reader: asyncio.StreamReader, host: str, port: int) -> None:
        far_reader, self._far = await asyncio.open_connection(host, port)
        async with asyncio.TaskGroup() as ways:
            ways.create_task(self._way(near_reader, self._far, _Whole()))
            ways.create_task(self._way(far_reader, self._near, _Packets(self._proxy)))

    def reset(self) -> None:
        """An RST each way, not a FIN."""
        for writer in (self._near, self._far):
            if writer and not writer.transport.is_closing():
                sock: socket.socket = writer.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_AT_CLOSE)
                writer.transport.abort()

    def end_half(self) -> None:
        if self._near.can_write_eof() and not self._near.transport.is_closing():
            self._near.write_eof()

    async def _way(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, sieve: "_Whole") -> None:
        """One direction: what came waits for its time, then passes. A reader that is slow makes a sender that waits."""
        loop = asyncio.get_running_loop()
        waiting: deque[tuple[float, bytes]] = deque()
        news, passed = asyncio.Event(), asyncio.Event()

        async def pass_on() -> None:
            while True:
                while not waiting:
                    news.clear()
                    await news.wait()
                due, chunk = waiting.popleft()
                passed.set()
                await asyncio.sleep(max(0.0, due - loop.time()))
                if not chunk:
                    break
                for piece in self._pieces(chunk):
                    if self.is_lost or writer.transport.is_closing():
                        break
                    if self._proxy.fault is Fault.TRICKLE:
                        await asyncio.sleep(len(piece) / self._proxy.rate)
                    writer.write(piece)
                    await writer.drain()
            if not self.is_lost and writer.can_write_eof():
                writer.write_eof()

        async with asyncio.TaskGroup() as pair:
            pair.create_task(pass_on())
            chunk = b"-"
            while chunk:
                while self._proxy.fault is Fault.TRICKLE and waiting:
                    passed.clear()
                    await passed.wait()
                chunk = await reader.read(_ROOM)
                late = self._proxy.delay if self._proxy.fault is Fault.DELAY else 0.0
                if (sifted := sieve.take(chunk)) or not chunk:
                    waiting.append((loop.time() + late, sifted))
                    news.set()

    def _pieces(self, chunk: bytes) -> list[bytes]:
        if self._proxy.fault is not Fault.TRICKLE:
            return [chunk]
        step = max(1, round(self._proxy.rate / 50))
        return [chunk[at : at + step] for at in range(0, len(chunk), step)]


class _Whole:
    """Lets all through."""

    def take(self, chunk: bytes) -> bytes:
        return chunk


class _Packets(_Whole):
    """Takes a stream of MQTT control packets apart, and lets all through but PUBACKs while these are swallowed."""

    def __init__(self, proxy: FaultProxy) -> None:
        self._proxy = proxy
        self._rest = b""

    def take(self, chunk: bytes) -> bytes:
        self._rest += chunk
        passed = bytearray()
        while (size := _size(self._rest)) and size <= len(self._rest):
            packet, self._rest = self._rest[:size], self._rest[size:]
            if packet[0] >> 4 == _PUBACK and self._proxy.fault is Fault.SWALLOW_PUBACK:
                self._proxy.swallowed += 1
            else:
                passed += packet
        return bytes(passed)


def _size(start: bytes) -> int:
    """Bytes of the packet that begins here, or 0 while its header is not there yet. MQTT 5, 2.1.4."""
    size = 0
    for index, byte in enumerate(start[1:5]):
        size |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return size + index + 2
    return 0
