"""The far end of an RS-485 line, on a pty or as a serial server: bytes take their time, and go wrong on command.

A pty carries bytes and hang-ups; it knows neither parity nor pace, so the pace is made here: a question has
travelled before its answer begins, and an answer comes in the pieces that a UART's buffer makes of it.
"""

import asyncio
import os
import re
import select
import shutil
import tempfile
import termios
import tty
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

from drivers.modbus import frames, rtu
from drivers.modbus.frames import READ_HOLDING, READ_INPUT, Request
from drivers.modbus.link import Settings

LineFault = Literal[
    "crc", "garbage_before", "garbage_after", "trickle", "foreign", "echo", "echo_only", "stale", "duplicate", "twin",
    "other_speed", "unplug",
]  # fmt: skip
OUTPUT_SPEED = 5
"""Where tcgetattr has it."""
SPEEDS = {getattr(termios, name): int(name[1:]) for name in dir(termios) if re.fullmatch(r"B[1-9][0-9]+", name)}
TICK = 0.05
"""Seconds between two looks whether somebody has opened the pty: without, its descriptor cannot be waited for."""
PIECE = 16
TRICKLE = 0.02
AGAIN = 0.03
"""Seconds between an answer and its duplicate: after the next question would have been asked."""

Answer = Callable[[bytes], tuple[bytes, str | None, float]]
"""Question to answer (Modbus TCP frames; none: b""), the fault of its unit, and how long it hesitates."""


class Bus:
    """One line. `answer` speaks for the units on it; `turnaround`: seconds that each takes."""

    def __init__(self, settings: Settings, answer: Answer, turnaround: float) -> None:
        self._settings, self._answer, self.turnaround = settings, answer, turnaround
        self._heard = b""
        self._previous = b""
        self._free = 0.0
        """Loop time at which the line is free again."""
        self._folder: Path | None = None
        self._master: int | None = None
        self._server: asyncio.Server | None = None
        self._peer: asyncio.WriteTransport | None = None
        self._later: set[asyncio.TimerHandle] = set()

    async def start(self, port: int = 0) -> Mapping[str, str]:
        """Plug in; a pty's name stays the same however often it is unplugged."""
        if str(self._settings.port).startswith("tcp://"):
            loop = asyncio.get_running_loop()
            self._server = await loop.create_server(lambda: _Connection(self), "127.0.0.1", port)
            return {"port": f"tcp://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"}
        self._folder = Path(tempfile.mkdtemp(prefix="lampione-"))
        self.plug()
        return {"port": str(self._folder / "port")}

    def stop(self) -> None:
        self.unplug()
        if self._server:
            self._server.close()
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def baud(self) -> int | None:
        """The speed that the other end has set; None: a serial server's, which nobody here sees."""
        if self._master is None:
            return None
        return SPEEDS.get(termios.tcgetattr(self._master)[OUTPUT_SPEED])

    def plug(self) -> None:
        if self._folder is None or self._master is not None:
            return
        self._master, slave = os.openpty()
        os.set_blocking(self._master, False)
        tty.setraw(slave)
        (self._folder / "port").symlink_to(os.ttyname(slave))
        os.close(slave)  # with nobody on the other side the pty shows a hang-up
        self._look()

    def unplug(self) -> None:
        for timer in self._later:
            timer.cancel()
        self._later.clear()
        self._heard = b""
        if self._peer:
            self._peer.abort()
            self._peer = None
        if self._master is not None:
            assert self._folder
            (self._folder / "port").unlink(missing_ok=True)
            asyncio.get_running_loop().remove_reader(self._master)
            os.close(self._master)
            self._master = None

    def connected(self, peer: asyncio.WriteTransport) -> None:
        """A serial server has one client: the newest."""
        if self._peer:
            self._peer.abort()
        self._peer, self._heard = peer, b""

    def lost(self, peer: asyncio.WriteTransport) -> None:
        if peer is self._peer:
            self._peer = None

    def hear(self, data: bytes) -> None:
        self._heard += data
        while True:
            question, self._heard = rtu.cut_question(self._heard)
            if question is None:
                return
            self._reply(question)

    def _reply(self, question: bytes) -> None:
        now = asyncio.get_running_loop().time()
        answer, fault, hesitation = self._answer(rtu.unseal(question))
        start = max(now, self._free) + len(question) * self._settings.character
        if fault in ("echo", "echo_only"):
            self._speak(question, start)
        if not answer:
            self._free = start
            return
        spoken = rtu.seal(answer)
        start += self.turnaround + hesitation
        match fault:
            case "truncated":
                self._speak(spoken[:-1], start)
            case "crc":
                self._speak(spoken[:-1] + bytes([spoken[-1] ^ 0x40]), start)
            case "garbage":
                self._speak(b"\xde\xad\xbe\xef\xfe\xed\xfa\xce", start)
            case "garbage_before":
                self._speak(b"\x00\xff" + spoken[:3] + spoken, start)
            case "garbage_after":
                self._speak(spoken + b"\x00\xf8", start)
            case "trickle":
                for at, byte in enumerate(spoken):
                    self._speak(bytes([byte]), start + at * TRICKLE)
            case "foreign":
                self._speak(self._foreign(question), start)
            case "stale":
                self._speak(self._previous + spoken, start)
            case "duplicate":
                self._speak(spoken, start)
                self._speak(spoken, self._free + AGAIN)
            case "twin":
                self._speak(spoken, start)
                self._speak(rtu.seal(_of_a_twin(answer)), self._free + AGAIN)
            case "other_speed":
                self._speak(bytes(byte & 0x1C | 0xE0 for byte in spoken), start)
            case "echo_only":
                pass
            case _:
                self._speak(spoken, start)
        self._previous = spoken

    def _foreign(self, question: bytes) -> bytes:
        """Another master asks the same unit for as many registers from elsewhere, and is answered."""
        asked = frames.parse(rtu.unseal(question))
        other = Request(0, asked.unit, asked.function, asked.addr ^ 0x400, asked.count)
        if asked.words:
            return b""
        return rtu.seal(frames.ask(other)) + rtu.seal(frames.answer(other, [0xBAD] * asked.count))

    def _speak(self, data: bytes, start: float) -> None:
        """Put bytes on the line from loop time `start`, each piece when its last byte has travelled."""
        loop = asyncio.get_running_loop()
        for at in range(0, len(data), PIECE):
            piece = data[at : at + PIECE]
            self._free = start + (at + len(piece)) * self._settings.character
            self._later.add(loop.call_at(self._free, self._put, piece))
        self._later = {timer for timer in self._later if not timer.cancelled() and timer.when() > loop.time()}

    def _put(self, piece: bytes) -> None:
        if self._peer:
            self._peer.write(piece)
        elif self._master is not None and self._is_open():
            try:
                os.write(self._master, piece)
            except OSError:
                return  # nobody reads: a UART's bytes are lost, too

    # The pty

    def _look(self) -> None:
        """Wait until somebody has opened it."""
        if self._master is None:
            return
        loop = asyncio.get_running_loop()
        if self._is_open():
            loop.add_reader(self._master, self._read)
        else:
            loop.call_later(TICK, self._look)

    def _is_open(self) -> bool:
        assert self._master is not None
        poll = select.poll()
        poll.register(self._master, select.POLLHUP)
        return not any(event & select.POLLHUP for _, event in poll.poll(0))

    def _read(self) -> None:
        assert self._master is not None
        try:
            data = os.read(self._master, 4096)
        except BlockingIOError:
            return
        except OSError:
            asyncio.get_running_loop().remove_reader(self._master)
            self._look()
        else:
            self.hear(data)


def _of_a_twin(answer: bytes) -> bytes:
    """What another device with the same address answers: other values, where there are any."""
    return answer[:9] + bytes(byte ^ 0x55 for byte in answer[9:]) if answer[7] in (READ_HOLDING, READ_INPUT) else answer


class _Connection(asyncio.Protocol):
    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport
        self._bus.connected(transport)

    def data_received(self, data: bytes) -> None:
        self._bus.hear(data)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        self._bus.lost(self._transport)
