"""Points to block reads: every point covered, no register limit passed, no unknown register read unless it pays."""

from collections.abc import Iterable
from dataclasses import dataclass

from drivers.modbus.codec import Field


@dataclass(frozen=True, slots=True)
class Block:
    """One read request, and the fields in its answer by slug."""

    fc: int
    addr: int
    count: int
    fields: tuple[tuple[str, Field], ...]

    def __str__(self) -> str:
        kind = "holding" if self.fc == 3 else "input"
        return f"{kind} registers {self.addr:#06x} to {self.addr + self.count - 1:#06x}"


def plan(fields: Iterable[tuple[str, Field]], *, longest: int, hole: int) -> list[Block]:
    """Blocks of at most `longest` registers that bridge at most `hole` registers nobody asked for.

    Fields closer than that share a request: on TCP a request costs a round trip and 21 bytes, a register
    two bytes; on a line the wire says how many registers a question is worth.
    """
    blocks: list[Block] = []
    inside: list[tuple[str, Field]] = []
    for slug, field in sorted(fields, key=lambda pair: (pair[1].fc, pair[1].addr, pair[1].end)):
        if inside:
            first = inside[0][1]
            end = max(each.end for _, each in inside)
            fits = max(end, field.end) - first.addr <= longest
            if field.fc != first.fc or field.addr - end > hole or not fits:
                blocks.append(_block(inside))
                inside = []
        inside.append((slug, field))
    if inside:
        blocks.append(_block(inside))
    return blocks


def _block(inside: list[tuple[str, Field]]) -> Block:
    first = inside[0][1]
    end = max(field.end for _, field in inside)
    return Block(first.fc, first.addr, end - first.addr, tuple(inside))
