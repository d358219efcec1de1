"""Which meter is it, and is it set as the profile expects? Decided from registers alone: pure, asks nothing itself."""

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Annotated, Protocol, TypeVar

from pydantic import BeforeValidator, model_validator
from pydantic import Field as Key

from drivers.modbus.codec import Field, Special, decode, precision
from drivers.modbus.kinds import WIDTH, Half, Kind
from drivers.modbus.points import ReadFunction, Register, WordOrder
from gateway.diagnostic import Mistake
from gateway.fields import Slug, Written

Bank = Mapping[int, Mapping[int, int]]
"""Registers that were read: function, address on the wire, word. What is missing was refused or never asked."""

SURE, PLAUSIBLE = 0.95, 0.5
"""How far a meter is to be believed that says its own code, or that merely says possible values."""


def number(written: object) -> object:
    """A code as makers print it, decimal or hexadecimal, as a number; other text stays text."""
    if not isinstance(written, str) or not re.fullmatch(r"0[xX][0-9a-fA-F]+|-?[0-9]+(\.[0-9]+)?", written):
        return written
    return float(int(written, 16) if written[:2] in ("0x", "0X") else written)


class Told(Written):
    """A register that says something of the device itself."""

    fc: ReadFunction
    addr: Register
    type: Kind = Kind.U16
    words: Annotated[int, Key(ge=1, le=125)] | None = None
    bytes: Half = "both"
    word_order: WordOrder = "big"
    alone: bool = False
    """The device answers this address only in a request of its own."""

    @model_validator(mode="after")
    def _has_a_length(self) -> "Told":
        if (self.type in WIDTH) == (self.words is not None):
            fix = "Give `words` for `str` and `bcd`, and for nothing else."
            raise Mistake("bad_register", f"{self.type}: a wrong length", fix, ("type",))
        return self

    def field(self, addr: int) -> Field:
        size = WIDTH.get(self.type) or self.words or 1
        return Field(self.fc, addr, self.type, self.word_order == "little", special=Special(size, 0, size, self.bytes))


class Check(Told):
    """What it must equal, be one of, start with, lie in, or not be; as it stands there, before any scale."""

    equals: Annotated[float | str, BeforeValidator(number)] | None = None
    one_of: Sequence[Annotated[float | str, BeforeValidator(number)]] = ()
    starts: Sequence[str] = ()
    """What a text begins with."""
    range: tuple[float, float] | None = None
    others: Mapping[Slug, Sequence[Annotated[float | str, BeforeValidator(number)]]] = {}
    """What other meters say in this register, by the profile for each."""
    not_: Annotated[Sequence[Annotated[float, BeforeValidator(number)]], Key(alias="not")] = ()

    @model_validator(mode="after")
    def _asks_something(self) -> "Check":
        if self.equals is None and not (self.one_of or self.starts or self.range or self.not_):
            why = "a check says what the register must hold"
            raise Mistake("missing_key", why, "Add `equals`, `one_of`, `starts`, `range` or `not`.")
        return self

    @property
    def exact(self) -> bool:
        """Whether it names the maker's own code: a range alone fits many meters."""
        return self.equals is not None or bool(self.one_of or self.starts)

    def other(self, value: float | str, kind: Kind) -> str | None:
        """The profile of the meter that says so; of a text, how it begins."""
        for name, codes in self.others.items():
            if any(
                _alike(value, code, kind) or (isinstance(value, str) and value.startswith(str(code))) for code in codes
            ):
                return name
        return None

    def holds(self, field: Field, bank: Bank) -> bool:
        words = _read(field, bank)
        value, _ = decode(field, words) if words else (None, None)
        if value is None:
            return False
        wanted = (*self.one_of, *(() if self.equals is None else (self.equals,)))
        if wanted and not any(_alike(value, one, field.kind) for one in wanted):
            return False
        if self.starts and not str(value).startswith(tuple(self.starts)):
            return False
        if self.range and not (isinstance(value, int | float) and self.range[0] <= value <= self.range[1]):
            return False
        return value not in self.not_


Checked = TypeVar("Checked", bound=Told)


class Verify(Check):
    """A setting of the device that the points depend on."""

    else_word_order: WordOrder | None = None
    """Where the register holds it only in this word order, all points have this order."""
    say: str = ""
    """What is wrong, and what to do, where it does not hold."""


def bank(blocks: Mapping[int, Mapping[int, Sequence[int]]]) -> dict[int, dict[int, int]]:
    """Single registers from the blocks in which they were read."""
    return {
        fc: {addr + n: word for addr, words in inner.items() for n, word in enumerate(words)}
        for fc, inner in blocks.items()
    }


class Setting(Enum):
    """What the registers of `verify` say of the device."""

    AS_WRITTEN = "as_written"
    TURNED = "turned"
    """The other word order than the profile's."""
    WRONG = "wrong"
    UNKNOWN = "unknown"
    """A register could not be read."""


@dataclass(frozen=True, slots=True)
class Verdict:
    setting: Setting
    say: str = ""
    word_order: WordOrder | None = None
    """That of all values, where it is turned."""


AS_WRITTEN = Verdict(Setting.AS_WRITTEN)


class Known(Protocol):
    """What is asked of a profile here."""

    @property
    def profile(self) -> str: ...
    @property
    def match(self) -> Sequence[Check]: ...
    @property
    def verify(self) -> Sequence[Verify]: ...
    @property
    def serial_number(self) -> Told | None: ...
    def wire(self, written: int, fc: int) -> tuple[int, int]: ...


@dataclass(frozen=True, slots=True)
class Match:
    """A profile that fits, and how far that is to be believed (0 to 1)."""

    profile: Known
    confidence: float


def requests(profile: Known, checks: Iterable[Told]) -> list[tuple[int, int, int]]:
    """(function, address, count) of each register that the checks need, each once, in their order."""
    fields = (field for _, field in located(profile, checks))
    return list(dict.fromkeys((field.fc, field.addr, field.width) for field in fields))


def located(profile: Known, checks: Iterable[Checked]) -> Iterator[tuple[Checked, Field]]:
    for check in checks:
        yield check, check.field(profile.wire(check.addr, check.fc)[1])


def matches(profiles: Iterable[Known], bank: Bank) -> list[Match]:
    """The profiles all of whose `match` hold, best first: more exact checks, then more checks."""
    found = []
    for profile in profiles:
        checks = list(located(profile, profile.match))
        fit = checks and all(fits(profile, check, field, bank) for check, field in checks)
        if fit and any(any(_read(field, bank)) for _, field in checks):  # nothing but zeros says nothing
            exact = sum(check.exact for check, _ in checks)
            found.append((exact, len(checks), Match(profile, SURE if exact else PLAUSIBLE)))
    return [match for _, _, match in sorted(found, key=lambda one: one[:2], reverse=True)]


def fits(profile: Known, check: Check, field: Field, bank: Bank) -> bool:
    """Whether a check of `match` holds, in either word order of a meter that has two."""
    if check.holds(field, bank):
        return True
    others = {one.else_word_order for one in profile.verify} - {None}
    return any(check.holds(replace(field, low_word_first=order == "little"), bank) for order in others)


def needed(profile: Known) -> list[Told]:
    """What a device is asked before its values are believed: its settings, its maker's code, its serial number."""
    told: list[Told] = [*profile.verify, *(check for check in profile.match if check.exact)]
    return [*told, profile.serial_number] if profile.serial_number else told


def verdict(profile: Known, bank: Bank) -> Verdict:
    """Whether the device is set as its profile is written; what is not known is never taken for right.

    A maker's code that can be read and is another one is another meter. Where it cannot be read, it says nothing:
    older types of a series lack it.
    """
    for check, field in located(profile, profile.match):
        if check.exact and _read(field, bank) and not check.holds(field, bank):
            said, _ = decode(field, _read(field, bank))
            name = profile.profile.partition("/")[0]
            if said is not None and (other := check.other(said, field.kind)):
                return Verdict(Setting.WRONG, f"it answers as {other}, not {name}. Choose profile {other}")
            why = f"it answers as another meter than {name}: its code at {field.addr:#06x} is {_shown(said)}"
            return Verdict(Setting.WRONG, f"{why}. Choose the profile of the meter that is there")
    order: WordOrder | None = None
    for verify, field in located(profile, profile.verify):
        if not _read(field, bank):
            return Verdict(Setting.UNKNOWN, f"register {field.addr:#06x}, which says how it is set, cannot be read")
        if verify.holds(field, bank):
            continue
        if verify.else_word_order is None:
            return Verdict(Setting.WRONG, verify.say or f"register {field.addr:#06x} is not as the profile needs it")
        turned = verify.model_copy(update={"word_order": verify.else_word_order})
        if not turned.holds(turned.field(field.addr), bank):
            return Verdict(Setting.WRONG, verify.say or f"register {field.addr:#06x} shows no word order")
        order = verify.else_word_order
    return Verdict(Setting.TURNED, word_order=order) if order else AS_WRITTEN


def serials(profile: Known, bank: Bank) -> tuple[str, ...]:
    """The number of the device, in each word order that it may be set to; nothing where it says none."""
    if profile.serial_number is None:
        return ()
    [(_, field)] = located(profile, [profile.serial_number])
    words = _read(field, bank)
    if not any(words) or all(word == 0xFFFF for word in words):
        return ()
    others = {one.else_word_order for one in profile.verify} - {None}
    fields = (field, *(replace(field, low_word_first=order == "little") for order in others))
    found = (decode(each, words)[0] for each in fields)
    return tuple(dict.fromkeys(str(number) for number in found if number is not None))


def _read(field: Field, bank: Bank) -> list[int]:
    """The registers of `field`, or nothing where one of them was not read."""
    words = [bank.get(field.fc, {}).get(addr) for addr in range(field.addr, field.end)]
    there = [word for word in words if word is not None]
    return there if len(there) == len(words) else []


def _shown(value: float | str | None) -> str:
    return f"{value:g}" if isinstance(value, float | int) else str(value)


def _alike(value: float | str, wanted: float | str, kind: Kind) -> bool:
    if isinstance(value, str) or isinstance(wanted, str):
        return str(value).strip() == str(wanted).strip()
    return math.isclose(value, wanted, rel_tol=precision(kind))
