"""Plays the far end of a Modbus link: any profiles, backwards through the codec, with faults on command.

Modbus TCP is served here, with TLS or without; a line by bus.py.
"""

import asyncio
import tempfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from drivers.modbus import frames, identify, sunspec
from drivers.modbus.bus import Bus, LineFault
from drivers.modbus.codec import Field, Kind, decode, encode, lay
from drivers.modbus.examples import needed
from drivers.modbus.frames import EVERYBODY, WRITE_SEVERAL, Request
from drivers.modbus.kinds import ACCUMULATORS
from drivers.modbus.scenario import Day
from drivers.modbus.settings import DeviceSettings, Place, Profile, Settings
from gateway.errors import ConfigError
from gateway.model import Device

if TYPE_CHECKING:
    from ssl import SSLContext

Fault = LineFault | Literal[
    "exception_1", "exception_2", "exception_3", "exception_4", "exception_6", "exception_11", "silent", "late",
    "overdue", "truncated", "short", "long", "wrong_function", "wrong_unit", "wrong_transaction", "no_transaction",
    "previous", "garbage", "close",
]  # fmt: skip
LATE, OVERDUE = 1.5, 3.5
"""Times the time-out: an answer that comes too late, and one that comes after everything was waited for."""
TURNAROUND = 0.005
"""Seconds between the end of a question and the beginning of its answer on a line."""
BAD_ADDRESS, BAD_VALUE, BAD_FUNCTION = 2, 3, 1


class _Unit:
    """One emulated device: its registers now."""

    def __init__(self, device: Device, now: float) -> None:
        assert isinstance(device.profile, Profile)
        self.profile = device.profile
        self.day = Day(device.id, now)
        self.limits = self.profile.limits()
        self.places: Mapping[str, Place] = {**self.profile.points, **self.profile.writes}
        self.fields: dict[str, Field] = dict((*self.profile.fields(), *self.profile.writable()))
        self.stored: dict[str, tuple[int, ...]] = {
            slug: encode(field, _first(self.profile, slug) * field.factor + field.offset)
            for slug, field in self.profile.writable()
        }
        self.number = str(zlib.crc32(device.id.encode()) >> 1)
        """Its serial number."""
        self.told = _told(self.profile, int(self.number))
        """What its maker's registers say of it, by function and address."""
        assert isinstance(device.settings, DeviceSettings)
        self.address = device.settings.address
        if self.profile.assign:
            unit = self.profile.assign.unit
            self.told[3] |= {one.addr + n: 0 for one in self.profile.assign.holdings for n in range(one.width)}
            self.told[3] |= dict(enumerate(encode(unit.field, self.address), unit.addr))
        told = [*self.profile.match, *identify.needed(self.profile)]
        self.codes = {question: one.alone for one in told for question in identify.requests(self.profile, [one])}
        """(function, address, count) that ask what it is, and whether it says so only there, not what it measures."""
        if self.profile.sunspec:
            self.move(sunspec.BASES[0], ())
        self.fault: Fault | None = None
        self.produced = 0
        self.previous = b""

    def read(self, request: Request, now: float) -> tuple[int, ...] | int:
        """The registers asked for, or an exception code."""
        line = self.profile.line
        if not 1 <= request.count <= min(line.max_regs, 125):
            return BAD_VALUE
        asked = (request.function, request.addr, request.count)
        if line.pairs and (request.addr % 2 or request.count % 2) and asked not in self.codes:
            return BAD_ADDRESS
        end = request.addr + request.count
        if any(
            fc == request.function and low < end and high >= request.addr for fc, low, high in self.limits.forbidden
        ):
            return BAD_ADDRESS
        self.day.advance(now)
        whole = 0
        words = {addr: word for addr, word in self.told.get(request.function, {}).items() if request.addr <= addr < end}
        fields = {} if self.codes.get(asked) else self.fields
        for slug, field in sorted(fields.items(), key=lambda pair: pair[0] in self.stored):  # what is held wins
            if field.fc == request.function and field.addr < end and field.end > request.addr:
                if slug in self.limits.alone and (field.addr, field.width) != (request.addr, request.count):
                    return BAD_ADDRESS
                whole += request.addr <= field.addr and field.end <= end
                words.update(self._registers(slug, field))
        wanted = range(request.addr, end)
        missing = [addr for addr in wanted if addr not in words]
        if len(missing) == request.count or (missing and not line.max_hole):
            return BAD_ADDRESS
        self.produced += whole
        return tuple(words.get(addr, 0) for addr in wanted)

    def write(self, request: Request) -> int:
        """Store what is written and return 0, or an exception code."""
        for slug, field in self.profile.writable():
            place = self.profile.writes[slug]
            if field.addr == request.addr and field.width == request.count:
                if place.fc != request.function:
                    return BAD_FUNCTION
                self.stored[slug] = request.words
                return 0
        for holding in self.profile.assign.holdings if self.profile.assign else ():
            if (holding.fc, holding.addr, holding.width) == (request.function, request.addr, request.count):
                self.told[3] |= dict(enumerate(request.words, request.addr))
                if self.profile.assign and holding is self.profile.assign.unit:
                    self.address = int(decode(holding.field, request.words)[0] or 0)
                return 0
        return BAD_ADDRESS

    def turn(self) -> None:
        """Somebody sets it to the other word order."""
        for slug, field in self.fields.items():
            if field.special is None:
                self.fields[slug] = replace(field, low_word_first=not field.low_word_first)
                if slug in self.stored:
                    self.stored[slug] = self.stored[slug][::-1]
        for check, field in identify.located(self.profile, self.profile.verify):
            if check.else_word_order:
                registers, places = self.told[field.fc], range(field.addr, field.end)
                registers.update(zip(places, [registers[addr] for addr in reversed(places)], strict=True))

    def move(self, address: int, before: Sequence[tuple[int, int]]) -> None:
        """A SunSpec device has `SunS` at `address`, and models that nobody knows (id, length) before its own."""
        model = self.profile.sunspec[0]
        layout = sunspec.layout([model])
        common = {"Mn": "Lampione", "Md": "Emulated", "SN": self.number}
        words = [*sunspec.MARKER, *sunspec.common(common)]
        for one, length in before:
            words += [one, length, *([0x5555] * length)]
        own = address + len(words)
        words += [model, layout.length, *layout.rest(), sunspec.LAST, 0]
        self.told[sunspec.FC] = dict(enumerate(words, address))
        self.fields = {slug: sunspec.located(field, own, model, layout.length) for slug, field in self.profile.fields()}

    def _registers(self, slug: str, field: Field) -> dict[int, int]:
        """Address to register: what is held, or what the day brings."""
        if slug in self.stored:
            held = dict(enumerate(self.stored[slug], field.addr))
            return {addr: held[addr] for addr in needed(field)}
        place = self.places[slug]
        value = self.day.value(place.quantity, place.phase, place.direction)
        said = (value - field.offset) / field.factor
        if not field.low <= said <= field.high:
            value = (field.low + field.high) / 2 * field.factor + field.offset
        return lay(field, value or 1000.0 if field.kind in ACCUMULATORS else value)  # 0 would be no counter


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
        self._units: dict[int, _Unit] = {}
        self._by_id: dict[str, _Unit] = {}
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
        unit = _Unit(device, asyncio.get_running_loop().time())
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
        unit = self._units.get(request.unit)
        if self.bus and request.unit == EVERYBODY:
            for each in self._units.values():
                each.write(request)
        if unit is None:
            return b"", None, 0.0  # a line is silent where nobody lives
        words: tuple[int, ...] = ()
        if request.function in (frames.WRITE_ONE, WRITE_SEVERAL):
            code = unit.write(request)
            self._units = {each.address: each for each in self._units.values()}
        else:
            read = unit.read(request, asyncio.get_running_loop().time())
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


def _told(profile: Profile, number: int) -> dict[int, dict[int, int]]:
    """Registers of a device that is what its profile looks for, is set as it needs, and has a number of its own."""
    found: dict[int, dict[int, int]] = {3: {}, 4: {}}
    for example in profile.examples:
        if example.identifies:
            for fc, registers in identify.bank(example.regs).items():
                found[fc] |= registers
    said: list[tuple[identify.Told, float | str]] = []
    for check in profile.verify:
        value = next((one for one in (check.equals, *check.one_of, *check.starts) if one is not None), None)
        said.append((check, sum(check.range or (0, 2)) / 2 if value is None else value))
    if profile.serial_number:
        said.append((profile.serial_number, str(number) if profile.serial_number.type is Kind.STR else number))
    for told, value in said:
        [(_, field)] = identify.located(profile, [told])
        found[field.fc] |= lay(field, value)
    return found


def _first(profile: Profile, slug: str) -> float:
    """What a setting is before anybody writes it, in the device's unit: the highest it may be."""
    return profile.writes[slug].bounds[1] or 0.0
