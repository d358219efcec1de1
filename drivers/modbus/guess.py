"""Registers and a value that is known from elsewhere: which address, type and word order say it? Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from drivers.modbus.codec import Field, decode
from drivers.modbus.kinds import WIDTH, Kind
from drivers.modbus.points import WordOrder

KINDS = (Kind.F32, Kind.U16, Kind.S16, Kind.U32, Kind.S32, Kind.F64, Kind.U64, Kind.S64)
SCALES = (1, 0.1, 0.01, 0.001, 10, 100, 1000)
FLOAT_SCALES = (1, 0.001, 1000)
TOLERANCE = 0.05


@dataclass(frozen=True, slots=True)
class Guess:
    """One way to read the registers. `off`: how far the value is from the known one, as a part of it."""

    fc: int
    addr: int
    kind: Kind
    word_order: WordOrder
    scale: float
    value: float
    off: float

    @property
    def place(self) -> str:
        """As a profile writes it."""
        keys = [f"fc: {self.fc}", f"addr: {self.addr:#06x}", f"type: {self.kind}"]
        keys += ["word_order: little"] if self.word_order == "little" else []
        keys += [f"scale: {self.scale:g}"] if self.scale != 1 else []
        return "{" + ", ".join(keys) + "}"


def guesses(fc: int, registers: Mapping[int, int], known: float, *, tolerance: float = TOLERANCE) -> list[Guess]:
    """The ways that come within `tolerance` of `known`: plain scales and types first, then the nearest."""
    found = [
        Guess(fc, addr, kind, order, scale, value * scale, abs(value * scale - known) / (abs(known) or 1.0))
        for addr, kind, order, value in _values(fc, registers)
        for scale in (FLOAT_SCALES if kind in (Kind.F32, Kind.F64) else SCALES)
    ]
    near = [each for each in found if each.off <= tolerance]
    return sorted(near, key=lambda each: (each.scale not in (1, 0.1), _rarity(each), each.off))


def _values(fc: int, registers: Mapping[int, int]) -> Iterator[tuple[int, Kind, WordOrder, float]]:
    orders: tuple[WordOrder, WordOrder] = ("big", "little")
    for addr in sorted(registers):
        for kind in KINDS:
            words = [registers.get(addr + n) for n in range(WIDTH[kind])]
            if None in words:
                continue
            there = [word for word in words if word is not None]
            for order in orders[: 1 if len(there) == 1 else 2]:
                value, _ = decode(Field(fc, addr, kind, order == "little"), there)
                if isinstance(value, int | float) and not _is_doubled(kind, there, order):
                    yield addr, kind, order, value


def _is_doubled(kind: Kind, words: list[int], order: str) -> bool:
    """Whether a narrower or an unsigned type says the same."""
    high = words if order == "big" else words[::-1]
    if kind in (Kind.S16, Kind.S32, Kind.S64):
        return not high[0] & 0x8000
    if kind in (Kind.U32, Kind.U64):
        return len(words) == 4 and not any(high[:2])
    return False


def _rarity(each: Guess) -> int:
    return KINDS.index(each.kind)
