"""One RS-485 line, on a serial port or behind a serial server (RTU over TCP), and its one owner.

RTU has no transaction ids: what comes late answers whatever is asked next. So the line is silent before each
question, what comes unasked is thrown away, and after anything but a clean answer nothing is asked for as long as
the slowest device may take to answer the question that was given up.
"""

import asyncio
import math
import os
import socket
from collections.abc import Mapping, Sequence

from drivers.modbus import rtu
from drivers.modbus.frames import EVERYBODY, WRITE_ONE, Misfit, NoAnswer, Refused, Request, ask
from drivers.modbus.link import Settings
from drivers.modbus.pace import Pace
from gateway import tty
from gateway.errors import DeviceError, LinkError

FAST = 1.75e-3
"""Seconds of silence between frames above 19200 Bd (MODBUS over Serial Line V1.02, 2.5.1.1)."""
BROADCAST_TURNAROUND = 0.15
"""Seconds in which every device does what all were told (MODBUS over Serial Line V1.02, 2.4.1: 100 to 200 ms)."""
UNACKNOWLEDGED = 10_000
"""Milliseconds after which a serial server that takes no bytes is given up."""
LONGEST_HEARD = 4096
PIECES = 32
"""Bytes of an answer that a UART hands over at once, or nearly so."""


class Line:
    """Opens when first asked. One task uses it."""

    def __init__(self, name: str, settings: Settings, paces: Mapping[int, Pace]) -> None:
        self.peer = str(settings.port)
        self._name, self._settings, self._paces = name, settings, dict(paces)
        self.character = settings.character
        """Seconds that a byte takes on the wire."""
        self.silence = 3.5 * self.character if settings.baud <= 19200 else FAST
        self.afterwards = max([settings.timeout, *(pace.longest for pace in paces.values())])
        """Seconds that the line rests after the time of a question without a clean answer is over."""
        self._outlet: _Device | _Server | None = None
        self._asked = b""
        self._heard = bytearray()
        self._waiting: asyncio.Future[bytes] | None = None
        self._busy = self._suspect = -math.inf
        """Loop times: when the last byte went over the wire, and until when late answers may come."""
        self._echoes = False
        self._last_asked = 0
        self._doubled: set[int] = set()
        """Units of which an answer came that nobody had asked for."""
        self._believed = b""
        self._gainsaid: int | None = None
        """The unit of which another answer came after the one that was believed."""
        self._gone: LinkError | None = None
        self._opening: asyncio.Future[tty.Port] | None = None
        self._errors: int | None = None

    async def open(self) -> None:
        """Where it is not open yet. LinkError: one sentence why it cannot be, or why it no longer is."""
        if self._gone:
            gone, self._gone = self._gone, None
            self.close()
            raise gone
        if self._outlet:
            return
        loop = asyncio.get_running_loop()
        self._echoes = False
        if tty.is_server(self.peer):
            _, self._outlet = await tty.connected(self._name, self.peer, lambda: _Server(self))
        else:
            self._outlet = _Device(self, await self._opened())
        # Whoever owned the line before us may have asked something.
        self._suspect = loop.time() + self.afterwards

    async def _opened(self) -> tty.Port:
        """A thread cannot be cancelled: who was cancelled here leaves the port that it opens to the next."""
        settings = self._settings
        self._opening = self._opening or asyncio.get_running_loop().run_in_executor(
            None, tty.opened, self._name, self.peer, settings.baud, settings.format
        )
        try:
            async with asyncio.timeout(tty.OPEN_WITHIN):
                await asyncio.wait({self._opening})
        except TimeoutError:
            raise LinkError(
                f"{self.peer} for `{self._name}` does not open. Unplug its adapter and plug it back."
            ) from None
        opening, self._opening = self._opening, None
        return opening.result()

    @property
    def is_there(self) -> bool:
        """False while the adapter is unplugged: then opening it can only fail."""
        return tty.is_server(self.peer) or os.path.exists(self.peer)  # noqa: PTH110 - a look, four times a second

    def close(self) -> None:
        if self._opening:
            self._opening.add_done_callback(_close_opened)
            self._opening = None
        if self._outlet:
            self._outlet.abort()
            self._outlet = None

    def worth(self, unit: int) -> int:
        """How many registers may be read in vain before a question of their own is cheaper.

        A question more costs 13 characters, the silences and the device's thinking; a register two characters.
        """
        pace = self._pace(unit)
        silences = self.silence + max(self.silence, pace.gap)
        return int((13 * self.character + silences + (pace.turnaround or 0.0)) / (2 * self.character))

    def _pace(self, unit: int) -> Pace:
        return self._paces.setdefault(unit, Pace(self._settings.timeout))

    async def read(self, unit: int, fc: int, addr: int, count: int) -> list[int]:
        """`count` registers from `addr`. NoAnswer, Refused; LinkError: the port or the serial server is gone."""
        if unit == EVERYBODY:
            raise NoAnswer("unit 0 is everybody, and nobody answers for all", "Write its own address, 1 to 247.")
        frame = await self._answer(Request(0, unit, fc, addr, count))
        return [int.from_bytes(frame[at : at + 2], "big") for at in range(3, len(frame) - 2, 2)]

    async def write(self, unit: int, fc: int, addr: int, words: Sequence[int]) -> None:
        """Write registers from `addr`: function 6 or 16. Errors as in `read`; what everybody is told nobody answers."""
        request = Request(0, unit, fc, addr, len(words), tuple(words))
        if unit != EVERYBODY:
            await self._answer(request)
            return
        outlet, _ = await self._send(request)
        self._busy += BROADCAST_TURNAROUND
        if outlet is not self._outlet:
            await self.open()

    async def _send(self, request: Request) -> tuple["_Device | _Server", float]:
        """Put a question on the line as soon as it is quiet; when that was. Misfit: the last has two answers."""
        await self.open()
        await self._quiet(max(self.silence, self._pace(request.unit).gap))
        await self.open()  # it may have been lost meanwhile
        if request.unit == self._gainsaid and not request.words:
            self._gainsaid = None
            raise rtu.two_answers()
        outlet = self._outlet
        assert outlet
        loop = asyncio.get_running_loop()
        self._asked, self._heard, self._last_asked = rtu.seal(ask(request)), bytearray(), request.unit
        self._waiting = None if request.unit == EVERYBODY else loop.create_future()
        self._errors = outlet.errors() if isinstance(outlet, _Device) else None
        sent = loop.time()
        outlet.write(self._asked)
        self._busy = sent + len(self._asked) * self.character
        return outlet, sent

    async def _answer(self, request: Request) -> bytes:
        outlet, sent = await self._send(request)
        assert self._waiting
        loop = asyncio.get_running_loop()
        pace = self._pace(request.unit)
        travel = (len(self._asked) + rtu.answer_length(self._asked)) * self.character
        within = pace.within
        whole = None
        if rtu.answer_length(self._asked) > PIECES:
            # Until then it cannot be whole: nobody wakes up for its pieces.
            outlet.pause()
            whole = loop.call_at(sent + travel, outlet.resume)
        clean = False
        try:
            async with asyncio.timeout_at(sent + travel + within):
                answer = await self._waiting
            pace.took(max(0.0, loop.time() - sent - travel))
            await self._expect_silence(request)
            if request.unit in self._doubled:
                await self._expect_nothing_more(request.unit)
            clean = True
        except Refused:
            # A refusal does not even say which question it answers.
            if request.unit in self._doubled:
                await self._expect_nothing_more(request.unit)
            clean = True
            raise
        except TimeoutError:
            pace.missed()
            raise self._why_none(within) from None
        finally:
            if whole:
                whole.cancel()
                outlet.resume()
            self._waiting = None
            if not clean:
                # However soon it was given up: it may have all its time, and the slowest device's on top.
                self._suspect = sent + travel + pace.longest + self.afterwards
                self._last_asked, self._believed, self._gainsaid = EVERYBODY, b"", None
        return answer

    async def _quiet(self, gap: float) -> None:
        """Until nothing may come any more and the line was silent for `gap`: by deadlines, so that no time is lost."""
        loop = asyncio.get_running_loop()
        patience = loop.time() + 6 * self.afterwards + gap
        while (ready := max(self._busy + gap, self._suspect)) > (now := loop.time()):
            if now > patience:
                raise NoAnswer(
                    "the line is never quiet, something talks all the time",
                    "Disconnect a second master, or the device that talks unasked.",
                )
            await asyncio.sleep(ready - now)

    async def _expect_silence(self, request: Request) -> None:
        """A frame ends with a silence, which the next question needs anyway. Misfit: it was not the only answer."""
        await asyncio.sleep(self._busy + self.silence - asyncio.get_running_loop().time())
        if len(self._heard) > 1:  # more than a driver that switches: a UART hands the rest over when it is full
            await asyncio.sleep(rtu.answer_length(self._asked) * self.character)
        if request.unit == self._gainsaid:
            raise rtu.two_answers()

    async def _expect_nothing_more(self, unit: int) -> None:
        """Two answers came to a question before. Misfit: they do again; else it was a late one."""
        await asyncio.sleep(self.afterwards)
        if len(self._heard) >= rtu.SHORTEST:
            raise Misfit(
                f"two answers come to each question, two devices have address {unit}",
                "Disconnect one of them and give it another address.",
            )
        self._doubled.discard(unit)

    # What comes in

    def hear(self, data: bytes) -> None:
        """Bytes have come."""
        self._busy = asyncio.get_running_loop().time()
        self._heard += data
        del self._heard[:-LONGEST_HEARD]
        if self._waiting is None or self._waiting.done():
            self._hear_unasked()
            return
        try:
            answer = rtu.find_answer(self._asked, self._without_echo())
        except DeviceError as error:
            self._heard.clear()
            self._waiting.set_exception(error)
        else:
            if answer is not None:
                self._compare(self._without_echo().partition(answer)[0])
                self._believed = answer
                del self._heard[: self._heard.rindex(answer) + len(answer)]
                self._waiting.set_result(answer)
                self._hear_unasked()

    def lost(self, outlet: "_Device | _Server", error: DeviceError | LinkError) -> None:
        """The serial server has closed (a new connection may do), or the adapter has been pulled."""
        if outlet is not self._outlet:
            return
        self._outlet = None
        if self._waiting and not self._waiting.done():
            self._waiting.set_exception(error)
        elif isinstance(error, LinkError):
            self._gone = error

    def _hear_unasked(self) -> None:
        """What no question is open for. A stray byte or two is a driver switching; more is somebody's answer."""
        if len(self._heard) < rtu.SHORTEST:
            return
        self._compare(bytes(self._heard))
        self._suspect = max(self._suspect, self._busy + self.afterwards)

    def _compare(self, heard: bytes) -> None:
        """One more answer of the unit asked last is another device's, or shows that the one before was wrong."""
        more = [frame for frame in rtu.answers(heard) if frame[0] == self._last_asked]
        if more:
            self._doubled.add(self._last_asked)
        if self._believed and any(frame != self._believed for frame in more):
            self._gainsaid = self._last_asked

    def _without_echo(self) -> bytes:
        """What has come but for the question itself, which an adapter may hear as it speaks.

        The answer to a write of one register equals its question: there an echo is only known from before.
        """
        heard = bytes(self._heard)
        at = heard.find(self._asked)
        if at < 0:
            return b"" if self._echoes and self._asked[1] == WRITE_ONE else heard
        if self._asked[1] != WRITE_ONE:
            self._echoes = True
        return heard[at + len(self._asked) :] if self._echoes else heard

    def _why_none(self, within: float) -> NoAnswer:
        """The time is over: what the bytes say, and the kernel's counters."""
        heard = self._without_echo()
        if not heard and self._echoes:
            return NoAnswer(
                f"no answer within {within:.2g} s; the adapter hears only its own question",
                "Check the device's power, its unit id, and A and B behind the adapter.",
            )
        if not heard:
            return NoAnswer(f"no answer within {within:.2g} s, not one byte", "Check power and unit id, swap A and B.")
        now = self._outlet.errors() if isinstance(self._outlet, _Device) else None
        spoilt = now is not None and self._errors is not None and now > self._errors
        found = None if spoilt else rtu.why_none(self._asked, heard)
        if found:
            return found
        counted = ", the adapter counts framing or parity errors" if spoilt else ""
        other = "9600 8N1" if (self._settings.baud, self._settings.format) != (9600, "8N1") else "19200 8E1"
        return NoAnswer(f"bytes came, but at another speed or parity{counted}", f"Try {other}.")


def _close_opened(opening: "asyncio.Future[tty.Port]") -> None:
    if not opening.cancelled() and not opening.exception():
        opening.result().close()


class _Device:
    """A port's descriptor, read when the loop says that it is ready."""

    def __init__(self, line: Line, opened: tty.Port) -> None:
        self._line, self._port = line, opened
        self._descriptor = opened.descriptor
        self._is_open = True
        self.resume()

    def write(self, data: bytes) -> None:
        try:
            written = os.write(self._descriptor, data)
        except BlockingIOError:
            written = 0
        except OSError:
            self._give_up(self._unplugged())
            return
        if written < len(data):
            self._give_up(f"{self._port.path} takes no bytes. Unplug its adapter and plug it back.")

    def pause(self) -> None:
        if self._is_open:
            asyncio.get_running_loop().remove_reader(self._descriptor)

    def resume(self) -> None:
        if self._is_open:
            asyncio.get_running_loop().add_reader(self._descriptor, self._read)

    def abort(self) -> None:
        self.pause()
        self._is_open = False
        self._port.close()

    def errors(self) -> int | None:
        return self._port.errors()

    def _read(self) -> None:
        try:
            data = os.read(self._descriptor, LONGEST_HEARD)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self._line.hear(data)
        else:
            self._give_up(self._unplugged())

    def _unplugged(self) -> str:
        return f"The adapter is unplugged: {self._port.path} hung up. Plug it back."

    def _give_up(self, why: str) -> None:
        self.abort()
        self._line.lost(self, LinkError(why))


class _Server(asyncio.Protocol):
    """The raw TCP port of a serial server."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self._transport: asyncio.Transport

    def write(self, data: bytes) -> None:
        self._transport.write(data)

    def pause(self) -> None:
        self._transport.pause_reading()

    def resume(self) -> None:
        self._transport.resume_reading()

    def abort(self) -> None:
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        connection = transport.get_extra_info("socket")
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNACKNOWLEDGED)

    def data_received(self, data: bytes) -> None:
        self._line.hear(data)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        self._line.lost(self, NoAnswer("the serial server closed the connection", "Check its power and cable."))
