"""A new meter gets its own address and the line's speed: what its profile says of that, and how it is done.

Every new meter answers at the maker's address, so there may be only one on the line; and a meter that has moved is
believed only when it answers where it should be now.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Annotated, Protocol

from pydantic import Field as Key

from drivers.modbus.codec import Field, decode, encode
from drivers.modbus.frames import NoAnswer, Refused
from drivers.modbus.kinds import WIDTH, Kind
from drivers.modbus.points import Register, WordOrder, WriteFunction
from gateway.errors import DeviceError
from gateway.fields import Written

SETTLE = 1.0
"""Seconds that a meter is given to take a new setting."""


class Wire(Protocol):
    async def read(self, unit: int, fc: int, addr: int, count: int) -> list[int]: ...
    async def write(self, unit: int, fc: int, addr: int, words: list[int]) -> None: ...
    def close(self) -> None: ...


class Holding(Written):
    """A holding register, or several, that say one number; addressed as on the wire."""

    fc: WriteFunction = 16
    addr: Register
    type: Kind = Kind.U16
    word_order: WordOrder = "big"

    @property
    def field(self) -> Field:
        return Field(3, self.addr, self.type, self.word_order == "little")

    @property
    def width(self) -> int:
        return WIDTH[self.type]


class Coded(Holding):
    """One that holds a code: {9600: 2}, {8N1: 0}."""

    codes: Annotated[Mapping[str, float], Key(min_length=1)]


class Assign(Written):
    """How a new one gets its address and speed over the line."""

    unit: Holding
    baud: Coded | None = None
    format: Coded | None = None
    keys: str = ""
    """What somebody must do at the meter itself for it, as one sentence."""

    @property
    def holdings(self) -> list[Holding]:
        return [self.unit, *(one for one in (self.format, self.baud) if one)]


def settings(assign: Assign, unit: int, serial: str) -> list[tuple[Holding, float]]:
    """What is written: the address, and the line setting where it is not ''. LookupError: it cannot be set so."""
    baud, _, form = serial.partition(" ")
    wanted: list[tuple[Holding, float]] = [(assign.unit, unit)]
    for coded, word in ((assign.format, form), (assign.baud, baud)):
        if word:
            wanted.append((coded, coded.codes[word]) if coded else _none(word))
    return wanted


def _none(word: str) -> tuple[Holding, float]:
    raise LookupError(word)


async def move(wire_at: Callable[[str], Wire], assign: Assign, old: tuple[int, str], new: tuple[int, str]) -> None:
    """From (unit, line setting) to another; returns when it answers there. DeviceError: what became of it."""
    (unit, serial), (wanted, wanted_serial) = old, new
    at = unit
    wire = wire_at(serial)
    try:
        changes = settings(assign, wanted, wanted_serial if wanted_serial != serial else "")
        for holding, number in changes:
            await _write(wire, at, holding, number)
            if holding is assign.unit:
                at = wanted
                await asyncio.sleep(SETTLE)
    finally:
        wire.close()
    await asyncio.sleep(SETTLE)
    wire = wire_at(wanted_serial)
    try:
        await _check(wire, assign, wanted)
    finally:
        wire.close()


async def _write(wire: Wire, unit: int, holding: Holding, number: float) -> None:
    """Some meters answer from where they are then, so that a lost answer says nothing."""
    try:
        await wire.write(unit, holding.fc, holding.addr, list(encode(holding.field, number)))
    except NoAnswer:
        return
    except Refused as error:
        raise DeviceError(f"unit {unit} refuses register {holding.addr:#06x}: {error}") from None


async def _check(wire: Wire, assign: Assign, unit: int) -> None:
    field = assign.unit.field
    try:
        value, _ = decode(field, await wire.read(unit, field.fc, field.addr, field.width))
    except (NoAnswer, Refused) as error:
        raise DeviceError(f"nobody answers as unit {unit}: {error}") from None
    if value != unit:
        raise DeviceError(f"unit {unit} says that its address is {value}")
