"""A new meter gets its own address and the line's speed: what its profile says of that, and how it is done.

Every new meter answers at the maker's address, so there may be only one on the line. Before anything is written, the
registers must say how it is set now; and a meter that has moved is believed only when it answers where it should be.
"""

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Literal, Protocol

from pydantic import BeforeValidator
from pydantic import Field as Key

from drivers.modbus.codec import Field, decode, encode
from drivers.modbus.frames import NoAnswer, Refused
from drivers.modbus.kinds import WIDTH, Kind
from drivers.modbus.points import Register, WordOrder, WriteFunction, digits
from gateway.errors import DeviceError
from gateway.fields import Whole, Written

SETTLE = 1.0
"""Seconds that a meter is given to take a new setting."""
Word = Annotated[Whole, Key(ge=0, le=0xFFFF)]


class Unwritten(DeviceError):
    """Why nothing was written."""


class Wire(Protocol):
    async def read(self, unit: int, fc: int, addr: int, count: int) -> list[int]: ...
    async def write(self, unit: int, fc: int, addr: int, words: Sequence[int]) -> None: ...
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
    """One that holds a code: {9600: 2}, {8N1: 0}. What has none cannot be set."""

    codes: Mapping[str, float] = {}


class Opening(Written):
    """What is written first, so that settings can be written for some seconds."""

    fc: Annotated[Literal[6, 16, 40], BeforeValidator(digits)] = 16
    addr: Register
    words: Annotated[Sequence[Word], Key(min_length=1)]


Place = Literal["unit", "baud", "format"]


class Command(Written):
    """One write that sets everything at once; what does not change is written as it stands."""

    fc: Annotated[Literal[16], BeforeValidator(digits)] = 16
    addr: Register
    words: Annotated[Sequence[Place | Word], Key(min_length=1)]


class Assign(Written):
    """How a new one gets its address and speed over the line."""

    unit: Holding
    """Where its address stands, and is written to where there is no `command`."""
    baud: Coded | None = None
    format: Coded | None = None
    opening: Opening | None = None
    command: Command | None = None
    keys: str = ""
    """What somebody must do at the meter itself for it, as one sentence."""

    @property
    def holdings(self) -> dict[Place, Holding]:
        """In the order in which they are written: who has the new speed is not heard any more."""
        places: dict[Place, Holding | None] = {"unit": self.unit, "format": self.format, "baud": self.baud}
        return {name: one for name, one in places.items() if one}

    def meant(self, unit: int, serial: str) -> dict[Place, float]:
        """What stands in the holdings of a meter that is set so, as far as there are codes for it."""
        baud, _, form = serial.partition(" ")
        found: dict[Place, float] = {"unit": unit}
        for name, coded, word in (("format", self.format, form), ("baud", self.baud, baud)):
            if coded and word in coded.codes:
                found[name] = coded.codes[word]  # type: ignore[index]
        return found


def changes(assign: Assign, old: tuple[int, str], new: tuple[int, str]) -> dict[Place, float]:
    """What is written: what differs, the address first. LookupError: it cannot be set so."""
    meant = assign.meant(*new)
    (unit, serial), (wanted, wanted_serial) = old, new
    baud, _, form = serial.partition(" ")
    wanted_baud, _, wanted_form = wanted_serial.partition(" ")
    differ = {"unit": unit != wanted, "format": form != wanted_form, "baud": baud != wanted_baud}
    names: list[Place] = ["unit", "format", "baud"]
    return {name: meant[name] for name in names if differ[name]}


async def move(wire_at: Callable[[str], Wire], assign: Assign, old: tuple[int, str], new: tuple[int, str]) -> None:
    """From (unit, line setting) to another; returns when it answers there. DeviceError: what became of it.

    LookupError: it cannot be set so.
    """
    (unit, serial), (wanted, wanted_serial) = old, new
    changed = changes(assign, old, new)
    wire = wire_at(serial)
    try:
        now = await _as_it_is(wire, assign, unit, serial)
        if assign.opening:
            await _write(wire, unit, assign.opening.fc, assign.opening.addr, assign.opening.words)
        if assign.command:
            said = now | changed
            words = [int(said[word]) if isinstance(word, str) else word for word in assign.command.words]
            await _write(wire, unit, assign.command.fc, assign.command.addr, words)
        else:
            await _write_each(wire, assign, unit, changed)
    finally:
        wire.close()
    await asyncio.sleep(SETTLE)
    wire = wire_at(wanted_serial)
    try:
        if (said_unit := await _stands(wire, assign.unit, wanted)) != wanted:
            raise DeviceError(f"unit {wanted} says that its address is {said_unit:g}")
    except (NoAnswer, Refused) as error:
        raise DeviceError(f"nobody answers as unit {wanted}: {error}") from None
    finally:
        wire.close()


async def _as_it_is(wire: Wire, assign: Assign, unit: int, serial: str) -> dict[Place, float]:
    """What its registers say of how it is set. Unwritten: it is not as it answers, so they are other registers."""
    found: dict[Place, float] = {}
    meant = assign.meant(unit, serial)
    for name, holding in assign.holdings.items():
        try:
            found[name] = await _stands(wire, holding, unit)
        except (NoAnswer, Refused) as error:
            raise Unwritten(f"its {name} cannot be read from register {holding.addr:#06x}: {error}") from None
        if name in meant and found[name] != meant[name]:
            where = f"register {holding.addr:#06x} says {found[name]:g}, where its {name} should stand"
            raise Unwritten(f"{where} as {meant[name]:g}")
    return found


async def _stands(wire: Wire, holding: Holding, unit: int) -> float:
    """The number that it holds; asked for once more where an answer is lost."""
    field = holding.field
    question = (unit, field.fc, field.addr, field.width)
    try:
        words = await wire.read(*question)
    except NoAnswer:
        words = await wire.read(*question)
    value, _ = decode(field, words)
    return float(value) if isinstance(value, int | float) else math.nan


async def _write_each(wire: Wire, assign: Assign, unit: int, changed: Mapping[Place, float]) -> None:
    """The address first: some meters have it at once, others when they start anew."""
    at = unit
    for name, number in changed.items():
        holding = assign.holdings[name]
        await _write(wire, at, holding.fc, holding.addr, encode(holding.field, number))
        if name == "unit" and len(changed) > 1:
            await asyncio.sleep(SETTLE)
            at = int(number) if await _is_there(wire, assign, int(number)) else unit


async def _is_there(wire: Wire, assign: Assign, unit: int) -> bool:
    try:
        return await _stands(wire, assign.unit, unit) == unit
    except (NoAnswer, Refused):
        return False


async def _write(wire: Wire, unit: int, fc: int, addr: int, words: Sequence[int]) -> None:
    """Some meters answer from where they are then, so that a lost answer says nothing."""
    try:
        await wire.write(unit, fc, addr, list(words))
    except NoAnswer:
        return
    except Refused as error:
        raise DeviceError(f"unit {unit} refuses register {addr:#06x}: {error}") from None
