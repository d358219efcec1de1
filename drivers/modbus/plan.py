"""Points to block reads: every point covered, no limit of the device passed, and no cheaper cut there is.

A question costs time whatever it asks, and each register costs more: both are counted in registers here. What that
comes to on a wire, the wire says.
"""

from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from drivers.modbus.codec import Field

Named = tuple[str, Field]


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """One read request, and the fields in its answer by slug. Each is itself alone, so that much can be kept by it."""

    fc: int
    addr: int
    count: int
    fields: tuple[Named, ...]

    @property
    def end(self) -> int:
        """The first register after it."""
        return self.addr + self.count

    @property
    def slugs(self) -> list[str]:
        return [slug for slug, _ in self.fields]

    def __str__(self) -> str:
        kind = "holding" if self.fc == 3 else "input"
        return f"{kind} registers {self.addr:#06x} to {self.end - 1:#06x}"


@dataclass(slots=True)
class Limits:
    """What one device takes in one request: by its profile, and as its refusals have taught."""

    longest: int = 125
    max_hole: int = 0
    """Registers between two fields that it answers although nobody asked for them."""
    alone: frozenset[str] = frozenset()
    """Fields that share no request."""
    forbidden: Sequence[tuple[int, int, int]] = ()
    """(function, first, last): registers that no request reads over."""
    cuts: set[tuple[int, int]] = field(default_factory=set)
    """(function, address): no request holds both this register and the one before it."""

    def spans(self, fc: int, first: int, end: int) -> bool:
        """Whether a request may read over the registers from `first` to `end`, both of which belong to fields."""
        if any(one == fc and low < end and high >= first for one, low, high in self.forbidden):
            return False
        return not any(one == fc and first <= at <= end for one, at in self.cuts)


def plan(fields: Iterable[Named], limits: Limits, worth: int) -> list[Block]:
    """The blocks that cost least: `worth` registers for each, and one for each register."""
    named = sorted(fields, key=lambda pair: (pair[1].fc, pair[1].addr, pair[1].end))
    # best[n] is the least cost of the first n fields, and where the last block of that cut begins.
    best: list[tuple[float, int]] = [(0.0, 0)] + [(float("inf"), 0)] * len(named)
    for first in range(len(named)):
        end = named[first][1].addr
        for last in range(first, len(named)):
            if last > first and not _joins(named[first], named[last - 1], named[last], end, limits):
                break
            end = max(end, named[last][1].end)
            if last > first and end - named[first][1].addr > limits.longest:
                break
            cost = best[first][0] + worth + end - named[first][1].addr
            if cost < best[last + 1][0]:
                best[last + 1] = cost, first
    blocks = []
    after = len(named)
    while after:
        first = best[after][1]
        blocks.append(_block(named[first:after]))
        after = first
    return blocks[::-1]


def _joins(first: Named, before: Named, new: Named, end: int, limits: Limits) -> bool:
    """Whether `new` may follow `before` in the block that begins with `first` and ends at `end`."""
    (slug, one), (_, other) = new, first
    if one.fc != other.fc or (limits.alone and not limits.alone.isdisjoint((slug, before[0]))):
        return False
    hole = one.addr - end
    return hole < 0 or (hole <= limits.max_hole and limits.spans(one.fc, end, one.addr))


def _block(inside: Sequence[Named]) -> Block:
    first = inside[0][1]
    end = max(each.end for _, each in inside)
    return Block(first.fc, first.addr, end - first.addr, tuple(inside))


def halves(block: Block) -> tuple[Block, Block]:
    """Two blocks with its fields, parted at the widest hole, or in the middle. It has two fields or more."""
    places = range(1, len(block.fields))
    middle = block.addr + block.count / 2

    def fitness(at: int) -> tuple[int, float]:
        before, after = block.fields[at - 1][1].end, block.fields[at][1].addr
        return max(0, after - before), -abs(after - middle)

    at = max(places, key=fitness)
    return _block(block.fields[:at]), _block(block.fields[at:])


def lengthened(block: Block, near: Sequence[Named], limits: Limits, taken: Container[int]) -> Block:
    """`block`, or the least longer one whose answer has another length than those in `taken`.

    It reads over fields of `near`, which the device answers anyway. Where there are none, `block` as it is.
    """
    found = block
    while found.count in taken:
        longer = min(_longer(found, near, limits), key=lambda each: each.count, default=None)
        if longer is None or not limits.alone.isdisjoint(block.slugs):
            return block
        found = longer
    return found


def _longer(block: Block, near: Iterable[Named], limits: Limits) -> Iterator[Block]:
    """`block` with one field more, on either side."""

    def reaches(low: int, high: int) -> bool:
        return high - low <= limits.max_hole and limits.spans(block.fc, low, high)

    for slug, each in near:
        first, end = min(block.addr, each.addr), max(block.end, each.end)
        if each.fc != block.fc or slug in limits.alone or not block.count < end - first <= limits.longest:
            continue
        if end > block.end and not reaches(block.end, max(block.end, each.addr)):
            continue
        if first < block.addr and not reaches(min(block.addr, each.end), block.addr):
            continue
        yield Block(block.fc, first, end - first, block.fields)
