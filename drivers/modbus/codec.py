"""Registers to values and back: pure, so that the driver, the emulator and a profile's own examples use the same code.

Precision. A 32-bit float becomes the shortest decimal that is that float and no other (230.2, not
230.1999969482422): nothing is lost and nothing is made up. A scale or a unit conversion is then rounded to
15 significant digits, which removes binary noise (1234.56 kWh is 1234560 Wh) and is finer than any meter.
Whole numbers with whole factors stay exact, however large.
"""

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from gateway.model import Reason

_F32 = struct.Struct(">f")


class Kind(StrEnum):
    """How a value lies in its registers. Bytes inside a register are always high byte first."""

    U16 = "u16"
    S16 = "s16"
    U32 = "u32"
    S32 = "s32"
    U64 = "u64"
    S64 = "s64"
    F32 = "f32"
    F64 = "f64"


_LAYOUT = {
    Kind.U16: struct.Struct(">H"), Kind.S16: struct.Struct(">h"), Kind.U32: struct.Struct(">I"),
    Kind.S32: struct.Struct(">i"), Kind.U64: struct.Struct(">Q"), Kind.S64: struct.Struct(">q"),
    Kind.F32: _F32, Kind.F64: struct.Struct(">d"),
}  # fmt: skip
_WORDS = {1: struct.Struct(">H"), 2: struct.Struct(">2H"), 4: struct.Struct(">4H")}
_FLOATS = (Kind.F32, Kind.F64)

WIDTH = {kind: layout.size // 2 for kind, layout in _LAYOUT.items()}
"""Registers that a value of each kind takes."""


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

    @property
    def width(self) -> int:
        return WIDTH[self.kind]

    @property
    def end(self) -> int:
        """The first register after it."""
        return self.addr + WIDTH[self.kind]


def decode(field: Field, words: Sequence[int]) -> tuple[int | float | None, Reason | None]:
    """The canonical value in `words` (field.width of them), or None and why there is none."""
    return decode_at(field, _WORDS[len(words)].pack(*words), 0)


def decode_at(field: Field, block: bytes, start: int) -> tuple[int | float | None, Reason | None]:
    """As `decode`, for the registers that begin `start` bytes into the bytes of a block."""
    if field.low_word_first:
        end = start + 2 * field.width
        block, start = b"".join(block[at : at + 2] for at in range(end - 2, start - 2, -2)), 0
    if field.invalid and int.from_bytes(block[start : start + 2 * field.width], "big") in field.invalid:
        return None, Reason.ABSENT
    number: int | float = _LAYOUT[field.kind].unpack_from(block, start)[0]
    if field.kind in _FLOATS and not math.isfinite(number):
        return None, Reason.NOT_A_NUMBER
    if field.kind is Kind.F32:
        number = _shortest(number)
    number = _times(number, field.scale, 0)
    if not field.low <= number <= field.high:
        return None, Reason.OUT_OF_RANGE
    number = _times(number, field.factor, field.offset)
    return (number, None) if math.isfinite(number) else (None, Reason.NOT_A_NUMBER)


def encode(field: Field, value: float) -> tuple[int, ...]:
    """The registers that say `value` (canonical), to the nearest the field can. ValueError: it cannot hold it."""
    if not math.isfinite(value):
        raise ValueError(f"{value} is not a number")
    number = (value - field.offset) / field.factor / field.scale if _scaled(field) else value
    layout = _LAYOUT[field.kind]
    try:
        raw = layout.pack(number if field.kind in _FLOATS else round(number))
    except (struct.error, OverflowError):
        raise ValueError(f"{value:g} does not fit into {field.kind}") from None
    words = _WORDS[field.width].unpack(raw)
    return words[::-1] if field.low_word_first else words


def same(field: Field, written: Sequence[int], read: Sequence[int]) -> bool:
    """Whether two readings of registers say the same, to the last bit but one of a float."""
    if tuple(written) == tuple(read):
        return True
    if field.kind not in _FLOATS:
        return False
    plain = Field(field.fc, field.addr, field.kind, field.low_word_first)
    (a, _), (b, _) = decode(plain, written), decode(plain, read)
    return a is not None and b is not None and math.isclose(a, b, rel_tol=precision(field.kind))


def precision(kind: Kind) -> float:
    """How far two numbers may be apart, relatively, and still be the same reading of this kind."""
    return {Kind.F32: 2**-22, Kind.F64: 2**-50}.get(kind, 1e-14)


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
    for digits in (7, 8):
        short = float(f"{number:.{digits}g}")
        if abs(short) <= 3.4028235e38 and _F32.pack(short) == raw:
            return short + 0.0
    return float(f"{number:.9g}")
