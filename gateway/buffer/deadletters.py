"""Records that a platform will never take, kept with the reason for a person to read: `lampione buffer`."""

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from gateway.buffer.block import EVENT, Anchor

MAX_BYTES = 1024 * 1024
_LONGEST_REASON = 300
_ROW_COST = 100


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """`at`: UTC ms. `record`: JSON; of a reading its point's entry, value and what else stood with it."""

    uplink: str
    epoch: str
    seq: int
    at: int
    reason: str
    record: str


class DeadLetters:
    """The table of one lane file: the newest MAX_BYTES of them."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def bury(
        self, uplink: str, epoch: str, seq: int, anchor: Anchor, row: Any, points: Mapping[int, str], reason: str
    ) -> None:
        """Within the caller's transaction. `row` is the block's, None where it cannot be read any more."""
        at = anchor.wall + (row[1] if row else 0)
        values = (uplink, epoch, seq, at, reason[:_LONGEST_REASON], _text(row, points))
        self._db.execute("INSERT INTO dead(uplink, epoch, seq, at, reason, record) VALUES(?, ?, ?, ?, ?, ?)", values)
        self._db.execute(
            "DELETE FROM dead WHERE number <= (SELECT max(number) FROM (SELECT number, sum(length(record) + ?) "
            "OVER (ORDER BY number DESC) AS size FROM dead) WHERE size > ?)",
            (_ROW_COST, MAX_BYTES),
        )

    def count(self) -> int:
        found: int = self._db.execute("SELECT count(*) FROM dead").fetchone()[0]
        return found

    def newest(self, limit: int) -> list[DeadLetter]:
        rows: Sequence[Any] = self._db.execute(
            "SELECT uplink, epoch, seq, at, reason, record FROM dead ORDER BY number DESC LIMIT ?", (limit,)
        ).fetchall()
        return [DeadLetter(*row) for row in rows]


def _text(row: Any, points: Mapping[int, str]) -> str:
    if row is None:
        return "null"
    if row[0] == EVENT:
        return orjson.dumps(row[2]).decode()
    return orjson.dumps([orjson.Fragment(points.get(row[0], "null")), *row[2:]]).decode()
