"""How fast one unit is: what its maker says, and what it was measured to take."""

PATIENCE = 4
"""A unit may take so many times as long as it lately did before it counts as silent."""
SHORTEST = 0.2
"""Seconds that every unit is given: adapters and networks hold bytes back, too."""
FORGETS = 0.1
"""Part of a slow answer that each faster one makes forgotten."""


class Pace:
    """One unit's. `longest`: seconds to an answer at most; `least`: so long it is waited for in any case, as the maker
    grants it that; `gap`: seconds of silence that it wants before a question.
    """

    def __init__(self, longest: float, least: float = 0.0, gap: float = 0.0) -> None:
        self.longest, self.gap = longest, gap
        self.turnaround: float | None = None
        """Seconds that it thinks, the shortest measured."""
        self._least = min(longest, max(SHORTEST, least))
        self._lately = longest

    @property
    def within(self) -> float:
        """Seconds to wait for its answer now."""
        return min(self.longest, max(self._least, PATIENCE * self._lately))

    def took(self, seconds: float) -> None:
        """It answered."""
        if self.turnaround is None:
            self._lately = seconds
        self.turnaround = seconds if self.turnaround is None else min(seconds, self.turnaround)
        self._lately = max(seconds, self._lately - FORGETS * (self._lately - seconds))

    def missed(self) -> None:
        """It did not answer in time: the next time it has all of it."""
        self._lately = self.longest
