"""Registers to values and back: pure, so that the driver, the emulator and a profile's own examples use the same code.

Precision. A 32-bit float becomes the shortest decimal that is that float and no other (230.2, not
230.1999969482422): nothing is lost and nothing is made up. A scale or a unit conversion is then rounded to
15 significant digits, which removes binary noise (1234.56 kWh is 1234560 Wh) and is finer than any meter.
Whole numbers with whole factors stay exact, however large.
"""

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from drivers.modbus.kinds import LAYOUT, PLAIN, WIDTH, Half, Kind, pack, power_of_ten, unpack
from gateway.model import Reason

__all__ = ["WIDTH", "Field", "Kind", "Special", "decode", "decode_at", "encode", "lay", "precision", "same"]

_F32 = LAYOUT[Kind.F32]
MOST_DIGITS = 10
"""A scale register says at most 10^10 and at least 10^-10 (SunSpec); anything else is no scale."""


@dataclass(frozen=True, slots=True)
class Special:
    """What a field has beside a number in registers of its own. All places are registers from `Field.addr`.

    The registers that a value depends on lie inside its own span, so that one answer always holds them all.
    """

    span: int
    """Registers from the first to the last that it needs."""
    at: int = 0
    """Where the value begins."""
    size: int = 1
    """How many registers the value takes."""
    half: Half = "both"
    bits: tuple[int, int] | None = None
    """(lowest, highest) bit of an unsigned value."""
    words: Mapping[int, str] | None = None
    """Number to word: an enumeration."""
    exponent_at: int | None = None
    """A signed register e: times 10^e."""
    scale_at: int | None = None
    scales: Mapping[int, float] | None = None
    """What the register at `scale_at` says, and the factor that it means."""
    minus_at: int | None = None
    """Another value of the same kind, to be taken off."""
    masks: tuple[tuple[int, int], ...] = ()
    """(mask, pattern): no value where raw & mask is the pattern."""
    status_at: int | None = None
    status: Mapping[int, Reason] | None = None
    """Bit of the register at `status_at` to why there is no value."""
    marks: tuple[tuple[int, int], ...] = ()
    """(place, register) that say what block this is: where they are others, it is another one."""


@dataclass(frozen=True, slots=True)
class Field:
    """Where one value lies and what it means: canonical = raw * scale * factor + offset.

    `addr` is the address on the wire, from 0. `invalid` lists raw patterns (unsigned, high word first)
    that mean "no value"; `low` and `high` bound the value in the device's unit, raw * scale.
    """

    fc: int
    addr: int
    kind: Kind
    low_word_first: bool = False
    scale: float = 1
    factor: float = 1
    offset: float = 0
    invalid: tuple[int, ...] = ()
    low: float = -math.inf
    high: float = math.inf
    special: Special | None = None

    @property
    def width(self) -> int:
        """Registers to be read for it."""
        return self.special.span if self.special else WIDTH[self.kind]

    @property
    def end(self) -> int:
        """The first register after it."""
        return self.addr + self.width


def decode(field: Field, words: Sequence[int]) -> tuple[int | float | str | None, Reason | None]:
    """The canonical value in `words` (field.width of them), or None and why there is none."""
    return decode_at(field, struct.pack(f">{len(words)}H", *words), 0)


def decode_at(field: Field, block: bytes, start: int) -> tuple[int | float | str | None, Reason | None]:
    """As `decode`, for the registers that begin `start` bytes into the bytes of a block."""
    if field.special is not None or field.kind not in PLAIN:
        return _special(field, field.special or Special(field.width, size=field.width), block, start)
    if field.low_word_first:
        block, start = _turned(block[start : start + 2 * field.width]), 0
    if field.invalid and int.from_bytes(block[start : start + 2 * field.width], "big") in field.invalid:
        return None, Reason.ABSENT
    layout = LAYOUT[field.kind]
    number: int | float = layout.unpack_from(block, start)[0]
    if isinstance(number, float):
        if not math.isfinite(number):
            return None, Reason.NOT_A_NUMBER
        if layout is _F32:
            number = _shortest(number)
    return _meant(field, number)


def encode(field: Field, value: float | str) -> tuple[int, ...]:
    """The registers of the value alone that say `value` (canonical), to the nearest the field can.

    ValueError: it cannot hold it.
    """
    special = field.special or Special(field.width, size=WIDTH[field.kind])
    if special.words:
        number: float | str = next((n for n, word in special.words.items() if word == value), min(special.words))
    elif isinstance(value, str):
        number = value
    else:
        if not math.isfinite(value):
            raise ValueError(f"{value} is not a number")
        number = (value - field.offset) / field.factor / field.scale if _scaled(field) else value
    if special.scales:
        number = float(number) / next(iter(special.scales.values()))
    if special.bits:
        number = round(float(number)) << special.bits[0]
    try:
        raw = pack(field.kind, number, special.size, special.half)
    except ValueError:
        said = value if isinstance(value, str) else f"{value:g}"
        raise ValueError(f"{said} does not fit into {field.kind}") from None
    words = struct.unpack(f">{special.size}H", raw)
    return words[::-1] if field.low_word_first and field.kind is not Kind.STR else words


def lay(field: Field, value: float | str) -> dict[int, int]:
    """Address on the wire to register: `value`, and the registers that it depends on at rest (10^0, first scale)."""
    special = field.special
    words = encode(field, value)
    if special is None:
        return dict(enumerate(words, field.addr))
    laid = dict(enumerate(words, field.addr + special.at))
    laid |= {field.addr + at: word for at, word in special.marks}
    if special.exponent_at is not None:
        laid[field.addr + special.exponent_at] = 0
    if special.scale_at is not None and special.scales:
        laid[field.addr + special.scale_at] = next(iter(special.scales))
    if special.status_at is not None:
        laid[field.addr + special.status_at] = 0
    if special.minus_at is not None:
        laid |= dict.fromkeys(range(field.addr + special.minus_at, field.addr + special.minus_at + special.size), 0)
    return laid


def same(field: Field, written: Sequence[int], read: Sequence[int]) -> bool:
    """Whether two readings of registers say the same, to the last bit but one of a float."""
    if tuple(written) == tuple(read):
        return True
    if field.kind not in (Kind.F32, Kind.F64):
        return False
    plain = Field(field.fc, field.addr, field.kind, field.low_word_first)
    (a, _), (b, _) = decode(plain, written), decode(plain, read)
    if not isinstance(a, int | float) or not isinstance(b, int | float):
        return False
    return math.isclose(a, b, rel_tol=precision(field.kind))


def precision(kind: Kind) -> float:
    """How far two numbers may be apart, relatively, and still be the same reading of this kind."""
    return {Kind.F32: 2**-22, Kind.PF4Q: 2**-22, Kind.F64: 2**-50}.get(kind, 1e-14)


def _special(
    field: Field, special: Special, block: bytes, start: int
) -> tuple[int | float | str | None, Reason | None]:
    if any(_register(block, start, at) != wanted for at, wanted in special.marks):
        return None, Reason.CONFIG_ERROR
    if special.status_at is not None and (status := _register(block, start, special.status_at)):
        known = special.status or {}
        return None, next((known[bit] for bit in known if status >> bit & 1), Reason.DEVICE_FAILURE)
    number, reason = _raw(field, special, block, start + 2 * special.at)
    if number is None or isinstance(number, str):
        return number, reason
    if special.words is not None:
        word = special.words.get(int(number))
        return (word, None) if word is not None else (None, Reason.OUT_OF_RANGE)
    if special.minus_at is not None:
        other, reason = _raw(field, special, block, start + 2 * special.minus_at)
        if not isinstance(other, int | float):
            return None, reason
        number -= other
        number = number if isinstance(number, int) else float(f"{number:.15g}")
    if special.exponent_at is not None:
        exponent = _register(block, start, special.exponent_at, signed=True)
        if abs(exponent) > MOST_DIGITS:
            return None, Reason.ABSENT if exponent == -0x8000 else Reason.CONFIG_ERROR
        number = power_of_ten(number, exponent)
    if special.scale_at is not None and special.scales is not None:
        factor = special.scales.get(_register(block, start, special.scale_at))
        if factor is None:
            return None, Reason.CONFIG_ERROR
        number = _times(number, factor, 0)
    return _meant(field, number)


def _raw(field: Field, special: Special, block: bytes, start: int) -> tuple[int | float | str | None, Reason | None]:
    raw = block[start : start + 2 * special.size]
    if field.low_word_first and field.kind is not Kind.STR:
        raw = _turned(raw)
    pattern = int.from_bytes(raw, "big")
    if pattern in field.invalid or any(pattern & mask == wanted for mask, wanted in special.masks):
        return None, Reason.ABSENT
    number, reason = unpack(field.kind, raw, special.half)
    if isinstance(number, float) and field.kind in (Kind.F32, Kind.PF4Q):
        number = _shortest(number)
    if special.bits and isinstance(number, int):
        low, high = special.bits
        number = number >> low & (1 << high - low + 1) - 1
    return number, reason


def _meant(field: Field, number: float) -> tuple[int | float | None, Reason | None]:
    if field.scale != 1:
        number = _times(number, field.scale, 0)
    if not field.low <= number <= field.high:
        return None, Reason.OUT_OF_RANGE
    if field.factor != 1 or field.offset != 0:
        number = _times(number, field.factor, field.offset)
    return (number, None) if math.isfinite(number) else (None, Reason.NOT_A_NUMBER)


def _register(block: bytes, start: int, at: int, *, signed: bool = False) -> int:
    return int.from_bytes(block[start + 2 * at : start + 2 * at + 2], "big", signed=signed)


def _turned(raw: bytes) -> bytes:
    """The same words in the other order."""
    return b"".join(raw[at : at + 2] for at in range(len(raw) - 2, -2, -2))


def _scaled(field: Field) -> bool:
    return field.scale != 1 or field.factor != 1 or field.offset != 0


def _times(number: float, factor: float, offset: float) -> int | float:
    if factor == 1 and offset == 0:
        return number
    if isinstance(number, int) and offset == 0 and float(factor).is_integer():
        return number * int(factor)
    return float(f"{number * factor + offset:.15g}")


def _shortest(number: float) -> float:
    """The decimal with the fewest digits, from seven, that is this 32-bit float; nine suffice (IEEE 754, 5.12.2)."""
    raw = _F32.pack(number)
    for digits in ("%.7g", "%.8g"):
        short = float(digits % number)
        if abs(short) <= 3.4028235e38 and _F32.pack(short) == raw:
            return short + 0.0
    return float(f"{number:.9g}")
