"""One emulated device: its registers, backwards through the codec, and how its maker lets them be asked."""

import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

from drivers.modbus import identify, sunspec
from drivers.modbus.assign import Assign, Coded, Place
from drivers.modbus.bus import LineFault
from drivers.modbus.codec import Field, Kind, decode, encode, lay
from drivers.modbus.examples import needed
from drivers.modbus.frames import Request
from drivers.modbus.kinds import ACCUMULATORS
from drivers.modbus.scenario import Day
from drivers.modbus.settings import DeviceSettings, Profile
from drivers.modbus.settings import Place as Point
from gateway.model import Device

Fault = LineFault | Literal[
    "exception_1", "exception_2", "exception_3", "exception_4", "exception_6", "exception_11", "silent", "late",
    "overdue", "truncated", "short", "long", "wrong_function", "wrong_unit", "wrong_transaction", "no_transaction",
    "previous", "garbage", "close",
]  # fmt: skip
BAD_ADDRESS, BAD_VALUE, BAD_FUNCTION = 2, 3, 1
OPEN = 10.0
"""Seconds for which settings stay open."""


class Unit:
    """One emulated device: its registers now."""

    def __init__(self, device: Device, now: float, serial: str = "") -> None:
        """`serial`: how its line is set, 9600 8N1."""
        assert isinstance(device.profile, Profile)
        self.profile = device.profile
        self.day = Day(device.id, now)
        self.limits = self.profile.limits()
        self.places: Mapping[str, Point] = {**self.profile.points, **self.profile.writes}
        self.fields: dict[str, Field] = dict((*self.profile.fields(), *self.profile.writable()))
        self.stored: dict[str, tuple[int, ...]] = {
            slug: encode(field, _first(self.profile, slug) * field.factor + field.offset)
            for slug, field in self.profile.writable()
        }
        number = self.profile.serial_number
        digits = 2 * (number.words or 8) if number else 16
        self.number = str(zlib.crc32(device.id.encode()) >> 1)[-digits:]
        """Its serial number."""
        self.told = _told(self.profile, int(self.number))
        """What its maker's registers say of it, by function and address."""
        assert isinstance(device.settings, DeviceSettings)
        self.address = device.settings.address
        for fc, spans in self.profile.answers.items():
            self.told[fc] = {addr: 0 for first, last in spans for addr in range(first, last + 1)} | self.told[fc]
        self.baud: int | None = None
        """The speed that it was set to over the line; before, it hears at any."""
        self._open_until = -math.inf
        if assign := self.profile.assign:
            meant = assign.meant(self.address, serial)
            for name, holding in assign.holdings.items():
                self.told[3] |= dict(enumerate(encode(holding.field, meant.get(name, 0)), holding.addr))
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
        if line.functions and request.function not in line.functions:
            return BAD_FUNCTION
        if not 1 <= request.count <= min(line.max_regs, 125):
            return BAD_VALUE
        if line.one_table and request.function != self.profile.defaults.fc:
            request = replace(request, function=self.profile.defaults.fc)
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
        told = self.told[3] | self.told[4] if line.one_table else self.told.get(request.function, {})
        words = {addr: word for addr, word in told.items() if request.addr <= addr < end}
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

    def write(self, request: Request, now: float) -> int:
        """Store what is written and return 0, or an exception code."""
        for slug, field in self.profile.writable():
            place = self.profile.writes[slug]
            if field.addr == request.addr and field.width == request.count:
                if place.fc != request.function:
                    return BAD_FUNCTION
                self.stored[slug] = request.words
                return 0
        return self._set(self.profile.assign, request, now) if self.profile.assign else BAD_ADDRESS

    def _set(self, assign: Assign, request: Request, now: float) -> int:
        """Take an address or a speed, as its maker has it written."""
        opening, command = assign.opening, assign.command
        asked = (request.function, request.addr, request.count)
        if opening and (*asked, request.words) == (opening.fc, opening.addr, len(opening.words), tuple(opening.words)):
            self._open_until = now + OPEN
            return 0
        if opening and now > self._open_until:
            return BAD_VALUE
        if command and asked == (command.fc, command.addr, len(command.words)):
            for name, word in zip(command.words, request.words, strict=True):
                if isinstance(name, str):
                    self._take(assign, name, (word,))
                elif name != word:
                    return BAD_VALUE
            return 0
        for name, holding in () if command else assign.holdings.items():
            if asked == (holding.fc, holding.addr, holding.width):
                self._take(assign, name, request.words)
                return 0
        return BAD_ADDRESS

    def _take(self, assign: Assign, name: Place, words: Sequence[int]) -> None:
        holding = assign.holdings[name]
        self.told[3] |= dict(enumerate(words, holding.addr))
        number, _ = decode(holding.field, words)
        if name == "unit":
            self.address = int(number or 0)
        if name == "baud" and isinstance(holding, Coded):
            self.baud = next((int(speed) for speed, code in holding.codes.items() if code == number), self.baud)

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
        self.told[sunspec.FC][address + sunspec.ADDRESS_AT] = self.address
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
