"""The platform's store: each record once, whatever comes how often and in which order; and its account of it."""

from __future__ import annotations

import dataclasses
import sqlite3
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.batch import Batch, BatchError
from gateway.errors import StorageError
from gateway.model import ClockState, Lane, Receipt
from gateway.receiver import report
from gateway.receiver.store import Arrival, Store
from tests.brokers import GATEWAY, TENANT
from tests.platforms import telemetry

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NOW = 1_795_305_600_000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "platform.db"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    store = Store(path)
    yield store
    store.close()


def came(*batches: Batch, via: str = "mqtt") -> list[Arrival]:
    return [Arrival(TENANT, via, batch) for batch in batches]


def one(path: Path, **where: Any) -> report.StreamRow:
    rows = [row for row in report.streams(path) if all(getattr(row, key) == value for key, value in where.items())]
    assert len(rows) == 1
    return rows[0]


def test_a_batch_is_stored_once_and_acknowledged_each_time(store: Store, path: Path) -> None:
    batch = telemetry(1)
    for _ in range(3):
        assert store.commit(came(batch), NOW) == [Receipt("9f2c", ((1, 50),))]
    assert store.commit(came(batch, batch), NOW) == [Receipt("9f2c", ((1, 50),))] * 2
    row = one(path)
    assert (row.received, row.duplicates, row.missing, row.to_come) == (50, 200, 0, 0)
    assert [(device.device, device.delivered, device.duplicates) for device in report.devices(path)] == [
        ("cab-017/feeder", 25, 100),
        ("lp-0042/pm", 25, 100),
    ]


def test_every_part_of_a_reading_is_kept(store: Store, path: Path) -> None:
    batch = dataclasses.replace(
        telemetry(1, count=3),
        time=NOW,
        clock=ClockState.HOLDOVER,
        mode="backlog",
        readings=[
            [1, 0, -5, 0.5],
            [2, 1, 7, None, "bad", "warming_up"],
            [3, 1, 8, "on", "good", None, {"transaction": "7"}],
        ],
    )
    store.commit(came(batch), NOW + 100)
    with sqlite3.connect(path) as db:
        rows = db.execute(
            "SELECT seq, time, value, quality, reason, more, clock, mode, received_at FROM reading"
        ).fetchall()
        points = db.execute("SELECT device, entry FROM point ORDER BY id").fetchall()
    db.close()
    rest = ("holdover", "backlog", NOW + 100)
    assert rows == [
        (1, NOW - 5, 0.5, "good", None, None, *rest),
        (2, NOW + 7, None, "bad", "warming_up", None, *rest),
        (3, NOW + 8, "on", "good", None, '{"transaction":"7"}', *rest),
    ]
    assert points == [
        ("cab-017/feeder", '["cab-017/feeder/p_l1","power_active","W","L1"]'),
        ("lp-0042/pm", '["lp-0042/pm/pm25","pm25","ug/m3"]'),
    ]


def test_events_and_replies_are_kept(store: Store, path: Path) -> None:
    events = [
        [1, 0, {"event": "link_down", "on": "line", "say": "Not one byte."}],
        [2, 5, {"cmd": "x", "state": "succeeded"}],
    ]
    batch = dataclasses.replace(telemetry(1, count=2), lane=Lane.EVENT, readings=[], points=(), events=events)
    assert store.commit(came(batch, batch), NOW)[1].accepted == ((1, 2),)
    row = one(path, lane="event")
    assert (row.received, row.duplicates) == (2, 2)
    with sqlite3.connect(path) as db:
        documents = db.execute("SELECT document FROM event WHERE time = ?", (batch.time + 5,)).fetchall()
    db.close()
    assert documents == [('{"cmd":"x","state":"succeeded"}',)]


def test_streams_are_told_apart_by_gateway_lane_epoch_and_tenant(store: Store, path: Path) -> None:
    batch = telemetry(1)
    others = [
        dataclasses.replace(batch, gateway="cab-018"),
        dataclasses.replace(batch, lane=Lane.BILLING),
        dataclasses.replace(batch, epoch="0a0a"),
    ]
    store.commit([*came(batch, *others), Arrival("torino", "mqtt", batch)], NOW)
    rows = report.streams(path)
    assert len(rows) == 5
    assert all((row.received, row.duplicates) == (50, 0) for row in rows)


def test_holes_below_low_are_losses_and_above_it_are_still_to_come(store: Store, path: Path) -> None:
    store.commit(came(telemetry(101, low=1)), NOW)
    row = one(path)
    assert (row.missing, row.to_come, row.holes) == (0, 100, ((1, 100),))
    store.commit(came(telemetry(1, low=1), telemetry(201, low=51)), NOW)
    row = one(path)
    assert (row.missing, row.to_come, row.holes) == (0, 100, ((51, 100), (151, 200)))
    store.commit(came(telemetry(251, low=181)), NOW)
    row = one(path)
    assert (row.missing, row.to_come) == (80, 20)
    assert row.holes == ((51, 100), (151, 180), (181, 200))


def test_an_uplink_that_starts_now_has_lost_nothing(store: Store, path: Path) -> None:
    store.commit(came(telemetry(5001, low=5001)), NOW)
    row = one(path)
    assert (row.missing, row.to_come, row.holes) == (0, 0, ())


def test_what_is_left_out_on_purpose_is_not_missing(store: Store, path: Path) -> None:
    skips = ((2, 3, "not_selected"), (5, 5, "expired"))
    batch = dataclasses.replace(
        telemetry(1, count=6, low=7), skip=skips, readings=[[seq, 0, 0, 1.0] for seq in (1, 4, 6)]
    )
    for _ in range(2):
        assert store.commit(came(batch), NOW) == [Receipt("9f2c", ((1, 6),))]
    row = one(path)
    assert (row.received, row.duplicates, row.missing) == (3, 3, 0)
    assert row.skipped == {"not_selected": 2, "expired": 1}


WRONG_POINTS = {
    "unknown_quantity": ("a/b/c", "phlogiston", "W"),
    "wrong_unit": ("a/b/c", "power_active", "kW"),
    "bad_point": ("a/b", "power_active", "W"),
}


@pytest.mark.parametrize(("reason", "entry"), WRONG_POINTS.items())
def test_a_point_that_means_nothing_is_rejected_record_by_record(
    store: Store, path: Path, reason: str, entry: tuple[str, ...]
) -> None:
    good = ("a/b/d", "x_flow", "L/s")
    batch = dataclasses.replace(telemetry(1, count=6), points=(entry, good))
    for _ in range(2):
        (receipt,) = store.commit(came(batch), NOW)
        assert receipt.accepted == ((1, 1), (3, 3), (5, 5))
        assert receipt.rejected == tuple((seq, reason, False) for seq in (2, 4, 6))
    row = one(path)
    assert (row.received, row.duplicates, row.missing) == (3, 3, 0)
    assert row.rejected == {reason: 3}


WRONG_ROWS = {
    "no value and no reason": ([1, 0, 0, None], "no_value_no_reason"),
    "no value and reason null": ([1, 0, 0, None, "bad", None], "no_value_no_reason"),
    "a list for a value": ([1, 0, 0, [1]], "bad_value"),
    "more than SQLite has": ([1, 0, 0, 2**63], "bad_value"),
    "a time out of all bounds": ([1, 0, 2**62, 1], "bad_time"),
    "unknown quality": ([1, 0, 0, 1, "fine"], "bad_quality"),
    "a list for a quality": ([1, 0, 0, 1, []], "bad_quality"),
    "a number for a reason": ([1, 0, 0, 1, "bad", 5], "bad_quality"),
    "text for an object": ([1, 0, 0, 1, "good", None, "x"], "bad_quality"),
    "too long": ([1, 0, 0, 1, "good", None, {}, 1], "bad_quality"),
}


@pytest.mark.parametrize(("reading", "reason"), WRONG_ROWS.values(), ids=WRONG_ROWS.keys())
def test_a_reading_that_means_nothing_is_rejected_and_hurts_no_neighbour(
    store: Store, path: Path, reading: list[Any], reason: str
) -> None:
    batch = dataclasses.replace(telemetry(1, count=2), readings=[reading, [2, 0, 0, 2.5]])
    receipts = store.commit(came(batch, telemetry(3)), NOW)
    assert receipts[0] == Receipt("9f2c", ((2, 2),), ((1, reason, False),))
    assert receipts[1].accepted == ((3, 52),)


def test_an_event_that_says_nothing_is_rejected(store: Store) -> None:
    events = [[1, 0, {}], [2, 0, {"event": "gap", "on": "cab-017"}], [3, 2**60, {"event": "gap"}]]
    batch = dataclasses.replace(telemetry(1, count=3), lane=Lane.EVENT, readings=[], points=(), events=events)
    (receipt,) = store.commit(came(batch), NOW)
    assert receipt.accepted == ((2, 2),)
    assert [row[0] for row in receipt.rejected] == [1, 3]


@pytest.mark.parametrize("change", [{"time": 2**60}, {"low": 2**60}, {"low": -1}, {"span": (2**60, 2**60 + 49)}])
def test_a_head_out_of_all_bounds_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(BatchError, match="out of all bounds"):
        Arrival(TENANT, "mqtt", dataclasses.replace(telemetry(1), **change))


def test_a_restart_forgets_nothing(path: Path) -> None:
    for times in (1, 2, 3):
        store = Store(path)
        store.commit(came(telemetry(1), telemetry(101 * times)), NOW)
        store.close()
        assert one(path).duplicates == 50 * (times - 1)
    assert one(path).received == 200


def test_a_transaction_that_fails_leaves_nothing_behind(store: Store, path: Path) -> None:
    store.commit(came(telemetry(1)), NOW)
    blocker = sqlite3.connect(path, isolation_level=None)
    blocker.execute("CREATE TRIGGER no BEFORE INSERT ON reading WHEN NEW.seq = 75 BEGIN SELECT RAISE(ABORT, 'no'); END")
    with pytest.raises(sqlite3.Error):
        store.commit(came(telemetry(51)), NOW)
    assert one(path).received == 50
    blocker.execute("DROP TRIGGER no")
    blocker.close()
    assert store.commit(came(telemetry(51)), NOW) == [Receipt("9f2c", ((51, 100),))]
    row = one(path)
    assert (row.received, row.duplicates) == (100, 0)


spans = st.lists(st.tuples(st.integers(1, 60), st.integers(1, 15), st.booleans()), min_size=1, max_size=15)


@settings(max_examples=20, deadline=None)
@given(spans, st.data())
def test_the_account_is_right_whatever_comes(tmp_path_factory: pytest.TempPathFactory, some: Any, data: Any) -> None:
    """Against a set: batches in any order, again and again, across restarts."""
    path = tmp_path_factory.mktemp("store") / "platform.db"
    held: set[int] = set()
    skipped: set[int] = set()
    duplicates = 0
    store = Store(path)
    for first, count, skips in some:
        seqs = range(first, first + count)
        # Whether a seq is skipped is settled once: what was never sent as a record stays so.
        gone = {seq for seq in seqs if (seq in skipped if seq in held else skips and seq % 3 == 0)}
        batch = dataclasses.replace(
            telemetry(first, count),
            skip=tuple((seq, seq, "thinned") for seq in sorted(gone)),
            readings=[[seq, 0, 0, 1.0] for seq in seqs if seq not in gone],
        )
        (receipt,) = store.commit(came(batch), NOW)
        assert receipt.accepted == ((first, first + count - 1),)
        duplicates += len(held & set(seqs) - gone)
        held |= set(seqs)
        skipped |= gone
        if data.draw(st.booleans()):
            store.close()
            store = Store(path)
    store.close()
    row = one(path)
    assert row.received == len(held - skipped)
    assert row.duplicates == duplicates
    assert sum(row.skipped.values()) == len(skipped)
    assert row.to_come == max(held) - len(held)
    assert row.missing == 0


def test_latency_is_of_live_readings_and_by_nearest_rank(store: Store, path: Path) -> None:
    live = dataclasses.replace(
        telemetry(1, count=100), time=NOW, readings=[[seq, 0, -seq, 1.0] for seq in range(1, 101)]
    )
    late = dataclasses.replace(telemetry(101, mode="backlog"), time=NOW - 3_600_000)
    store.commit(came(live), NOW)
    store.commit(came(late), NOW)
    feeder, pm = report.devices(path)
    assert (feeder.device, feeder.delivered, feeder.p50_ms, feeder.p99_ms) == ("cab-017/feeder", 125, 50, 99)
    assert (pm.device, pm.delivered, pm.p50_ms, pm.p99_ms) == ("lp-0042/pm", 25, None, None)


def test_a_report_while_nobody_writes_and_where_there_is_nothing(path: Path, tmp_path: Path) -> None:
    store = Store(path)
    store.commit(came(telemetry(1)), NOW)
    store.close()
    assert one(path, gateway=GATEWAY).received == 50
    with pytest.raises(StorageError, match="is not there"):
        report.streams(tmp_path / "other.db")
    assert not (tmp_path / "other.db").exists()
    (tmp_path / "text.db").write_text("no database, and long enough to be looked at as one" * 20)
    with pytest.raises(StorageError, match="is not a receiver's database"):
        report.streams(tmp_path / "text.db")
