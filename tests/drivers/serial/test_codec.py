"""Values out of frames and back, and a profile that tests itself."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from drivers.serial import Profile, self_test
from drivers.serial.codec import Codec, Sample
from drivers.serial.framing import Framer
from gateway.model import Quality, Reason

ONCE = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def test_decoded_values_are_those_of_the_facts(sds011: Profile, facts: dict[str, Any]) -> None:
    for row in facts["readings"]:
        samples = Codec(sds011).decode(bytes.fromhex(row["hex"]))
        for slug in ("pm25", "pm10"):
            sample = samples[slug]
            assert sample.value == row[slug]
            if row[slug] is None:
                assert (sample.quality, sample.reason) == (Quality.BAD, Reason.OUT_OF_RANGE)
            elif slug in row.get("doubtful", ()):
                assert (sample.quality, sample.reason) == (Quality.UNCERTAIN, Reason.OUT_OF_RANGE)
            else:
                assert (sample.quality, sample.reason) == (Quality.GOOD, None)


def test_zero_is_data(sds011: Profile) -> None:
    samples = Codec(sds011).decode(bytes.fromhex("aa c0 00 00 00 00 58 d9 31 ab"))
    assert samples == {"pm25": Sample(0.0), "pm10": Sample(0.0)}


def test_a_frame_that_ends_before_the_point_has_no_value(plantower: Profile) -> None:
    answer = bytes.fromhex("42 4d 00 04 e1 00 01 74")
    assert Framer(plantower.frame).feed(answer) == [answer]
    assert Codec(plantower).decode(answer)["pm25"] == Sample(None, Quality.BAD, Reason.ABSENT)


def test_invalid_numbers_units_and_signs() -> None:
    points = {
        "t": {
            "quantity": "temperature",
            "unit": "degC",
            "at": "2",
            "type": "s16be",
            "scale": "0.01",
            "invalid": ["-1"],
        },
        "co": {"quantity": "co", "unit": "mg/m3", "at": "4", "type": "u8", "scale": "0.5"},
    }
    profile = Profile.model_validate(
        {
            "profile": "a-b/1", "driver": "serial", "kind": "gas", "source": "test", "line": {"baud": "9600"},
            "mode": "push", "cadence": "1s", "frame": {"type": "fixed", "sync": "01", "length": "5"}, "points": points,
            "examples": [{"received": "01 00 ff 9c 03", "expect": {"t": "-1 Cel"}, "origin": "computed"}],
        }
    )  # fmt: skip
    assert self_test(profile) == []
    codec = Codec(profile)
    assert codec.decode(bytes.fromhex("01 00 ff 9c 03")) == {"t": Sample(-1.0), "co": Sample(1500.0)}
    assert codec.decode(bytes.fromhex("01 00 ff ff 03"))["t"] == Sample(None, Quality.BAD, Reason.ABSENT)
    assert codec.encode({"t": -1.0, "co": 1500.0}, bytes(5)).hex() == "0000ff9c03"
    with pytest.raises(ValueError, match="co: 1000000 does not fit"):
        codec.encode({"co": 1_000_000}, bytes(5))


@ONCE
@given(pm25=st.integers(0, 9998), pm10=st.integers(0, 9998))
def test_what_is_written_is_read_back(sds011: Profile, pm25: int, pm10: int) -> None:
    codec, template = Codec(sds011), bytes(sds011.examples[0].received)
    values = {"pm25": pm25 / 10, "pm10": pm10 / 10}
    (frame,) = Framer(sds011.frame).feed(codec.encode(values, template))
    assert {slug: sample.value for slug, sample in codec.decode(frame).items()} == values
    assert frame[6:8] == template[6:8]


def test_the_profile_passes_its_own_test(sds011: Profile, plantower: Profile) -> None:
    assert self_test(sds011) == []
    assert self_test(plantower) == []


def test_the_profile_holds_every_frame_of_the_facts(sds011: Profile, facts: dict[str, Any]) -> None:
    assert {bytes.fromhex(row["hex"]) for row in facts["readings"]} <= {one.received for one in sds011.examples}
    assert {bytes.fromhex(row["hex"]) for row in facts["refused"]} <= {one.received for one in sds011.refusals}


def spoilt(profile: Profile, **changes: Any) -> list[tuple[tuple[str | int, ...], str]]:
    tree = {
        "examples": [
            {"received": "aa c0 7b 00 c8 01 58 d9 75 ab", "expect": {"pm25": "12.3 ug/m3"}, "origin": "capture"}
        ],
        "refusals": [],
        **changes,
    }
    fields = {name: getattr(Profile.model_validate({**BASE, **tree}), name) for name in tree}
    return self_test(profile.model_copy(update=fields))


BASE = {
    "profile": "a-b/1", "driver": "serial", "kind": "particulate", "source": "test", "line": {"baud": "9600"},
    "mode": "push", "cadence": "1s", "frame": {"type": "fixed", "sync": "aa c0", "length": "10"},
    "points": {"pm25": {"quantity": "pm25", "at": "2", "type": "u16le"}},
}  # fmt: skip

GOOD = "aa c0 7b 00 c8 01 58 d9 75 ab"


def example(received: str, **expect: str) -> list[dict[str, Any]]:
    return [{"received": received, "expect": expect, "origin": "computed"}]


@pytest.mark.parametrize(
    ("changes", "place", "sentence"),
    [
        ({"examples": example(GOOD, pm25="12.4 ug/m3")}, ("examples", 0, "expect", "pm25"), "got 12.3 ug/m3"),
        ({"examples": example(GOOD, pm25="12.3 mg/m3")}, ("examples", 0, "expect", "pm25"), "expected 12300 ug/m3"),
        ({"examples": example(GOOD, pm25="12.3 V")}, ("examples", 0, "expect", "pm25"), "is not a unit"),
        ({"examples": example(GOOD, pm25="out_of_range")}, ("examples", 0, "expect", "pm25"), "no value, got 12.3"),
        ({"examples": example(GOOD, pm25="12.3 ug/m3 stale")}, ("examples", 0, "expect", "pm25"), "stale, got 12.3"),
        ({"examples": example(GOOD, pm2="1 ug/m3")}, ("examples", 0, "expect", "pm2"), "did you mean `pm25`?"),
        ({"examples": example(GOOD[:-2] + "aa", pm25="1 ug/m3")}, ("examples", 0, "received"), "(end)"),
        ({"examples": example("00 " + GOOD, pm25="1 ug/m3")}, ("examples", 0, "received"), "not one good frame"),
        ({"refusals": [{"received": GOOD, "why": "end"}]}, ("refusals", 0, "received"), "hold a good frame"),
        ({"refusals": [{"received": GOOD[:-2] + "aa", "why": "checksum"}]}, ("refusals", 0, "why"), "reason: end"),
    ],
)  # fmt: skip
def test_a_wrong_example_is_found_at_its_place(
    sds011: Profile, changes: dict[str, Any], place: tuple[str | int, ...], sentence: str
) -> None:
    ((where, why),) = spoilt(sds011, **changes)
    assert where == place
    assert sentence in why
