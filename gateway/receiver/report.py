"""What a platform holds and what it lacks, read from its database while it works or afterwards."""

import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from gateway.errors import StorageError
from gateway.ranges import Ranges, Span


@dataclass(frozen=True, slots=True)
class StreamRow:
    """The account of one lane and epoch of one gateway, in records.

    `missing`: holes below the gateway's own `low`, which will not be sent any more: losses.
    `to_come`: holes above it, which the gateway says that it still has.
    """

    tenant: str
    gateway: str
    lane: str
    epoch: str
    received: int
    duplicates: int
    skipped: Mapping[str, int]
    rejected: Mapping[str, int]
    missing: int
    to_come: int
    holes: tuple[Span, ...]


@dataclass(frozen=True, slots=True)
class DeviceRow:
    """Readings of one device. Latency is from the reading's time to the platform's commit, of live readings only."""

    tenant: str
    device: str
    delivered: int
    duplicates: int
    p50_ms: int | None
    p99_ms: int | None


def streams(path: Path) -> list[StreamRow]:
    """One row for each gateway, lane and epoch. StorageError where `path` is not a receiver's database."""
    with _reading(path) as db:
        counted: Counter[int] = Counter()
        for table in ("reading", "event"):
            counted.update(dict(db.execute(f"SELECT stream, count(*) FROM {table} GROUP BY stream")))  # noqa: S608
        skipped = _by_reason(db, "SELECT stream, reason, sum(last - first + 1) FROM skipped GROUP BY stream, reason")
        rejected = _by_reason(db, "SELECT stream, reason, count(*) FROM rejected GROUP BY stream, reason")
        rows = db.execute(
            "SELECT id, tenant, gateway, lane, epoch, base, low, duplicates, held FROM stream "
            "ORDER BY tenant, gateway, lane, id"
        )
        return [_stream_row(row, counted[row[0]], skipped.get(row[0], {}), rejected.get(row[0], {})) for row in rows]


def devices(path: Path) -> list[DeviceRow]:
    """One row for each device that has sent readings, or sent them again. StorageError as above."""
    with _reading(path) as db:
        latency = {
            (tenant, device): (p50, p99)
            for tenant, device, p50, p99 in db.execute(
                """WITH ranked AS (
                    SELECT tenant, device, received_at - time AS ms,
                        row_number() OVER (PARTITION BY tenant, device ORDER BY received_at - time) AS n,
                        count(*) OVER (PARTITION BY tenant, device) AS total
                    FROM reading JOIN point ON point.id = reading.point WHERE mode = 'live')
                SELECT tenant, device, max(CASE WHEN n = (total + 1) / 2 THEN ms END),
                    max(CASE WHEN n = (total * 99 + 99) / 100 THEN ms END)
                FROM ranked GROUP BY tenant, device"""
            )
        }
        rows = db.execute(
            """SELECT tenant, device, sum(ifnull(delivered, 0)), sum(duplicates)
            FROM point LEFT JOIN (SELECT point AS id, count(*) AS delivered FROM reading GROUP BY point) USING (id)
            GROUP BY tenant, device HAVING sum(ifnull(delivered, 0)) + sum(duplicates) > 0 ORDER BY tenant, device"""
        )
        return [
            DeviceRow(tenant, device, delivered, duplicates, *latency.get((tenant, device), (None, None)))
            for tenant, device, delivered, duplicates in rows
        ]


def _stream_row(
    row: tuple[int, str, str, str, str, int, int, int, str],
    received: int,
    skipped: Mapping[str, int],
    rejected: Mapping[str, int],
) -> StreamRow:
    _, tenant, gateway, lane, epoch, base, low, duplicates, spans = row
    held = Ranges(orjson.loads(spans))
    highest = max((last for _, last in held), default=0)
    missing, to_come = held.missing(base, low - 1), held.missing(low, highest)
    return StreamRow(
        tenant, gateway, lane, epoch, received, duplicates, skipped, rejected,
        sum(last - first + 1 for first, last in missing), sum(last - first + 1 for first, last in to_come),
        (*missing, *to_come),
    )  # fmt: skip


def events(path: Path) -> list[dict[str, Any]]:
    """Every event and every state of a command, as they came, in the order of their commit here."""
    with _reading(path) as db:
        rows = db.execute("SELECT document FROM event ORDER BY received_at, stream, seq")
        return [orjson.loads(document) for (document,) in rows]


def _by_reason(db: sqlite3.Connection, query: str) -> dict[int, dict[str, int]]:
    found: dict[int, dict[str, int]] = {}
    for stream, reason, count in db.execute(query):
        found.setdefault(stream, {})[reason] = count
    return found


@contextmanager
def _reading(path: Path) -> Iterator[sqlite3.Connection]:
    if not path.exists():
        raise StorageError(f"{path} is not there. Check the path.")
    try:
        with closing(sqlite3.connect(path)) as db:
            db.execute("PRAGMA query_only=1")
            yield db
    except sqlite3.Error as error:
        raise StorageError(f"{path} is not a receiver's database: {error}. Check the path.") from None
