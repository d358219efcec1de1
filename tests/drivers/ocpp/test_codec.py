"""Payloads of OCPP 1.6: the specification's defaults, and what real chargers send instead."""

from __future__ import annotations

import pytest

from drivers.ocpp import codec
from drivers.ocpp.codec import Remarks


@pytest.mark.parametrize(
    ("written", "utc_ms"),
    [
        ("2013-02-01T20:53:32.486Z", 1_359_752_012_486),
        ("2013-02-01T21:53:32.486+01:00", 1_359_752_012_486),
        ("2013-02-01T20:53:32.486123456Z", 1_359_752_012_486),
        ("2013-02-01 20:53:32Z", 1_359_752_012_000),
        ("2013-02-01T20:53:32", 1_359_752_012_000),  # without a zone: UTC, and said
        ("1970-01-01T00:00:05Z", 5_000),
        ("yesterday", None), ("", None), (None, None), (1_359_752_012, None), ("2013-02-31T00:00:00Z", None),
    ],
)  # fmt: skip
def test_times(written: object, utc_ms: int | None) -> None:
    assert codec.moment(written, Remarks()) == utc_ms


def test_our_own_time_stamps() -> None:
    assert codec.iso(1_359_752_012_486) == "2013-02-01T20:53:32.486Z"
    assert codec.iso(1_359_752_012_000) == "2013-02-01T20:53:32.000Z"


@pytest.mark.parametrize(
    ("value", "number", "is_said"),
    [
        (7, 7, False), (-1, -1, False), ("7", 7, True), (7.0, 7, True), (7.5, None, True), ("x", None, True),
        (None, None, True), (True, None, True), (1e300, None, True),
    ],
)  # fmt: skip
def test_whole_numbers(value: object, number: int | None, is_said: bool) -> None:
    remarks = Remarks()
    assert codec.whole({"n": value}, "n", remarks) == number
    assert bool(remarks) == is_said


def test_the_words_are_those_of_the_specification() -> None:
    from ocpp.v16 import enums

    assert {action.value for action in enums.Action} == codec.ACTIONS
    assert {word.value for word in enums.ChargePointStatus} == set(codec.STATUSES)
