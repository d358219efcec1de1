"""Positions that will never be sent, each with its reason: what thinning, expiry and damage leave behind."""

from collections.abc import Iterable, Mapping, Sequence

from gateway.ranges import Ranges, Span

EVERYBODY = ""
"""In place of an uplink's name: skipped for all of them."""
EXPIRED, CORRUPT, THINNED, DEAD_LETTER = "expired", "corrupt", "thinned", "dead_letter"


class Skips:
    """Reason -> positions. A position keeps the first reason that it was given."""

    __slots__ = ("_reasons",)

    def __init__(self, reasons: Mapping[str, Iterable[Sequence[int]]] | None = None) -> None:
        self._reasons = {why: Ranges(spans) for why, spans in (reasons or {}).items()}

    def add(self, why: str, first: int, last: int) -> None:
        self._reasons.setdefault(why, Ranges()).add(first, last)

    def copy(self) -> "Skips":
        return Skips(self._reasons)

    def merge(self, other: "Skips") -> None:
        for why, spans in other.json().items():
            for first, last in spans:
                self.add(why, first, last)

    def within(self, first: int, last: int) -> list[tuple[int, int, str]]:
        """What of first..last is skipped: disjoint, ascending."""
        found: list[tuple[int, int, str]] = []
        for why, spans in self._reasons.items():
            for span in spans.within(first, last):
                holes: list[Span] = Ranges((a, b) for a, b, _ in found).missing(*span)
                found += [(*hole, why) for hole in holes]
        return sorted(found)

    def forget(self, below: int) -> None:
        for why in list(self._reasons):
            self._reasons[why].forget(below)
            if not self._reasons[why]:
                del self._reasons[why]

    def json(self) -> dict[str, list[Span]]:
        return {why: spans.spans() for why, spans in self._reasons.items()}

    def __bool__(self) -> bool:
        return bool(self._reasons)
