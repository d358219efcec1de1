"""What a lane's blocks are read by, as small rows: epochs, points, settlements, skips, state. Damage there would
reach all records, so each row has a CRC of its own, and one that is not as it was written damages the file.
"""

import sqlite3
import zlib
from collections.abc import Iterator
from enum import StrEnum
from typing import Any

import orjson

from gateway.buffer.epoch import Epoch
from gateway.buffer.fault import Damaged
from gateway.buffer.skips import EVERYBODY, Skips
from gateway.model import Json
from gateway.ranges import Ranges

_NONE = Skips()


class Kind(StrEnum):
    """Key -> value of each."""

    NEXT = "next"
    """'' -> the position after the last that was given out, when this was noted."""
    EPOCH = "epoch"
    """Number -> [id, machine, last position or null]."""
    BOOT = "boot"
    """Boot id -> the uptime that this file had seen when that boot began, less its boot clock."""
    POINT = "point"
    """Number in rows -> the point's entry in batches; null where it is not known any more."""
    SETTLED = "settled"
    """Uplink -> spans of positions."""
    SKIP = "skip"
    """Uplink, '' for all of them -> {reason: spans of positions}."""
    STATE = "state"
    """Key -> value, of whoever keeps state with its records."""


class Facts:
    """Those of one file, in memory and, by `store_…` within the caller's transaction, in its table."""

    db: sqlite3.Connection

    def load(self) -> None:
        """Damaged where a row is not as it was written."""
        found: dict[str, dict[str, Any]] = {kind: {} for kind in Kind}
        for kind, key, value in whole(self.db):
            if kind is None:
                raise Damaged("the buffer has lost what its records are read by")
            found.setdefault(kind, {})[key] = orjson.loads(value)
        self.points = {int(number): orjson.dumps(entry).decode() for number, entry in found[Kind.POINT].items()}
        self.state: dict[str, Json] = found[Kind.STATE]
        self.settled = {uplink: Ranges(spans) for uplink, spans in found[Kind.SETTLED].items()}
        self.skips = {EVERYBODY: Skips()} | {uplink: Skips(why) for uplink, why in found[Kind.SKIP].items()}
        self.origins: dict[str, int] = found[Kind.BOOT]
        epochs = [Epoch(int(number), *epoch) for number, epoch in found[Kind.EPOCH].items()]
        self.epochs = sorted(epochs, key=lambda epoch: epoch.number)
        self.noted = int(found[Kind.NEXT].get("", 1))

    def skipped(self, uplink: str, first: int, last: int) -> list[tuple[int, int, str]]:
        """What of first..last is not to come for this uplink, with its reason: disjoint, ascending."""
        both = Skips()
        for whose in (EVERYBODY, uplink):
            for a, b, why in self.skips.get(whose, _NONE).within(first, last):
                both.add(why, a, b)
        return both.within(first, last)

    def store_next(self, position: int) -> None:
        """The records may all be gone; their numbers are never used again."""
        self.put(Kind.NEXT, "", position)
        self.noted = position

    def store_epoch(self, epoch: Epoch) -> None:
        self.put(Kind.EPOCH, str(epoch.number), (epoch.id, epoch.machine, epoch.last))
        others = [known for known in self.epochs if known.number != epoch.number]
        self.epochs = sorted([*others, epoch], key=lambda each: each.number)

    def store_point(self, number: int, entry: str) -> None:
        self.put(Kind.POINT, str(number), orjson.Fragment(entry))
        self.points[number] = entry

    def store_settled(self, uplink: str) -> None:
        self.put(Kind.SETTLED, uplink, self.settled[uplink].spans())

    def store_skips(self, uplink: str, skips: Skips) -> None:
        """The map is replaced, never changed: others read it."""
        self.put(Kind.SKIP, uplink, skips.json())
        self.skips = {**self.skips, uplink: skips}

    def store_state(self, key: str, value: Json) -> None:
        """None deletes."""
        if value is None:
            self.drop(Kind.STATE, key)
            self.state.pop(key, None)
        else:
            self.put(Kind.STATE, key, value)
            self.state[key] = value

    def forget_uplink(self, uplink: str) -> None:
        self.drop(Kind.SETTLED, uplink)
        self.drop(Kind.SKIP, uplink)
        del self.settled[uplink]
        self.skips.pop(uplink, None)

    def put(self, kind: str, key: str, value: Json | orjson.Fragment) -> None:
        text = orjson.dumps(value)
        self.db.execute("INSERT OR REPLACE INTO fact VALUES(?, ?, ?, ?)", (kind, key, text, crc(kind, key, text)))

    def drop(self, kind: str, key: str) -> None:
        self.db.execute("DELETE FROM fact WHERE kind=? AND key=?", (kind, key))


def whole(db: sqlite3.Connection, order: str = "ASC") -> Iterator[tuple[str | None, str, bytes]]:
    """(kind, key, value) of every row; without a kind where the row is damaged."""
    query = f"SELECT kind, key, value, crc FROM fact ORDER BY kind {order}, key {order}"  # noqa: S608 - ASC or DESC
    for kind, key, value, check in db.execute(query):
        is_whole = isinstance(value, bytes) and isinstance(kind, str) and crc(kind, str(key), value) == check
        yield kind if is_whole else None, str(key), value


def crc(kind: str, key: str, value: bytes) -> int:
    return zlib.crc32(value, zlib.crc32(f"{kind},{key}".encode()))
