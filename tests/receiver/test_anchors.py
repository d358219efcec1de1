"""What came before its gateway's clock was set: dated when the anchor comes, in whichever order they come."""

from __future__ import annotations

import dataclasses
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from gateway.batch import Batch
from gateway.model import ClockState, Lane
from gateway.receiver.store import Arrival, Store
from tests.brokers import TENANT
from tests.platforms import telemetry

if TYPE_CHECKING:
    from pathlib import Path

NOW = 2_531_779_200_000
BOOT = "5e1f"
OFFSET = NOW - 100_000
"""UTC less the boot clock: the batches below were made from 60 s of the boot on."""


def early(first: int, count: int = 4, **more: Any) -> Batch:
    """Made by a clock that nobody had set: it showed 1970."""
    made: dict[str, Any] = {"boot": BOOT, "time": 5_000, "up": 60_000, "clock": ClockState.UNSYNCED}
    return dataclasses.replace(telemetry(first, count), **(made | more))


def happened(first: int, *events: dict[str, Any], **more: Any) -> Batch:
    rows = [[first + place, place, event] for place, event in enumerate(events)]
    batch = dataclasses.replace(
        telemetry(first, len(events)), lane=Lane.EVENT, readings=[], points=(), events=rows, time=NOW
    )
    return dataclasses.replace(batch, **more)


def anchor(boot: str = BOOT, **more: Any) -> dict[str, Any]:
    known = {"boot": boot, "offset": OFFSET, "at": 1_060_000, "error_ms": 500, "drift_ppm": 100}
    return {"event": "clock_anchor", "on": "cab-017", "more": known | more}


def rows(path: Path, table: str = "reading") -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(path)) as db:
        return db.execute(f"SELECT seq, time, clock, error FROM {table} ORDER BY seq").fetchall()  # noqa: S608


def stored(path: Path, *batches: Batch) -> None:
    store = Store(path)
    for batch in batches:
        store.commit([Arrival(TENANT, "mqtt", batch)], NOW)
    store.close()


DATED = [(seq, OFFSET + 60_000 + seq - 1, "corrected", 599) for seq in range(1, 5)]
"""Half a second, and 100 ppm of the 1000 s to the anchor, less what lies between."""


@pytest.mark.parametrize("order", ["anchor last", "anchor first", "together"])
def test_records_that_came_unsynchronised_get_their_true_time_in_whichever_order(tmp_path: Path, order: str) -> None:
    path = tmp_path / "platform.db"
    batches = [early(1), happened(1, anchor())]
    if order == "together":
        store = Store(path)
        store.commit([Arrival(TENANT, "mqtt", batch) for batch in batches], NOW)
        store.close()
    else:
        stored(path, *(reversed(batches) if order == "anchor first" else batches))
    assert [row[:3] for row in rows(path)] == [row[:3] for row in DATED]
    assert all(599 <= row[3] <= 600 for row in rows(path))


def test_until_the_anchor_comes_they_are_as_the_gateway_dated_them(tmp_path: Path) -> None:
    path = tmp_path / "platform.db"
    stored(path, early(1))
    assert rows(path) == [(seq, 5_000 + seq - 1, "unsynced", None) for seq in range(1, 5)]


def test_events_that_came_unsynchronised_are_dated_too(tmp_path: Path) -> None:
    path = tmp_path / "platform.db"
    started = {"event": "started", "on": "cab-017"}
    made: dict[str, Any] = {"boot": BOOT, "time": 5_000, "up": 60_000, "clock": ClockState.UNSYNCED}
    stored(path, happened(1, started, started, **made), happened(3, anchor(), error=500))
    found = rows(path, "event")
    assert [row[:3] for row in found] == [
        (1, OFFSET + 60_000, "corrected"), (2, OFFSET + 60_001, "corrected"), (3, NOW, "synced"),
    ]  # fmt: skip
    assert found[2][3] == 500


def test_another_boot_gateway_tenant_or_a_synchronised_batch_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "platform.db"
    store = Store(path)
    others = [
        Arrival(TENANT, "mqtt", early(1, boot="ffff")),
        Arrival("turin", "mqtt", early(1)),
        Arrival(TENANT, "mqtt", dataclasses.replace(early(1), gateway="cab-018")),
        Arrival(TENANT, "mqtt", early(5, clock=ClockState.SYNCED, up=None)),
    ]
    store.commit(others, NOW)
    store.close()
    before = rows(path)
    stored(path, happened(1, anchor()))
    assert rows(path) == before


def test_a_record_that_comes_again_is_dated_by_how_it_was_stored(tmp_path: Path) -> None:
    """The first batch was dated before somebody set the clock by hand; of the second only the new rows count."""
    path = tmp_path / "platform.db"
    stored(path, early(1, 2), early(1, 4, time=900_000_000), happened(1, anchor()))
    assert [row[:3] for row in rows(path)] == [row[:3] for row in DATED]


def test_what_was_dated_once_stays_when_a_second_anchor_of_the_boot_comes(tmp_path: Path) -> None:
    path = tmp_path / "platform.db"
    stored(path, early(1), happened(1, anchor()), happened(2, anchor(offset=OFFSET + 7_000)), early(1))
    assert [row[:3] for row in rows(path)] == [row[:3] for row in DATED]


@pytest.mark.parametrize("wrong", [{"offset": "soon"}, {"at": None}, {"error_ms": -1}, {"boot": 7}, {"offset": 2**60}])
def test_an_anchor_that_makes_no_sense_dates_nothing_and_is_kept_as_an_event(
    tmp_path: Path, wrong: dict[str, Any]
) -> None:
    path = tmp_path / "platform.db"
    stored(path, early(1), happened(1, anchor(**wrong)))
    assert {row[2] for row in rows(path)} == {"unsynced"}
    assert len(rows(path, "event")) == 1


def test_a_database_of_an_earlier_version_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "platform.db"
    with closing(sqlite3.connect(path)) as db:
        db.execute(
            "CREATE TABLE reading (stream INTEGER, seq INTEGER, point INTEGER, time INTEGER, value, quality TEXT, "
            "reason TEXT, more TEXT, clock TEXT, mode TEXT, received_at INTEGER, PRIMARY KEY (stream, seq)) "
            "WITHOUT ROWID"
        )
        db.execute(
            "CREATE TABLE event (stream INTEGER, seq INTEGER, time INTEGER, document TEXT, mode TEXT, "
            "received_at INTEGER, PRIMARY KEY (stream, seq)) WITHOUT ROWID"
        )
        db.execute("INSERT INTO reading VALUES (99, 1, 1, 0, 1, 'good', NULL, NULL, 'synced', 'live', 0)")
        db.commit()
    stored(path, early(1), happened(1, anchor()))
    assert sorted(row[2] for row in rows(path)) == [*["corrected"] * 4, "synced"]
