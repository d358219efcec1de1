"""What a running lane knows that its file may not: taken over when the file is opened again after a fault."""

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from gateway.buffer.block import INSERT
from gateway.buffer.skips import Skips
from gateway.model import Json
from gateway.ranges import Ranges


@dataclass(frozen=True, slots=True)
class Remains:
    """What a lane in memory still holds: its `epoch` as a row of the file, the block rows that somebody waits for."""

    epoch: tuple[int, str, str, int]
    rows: Sequence[Sequence[Any]]
    settled: Mapping[str, Ranges]
    """Of this epoch."""
    skips: Mapping[str, Skips]


@dataclass(frozen=True, slots=True)
class Past:
    """`head`: the position after the last record that was promised from this file, None where it was never open.

    `memory`: what the lane that went on without the disk holds; its records keep their epoch.
    """

    head: int | None
    points: Mapping[str, int]
    state: Mapping[str, Json]
    memory: Remains | None = None


def resume(db: sqlite3.Connection, past: Past, ended: int) -> int:
    """Within the opening's transaction. Returns the position beyond which new records must lie.

    A commit whose end was not heard of may have reached the disk: its producer was told that it failed, or its
    records went on in memory. So it is taken back, with the state that came with it. `ended`: where the file's
    own records end.
    """
    if past.head is not None:
        db.execute("DELETE FROM block WHERE first >= ?", (past.head,))
        db.execute("DELETE FROM state")
    db.executemany("INSERT OR IGNORE INTO point VALUES(?, ?)", [(n, entry) for entry, n in past.points.items()])
    rows = [(key, orjson.dumps(value).decode()) for key, value in past.state.items()]
    db.executemany("INSERT OR REPLACE INTO state VALUES(?, ?)", rows)
    if past.memory is None:
        return past.head or 1
    db.execute("UPDATE epoch SET last=? WHERE last IS NULL", (min(ended, past.head or ended) - 1,))
    _take_over(db, past.memory)
    return past.memory.epoch[3] + 1


def _take_over(db: sqlite3.Connection, memory: Remains) -> None:
    db.execute("INSERT INTO epoch VALUES(?, ?, ?, ?)", memory.epoch)
    db.executemany(INSERT, memory.rows)
    for uplink, spans in memory.settled.items():
        known = db.execute("SELECT spans FROM settled WHERE uplink=?", (uplink,)).fetchone()
        if known:
            both = Ranges([*orjson.loads(known[0]), *spans])
            db.execute("UPDATE settled SET spans=? WHERE uplink=?", (orjson.dumps(both.spans()).decode(), uplink))
    for uplink, skips in memory.skips.items():
        known = db.execute("SELECT reasons FROM skip WHERE uplink=?", (uplink,)).fetchone()
        merged = Skips(orjson.loads(known[0]) if known else {})
        merged.merge(skips)
        db.execute("INSERT OR REPLACE INTO skip VALUES(?, ?)", (uplink, orjson.dumps(merged.json()).decode()))
