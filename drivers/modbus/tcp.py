"""One Modbus TCP connection behind a guard: an answer fits its question to the last byte, or there is none.

One request is under way at a time, nothing is retried here, and after anything but a clean answer the
connection is closed: a new one cannot carry an old reply.
"""

import asyncio
import socket
import struct
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from drivers.modbus.frames import NoAnswer, Refused, Request, ask, find_answer
from drivers.modbus.pace import Pace
from gateway.errors import DeviceError, LinkError

if TYPE_CHECKING:
    from ssl import SSLContext

ROOM = 1024
"""Bytes taken in at once; the longest frame has 260."""
UNKNOWN_TO_IT = "If it wants our certificate, add `certificate` and `key`, or have them allowed there."


class Tcp:
    """Opens when first asked, and again after a failure. One task uses it."""

    is_there = True
    """A name on a network can always be tried."""
    afterwards = 0.0
    """A question without an answer blocks nothing: its connection is closed."""

    def __init__(
        self,
        host: str,
        port: int,
        timeout: float,
        paces: Mapping[int, Pace] = {},
        tls: "Callable[[], SSLContext] | None" = None,
        server_name: str | None = None,
    ) -> None:
        self.peer = f"{host}:{port}"
        self._host, self._port, self._timeout = host, port, timeout
        self._tls, self._server_name = tls, server_name or host
        self._paces = defaultdict(lambda: Pace(timeout), paces)
        self._connection: _Connection | None = None
        self._transaction = 0

    async def open(self) -> None:
        """Connect where there is no connection. LinkError: one sentence why not."""
        if self._connection and self._connection.is_open:
            return
        refused = self._connection and self._why_not(self._connection.ended_by)
        self.close()
        if refused:
            raise LinkError(refused)
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._timeout):
                _, self._connection = await loop.create_connection(
                    _Connection,
                    self._host,
                    self._port,
                    ssl=self._tls() if self._tls else None,
                    server_hostname=self._server_name if self._tls else None,
                )
        except OSError as error:
            raise LinkError(self._why_not(error) or _unreachable(self.peer, error)) from None

    def _why_not(self, error: Exception | None) -> str | None:
        """One sentence where it is TLS that keeps us apart."""
        if self._tls is None or error is None:
            return None
        from drivers.modbus.tls import why_not

        return why_not(self.peer, error)

    def close(self) -> None:
        if self._connection:
            self._connection.close()
            self._connection = None

    def worth(self, unit: int) -> int:  # noqa: ARG002 - the same for all
        """How many registers may be read in vain: any, a round trip costs more than 250 bytes."""
        return 125

    async def read(self, unit: int, fc: int, addr: int, count: int) -> list[int]:
        """`count` registers from `addr`. NoAnswer, Refused; LinkError where there is no connection to be had."""
        frame = await self._answer(unit, fc, addr, count)
        return list(struct.unpack_from(f">{count}H", frame, 9))

    async def write(self, unit: int, fc: int, addr: int, words: Sequence[int]) -> None:
        """Write registers from `addr`: function 6 or 16. Errors as in `read`."""
        await self._answer(unit, fc, addr, len(words), words)

    async def _answer(self, unit: int, fc: int, addr: int, count: int, words: Sequence[int] = ()) -> bytes:
        await self.open()
        assert self._connection
        self._transaction = self._transaction % 0xFFFF + 1
        question = ask(Request(self._transaction, unit, fc, addr, count, tuple(words)))
        pace = self._paces[unit]
        clean = False
        loop = asyncio.get_running_loop()
        asked = loop.time()
        within = pace.within
        waiting = self._connection.ask(question)
        expiry = loop.call_at(asked + within, _give_up, waiting)
        try:
            answer = await waiting
            self._connection.is_proved = True
            pace.took(loop.time() - asked)
            clean = True
        except Refused:
            clean = True
            raise
        except TimeoutError:
            pace.missed()
            raise NoAnswer(f"no answer within {within:.2g} s") from None
        except NoAnswer:
            if why := self._why_not(self._connection.ended_by):
                raise LinkError(why) from None
            if self._tls and not self._connection.is_proved:
                raise NoAnswer("it ended TLS without an answer", UNKNOWN_TO_IT) from None
            raise
        else:
            return answer
        finally:
            expiry.cancel()
            if not clean:
                self.close()


def _give_up(waiting: "asyncio.Future[bytes]") -> None:
    if not waiting.done():
        waiting.set_exception(TimeoutError())


class _Connection(asyncio.BufferedProtocol):
    """The bytes of one connection. What comes unasked ends it: nobody can know what it answers.

    Buffered, because asyncio makes room for 256 KB before each piece that it hands to a plain protocol.
    """

    def __init__(self) -> None:
        self.is_open = False
        self._room = bytearray(ROOM)
        self._transport: asyncio.WriteTransport
        self._asked = self._heard = b""
        self._waiting: asyncio.Future[bytes] | None = None
        self.ended_by: Exception | None = None
        self.is_proved = False
        """An answer has come over it: with TLS, only now is it sure that the other side takes us."""

    def ask(self, question: bytes) -> "asyncio.Future[bytes]":
        """The answer to be: a whole frame, or NoAnswer or Refused."""
        self._asked, self._heard = question, b""
        self._waiting = asyncio.get_running_loop().create_future()
        if self.is_open:
            self._transport.write(question)
        else:
            self._fail(NoAnswer("the connection was closed without an answer"))
        return self._waiting

    def close(self) -> None:
        self.is_open = False
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport, self.is_open = transport, True
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    def get_buffer(self, sizehint: int) -> bytearray:  # noqa: ARG002 - asyncio's signature
        return self._room

    def buffer_updated(self, nbytes: int) -> None:
        if self._waiting is None or self._waiting.done():
            self.close()
            return
        self._heard += self._room[:nbytes]
        try:
            answer = find_answer(self._asked, self._heard)
        except DeviceError as error:
            self._fail(error)
        else:
            if answer is not None:
                self._waiting.set_result(answer)

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_open, self.ended_by = False, exc
        self._fail(NoAnswer("the connection was closed without an answer"))

    def _fail(self, error: DeviceError) -> None:
        if self._waiting and not self._waiting.done():
            self._waiting.set_exception(error)


def _unreachable(peer: str, why: OSError) -> str:
    match why:
        case ConnectionRefusedError():
            return f"{peer} refuses the connection. Check the port, and that Modbus TCP is switched on there."
        case socket.gaierror():
            return f"{peer}: nobody knows this name. Check `host`."
        case TimeoutError():
            return f"{peer} does not answer. Check its power, its cable and its address."
        case _:
            return f"{peer} cannot be reached ({why.strerror or why}). Check the cable and the network."
