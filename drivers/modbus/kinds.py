"""How values lie in registers: raw bytes, high word first, to a number or text, and back. Pure.

Sources: IEEE 754; SunSpec device information model (acc: 0 is "not accumulated"); pyiskra 0.1.29, helper.py
(t5, t6, t7); Schneider's four-quadrant power factor (a register beyond 1 means 2 - register, leading).
"""

import math
import struct
from enum import StrEnum

from gateway.model import Reason


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
    ACC16 = "acc16"
    ACC32 = "acc32"
    ACC64 = "acc64"
    BCD = "bcd"
    STR = "str"
    PF4Q = "pf4q"
    ISKRA_T5 = "iskra_t5"
    ISKRA_T6 = "iskra_t6"
    ISKRA_T7 = "iskra_t7"


LAYOUT = {
    Kind.U16: struct.Struct(">H"), Kind.S16: struct.Struct(">h"), Kind.U32: struct.Struct(">I"),
    Kind.S32: struct.Struct(">i"), Kind.U64: struct.Struct(">Q"), Kind.S64: struct.Struct(">q"),
    Kind.F32: struct.Struct(">f"), Kind.F64: struct.Struct(">d"),
    Kind.ACC16: struct.Struct(">H"), Kind.ACC32: struct.Struct(">I"), Kind.ACC64: struct.Struct(">Q"),
    Kind.PF4Q: struct.Struct(">f"),
    Kind.ISKRA_T5: struct.Struct(">I"), Kind.ISKRA_T6: struct.Struct(">I"), Kind.ISKRA_T7: struct.Struct(">I"),
}  # fmt: skip
"""Of the kinds whose width is fixed; `bcd` and `str` take as many registers as the profile says."""

WIDTH = {kind: layout.size // 2 for kind, layout in LAYOUT.items()}
"""Registers that a value of each such kind takes."""

PLAIN = frozenset((Kind.U16, Kind.S16, Kind.U32, Kind.S32, Kind.U64, Kind.S64, Kind.F32, Kind.F64))
"""What is a number as it stands."""
ACCUMULATORS = frozenset((Kind.ACC16, Kind.ACC32, Kind.ACC64))
WHOLE = frozenset((Kind.U16, Kind.S16, Kind.U32, Kind.S32, Kind.U64, Kind.S64, Kind.BCD)) | ACCUMULATORS
UNSIGNED = frozenset((Kind.U16, Kind.U32, Kind.U64))

Half = str
"""`both`, `high` or `low`: which bytes of a register carry text."""


def unpack(kind: Kind, raw: bytes, half: Half = "both") -> tuple[int | float | str | None, Reason | None]:
    """What `raw` says, before any scale; or None and why it says nothing."""
    match kind:
        case Kind.STR:
            return _text(raw, half)
        case Kind.BCD:
            digits = raw.hex()
            return (int(digits), None) if digits.isdecimal() else (None, Reason.NOT_A_NUMBER)
        case Kind.PF4Q:
            return _four_quadrants(LAYOUT[kind].unpack(raw)[0])
        case Kind.ISKRA_T5 | Kind.ISKRA_T6:
            mantissa = int.from_bytes(raw[1:], "big", signed=kind is Kind.ISKRA_T6)
            return power_of_ten(mantissa, int.from_bytes(raw[:1], "big", signed=True)), None
        case Kind.ISKRA_T7:
            return _power_factor_t7(raw)
        case _:
            number: int | float = LAYOUT[kind].unpack(raw)[0]
            if isinstance(number, float) and not math.isfinite(number):
                return None, Reason.NOT_A_NUMBER
            return (None, Reason.ABSENT) if kind in ACCUMULATORS and not number else (number, None)


def pack(kind: Kind, value: float | str, words: int, half: Half = "both") -> bytes:
    """The registers that say `value`, to the nearest the kind can. ValueError: it cannot hold it."""
    try:
        match kind:
            case Kind.STR:
                return _spread(str(value).encode("ascii"), words, half)
            case Kind.BCD:
                return bytes.fromhex(f"{_whole(value):0{4 * words}d}")
            case Kind.ISKRA_T5 | Kind.ISKRA_T6:
                return _decimal_float(float(value), kind is Kind.ISKRA_T6)
            case Kind.ISKRA_T7:
                return bytes([0xFF if float(value) < 0 else 0, 0]) + round(abs(float(value)) * 10000).to_bytes(2, "big")
            case Kind.F32 | Kind.F64 | Kind.PF4Q:
                return LAYOUT[kind].pack(float(value))
            case _:
                raw = LAYOUT[kind].pack(_whole(value))
                if kind in ACCUMULATORS and not any(raw):
                    raise ValueError
                return raw
    except (struct.error, OverflowError, ValueError):
        said = value if isinstance(value, str) else f"{value:g}"
        raise ValueError(f"{said} does not fit into {kind}") from None


def power_of_ten(number: float, exponent: int) -> int | float:
    """number * 10^exponent without binary noise."""
    if isinstance(number, int):
        return number * 10**exponent if exponent >= 0 else float(f"{number}e{exponent}")
    return float(f"{number * 10.0**exponent:.15g}")


def _whole(value: float | str) -> int:
    if isinstance(value, int):
        return value
    return round(float(value))


def _text(raw: bytes, half: Half) -> tuple[str | None, Reason | None]:
    """Text ends at the first NUL; what is not printable ASCII is no text."""
    letters = raw if half == "both" else raw[half == "low" :: 2]
    letters = letters.partition(b"\0")[0]
    text = letters.decode("latin-1").strip(" ")
    if not text or set(letters) == {0xFF}:
        return None, Reason.ABSENT
    return (text, None) if text.isascii() and text.isprintable() else (None, Reason.NOT_A_NUMBER)


def _spread(letters: bytes, words: int, half: Half) -> bytes:
    if half != "both":
        pairs = ((letter, 0) if half == "high" else (0, letter) for letter in letters)
        letters = bytes(byte for pair in pairs for byte in pair)
    if len(letters) > 2 * words:
        raise ValueError
    return letters.ljust(2 * words, b"\0")


def _four_quadrants(value: float) -> tuple[float | None, Reason | None]:
    if not math.isfinite(value):
        return None, Reason.NOT_A_NUMBER
    if abs(value) > 2:
        return None, Reason.OUT_OF_RANGE
    return (math.copysign(2, value) - value if abs(value) > 1 else value), None


def _power_factor_t7(raw: bytes) -> tuple[float | None, Reason | None]:
    if raw[0] not in (0, 0xFF) or raw[1] not in (0, 0xFF):
        return None, Reason.NOT_A_NUMBER
    number = int.from_bytes(raw[2:], "big") / 10000
    return (-number if raw[0] else number), None


def _decimal_float(value: float, signed: bool) -> bytes:
    """Seven digits or as many as 24 bits hold; zero has no exponent."""
    limit = 2**23 - 1 if signed else 2**24 - 1
    if not value:
        return bytes(4)
    exponent = math.floor(math.log10(abs(value))) - 6
    while abs(round(value / 10.0**exponent)) > limit:
        exponent += 1
    mantissa = round(value / 10.0**exponent)
    return exponent.to_bytes(1, "big", signed=True) + mantissa.to_bytes(3, "big", signed=signed)
