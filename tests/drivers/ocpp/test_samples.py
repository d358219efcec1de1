"""SampledValues: the specification's defaults, what real chargers send instead, and what is signed."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers import ocpp
from drivers.ocpp import samples
from drivers.ocpp.codec import Remarks
from drivers.ocpp.samples import Sample, Signed
from gateway.model import Quality, Reason
from tests.drivers.ocpp.chargers import GENERIC


def read(**sampled: Any) -> tuple[list[Any], Remarks]:
    remarks = Remarks()
    entry = {"timestamp": "2026-11-22T10:00:00Z", "sampledValue": [sampled]}
    return list(samples.samples([entry], remarks)), remarks


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
        ({"value": "+1.", "unit": "Wh"}, 1),
        ({"value": "\t.5\n", "unit": "Wh"}, 0.5),
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
        ({"value": "1 0"}, Reason.NOT_A_NUMBER),
        ({"value": "1e"}, Reason.NOT_A_NUMBER),
        ({"value": "--1"}, Reason.NOT_A_NUMBER),
        ({"value": "."}, Reason.NOT_A_NUMBER),
        ({"value": "Infinity"}, Reason.NOT_A_NUMBER),
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
        {"value": 7, "format": "SignedData"},
        {"value": "x" * 20_000, "format": "SignedData"},
    ],
)
def test_what_means_nothing_to_us_is_left_out_and_said(sampled: dict[str, Any]) -> None:
    found, remarks = read(**sampled)
    assert found == []
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
    assert sample.route.phase == phase
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
    assert sample.route.context == context


def test_signed_values_are_handed_on_as_they_came_and_never_read() -> None:
    ocmf = 'OCMF|{"FV":"1.0","RD":[{"RV":12.5,"RU":"kWh"}]}|{"SD":"3045é"}'
    sampled = {
        "value": ocmf,
        "format": "SignedData",
        "context": "Transaction.End",
        "unit": "Wh",
        "measurand": "Made.Up",
    }
    (signed,), remarks = read(**sampled)
    assert signed == Signed(sampled, "2026-11-22T10:00:00Z")
    assert not remarks


def test_what_words_mean_is_worked_out_once_and_for_no_end_of_words() -> None:
    for number in range(5000):
        read(value="1", measurand=f"Made.Up.{number}" + "x" * 1000)
    assert len(samples._known) <= samples.REMEMBERED
    read(value="1")
    held = dict(samples._known)
    read(value="2")
    read(value="3", unit=["x"], phase={"y": 1}, context="z" * 50)
    assert samples._known == held


def test_the_words_are_those_of_the_specification() -> None:
    from ocpp.v16 import enums

    assert {word.value for word in enums.Measurand} == set(samples.MEASURANDS)
    assert {word.value for word in enums.Phase} == set(samples.PHASES)
    assert {word.value for word in enums.ReadingContext} == set(samples.CONTEXTS)
    assert {word.value for word in enums.Location} == set(samples.LOCATIONS)
    assert {word.value.casefold() for word in enums.UnitOfMeasure} <= set(samples.UNITS)


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


WORDS = [*samples.MEASURANDS, *samples.PHASES, *samples.CONTEXTS, "kWh", "A", "2026-11-22T10:00:00Z"]
KEYS = ["timestamp", "sampledValue", "value", "unit", "measurand", "phase", "context", "location", "format"]
LEAF = st.none() | st.booleans() | st.integers(-(2**63), 2**64) | st.floats(allow_nan=False) | st.text(max_size=20)
JSON = st.recursive(
    LEAF | st.sampled_from(WORDS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner),
    max_leaves=15,
)


@given(JSON)
def test_no_payload_breaks_the_reading_of_it(meter_values: object) -> None:
    for sample in samples.samples(meter_values, Remarks()):
        if isinstance(sample, Signed):
            continue
        assert isinstance(sample, Sample)
        assert (sample.value is None) == (sample.quality is Quality.BAD)
        assert sample.value is None or abs(sample.value) <= 1e18
