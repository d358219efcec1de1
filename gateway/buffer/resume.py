"""What a running lane knows that its file may not: taken over when the file is opened again after a fault."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import orjson

from gateway.buffer.block import COLUMNS, INSERT
from gateway.model import Json
from gateway.ranges import Ranges

if TYPE_CHECKING:
    from gateway.buffer.lanefile import LaneFile


@dataclass(frozen=True, slots=True)
class Past:
    """`head`: the position after the last record that was promised from this file, None where it was never open.

    `memory`: the lane that went on without the disk; its records keep their epoch.
    """

    head: int | None
    points: Mapping[str, int]
    state: Mapping[str, Json]
    memory: "LaneFile | None" = None


def resume(file: "LaneFile", past: Past) -> int:
    """Within the opening's transaction. Returns the position beyond which new records must lie.

    A commit whose end was not heard of may have reached the disk: its producer was told that it failed, or its
    records went on in memory. So it is taken back, with the state that came with it.
    """
    db = file.db
    if past.head is not None:
        db.execute("DELETE FROM block WHERE first >= ?", (past.head,))
        db.execute("DELETE FROM state")
    db.executemany("INSERT OR IGNORE INTO point VALUES(?, ?)", [(n, entry) for entry, n in past.points.items()])
    rows = [(key, orjson.dumps(value).decode()) for key, value in past.state.items()]
    db.executemany("INSERT OR REPLACE INTO state VALUES(?, ?)", rows)
    if past.memory is None:
        return past.head or 1
    _take_over(file, past.memory)
    return past.memory.next


def _take_over(file: "LaneFile", memory: "LaneFile") -> None:
    db, volatile = file.db, memory.epochs[-1]
    db.execute("UPDATE epoch SET last=? WHERE last IS NULL", (file.end_of_records() - 1,))
    db.execute(
        "INSERT INTO epoch VALUES(?, ?, ?, ?)", (volatile.number, volatile.id, volatile.machine, memory.next - 1)
    )
    for row in memory.db.execute(f"SELECT {COLUMNS} FROM block"):  # noqa: S608 - a constant
        if not memory.is_free(row[0], row[0] + row[1] - 1):
            db.execute(INSERT, row)
    for uplink, spans in memory.settled.items():
        known = db.execute("SELECT spans FROM settled WHERE uplink=?", (uplink,)).fetchone()
        if known:
            both = Ranges([*orjson.loads(known[0]), *spans.within(volatile.base + 1, memory.next - 1)])
            db.execute("UPDATE settled SET spans=? WHERE uplink=?", (orjson.dumps(both.spans()).decode(), uplink))
    for uplink, skips in memory.skips.items():
        known = db.execute("SELECT reasons FROM skip WHERE uplink=?", (uplink,)).fetchone()
        merged = type(skips)(orjson.loads(known[0]) if known else {})
        merged.merge(skips)
        db.execute("INSERT OR REPLACE INTO skip VALUES(?, ?)", (uplink, orjson.dumps(merged.json()).decode()))
