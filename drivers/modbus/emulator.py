"""Plays the far end of a Modbus link: any profiles, backwards through the codec, with faults on command.

Modbus TCP is served here, with TLS or without; a line by bus.py.
"""

import asyncio
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from drivers.modbus import frames
from drivers.modbus.bus import Bus
from drivers.modbus.codec import lay
from drivers.modbus.frames import EVERYBODY, Request
from drivers.modbus.played import Fault, Unit
from drivers.modbus.settings import Settings
from gateway.errors import ConfigError
from gateway.model import Device

if TYPE_CHECKING:
    from ssl import SSLContext

LATE, OVERDUE = 1.5, 3.5
"""Times the time-out: an answer that comes too late, and one that comes after everything was waited for."""
TURNAROUND = 0.005
"""Seconds between the end of a question and the beginning of its answer on a line."""


class Emulator:
    """See gateway.ports.Emulator: it listens, so `address` is None."""

    def __init__(
        self,
        settings: Settings,
        devices: Sequence[Device],
        address: str | None = None,
        secret: Callable[[str], str] | None = None,
    ) -> None:
        assert address is None
        self._settings, self._secret = settings, secret
        self._devices = devices
        self._units: dict[int, Unit] = {}
        self._by_id: dict[str, Unit] = {}
        self._server: asyncio.Server | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        """Holds the certificate that it shows."""
        self.bus = None if settings.host else Bus(settings, self._answer_on_line, TURNAROUND)
        self._open: set[asyncio.StreamWriter] = set()
        self._spoken = b""
        self.requests = 0
        self.connections = 0

    async def start(self, port: int = 0) -> Mapping[str, str]:
        """Listen on 127.0.0.1 (`port` 0 is any free one), or on a pty where the link has a device file.

        ConfigError: with TLS, there is no certificate to be had.
        """
        for device in self._devices:
            if device.id not in self._by_id:
                self.connect(device)
        if self.bus:
            return await self.bus.start(port)
        context, trusted = await self._certified() if self._settings.tls else (None, {})
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", port, ssl=context)
        return {"host": "127.0.0.1", "port": str(self._server.sockets[0].getsockname()[1]), **trusted}

    async def _certified(self) -> tuple["SSLContext", Mapping[str, str]]:
        """What it shows, and the setting by which the gateway trusts that."""
        from drivers.modbus import tls

        self._folder = tempfile.TemporaryDirectory(prefix="lampione-")
        try:
            context, shown = await tls.far_end(self._settings, self._secret, Path(self._folder.name))
        except ConfigError:
            self._folder.cleanup()
            raise
        return context, {"ca": str(shown)}

    def connect(self, device: Device) -> None:
        """One more device is on the line."""
        serial = f"{self._settings.baud} {self._settings.format}" if self.bus else ""
        unit = Unit(device, asyncio.get_running_loop().time(), serial)
        self._by_id[device.id] = self._units[unit.address] = unit

    async def run(self) -> None:
        """Until cancelled."""
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            await self.stop()

    async def stop(self) -> None:
        """Close everything, as a power cut does."""
        if self.bus:
            self.bus.stop()
        if self._server:
            self._server.close()
            for writer in list(self._open):
                writer.transport.abort()
            await self._server.wait_closed()
            self._server = None
        if self._folder:
            self._folder.cleanup()

    def produced(self) -> Mapping[str, int]:
        """Point values answered so far, by device id."""
        return {device: unit.produced for device, unit in self._by_id.items()}

    def fault(self, device_id: str, fault: Fault | None) -> None:
        """From now on the device misbehaves so; None: no more."""
        assert fault is None or any(fault in get_args(faults) for faults in get_args(Fault))
        if self.bus and fault == "unplug":
            self.bus.unplug()
        elif self.bus and self._by_id[device_id].fault == "unplug":
            self.bus.plug()
        self._by_id[device_id].fault = fault

    def turn(self, device_id: str) -> None:
        """From now on the device has the other word order; again, and it has the first."""
        self._by_id[device_id].turn()

    def move(self, device_id: str, address: int, before: Sequence[tuple[int, int]] = ()) -> None:
        """From now on a SunSpec device begins there; `before` its own model come those: (id, length)."""
        self._by_id[device_id].move(address, before)

    def tell(self, device_id: str, fc: int, addr: int, words: Sequence[int]) -> None:
        """Hold registers that are no point: a setting, a code, a serial number; without `words`, they are not there."""
        registers = self._by_id[device_id].told[fc]
        registers.update(enumerate(words, addr)) if words else registers.pop(addr, None)

    def set(self, device_id: str, slug: str, value: float | str | tuple[int, ...]) -> None:
        """Hold a point at `value` (canonical), or at these very registers, from the first that it needs."""
        unit = self._by_id[device_id]
        field = unit.fields[slug]
        if not isinstance(value, tuple):
            laid = lay(field, value)
            value = tuple(laid.get(addr, 0) for addr in range(field.addr, field.end))
        unit.stored[slug] = value

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        self.connections += 1
        buffer = b""
        try:
            while more := await reader.read(1024):
                buffer += more
                while frame := frames.cut(buffer):
                    buffer = buffer[len(frame) :]
                    self.requests += 1
                    answer = await self._answer(frame)
                    if answer is None:
                        return
                    writer.write(answer)
                    await writer.drain()
        except (OSError, ValueError):
            return  # a peer that is gone, or that does not speak Modbus TCP, is not answered
        except asyncio.CancelledError:
            return  # the end of the emulator; nobody awaits this task
        finally:
            self._open.discard(writer)
            writer.close()

    async def _answer(self, frame: bytes) -> bytes | None:
        """The bytes to send (perhaps none), or None to close the connection."""
        answer, fault, hesitation = self._spoilt(frame)
        await asyncio.sleep(hesitation)
        before, self._spoken = self._spoken, answer
        match fault:
            case "close":
                return None
            case "truncated":
                return answer[:-1]
            case "garbage":
                return b"\xde\xad\xbe\xef\xfe\xed\xfa\xce"
            case "garbage_before":
                return b"\x00\xff" + answer
            case "garbage_after":
                return answer + b"\x00\xf8"
            case "duplicate":
                return answer + answer
            case "stale":
                return before + answer
            case "echo":
                return frame + answer
            case "echo_only":
                return frame
            case _:
                return answer

    def _answer_on_line(self, frame: bytes) -> tuple[bytes, str | None, float]:
        self.requests += 1
        return self._spoilt(frame)

    def _spoilt(self, frame: bytes) -> tuple[bytes, Fault | None, float]:
        """The answer to a question, with what is wrong inside it; the fault; seconds that it hesitates."""
        request = frames.parse(frame)
        unit, now = self._units.get(request.unit), asyncio.get_running_loop().time()
        if self.bus and request.unit == EVERYBODY:
            for each in self._units.values():
                each.write(request, now)
        if unit is None or (self.bus and unit.baud not in (None, self.bus.baud or unit.baud)):
            return b"", None, 0.0  # a line is silent where nobody lives, or nobody at this speed
        words: tuple[int, ...] = ()
        if request.function not in (frames.READ_HOLDING, frames.READ_INPUT):
            code = unit.write(request, now)
            self._units = {each.address: each for each in self._units.values()}
        else:
            read = unit.read(request, now)
            code, words = (read, ()) if isinstance(read, int) else (0, read)
        answer = frames.refuse(request, code) if code else frames.answer(request, words)
        previous, unit.previous = unit.previous, answer
        if unit.fault is None:
            return answer, None, 0.0
        hesitation = self._settings.timeout * {"late": LATE, "overdue": OVERDUE}.get(unit.fault, 0.0)
        if unit.fault == "previous":
            return answer[:2] + previous[2:], "previous", 0.0
        return _spoil(unit.fault, request, words, answer), unit.fault, hesitation


def _spoil(fault: Fault, request: Request, words: tuple[int, ...], answer: bytes) -> bytes:
    match fault:
        case "silent":
            return b""
        case "short":
            return frames.answer(request, words[:-1])
        case "long":
            return frames.answer(request, (*words, 0))
        case "wrong_function":
            return answer[:7] + bytes([answer[7] ^ 7]) + answer[8:]
        case "wrong_unit":
            return answer[:6] + bytes([answer[6] ^ 1]) + answer[7:]
        case "wrong_transaction":
            return bytes([answer[0] ^ 1]) + answer[1:]
        case "no_transaction":
            return b"\0\0" + answer[2:]
        case _ if fault.startswith("exception_"):
            return frames.refuse(request, int(fault.removeprefix("exception_")))
        case _:
            return answer
