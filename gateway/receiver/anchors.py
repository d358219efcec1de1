"""Records that came before their gateway's clock was set get their true time when the boot's anchor comes.

They are found by the spans in which they came, each with the offset by which its gateway had dated them; a span and
its anchor may come in either order, and long after one another.
"""

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

from gateway.batch import Batch
from gateway.clock import CLOCK_ANCHOR, DRIFT_PPM
from gateway.model import ClockState
from gateway.ranges import Span

SCHEMA = """
CREATE TABLE IF NOT EXISTS unsynced (stream INTEGER, first INTEGER, last INTEGER, boot TEXT, ahead INTEGER,
    PRIMARY KEY (stream, first)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS anchor (
    tenant TEXT, gateway TEXT, boot TEXT, ahead INTEGER, at INTEGER, error INTEGER,
    PRIMARY KEY (tenant, gateway, boot)
) WITHOUT ROWID;
"""
_WAITING = """
SELECT unsynced.stream, first, last, anchor.ahead - unsynced.ahead, anchor.ahead + at, error
FROM unsynced JOIN stream ON stream.id = unsynced.stream
JOIN anchor USING (tenant, gateway, boot)
"""
_DATE = """
UPDATE {} SET time = time + ?1, error = ?3 + abs(time + ?1 - ?2) * ?5 / 1000000, clock = ?4
WHERE stream = ?6 AND seq BETWEEN ?7 AND ?8
"""
_NUMBERS = ("offset", "at", "error_ms")
_LARGEST = 2**53


def spans(stream: int, batch: Batch, new: Sequence[Span]) -> list[tuple[Any, ...]]:
    """Rows of `unsynced` for what is new in a batch."""
    if batch.clock is not ClockState.UNSYNCED or batch.up is None:
        return []
    return [(stream, *span, batch.boot, batch.time - batch.up) for span in new]


def anchor(tenant: str, gateway: str, event: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    """The row of `anchor` for an event that is one, and reads as one."""
    more = event.get("more")
    if event.get("event") != CLOCK_ANCHOR or not isinstance(more, dict) or not isinstance(more.get("boot"), str):
        return []
    numbers = [more.get(key) for key in _NUMBERS]
    if not all(type(number) is int and 0 <= number < _LARGEST for number in numbers):
        return []
    return [(tenant, gateway, more["boot"], *numbers)]


def apply(db: sqlite3.Connection, unsynced: Sequence[Any], anchors: Sequence[Any]) -> None:
    """Within the caller's transaction, after the records are in."""
    db.executemany("INSERT OR REPLACE INTO unsynced VALUES (?, ?, ?, ?, ?)", unsynced)
    db.executemany("INSERT OR IGNORE INTO anchor VALUES (?, ?, ?, ?, ?, ?)", anchors)
    # Spans of a boot that is never set wait for ever: they are looked through only when there is news of them.
    boots = {row[3] for row in unsynced}
    if not (anchors or any(db.execute("SELECT 1 FROM anchor WHERE boot = ?", (boot,)).fetchone() for boot in boots)):
        return
    for stream, first, last, *fix in db.execute(_WAITING).fetchall():
        for table in ("reading", "event"):
            db.execute(_DATE.format(table), (*fix, ClockState.CORRECTED, DRIFT_PPM, stream, first, last))
        db.execute("DELETE FROM unsynced WHERE stream = ? AND first = ?", (stream, first))
