"""Numbers instead of names inside rows: each meaning of a point has one number in a lane, for ever."""

from collections.abc import Mapping, Sequence

import orjson

from gateway.batch import point_entry
from gateway.model import Json, Point, PointId


class Points:
    """`entries`: a point's batch entry as JSON -> its number in the file."""

    def __init__(self) -> None:
        self.entries: dict[str, int] = {}
        self._known: dict[PointId, Point] = {}
        self._numbers: dict[PointId, int] = {}
        self._by_number: dict[int, Sequence[Json]] = {}

    def know(self, points: Sequence[Point]) -> None:
        """A changed meaning gets a number of its own."""
        for point in points:
            if self._known.get(point.id) != point:
                self._known[point.id] = point
                self._numbers.pop(point.id, None)

    def adopt(self, entries: Mapping[str, int]) -> None:
        """Numbers that stand in a file."""
        self.entries |= entries
        self._by_number = {}

    def number(self, point: PointId, new: list[tuple[int, str]]) -> int:
        """The point's number; one that the file does not know yet is added to `new`. KeyError: no such point."""
        number = self._numbers.get(point)
        if number is None:
            if point not in self._known:
                raise KeyError(f"{point} is not a point of this site")
            entry = orjson.dumps(point_entry(self._known[point])).decode()
            number = self.entries.get(entry)
            if number is None:
                number = self.entries[entry] = max(self.entries.values(), default=0) + 1
                new.append((number, entry))
            self._numbers[point] = number
        return number

    def entry(self, number: int) -> Sequence[Json]:
        if number not in self._by_number:
            self._by_number = {n: orjson.loads(text) for text, n in self.entries.items()}
        return self._by_number[number]
