"""A first profile for a meter that nobody has described, from its registers while mains is on it. Pure.

Two things are known of every meter in the street without looking at it: about 230 V on each phase, and the grid's
hertz. Where they are found, the type, the word order and the scale of the rest are mostly theirs too.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from drivers.modbus.codec import Field, decode
from drivers.modbus.kinds import WIDTH, Kind
from drivers.modbus.points import WordOrder

VOLTS, HERTZ = (200.0, 260.0), (49.5, 50.5)
KINDS = (Kind.F32, Kind.U16, Kind.U32, Kind.S32)
PHASES = 3
Registers = Mapping[int, Mapping[int, int]]
"""Function, address on the wire, word."""


class DraftError(ValueError):
    """Nothing there says mains volts and hertz."""


@dataclass(frozen=True, slots=True)
class _Seen:
    fc: int
    addr: int
    kind: Kind
    word_order: WordOrder
    scale: float
    value: float

    @property
    def encoding(self) -> tuple[int, Kind, WordOrder]:
        return self.fc, self.kind, self.word_order


def draft(name: str, registers: Registers) -> str:
    """The YAML of a profile that its own example bears out. DraftError: there is nothing to begin with."""
    volts, hertz = _found(registers)
    kind, order = volts[0].kind, volts[0].word_order
    points = [
        (f"voltage_l{n}" if len(volts) > 1 else "voltage", f"quantity: voltage, phase: L{n}, unit: V", one)
        for n, one in enumerate(volts, 1)
    ]
    points += [("frequency", "quantity: frequency, unit: Hz", hertz)] if hertz else []
    lines = [
        "# Begun from a scan, with mains on the meter: compare each value with its display before you use it.",
        f"profile: {name}/1",
        "driver: modbus",
        "kind: meter",
        "source: a scan; replace it by the maker's register list",
        f"defaults: {{fc: {volts[0].fc}, type: {kind}, word_order: {order}}}",
        "points:",
        *(f"  {slug}: {{addr: {one.addr:#06x}, {means}{_scale(one)}}}" for slug, means, one in points),
        "examples:",
        f"  - regs: {{{volts[0].fc}: {{{', '.join(_words(one, registers) for _, _, one in points)}}}}}",
        f"    expect: {{{', '.join(f'{slug}: {one.value:.9g} {means[-2:].strip()}' for slug, means, one in points)}}}",
        "    origin: capture",
    ]
    return "\n".join(lines) + "\n"


def _found(registers: Registers) -> tuple[list[_Seen], _Seen | None]:
    """Up to three volts of one encoding, evenly apart, and the hertz that lies nearest, of the same encoding."""
    volts = list(_seen(registers, VOLTS, (1, 0.1, 0.01)))
    hertz = list(_seen(registers, HERTZ, (1, 0.1, 0.01, 0.001)))
    best: tuple[tuple[int, bool, int], list[_Seen], _Seen | None] | None = None
    for first in volts:
        alike = [one for one in volts if (one.encoding, one.scale) == (first.encoding, first.scale)]
        row = _row(first, alike)
        beside = min(
            (one for one in hertz if one.encoding == first.encoding),
            key=lambda one: abs(one.addr - first.addr),
            default=None,
        )
        worth = (len(row), beside is not None, -KINDS.index(first.kind))
        if best is None or worth > best[0]:
            best = worth, row, beside
    if best is None or (len(best[1]) < PHASES and best[2] is None):
        raise DraftError("no register says mains volts and hertz")
    return best[1], best[2]


def _row(first: _Seen, alike: list[_Seen]) -> list[_Seen]:
    """The phases: the next ones at the same distance."""
    there = {one.addr: one for one in alike}
    width = WIDTH[first.kind]
    for step in (width, 2 * width):
        row = [there.get(first.addr + n * step) for n in range(PHASES)]
        if None not in row:
            return [one for one in row if one]
    return [first]


def _seen(registers: Registers, within: tuple[float, float], scales: tuple[float, ...]) -> Iterator[_Seen]:
    orders: tuple[WordOrder, WordOrder] = ("big", "little")
    for fc, inner in registers.items():
        for addr in sorted(inner):
            for kind in KINDS:
                words = [inner[at] for at in range(addr, addr + WIDTH[kind]) if at in inner]
                if len(words) < WIDTH[kind]:
                    continue
                for order in orders[: len(words)]:
                    value, _ = decode(Field(fc, addr, kind, order == "little"), words)
                    for scale in scales[:1] if kind is Kind.F32 else scales:
                        if isinstance(value, int | float) and within[0] <= value * scale <= within[1]:
                            yield _Seen(fc, addr, kind, order, scale, value * scale)


def _scale(one: _Seen) -> str:
    return "" if one.scale == 1 else f", scale: {one.scale:g}"


def _words(one: _Seen, registers: Registers) -> str:
    words = [registers[one.fc][at] for at in range(one.addr, one.addr + WIDTH[one.kind])]
    return f"{one.addr:#06x}: [{', '.join(f'{word:#06x}' for word in words)}]"
