"""The batch and its acknowledgement: whatever goes out comes back, and nothing else is taken for one."""

from __future__ import annotations

import zlib
from contextlib import suppress
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import batch as wire
from gateway.batch import Batch, BatchError, BatchRefusedError
from gateway.model import ClockState, Lane, Point, Receipt

names = st.text("abcdefghijklmnopqrstuvwxyz0123456789-", min_size=1, max_size=12)
times = st.integers(0, 2**50)
scalars = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
scalars |= st.text(max_size=20)
entries = st.tuples(names, names, names) | st.tuples(names, names, names, st.none() | names, names)


@st.composite
def batches(draw: st.DrawFn) -> Batch:
    """A span whose every seq is a reading, an event, or skipped."""
    first = draw(st.integers(1, 2**52))
    fate = draw(st.lists(st.sampled_from(("reading", "event", "not_selected", "expired")), min_size=1, max_size=30))
    points = tuple(draw(st.lists(entries, min_size=1, max_size=4)))
    readings: list[list[Any]] = []
    events: list[list[Any]] = []
    skip: list[tuple[int, int, str]] = []
    for seq, what in enumerate(fate, first):
        ms = draw(st.integers(-5000, 5000))
        if what == "reading":
            row = [seq, draw(st.integers(0, len(points) - 1)), ms, draw(scalars)]
            readings.append(row + draw(st.sampled_from(([], ["bad", "stale"], ["good", None, {"context": "trigger"}]))))
        elif what == "event":
            events.append([seq, ms, draw(st.dictionaries(names, scalars, max_size=3))])
        elif skip and skip[-1][1:] == (seq - 1, what):
            skip[-1] = (skip[-1][0], seq, what)
        else:
            skip.append((seq, seq, what))
    return Batch(
        gateway=draw(names),
        lane=draw(st.sampled_from(Lane)),
        epoch=draw(names),
        span=(first, first + len(fate) - 1),
        low=draw(times),
        time=draw(times),
        clock=draw(st.sampled_from(ClockState)),
        boot=draw(names),
        mode=draw(st.sampled_from((wire.LIVE, wire.BACKLOG))),
        inventory=draw(times),
        skip=tuple(skip),
        points=points if readings else (),
        readings=readings,
        events=events,
    )


@given(batches())
def test_a_batch_comes_back_as_it_went(batch: Batch) -> None:
    payload = wire.encode(batch)
    assert wire.decode(payload) == batch
    packed = wire.compress(payload)
    assert packed is None or (len(packed) < len(payload) and wire.decompress(packed) == payload)


GOOD: dict[str, Any] = {
    "v": 1, "gw": "cab-017", "lane": "telemetry", "ep": "9f2c", "inv": 7, "boot": "5e1f", "t": 1795305600000,
    "clock": "synced", "mode": "live", "low": 48210, "span": [48210, 48212], "skip": [[48211, 48211, "not_selected"]],
    "p": [["cab-017/feeder/p_l1", "power_active", "W", "L1", "import"], ["lp-0042/pm/pm25", "pm25", "ug/m3"]],
    "r": [[48210, 0, 0, 2310.5], [48212, 1, 140, None, "bad", "warming_up"]],
}  # fmt: skip


def test_the_example_is_good() -> None:
    assert wire.decode(orjson.dumps(GOOD)).readings == GOOD["r"]


NEEDED = ("gw", "lane", "ep", "boot", "t", "clock", "mode", "low", "span")
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    **{f"no {key}": ({key: ...}, f"no '{key}'") for key in NEEDED},
    "version": ({"v": 2}, "version 2 is not 1"),
    "no version": ({"v": ...}, "version None"),
    "lane": ({"lane": "fast"}, "'fast' is not a valid Lane"),
    "clock": ({"clock": "good"}, "not a valid ClockState"),
    "gateway is no text": ({"gw": 5}, "'gw' is not text"),
    "time is no whole number": ({"t": 1.5}, "1.5 is not a whole number"),
    "time is true": ({"t": True}, "True is not a whole number"),
    "span of one": ({"span": [1]}, "not enough values"),
    "span backwards": ({"span": [5, 4]}, "ends before it starts"),
    "skip outside": ({"skip": [[48213, 48213, "expired"]]}, "not within span"),
    "skip backwards": ({"skip": [[48212, 48211, "expired"]]}, "not within span"),
    "skip twice": ({"skip": [[48211, 48211, "expired"], [48211, 48211, "expired"]]}, "repeats"),
    "skipped and there": ({"span": [48210, 48213], "skip": [[48211, 48212, "expired"]]}, "skipped at once"),
    "hole": ({"span": [48210, 48213]}, "not accounted for: 2 records, 1 skipped"),
    "readings no list": ({"r": 5}, "not a list"),
    "readings null": ({"r": None}, "not a list"),
    "events no list": ({"e": {}}, "not a list"),
    "reading no list": ({"r": [5]}, "reading 5 is not"),
    "reading too short": ({"r": [[48210, 0, 0]]}, "is not [seq, point, ms, value"),
    "reading's seq is text": ({"r": [["48210", 0, 0, 1]]}, "is not [seq"),
    "reading's point is a bool": ({"r": [[48210, False, 0, 1]]}, "is not [seq"),
    "no such point": ({"r": [[48210, 2, 0, 1]]}, "names point 2 of 2"),
    "negative point": ({"r": [[48210, -1, 0, 1]]}, "names point -1"),
    "reading outside": ({"r": [[48210, 0, 0, 1], [48213, 0, 0, 1]]}, "leave span"),
    "seq twice": ({"r": [[48210, 0, 0, 1], [48210, 0, 0, 1]]}, "seqs repeat"),
    "event no object": ({"r": [], "e": [[48210, 0, "x"], [48212, 0, {}]]}, "is not [seq, ms, object]"),
    "event too long": ({"r": [], "e": [[48210, 0, {}, 1], [48212, 0, {}]]}, "is not [seq, ms, object]"),
    "points no list": ({"p": 5}, "does not read"),
    "skip no list": ({"skip": [5]}, "does not read"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "why"), REFUSED.values(), ids=REFUSED.keys())
def test_a_batch_is_refused_and_says_why(change: dict[str, Any], why: str) -> None:
    document = {key: value for key, value in (GOOD | change).items() if value is not ...}
    with pytest.raises(BatchError) as refusal:
        wire.decode(orjson.dumps(document))
    assert why in str(refusal.value)


@pytest.mark.parametrize("payload", [b"", b"{", b"[]", b"5", b"\xff", b'"v"', b"null", b"NaN", b'{"v": 1'])
def test_what_is_no_json_object_is_refused(payload: bytes) -> None:
    for reads in (wire.decode, wire.decode_receipt):
        with pytest.raises(BatchError):
            reads(payload)


json = st.recursive(scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4))


@given(st.sampled_from(sorted(GOOD)), json)
def test_whatever_stands_under_a_key_it_is_a_batch_or_refused(key: str, value: Any) -> None:
    with suppress(BatchError):
        wire.decode(orjson.dumps(GOOD | {key: value}))


@given(st.sampled_from(("v", "gw", "lane", "ep", "ok", "bad", "refused")), json)
def test_whatever_stands_in_an_acknowledgement_it_reads_or_is_refused(key: str, value: Any) -> None:
    good = {"v": 1, "gw": "cab-017", "lane": "telemetry", "ep": "9f2c", "ok": [[1, 2]], "bad": [[3, "x"]]}
    with suppress(BatchError):
        wire.decode_receipt(orjson.dumps(good | {key: value}))


@given(
    names,
    st.lists(st.tuples(st.integers(1, 9), st.integers(9, 20)), max_size=4),
    st.lists(st.tuples(st.integers(1, 2**53), names, st.booleans()), max_size=4),
)
def test_a_receipt_comes_back_as_it_went(
    epoch: str, accepted: list[tuple[int, int]], rejected: list[tuple[int, str, bool]]
) -> None:
    receipt = Receipt(epoch, tuple(accepted), tuple(rejected))
    assert wire.decode_receipt(wire.encode_receipt("cab-017", Lane.EVENT, receipt)) == receipt


def test_a_refusal_says_why_and_is_no_receipt() -> None:
    with pytest.raises(BatchRefusedError, match=r"^not JSON$"):
        wire.decode_receipt(wire.encode_refusal("cab-017", "telemetry", "not JSON"))


def test_an_acknowledged_range_that_ends_before_it_starts_is_refused() -> None:
    with pytest.raises(BatchError, match=r"3\.\.2 ends before"):
        wire.decode_receipt(b'{"v":1,"ep":"a","ok":[[3,2]]}')


def test_unpacking_is_bounded() -> None:
    bomb = zlib.compress(bytes(wire.MAX_DECODED + 1), 9)
    assert len(bomb) < 10_000
    with pytest.raises(BatchError, match="larger than"):
        wire.decompress(bomb)
    assert len(wire.decompress(zlib.compress(bytes(wire.MAX_DECODED - 1)))) == wire.MAX_DECODED - 1


@pytest.mark.parametrize("payload", [b"", b"{}", b"x" * 500, zlib.compress(b"x" * 500)[:-1]])
def test_what_is_no_zlib_is_refused(payload: bytes) -> None:
    with pytest.raises(BatchError):
        wire.decompress(payload)


def test_small_and_random_payloads_are_not_packed() -> None:
    assert wire.compress(b"x" * 399) is None
    assert wire.compress(bytes(range(256)) * 2) is None or len(wire.compress(bytes(range(256)) * 2) or b"") < 512


def test_a_points_entry_ends_where_its_meaning_does() -> None:
    assert wire.point_entry(Point("a/b/c", "voltage", "V")) == ("a/b/c", "voltage", "V")
    assert wire.point_entry(Point("a/b/c", "voltage", "V", phase="L1")) == ("a/b/c", "voltage", "V", "L1")
    whole = Point("a/b/c", "energy_active", "Wh", "L1", "import", "mean", "2", 900)
    assert wire.point_entry(whole) == ("a/b/c", "energy_active", "Wh", "L1", "import", "mean", "2", 900)
    assert wire.point_entry(Point("a/b/c", "pm25", "ug/m3", window=900))[3:] == (None, None, None, None, 900)
