"""Records that a platform will never take, kept with the reason for a person to read: `lampione buffer`."""

import sqlite3
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from gateway.buffer.block import EVENT, Anchor

MAX_BYTES = 1024 * 1024
_LONGEST_REASON = 300


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
        letter = orjson.dumps((uplink, epoch, seq, at, reason[:_LONGEST_REASON], _text(row, points)))
        self._db.execute("INSERT INTO dead(letter, crc) VALUES(?, ?)", (letter, zlib.crc32(letter)))
        self._db.execute(
            "DELETE FROM dead WHERE number <= (SELECT max(number) FROM (SELECT number, sum(length(letter)) "
            "OVER (ORDER BY number DESC) AS size FROM dead) WHERE size > ?)",
            (MAX_BYTES,),
        )

    def count(self) -> int:
        found: int = self._db.execute("SELECT count(*) FROM dead").fetchone()[0]
        return found

    def newest(self, limit: int) -> list[DeadLetter]:
        """Those that are as they were written."""
        rows: Sequence[Any] = self._db.execute(
            "SELECT letter, crc FROM dead ORDER BY number DESC LIMIT ?", (limit,)
        ).fetchall()
        return [DeadLetter(*orjson.loads(letter)) for letter, crc in rows if is_whole(letter, crc)]


def is_whole(letter: object, crc: object) -> bool:
    return isinstance(letter, bytes) and zlib.crc32(letter) == crc


def _text(row: Any, points: Mapping[int, str]) -> str:
    if row is None:
        return "null"
    if row[0] == EVENT:
        return orjson.dumps(row[2]).decode()
    return orjson.dumps([orjson.Fragment(points.get(row[0], "null")), *row[2:]]).decode()
