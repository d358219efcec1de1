"""From the number in a frame to the value of a point, and back. Pure.

Affine, polynomial, table or words, then the unit; nothing else is ever computed.
"""

import math
import re
import sys
from bisect import bisect_right
from collections.abc import Sequence
from decimal import Decimal
from typing import NamedTuple

from drivers.serial.point import SerialPoint
from gateway.model import Quality, Reason
from gateway.quantities import convert


class Sample(NamedTuple):
    """What one frame says of one point, in the point's canonical unit; no value is None with a reason."""

    value: float | str | None
    quality: Quality = Quality.GOOD
    reason: Reason | None = None


def none(reason: Reason) -> Sample:
    return _NONE[reason]


_NONE = {reason: Sample(None, Quality.BAD, reason) for reason in Reason}
_LARGEST = sys.float_info.max


class Arithmetic:
    """One point's. Both directions, so that an emulator says what a driver reads."""

    def __init__(self, point: SerialPoint) -> None:
        self._point = point
        self.conversion = point.conversion
        self.letters = {letter: Reason(unit) if unit in set(Reason) else convert(unit, point.canonical_unit)
                        for letter, unit in point.units.items()}  # fmt: skip
        # 6 * 0.1 is 0.6000000000000001: scale and offset say how many digits the sensor means.
        self._digits = max(_digits(point.scale), _digits(point.offset))
        self._is_affine = not (point.polynomial or point.table or point.words)
        self._is_f32 = bool(point.type and point.type.startswith("f32")) or point.types is not None
        self._invalid = frozenset(point.invalid)
        self._is_canonical = self.conversion == (1, 0)
        # In the canonical unit: where the frame says the unit itself, its number alone says nothing.
        self._range = tuple(map(self._canonical, point.range)) if point.range else (-_LARGEST, _LARGEST)
        self._saturates = math.inf if point.saturates is None else self._canonical(point.saturates)

    def _canonical(self, value: float, conversion: tuple[float, float] | None = None) -> float:
        factor, offset = conversion or self.conversion
        return value if (factor, offset) == (1, 0) else _short(value * factor + offset)

    def sample(self, number: float, conversion: tuple[float, float] | None = None) -> Sample:
        """What `number` means; `conversion` where the frame gave the unit itself."""
        point = self._point
        if number in self._invalid:
            return none(Reason.ABSENT)
        if not math.isfinite(number):
            return none(Reason.NOT_A_NUMBER)
        if point.words:
            return self.state(f"{number:.15g}")
        try:
            value = self._value(number)
        except OverflowError:
            return none(Reason.OUT_OF_RANGE)
        if value is None:
            return none(Reason.OUT_OF_RANGE)
        canonical = value if conversion is None and self._is_canonical else self._canonical(value, conversion)
        low, high = self._range
        if not low <= canonical <= high:
            return none(Reason.OUT_OF_RANGE)
        if canonical >= self._saturates:
            return Sample(canonical, Quality.UNCERTAIN, Reason.OUT_OF_RANGE)
        return Sample(canonical)

    def state(self, word: str) -> Sample:
        """The state that `word` stands for."""
        if not self._point.words:
            return Sample(word)
        name = self._point.words.get(word)
        return none(Reason.OUT_OF_RANGE) if name is None else Sample(name)

    def _value(self, number: float) -> float | None:
        point = self._point
        if self._is_affine:
            if isinstance(number, float):
                if self._is_f32:
                    number = float(f"{number:.7g}")
                return number if point.scale == 1 and not point.offset else _short(number * point.scale + point.offset)
            return round(number * point.scale + point.offset, self._digits)
        if point.table:
            return _between(point.table, number)
        return _short(sum(factor * number**power for power, factor in enumerate(point.polynomial)))

    def number(self, value: float | str, conversion: tuple[float, float] | None = None) -> float:
        """The number that means `value` (canonical unit). ValueError: there is none."""
        point = self._point
        if isinstance(value, str):
            word = next((word for word, name in point.words.items() if name == value), None)
            if word is None:
                raise ValueError(f"no word means {value}")
            return float(word)
        factor, offset = conversion or self.conversion
        own = (value - offset) / factor
        if self._is_affine:
            return (own - point.offset) / point.scale
        if point.table:
            rows = sorted((own_value, number) for number, own_value in point.table)
            found = _between(rows, own)
            if found is None:
                raise ValueError(f"{own:g} is outside the table")
            return found
        return _root(point.polynomial, own)


def _digits(number: float) -> int:
    return max(0, -int(Decimal(str(number)).normalize().as_tuple().exponent))


def _short(number: float) -> float:
    """Without the noise that arithmetic leaves behind the twelfth digit."""
    return float(f"{number:.12g}")


def _between(rows: Sequence[tuple[float, float]], number: float) -> float | None:
    if not rows[0][0] <= number <= rows[-1][0]:
        return None
    after = min(bisect_right(rows, number, key=lambda row: row[0]), len(rows) - 1)
    (x0, y0), (x1, y1) = rows[after - 1], rows[after]
    return _short(y0 + (y1 - y0) * (number - x0) / (x1 - x0))


def _root(polynomial: Sequence[float], value: float) -> float:
    """Where a polynomial that rises or falls takes `value`, by Newton's method."""
    x = 1.0
    for _ in range(100):
        slope = sum(power * factor * x ** (power - 1) for power, factor in enumerate(polynomial) if power)
        miss = sum(factor * x**power for power, factor in enumerate(polynomial)) - value
        if abs(miss) < 1e-9 or not slope:
            break
        x -= miss / slope
    return x


_HEX = re.compile(r"(?:0[xX])?[0-9A-Fa-f]{1,16}")
_NUMBER = re.compile(r"([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*([A-Za-z%#/]*)", re.ASCII)


def measured(word: str) -> tuple[float, str] | None:
    """`16.1C` as number and letter; None: no number. The whole word, or nothing."""
    match = _NUMBER.fullmatch(word)
    return (float(match[1]), match[2]) if match else None


def is_hex(word: str) -> bool:
    """Up to 64 bits in hexadecimal digits, and nothing else."""
    return _HEX.fullmatch(word) is not None


def coordinate(number: float) -> float | None:
    """NMEA's dddmm.mmmm in degrees; None: its minutes are none."""
    degrees, minutes = divmod(number, 100)
    return _short(degrees + minutes / 60) if number >= 0 and minutes < 60 else None


def as_written(number: float, like: str) -> str:
    """`number` with the digits of the word `like`."""
    match = _NUMBER.fullmatch(like)
    digits, letter = (match[1], match[2]) if match else ("0", "")
    decimals = len(digits.partition(".")[2])
    unsigned = digits.lstrip("+-")
    padded = len(unsigned) if re.match(r"0\d", unsigned) else 0
    text = f"{abs(number):0{padded}.{decimals}f}"
    negative = number < 0 and float(text) != 0
    return ("-" if negative else "+" if digits.startswith("+") else "") + text + letter
