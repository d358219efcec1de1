"""Sets of whole numbers as sorted, disjoint, inclusive ranges: what an uplink has settled, what a receiver holds."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeAlias

Span: TypeAlias = tuple[int, int]


class Ranges:
    """Inclusive ranges, merged as they touch: adding 1-3 and 4-9 leaves 1-9."""

    __slots__ = ("_ends", "_starts")

    def __init__(self, spans: Iterable[Sequence[int]] = ()) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        for first, last in spans:
            self.add(first, last)

    def add(self, first: int, last: int) -> None:
        """Add first..last. ValueError where last < first."""
        if last < first:
            raise ValueError(f"range {first}..{last} ends before it starts")
        low = bisect_left(self._ends, first - 1)
        high = bisect_right(self._starts, last + 1)
        if low < high:
            first = min(first, self._starts[low])
            last = max(last, self._ends[high - 1])
        self._starts[low:high] = [first]
        self._ends[low:high] = [last]

    def remove(self, first: int, last: int) -> None:
        """Take first..last out."""
        for a, b in self.within(first, last):
            low = bisect_left(self._ends, b)
            start, end = self._starts[low], self._ends[low]
            rest = [span for span in ((start, a - 1), (b + 1, end)) if span[0] <= span[1]]
            self._starts[low : low + 1] = [span[0] for span in rest]
            self._ends[low : low + 1] = [span[1] for span in rest]

    def covers(self, first: int, last: int) -> bool:
        """Whether every number of first..last is in the set."""
        at = bisect_left(self._ends, last)
        return at < len(self._starts) and self._starts[at] <= first

    def __contains__(self, number: int) -> bool:
        return self.covers(number, number)

    def missing(self, first: int, last: int) -> list[Span]:
        """The ranges of first..last that are not in the set."""
        holes: list[Span] = []
        at = bisect_left(self._ends, first)
        while first <= last:
            if at == len(self._starts) or self._starts[at] > last:
                holes.append((first, last))
                break
            if first < self._starts[at]:
                holes.append((first, self._starts[at] - 1))
            first = self._ends[at] + 1
            at += 1
        return holes

    def within(self, first: int, last: int) -> list[Span]:
        """The ranges of first..last that are in the set."""
        spans: list[Span] = []
        at = bisect_left(self._ends, first)
        while at < len(self._starts) and self._starts[at] <= last:
            spans.append((max(first, self._starts[at]), min(last, self._ends[at])))
            at += 1
        return spans

    def first_missing(self, start: int) -> int:
        """The smallest number >= start that is not in the set."""
        at = bisect_left(self._ends, start)
        if at < len(self._starts) and self._starts[at] <= start:
            return self._ends[at] + 1
        return start

    def forget(self, below: int) -> None:
        """Drop all that is under `below`."""
        at = bisect_left(self._ends, below)
        del self._starts[:at], self._ends[:at]
        if self._starts and self._starts[0] < below:
            self._starts[0] = below

    def total(self) -> int:
        return sum(self._ends) - sum(self._starts) + len(self._starts)

    def spans(self) -> list[Span]:
        return list(zip(self._starts, self._ends, strict=True))

    def __iter__(self) -> Iterator[Span]:
        return zip(self._starts, self._ends, strict=True)

    def __len__(self) -> int:
        """How many ranges, not how many numbers."""
        return len(self._starts)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ranges) and self.spans() == other.spans()

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Ranges({self.spans()})"
