"""Numbers instead of names inside rows: each meaning of a point has one number in a lane, for ever."""

from collections.abc import Mapping, Sequence

import orjson

from gateway.batch import point_entry
from gateway.model import Json, Point, PointId

LOST = "null"
"""The entry of a number whose meaning was lost with its row: it is never given to another point."""


class Points:
    """`entries`: number in the file -> a point's batch entry as JSON."""

    def __init__(self) -> None:
        self.entries: dict[int, str] = {}
        self._by_entry: dict[str, int] = {}
        self._known: dict[PointId, Point] = {}
        self.numbers: dict[PointId, int] = {}
        """As far as they have been asked for."""
        self._read: dict[int, Sequence[Json] | None] = {}

    def know(self, points: Sequence[Point]) -> None:
        """A changed meaning gets a number of its own."""
        for point in points:
            if self._known.get(point.id) != point:
                self._known[point.id] = point
                self.numbers.pop(point.id, None)

    def adopt(self, entries: Mapping[int, str]) -> None:
        """Numbers that stand in a file."""
        self.entries |= entries
        self._by_entry = {entry: number for number, entry in self.entries.items()}
        self._read = {}

    def number(self, point: PointId, new: list[tuple[int, str]]) -> int:
        """The point's number; one that the file does not know yet is added to `new`. KeyError: no such point."""
        number = self.numbers.get(point)
        if number is None:
            if point not in self._known:
                raise KeyError(f"{point} is not a point of this site")
            entry = orjson.dumps(point_entry(self._known[point])).decode()
            number = self._by_entry.get(entry)
            if number is None:
                number = max(self.entries, default=0) + 1
                self.entries[number], self._by_entry[entry] = entry, number
                new.append((number, entry))
            self.numbers[point] = number
        return number

    def entry(self, number: int) -> Sequence[Json] | None:
        """None where its meaning is lost."""
        if number not in self._read:
            self._read[number] = orjson.loads(self.entries.get(number, LOST))
        return self._read[number]
