"""What a platform keeps, in one SQLite file: each record once, and the account of what came, twice came, never came.

Everything here runs in one thread, the inbox's. Several batches are one transaction, and a receipt is
returned only after it: on the disk first, acknowledged then.
"""

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from gateway.batch import Batch, BatchError
from gateway.model import Quality, Receipt
from gateway.quantities import QUANTITIES
from gateway.ranges import Ranges
from gateway.receiver import anchors

_SCHEMA = """
CREATE TABLE IF NOT EXISTS gateway (
    tenant TEXT, gateway TEXT, via TEXT, heard_at INTEGER, state TEXT, inventory TEXT,
    PRIMARY KEY (tenant, gateway)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS stream (
    id INTEGER PRIMARY KEY, tenant TEXT, gateway TEXT, lane TEXT, epoch TEXT,
    base INTEGER, low INTEGER, duplicates INTEGER DEFAULT 0, held TEXT DEFAULT '[]',
    UNIQUE (tenant, gateway, lane, epoch)
);
CREATE TABLE IF NOT EXISTS point (
    id INTEGER PRIMARY KEY, tenant TEXT, device TEXT, entry TEXT, duplicates INTEGER DEFAULT 0,
    UNIQUE (tenant, entry)
);
CREATE TABLE IF NOT EXISTS reading (
    stream INTEGER, seq INTEGER, point INTEGER, time INTEGER, value, quality TEXT, reason TEXT, more TEXT,
    clock TEXT, mode TEXT, received_at INTEGER, error INTEGER,
    PRIMARY KEY (stream, seq)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS event (
    stream INTEGER, seq INTEGER, time INTEGER, document TEXT, mode TEXT, received_at INTEGER, clock TEXT,
    error INTEGER, PRIMARY KEY (stream, seq)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS skipped (stream INTEGER, first INTEGER, last INTEGER, reason TEXT,
    PRIMARY KEY (stream, first)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS rejected (stream INTEGER, seq INTEGER, reason TEXT,
    PRIMARY KEY (stream, seq)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS command (
    tenant TEXT, gateway TEXT, id TEXT, document TEXT, expires INTEGER,
    PRIMARY KEY (tenant, gateway, id)
) WITHOUT ROWID;
"""
_QUALITIES = frozenset(Quality)
_SCALARS = (bool, int, float, str)
_EXTRA = (str | None, dict)
"""What may stand after the quality: its reason, and an object."""
_LARGEST = 2**53
"""Whole numbers from here on are not exact in every reader of JSON, and from 2**63 on SQLite has none."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """A batch as it came: whose, and over what."""

    tenant: str
    via: str
    batch: Batch

    def __post_init__(self) -> None:
        """BatchError where a number is larger than any that can be meant."""
        batch = self.batch
        numbers = (*batch.span, batch.low, batch.time, abs(batch.up or 0), batch.error or 0)
        if not all(0 <= number < _LARGEST for number in numbers):
            raise BatchError("span, low, t, up or err is out of all bounds")


@dataclass(slots=True)
class Stream:
    """One lane and epoch of one gateway."""

    id: int
    base: int
    low: int
    duplicates: int
    held: Ranges


@dataclass(slots=True)
class Counts:
    """Since this process started, for whoever looks on."""

    batches: int = 0
    records: int = 0
    duplicates: int = 0
    gateways: set[tuple[str, str]] = field(default_factory=set)


class Store:
    """The platform's database at `path`, made where there is none."""

    def __init__(self, path: Path) -> None:
        self.counts = Counts()
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        self._db.executescript(_SCHEMA + anchors.SCHEMA)
        self._grow("reading", "error INTEGER")
        self._grow("event", "clock TEXT", "error INTEGER")
        self._streams: dict[tuple[str, ...], Stream] = {}
        self._points: dict[tuple[str, bytes], int] = {}

    def _grow(self, table: str, *columns: str) -> None:
        """The columns that a database of an earlier version lacks."""
        known = {row[1] for row in self._db.execute(f"PRAGMA table_info({table})")}
        for column in columns:
            if column.split()[0] not in known:
                self._db.execute(f"ALTER TABLE {table} ADD COLUMN {column}")

    def close(self) -> None:
        self._db.close()

    def commit(self, arrivals: Sequence[Arrival], now: int) -> list[Receipt]:
        """Store what is new of `arrivals` and return one receipt each, all on the disk. sqlite3.Error: nothing is."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            taken = _Taken()
            receipts = [self._take(arrival, taken, now) for arrival in arrivals]
            self._write(taken, arrivals, now)
            self._db.execute("COMMIT")
        except sqlite3.Error:
            # What is remembered may be ahead of what is stored: read it anew.
            self._streams.clear()
            self._points.clear()
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise
        self.counts.batches += len(arrivals)
        self.counts.records += len(taken.readings) + len(taken.events)
        self.counts.duplicates += taken.duplicates
        self.counts.gateways |= {(arrival.tenant, arrival.batch.gateway) for arrival in arrivals}
        return receipts

    def tell(self, tenant: str, gateway: str, what: str, document: str, via: str | None, now: int) -> None:
        """Keep a gateway's latest `state` or `inventory`. `via` None: it was not heard itself."""
        assert what in ("state", "inventory")
        self._db.execute(
            f"INSERT INTO gateway (tenant, gateway, via, heard_at, {what}) VALUES (?, ?, ?, ?, ?) "  # noqa: S608 - asserted
            f"ON CONFLICT DO UPDATE SET via = COALESCE(excluded.via, via), heard_at = excluded.heard_at, "
            f"{what} = excluded.{what}",
            (tenant, gateway, via, now, document),
        )

    def gateways(self, gateway: str) -> list[tuple[str, str]]:
        """(tenant, via) of every gateway of that id."""
        return self._db.execute("SELECT tenant, via FROM gateway WHERE gateway = ?", (gateway,)).fetchall()

    def order(self, tenant: str, gateway: str, command: Mapping[str, Any]) -> None:
        """Keep a command until the gateway says that it has journalled it, or it expires."""
        row = (tenant, gateway, command["id"], orjson.dumps(command).decode(), command["expires"])
        self._db.execute("INSERT OR IGNORE INTO command VALUES (?, ?, ?, ?, ?)", row)

    def orders(self, tenant: str, gateway: str, now: int) -> list[dict[str, Any]]:
        """The commands that wait for a gateway; what has expired is forgotten."""
        self._db.execute("DELETE FROM command WHERE expires <= ?", (now,))
        rows = self._db.execute("SELECT document FROM command WHERE tenant = ? AND gateway = ?", (tenant, gateway))
        return [orjson.loads(document) for (document,) in rows]

    def ordered(self, tenant: str, gateway: str, command: str) -> None:
        """The gateway has journalled it."""
        self._db.execute("DELETE FROM command WHERE tenant = ? AND gateway = ? AND id = ?", (tenant, gateway, command))

    def _take(self, arrival: Arrival, taken: "_Taken", now: int) -> Receipt:
        batch = arrival.batch
        stream = self._stream(arrival.tenant, batch)
        taken.streams[stream.id] = stream
        stream.base = min(stream.base, batch.low)
        stream.low = max(stream.low, batch.low)
        first, last = batch.span
        holes = stream.held.missing(first, last)
        is_new = holes == [(first, last)]
        held, duplicates = stream.held, taken.duplicates
        points = [self._point(arrival.tenant, entry) for entry in batch.points]
        wrong = [_wrong_point(entry) for entry in batch.points]
        bad: list[tuple[int, str, bool]] = []
        for row in batch.readings:
            seq, place = row[0], row[1]
            fault = wrong[place] or _wrong_row(row)
            if fault:
                bad.append((seq, fault, False))
            elif is_new or seq not in held:
                quality, reason = (row[4], row[5] if len(row) > 5 else None) if len(row) > 4 else (Quality.GOOD, None)
                more = orjson.dumps(row[6]).decode() if len(row) > 6 else None
                taken.readings.append(
                    (stream.id, seq, points[place], batch.time + row[2], row[3], quality, reason, more,
                     batch.clock, batch.mode, now, batch.error)
                )  # fmt: skip
            else:
                taken.duplicates += 1
                taken.again.append((points[place],))
        for seq, ms, document in batch.events:
            if not ("cmd" in document or "event" in document) or abs(ms) >= _LARGEST:
                bad.append((seq, "unknown_event", False))
            elif is_new or seq not in held:
                text = orjson.dumps(document).decode()
                taken.events.append((stream.id, seq, batch.time + ms, text, batch.mode, now, batch.clock, batch.error))
                taken.anchors += anchors.anchor(arrival.tenant, batch.gateway, document)
            else:
                taken.duplicates += 1
        for a, b, why in batch.skip:
            taken.skipped += [(stream.id, *hole, why) for hole in held.missing(a, b)]
        taken.rejected += [(stream.id, seq, why) for seq, why, _ in bad]
        taken.unsynced += anchors.spans(stream.id, batch, holes)
        stream.duplicates += taken.duplicates - duplicates
        held.add(first, last)
        return Receipt(batch.epoch, _without(batch.span, [seq for seq, _, _ in bad]), tuple(bad))

    def _write(self, taken: "_Taken", arrivals: Sequence[Arrival], now: int) -> None:
        many = self._db.executemany
        many("INSERT INTO reading VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", taken.readings)
        many("INSERT INTO event VALUES (?, ?, ?, ?, ?, ?, ?, ?)", taken.events)
        many("INSERT INTO skipped VALUES (?, ?, ?, ?)", taken.skipped)
        many("INSERT OR IGNORE INTO rejected VALUES (?, ?, ?)", taken.rejected)
        many("UPDATE point SET duplicates = duplicates + 1 WHERE id = ?", taken.again)
        many(
            "UPDATE stream SET base = ?, low = ?, duplicates = ?, held = ? WHERE id = ?",
            [(s.base, s.low, s.duplicates, orjson.dumps(s.held.spans()).decode(), s.id)
             for s in taken.streams.values()],
        )  # fmt: skip
        many(
            "INSERT INTO gateway (tenant, gateway, via, heard_at) VALUES (?, ?, ?, ?) "
            "ON CONFLICT DO UPDATE SET via = excluded.via, heard_at = excluded.heard_at",
            {(arrival.tenant, arrival.batch.gateway, arrival.via, now) for arrival in arrivals},
        )
        anchors.apply(self._db, taken.unsynced, taken.anchors)

    def _stream(self, tenant: str, batch: Batch) -> Stream:
        key = (tenant, batch.gateway, batch.lane, batch.epoch)
        known = self._streams.get(key)
        if known is None:
            self._db.execute(
                "INSERT OR IGNORE INTO stream (tenant, gateway, lane, epoch, base, low) VALUES (?, ?, ?, ?, ?, ?)",
                (*key, batch.low, batch.low),
            )
            which = "tenant = ? AND gateway = ? AND lane = ? AND epoch = ?"
            number, base, low, duplicates, held = self._db.execute(
                f"SELECT id, base, low, duplicates, held FROM stream WHERE {which}",  # noqa: S608 - a constant
                key,
            ).fetchone()
            known = self._streams[key] = Stream(number, base, low, duplicates, Ranges(orjson.loads(held)))
        return known

    def _point(self, tenant: str, entry: Sequence[Any]) -> int:
        key = (tenant, orjson.dumps(entry))
        known = self._points.get(key)
        if known is None:
            text = key[1].decode()
            device = str(entry[0]).rpartition("/")[0] if entry else ""
            self._db.execute(
                "INSERT OR IGNORE INTO point (tenant, device, entry) VALUES (?, ?, ?)", (tenant, device, text)
            )
            row = self._db.execute("SELECT id FROM point WHERE tenant = ? AND entry = ?", (tenant, text)).fetchone()
            known = self._points[key] = int(row[0])
        return known


@dataclass(slots=True)
class _Taken:
    """What one transaction adds."""

    readings: list[tuple[Any, ...]] = field(default_factory=list)
    events: list[tuple[Any, ...]] = field(default_factory=list)
    skipped: list[tuple[Any, ...]] = field(default_factory=list)
    rejected: list[tuple[Any, ...]] = field(default_factory=list)
    again: list[tuple[int]] = field(default_factory=list)
    unsynced: list[tuple[Any, ...]] = field(default_factory=list)
    anchors: list[tuple[Any, ...]] = field(default_factory=list)
    streams: dict[int, Stream] = field(default_factory=dict)
    duplicates: int = 0


def _wrong_point(entry: Sequence[Any]) -> str:
    """Why no reading of this point can be taken, or nothing."""
    if len(entry) < 3 or not all(isinstance(part, str) for part in entry[:3]) or entry[0].count("/") != 2:
        return "bad_point"
    known = QUANTITIES.get(entry[1])
    if known is None:
        return "" if entry[1].startswith("x_") else "unknown_quantity"
    return "" if entry[2] == known.unit else "wrong_unit"


def _wrong_row(row: Sequence[Any]) -> str:
    value, extra = row[3], row[4:]
    if not -_LARGEST < row[2] < _LARGEST:
        return "bad_time"
    if extra and not (
        isinstance(extra[0], str)
        and extra[0] in _QUALITIES
        and all(map(isinstance, extra[1:], _EXTRA))
        and len(extra) <= 3
    ):
        return "bad_quality"
    if value is None:
        return "" if len(extra) > 1 and extra[1] else "no_value_no_reason"
    if type(value) is int and not -_LARGEST < value < _LARGEST:
        return "bad_value"
    return "" if isinstance(value, _SCALARS) else "bad_value"


def _without(span: tuple[int, int], seqs: Sequence[int]) -> tuple[tuple[int, int], ...]:
    if not seqs:
        return (span,)
    return tuple(Ranges((seq, seq) for seq in seqs).missing(*span))
