"""Values out of frames and back, and a profile that tests itself."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from drivers.serial import Profile, self_test
from drivers.serial.codec import Codec, Sample
from drivers.serial.framing import Framer
from drivers.serial.words import Condition
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


def of_text(layout: dict[str, Any], **point: Any) -> Codec:
    """A profile of lines without a checksum, with one point."""
    tree = {
        "profile": "a-b/1", "driver": "serial", "kind": "weather", "source": "test", "line": {"baud": "9600"},
        "mode": "push", "cadence": "1s", "frame": {"type": "delimited", "end": "0a", "max_length": "4096"},
        "layout": layout, "points": {"it": {"quantity": "x_it", "unit": "1", "at": "0", **point}},
        "examples": [{"received": "00", "means": "other", "origin": "computed"}],
    }  # fmt: skip
    return Codec(Profile.model_validate(tree))


CSV, JSON = {"type": "csv"}, {"type": "json"}
WIND = {"quantity": "wind_speed", "unit": None, "unit_at": "1", "units": {"M": "m/s", "N": "kn", "X": "absent"}}


@pytest.mark.parametrize(
    ("layout", "point", "line"),
    [
        (CSV, {}, b"12\xc3"),
        (CSV, {}, b"1\x002"),
        (CSV, {}, b"12.5C"),
        (CSV, {}, b"1,234.5.6"[2:]),
        (CSV, {"type": "hex"}, b"1_0"),
        (CSV, {"type": "hex"}, b"-5"),
        (CSV, {"type": "hex"}, b"F" * 400),
        (CSV, WIND, b"12.5K,M"),
        ({"type": "key_values"}, {"at": "a"}, b"a=1, a=2"),
        (JSON, {"at": "a"}, b'{"a": 1, "a": 2}'),
        (JSON, {"at": "a"}, b'{"a": NaN}'),
        (JSON, {"at": "a"}, b"[" * 4000),
        (JSON, {"at": "a"}, b'{"a":' * 700),
        ({"type": "nmea"}, {"at": "XDR.C.0"}, b"WIXDR,C,1.0,C,0,C,2.0,C,0"),
    ],
)
def test_a_line_that_may_mean_two_things_or_nothing_has_no_value(
    layout: dict[str, Any], point: dict[str, Any], line: bytes
) -> None:
    assert of_text(layout, **point).read(line).refused == "garbled"


@pytest.mark.parametrize(
    ("layout", "point", "line", "reason"),
    [
        (JSON, {"at": "a"}, b'{"a": null}', Reason.ABSENT),
        (JSON, {"at": "a"}, b'{"a": 1e999}', Reason.NOT_A_NUMBER),
        (CSV, {"scale": "1000"}, b"1e307", Reason.OUT_OF_RANGE),
        (CSV, {"polynomial": ["0", "1", "2"]}, b"1e300", Reason.OUT_OF_RANGE),
        (CSV, WIND, b"12.5,Q", Reason.CONFIG_ERROR),
        (CSV, WIND, b"12.5,", Reason.CONFIG_ERROR),
        (CSV, WIND, b"12.5", Reason.CONFIG_ERROR),
        (CSV, WIND, b"12.5,X", Reason.ABSENT),
        (CSV, WIND, b",M", Reason.ABSENT),
    ],
)
def test_what_is_not_there_or_cannot_be_is_no_value(
    layout: dict[str, Any], point: dict[str, Any], line: bytes, reason: Reason
) -> None:
    assert of_text(layout, **point).decode(line) == {"it": Sample(None, Quality.BAD, reason)}


def test_a_letter_decides_about_the_unit() -> None:
    codec = of_text(CSV, **WIND)
    assert codec.decode(b"10,M")["it"] == Sample(10.0)
    assert codec.decode(b"10,N")["it"].value == pytest.approx(5.14444, abs=1e-5)


def test_what_is_plausible_does_not_depend_on_the_letter() -> None:
    codec = of_text(CSV, **{**WIND, "range": ["0", "60"], "saturates": "50"})
    assert codec.decode(b"116,N")["it"].reason is Reason.OUT_OF_RANGE
    assert codec.decode(b"116,N")["it"].quality is Quality.UNCERTAIN, "59.7 m/s"
    assert codec.decode(b"61,N")["it"].quality is Quality.GOOD
    assert codec.decode(b"61,M")["it"] == Sample(None, Quality.BAD, Reason.OUT_OF_RANGE)


def test_a_state_is_known_by_its_whole_number() -> None:
    codec = of_text(CSV, words={"1234567": "on"})
    assert codec.decode(b"1234567")["it"] == Sample("on")
    assert codec.decode(b"1234568")["it"].value is None


def test_a_place_from_the_end_is_none_in_a_shorter_frame() -> None:
    condition = Condition.model_validate({"when": {"-3": "2a"}})
    assert condition.holds(b"x*41")
    assert not condition.holds(b"*4")


def test_a_frame_that_ends_before_its_status_vouches_for_nothing() -> None:
    tree = {
        "profile": "a-b/1", "driver": "serial", "kind": "gas", "source": "test", "line": {"baud": "9600"},
        "mode": "push", "cadence": "1s",
        "frame": {"type": "length_prefixed", "sync": "01", "length_at": "1", "length_type": "u8", "max_length": "9"},
        "status": {"at": "4", "type": "u8", "bits": {"7": {}}},
        "points": {"co": {"quantity": "co", "at": "2", "type": "u16be"}},
        "examples": [{"received": "01 05 00 07 00", "expect": {"co": "7 ppm"}, "origin": "computed"}],
    }  # fmt: skip
    codec = Codec(Profile.model_validate(tree))
    assert codec.decode(bytes.fromhex("01 05 00 07 00"))["co"] == Sample(7)
    assert codec.decode(bytes.fromhex("01 04 00 07"))["co"] == Sample(None, Quality.BAD, Reason.ABSENT)
