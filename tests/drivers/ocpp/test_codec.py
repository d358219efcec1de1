"""Payloads of OCPP 1.6: the specification's defaults, and what real chargers send instead."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers import ocpp
from drivers.ocpp import codec
from drivers.ocpp.codec import Remarks, Sample
from gateway.model import Quality, Reason
from tests.drivers.ocpp.chargers import GENERIC


def read(**sampled: Any) -> tuple[list[Sample], Remarks]:
    remarks = Remarks()
    entry = {"timestamp": "2026-11-22T10:00:00Z", "sampledValue": [sampled]}
    return list(codec.samples([entry], remarks)), remarks


@pytest.mark.parametrize(
    ("sampled", "value"),
    [
        ({"value": "1234"}, 1234),  # §7.43: Energy.Active.Import.Register in Wh
        ({"value": "12.345", "unit": "kWh"}, 12345),
        ({"value": "12.345", "unit": "kwh"}, 12345),
        ({"value": "0", "unit": "Wh"}, 0),
        ({"value": 17, "unit": "Wh"}, 17),
        ({"value": "7.4", "unit": "kW", "measurand": "Power.Active.Import"}, 7400),
        ({"value": "-250", "unit": "W", "measurand": "Power.Active.Import"}, -250),
        ({"value": " 16.0 ", "unit": "A", "measurand": "Current.Import"}, 16),
        ({"value": "1.6e1", "unit": "A", "measurand": "Current.Offered"}, 16),
        ({"value": "230.5", "measurand": "Voltage"}, 230.5),
        ({"value": "25", "unit": "Celcius", "measurand": "Temperature"}, 25),  # the specification's own slip
        ({"value": "25", "unit": "Celsius", "measurand": "Temperature"}, 25),
        ({"value": "77", "unit": "Fahrenheit", "measurand": "Temperature"}, 25),
        ({"value": "298.15", "unit": "K", "measurand": "Temperature"}, 25),
        ({"value": "80", "unit": "Percent", "measurand": "SoC"}, 80),
        ({"value": "50.01", "measurand": "Frequency"}, 50.01),
        ({"value": "50.01", "unit": "Hz", "measurand": "Frequency"}, 50.01),
        ({"value": "0.98", "measurand": "Power.Factor"}, 0.98),
        ({"value": "3.2", "unit": "kvarh", "measurand": "Energy.Reactive.Import.Register"}, 3200),
    ],
)
def test_values_become_canonical(sampled: dict[str, Any], value: float) -> None:
    (sample,), _ = read(**sampled)
    assert sample.value == pytest.approx(value, abs=1e-9)
    assert sample.quality is Quality.GOOD


@pytest.mark.parametrize(
    ("sampled", "reason"),
    [
        ({"value": "NaN"}, Reason.NOT_A_NUMBER),
        ({"value": "inf"}, Reason.NOT_A_NUMBER),
        ({"value": ""}, Reason.NOT_A_NUMBER),
        ({"value": None}, Reason.NOT_A_NUMBER),
        ({"value": True}, Reason.NOT_A_NUMBER),
        ({"value": {"a": 1}}, Reason.NOT_A_NUMBER),
        ({"value": "12,5"}, Reason.NOT_A_NUMBER),  # a decimal comma or thousands: nobody knows
        ({"value": "1_0"}, Reason.NOT_A_NUMBER),
        ({"value": "٣"}, Reason.NOT_A_NUMBER),
        ({"value": "0x10"}, Reason.NOT_A_NUMBER),
        ({"value": "1e300"}, Reason.NOT_A_NUMBER),
        ({}, Reason.NOT_A_NUMBER),
        ({"value": "7", "unit": "hp", "measurand": "Power.Active.Import"}, Reason.CONFIG_ERROR),
        ({"value": "7", "unit": "Wh", "measurand": "Power.Active.Import"}, Reason.CONFIG_ERROR),
        ({"value": "98", "unit": "Percent", "measurand": "Power.Factor"}, Reason.CONFIG_ERROR),
        ({"value": "7", "unit": ["Wh"]}, Reason.CONFIG_ERROR),
    ],
)
def test_what_cannot_be_read_with_certainty_is_no_value(sampled: dict[str, Any], reason: Reason) -> None:
    (sample,), remarks = read(**sampled)
    assert (sample.value, sample.quality, sample.reason) == (None, Quality.BAD, reason)
    assert remarks


@pytest.mark.parametrize(
    "sampled",
    [
        {"value": "1", "measurand": "Made.Up"},
        {"value": "1", "measurand": 7},
        {"value": "1", "phase": "L4"},
        {"value": "1", "location": "Roof"},
        {"value": "3045022100af", "format": "SignedData"},
    ],
)
def test_what_means_nothing_to_us_is_left_out_and_said(sampled: dict[str, Any]) -> None:
    samples, remarks = read(**sampled)
    assert samples == []
    assert len(remarks) == 1


@pytest.mark.parametrize(
    ("written", "phase"),
    [
        ("L1", "L1"),
        ("L1-N", "L1"),
        ("L3-N", "L3"),
        ("N", "N"),
        ("L1-L2", "L12"),
        ("L3-L1", "L31"),
        ("", None),
        (None, None),
    ],
)
def test_phases(written: str | None, phase: str | None) -> None:
    (sample,), remarks = read(value="1", measurand="Voltage", unit="V", phase=written)
    assert sample.phase == phase
    assert not remarks


@pytest.mark.parametrize(
    ("written", "context"),
    [
        (None, None), ("Sample.Periodic", None), ("Sample.Clock", "clock_aligned"), ("Trigger", "trigger"),
        ("Transaction.Begin", "transaction_begin"), ("Transaction.End", "transaction_end"), ("Alfen", "other"),
    ],
)  # fmt: skip
def test_contexts(written: str | None, context: str | None) -> None:
    (sample,), _ = read(value="1", context=written)
    assert sample.context == context


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


def test_the_action_and_measurand_words_are_those_of_the_specification() -> None:
    from ocpp.v16 import enums

    assert {action.value for action in enums.Action} == codec.ACTIONS
    assert {word.value for word in enums.Measurand} == set(codec.MEASURANDS)
    assert {word.value for word in enums.Phase} == set(codec.PHASES)
    assert {word.value for word in enums.ReadingContext} == set(codec.CONTEXTS)
    assert {word.value for word in enums.Location} == set(codec.LOCATIONS)
    assert {word.value for word in enums.ChargePointStatus} == set(codec.STATUSES)
    assert {word.value.casefold() for word in enums.UnitOfMeasure} <= set(codec._UNITS)


def test_the_profile_proves_itself() -> None:
    assert isinstance(GENERIC, ocpp.Profile)
    assert ocpp.self_test(GENERIC) == []


def test_a_profile_that_is_wrong_is_found() -> None:
    assert isinstance(GENERIC, ocpp.Profile)
    tree = GENERIC.model_dump()
    tree["examples"][0]["reads"]["energy_import"] = "1 kWh"
    tree["examples"][1]["reads"].pop("power_active")
    tree["refusals"][0]["received"] = tree["examples"][0]["received"]
    places = [place for place, _ in ocpp.self_test(ocpp.Profile.model_validate(tree))]
    assert places == [
        ("examples", 0, "reads", "energy_import"),
        ("examples", 1, "received"),
        ("refusals", 0, "received"),
    ]


WORDS = [*codec.MEASURANDS, *codec.PHASES, *codec.CONTEXTS, "kWh", "A", "2026-11-22T10:00:00Z"]
KEYS = ["timestamp", "sampledValue", "value", "unit", "measurand", "phase", "context", "location", "format"]
LEAF = st.none() | st.booleans() | st.integers(-(2**63), 2**64) | st.floats(allow_nan=False) | st.text(max_size=20)
JSON = st.recursive(
    LEAF | st.sampled_from(WORDS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner),
    max_leaves=15,
)


@given(JSON)
def test_no_payload_breaks_the_reading_of_it(meter_values: object) -> None:
    for sample in codec.samples(meter_values, Remarks()):
        assert (sample.value is None) == (sample.quality is Quality.BAD)
        assert sample.value is None or abs(sample.value) <= 1e18
