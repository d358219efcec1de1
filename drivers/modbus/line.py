"""One RS-485 line, on a serial port or behind a serial server (RTU over TCP), and its one owner.

RTU has no transaction ids: what comes late answers whatever is asked next. So the line is silent before each
question, what comes unasked is thrown away, and after anything but a clean answer nothing is asked for as long as
the slowest device may take to answer the question that was given up.
"""

import asyncio
import math
import os
import struct
from collections import defaultdict
from collections.abc import Mapping, Sequence

from drivers.modbus import rtu
from drivers.modbus.frames import EVERYBODY, WRITE_ONE, Misfit, NoAnswer, Refused, Request, ask
from drivers.modbus.link import Settings
from drivers.modbus.pace import Pace
from drivers.modbus.transport import Device, Server, Transport
from gateway import tty
from gateway.errors import DeviceError, LinkError

FAST = 1.75e-3
"""Seconds of silence between frames above 19200 Bd (MODBUS over Serial Line V1.02, 2.5.1.1)."""
BROADCAST_TURNAROUND = 0.15
"""Seconds in which every device does what all were told (MODBUS over Serial Line V1.02, 2.4.1: 100 to 200 ms)."""
LONGEST_HEARD = 4096
PIECES = 32
"""Bytes of an answer that a UART hands over at once, or nearly so."""
WAKING = 90e-6
"""Seconds from a timer's time to the question that follows, on a fast machine. By so much the silence behind an answer
is called over early; `_quiet` keeps the whole of it.
"""
EARLY = 0.9
"""Part of a unit's shortest turnaround after which a long answer is looked for: it may have become faster."""


class Line:
    """Opens when first asked. One task uses it."""

    def __init__(self, name: str, settings: Settings, paces: Mapping[int, Pace]) -> None:
        self.peer = str(settings.port)
        self._name, self._settings = name, settings
        self._paces = defaultdict(lambda: Pace(settings.timeout), paces)
        self.character = settings.character
        """Seconds that a byte takes on the wire."""
        self.silence = 3.5 * self.character if settings.baud <= 19200 else FAST
        self.afterwards = max([settings.timeout, *(pace.longest for pace in paces.values())])
        """Seconds that the line rests after the time of a question without a clean answer is over."""
        self._transport: Transport | None = None
        self._asked = b""
        self._heard = bytearray()
        self._waiting: asyncio.Future[bytes] | None = None
        self._found: bytes | None = None
        """The answer, while the silence behind it is still to come."""
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
        if self._transport:
            return
        loop = asyncio.get_running_loop()
        self._echoes = False
        if tty.is_server(self.peer):
            _, self._transport = await tty.connected(self._name, self.peer, lambda: Server(self))
        else:
            self._transport = Device(self, await self._opened())
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
        if self._transport:
            self._transport.abort()
            self._transport = None

    def worth(self, unit: int) -> int:
        """How many registers may be read in vain before a question of their own is cheaper.

        A question more costs 13 characters, the silences and the device's thinking; a register two characters.
        """
        pace = self._paces[unit]
        silences = self.silence + max(self.silence, pace.gap)
        return int((13 * self.character + silences + (pace.turnaround or 0.0)) / (2 * self.character))

    async def read(self, unit: int, fc: int, addr: int, count: int) -> list[int]:
        """`count` registers from `addr`. NoAnswer, Refused; LinkError: the port or the serial server is gone."""
        if unit == EVERYBODY:
            raise NoAnswer("unit 0 is everybody, and nobody answers for all", "Write its own address, 1 to 247.")
        frame = await self._answer(Request(0, unit, fc, addr, count))
        return list(struct.unpack_from(f">{count}H", frame, 3))

    async def write(self, unit: int, fc: int, addr: int, words: Sequence[int]) -> None:
        """Write registers from `addr`: function 6 or 16. Errors as in `read`; what everybody is told nobody answers."""
        request = Request(0, unit, fc, addr, len(words), tuple(words))
        if unit != EVERYBODY:
            await self._answer(request)
            return
        transport, _ = await self._send(request)
        self._busy += BROADCAST_TURNAROUND
        if transport is not self._transport:
            await self.open()

    async def _send(self, request: Request) -> tuple[Transport, float]:
        """Put a question on the line as soon as it is quiet; when that was. Misfit: the last has two answers."""
        asked = rtu.seal(ask(request))
        await self.open()
        await self._quiet(max(self.silence, self._paces[request.unit].gap))
        await self.open()  # it may have been lost meanwhile
        if request.unit == self._gainsaid and not request.words:
            self._gainsaid = None
            raise rtu.two_answers()
        transport = self._transport
        assert transport
        loop = asyncio.get_running_loop()
        self._asked, self._heard, self._found, self._last_asked = asked, bytearray(), None, request.unit
        self._waiting = None if request.unit == EVERYBODY else loop.create_future()
        sent = loop.time()
        transport.write(asked)
        self._busy = sent + len(asked) * self.character
        self._errors = transport.errors()
        return transport, sent

    async def _answer(self, request: Request) -> bytes:
        transport, sent = await self._send(request)
        assert self._waiting
        loop = asyncio.get_running_loop()
        pace = self._paces[request.unit]
        length = rtu.answer_length(self._asked)
        travel = (len(self._asked) + length) * self.character
        within = pace.within
        expiry = loop.call_at(sent + travel + within, self._give_up, self._waiting)
        whole = None
        if length > PIECES:
            # Until then it cannot be whole: nobody wakes up for its pieces.
            transport.pause()
            whole = loop.call_at(sent + travel + EARLY * (pace.turnaround or 0.0), transport.resume)
        clean = False
        try:
            answer = await self._waiting
            pace.took(max(0.0, self._busy - sent - travel))
            if len(self._heard) > 1:  # more than a driver that switches: a UART hands the rest over when it is full
                await asyncio.sleep(length * self.character)
            if request.unit == self._gainsaid:
                raise rtu.two_answers()
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
            expiry.cancel()
            if whole:
                whole.cancel()
                transport.resume()
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
        loop = asyncio.get_running_loop()
        self._busy = loop.time()
        self._heard += data
        del self._heard[:-LONGEST_HEARD]
        if self._waiting is None or self._waiting.done() or self._found:
            self._hear_unasked()
            return
        heard = self._without_echo()
        try:
            answer = rtu.find_answer(self._asked, heard)
        except DeviceError as error:
            self._heard.clear()
            self._waiting.set_exception(error)
        else:
            if answer is not None:
                self._compare(heard.partition(answer)[0])
                self._believed = answer
                del self._heard[: self._heard.rindex(answer) + len(answer)]
                # A frame ends with a silence, which the next question needs anyway.
                self._found = answer
                loop.call_at(self._busy + self.silence - WAKING, self._believe, self._waiting, answer)
                self._hear_unasked()

    def _believe(self, waiting: "asyncio.Future[bytes]", answer: bytes) -> None:
        if not waiting.done():
            waiting.set_result(answer)

    def _give_up(self, waiting: "asyncio.Future[bytes]") -> None:
        if not waiting.done() and not self._found:
            waiting.set_exception(TimeoutError())

    def lost(self, transport: Transport, error: DeviceError | LinkError) -> None:
        """The serial server has closed (a new connection may do), or the adapter has been pulled."""
        if transport is not self._transport:
            return
        self._transport = None
        if self._waiting and not self._waiting.done() and not self._found:
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
        now = self._transport.errors() if self._transport else None
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
