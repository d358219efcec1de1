"""What gathers between two commits."""

from dataclasses import dataclass, field
from typing import Any

from gateway.buffer.block import Anchor
from gateway.model import Json, Receipt

_ROW_COST = 60


@dataclass(slots=True)
class Group:
    """What one commit makes durable together."""

    anchor: Anchor | None = None
    rows: list[Any] = field(default_factory=list)
    points: list[tuple[int, str]] = field(default_factory=list)
    state: dict[str, Json] = field(default_factory=dict)
    receipts: list[tuple[str, Receipt]] = field(default_factory=list)

    @property
    def size(self) -> int:
        """Bytes in memory, roughly."""
        return _ROW_COST * len(self.rows)

    def tell_state(self, state: dict[str, Json]) -> None:
        """Change `state` as this group does once it is committed."""
        for key, value in self.state.items():
            if value is None:
                state.pop(key, None)
            else:
                state[key] = value

    def __bool__(self) -> bool:
        return bool(self.rows or self.points or self.state or self.receipts)

    def failed(self, later: "Group", *, durable: bool) -> "Group":
        """What is to be committed next, after this group was not. Who waits for a durable record was told so;
        telemetry and settlements stay.
        """
        if durable:
            rows, state, anchor = later.rows, later.state, later.anchor
        else:
            if later.anchor and self.anchor:
                shift = later.anchor.boot - self.anchor.boot
                for row in later.rows:
                    row[1] += shift
            rows, state, anchor = self.rows + later.rows, self.state | later.state, self.anchor or later.anchor
        return Group(anchor, rows, self.points + later.points, state, self.receipts + later.receipts)
