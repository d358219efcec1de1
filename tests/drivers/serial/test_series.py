"""What is told over time: growth of counters, averages that mean something, values that stand still, rest."""

import math
from typing import Any

import pytest

from drivers.serial import DeviceSettings, Profile, points
from drivers.serial.arithmetic import Arithmetic, Sample, as_written, coordinate, measured
from drivers.serial.codec import Heard
from drivers.serial.dialogue import Meaning
from drivers.serial.point import Counter, SerialPoint
from drivers.serial.sensor import Sensor, Shift
from drivers.serial.series import Growth, Series, combined
from gateway.model import Device, Quality, Reason
from gateway.testing import Recorder


def growth(last: float | None, *values: float, wraps: str | None = None) -> list[Sample]:
    rule = Counter.model_validate({"wraps": wraps} if wraps else {})
    one, told = Growth(rule, last), []
    for value in values:
        one.add(value)
        told.append(one.take())
    return told


def test_a_counter_tells_by_how_much_it_grew() -> None:
    assert growth(10.0, 10.2, 10.2, 11.0) == [Sample(0.2), Sample(0.0), Sample(0.8)]


def test_the_first_of_all_has_nothing_to_grow_from() -> None:
    assert growth(None, 10.2, 10.4) == [Sample(None, Quality.BAD, Reason.COUNTER_RESET), Sample(0.2)]


def test_a_counter_that_begins_anew_never_shrinks() -> None:
    assert growth(10.0, 0.3) == [Sample(0.3, Quality.UNCERTAIN, Reason.COUNTER_RESET)]


def test_a_counter_that_wraps_goes_on() -> None:
    assert growth(250.0, 4.0, wraps="256") == [Sample(10.0)]
    assert growth(100.0, 4.0, wraps="256") == [Sample(4.0, Quality.UNCERTAIN, Reason.COUNTER_RESET)]


def test_what_was_not_stored_is_told_again() -> None:
    one = Growth(Counter(), 10.0)
    one.add(10.5)
    one.take()
    one.back()
    one.add(11.0)
    assert one.take() == Sample(1.0)


def test_decibels_are_averaged_as_energy() -> None:
    assert combined("energy", [(60.0, 1), (70.0, 1)]) == pytest.approx(67.4036, abs=1e-3)
    assert combined("energy", [(65.0, 1)] * 9) == pytest.approx(65.0)


def test_directions_are_averaged_as_vectors() -> None:
    assert combined("vector", [(350.0, 1), (10.0, 1)]) == pytest.approx(0.0, abs=1e-6)
    assert combined("vector", [(0.0, 3.0), (90.0, 1.0)]) == pytest.approx(math.degrees(math.atan2(1, 3)), abs=1e-5)
    assert combined("vector", [(0.0, 1), (180.0, 1)]) is None, "no direction is not north"


def point(**keys: Any) -> SerialPoint:
    return SerialPoint.model_validate({"quantity": "x_a", "unit": "1", "at": "0", **keys})


def test_a_value_that_stands_still_is_doubtful() -> None:
    one = Series(point(stuck="30min"), 0.0, 1.0)
    told = [one.hear(Sample(5.0), 1.0, when) for when in (0.0, 1000.0, 1800.0, 1801.0)]
    assert [sample.quality for sample in told if sample] == [Quality.GOOD] * 3 + [Quality.UNCERTAIN]
    assert told[3] == Sample(5.0, Quality.UNCERTAIN, Reason.STALE)
    assert one.hear(Sample(6.0), 1.0, 1802.0) == Sample(6.0)


@pytest.mark.parametrize(
    ("keys", "number", "value"),
    [
        ({"scale": "0.1"}, 6, 0.6),
        ({"scale": "0.125", "offset": "-256"}, 2408, 45.0),
        ({"polynomial": ["1", "2", "3"]}, 2, 17.0),
        ({"table": [["0", "-40"], ["100", "60"]]}, 25, -15.0),
        ({"table": [["0", "0"], ["10", "100"], ["20", "110"]]}, 15, 105.0),
    ],
)
def test_arithmetic_both_ways(keys: dict[str, Any], number: float, value: float) -> None:
    rule = Arithmetic(point(**keys))
    assert rule.sample(number).value == pytest.approx(value)
    assert rule.number(value) == pytest.approx(number)


def test_what_is_no_number_is_no_value() -> None:
    rule = Arithmetic(point(type="f32be"))
    assert rule.sample(math.nan) == rule.sample(math.inf) == Sample(None, Quality.BAD, Reason.NOT_A_NUMBER)
    assert Arithmetic(point(table=[["0", "0"], ["1", "1"]])).sample(2).reason is Reason.OUT_OF_RANGE


def test_numbers_as_text() -> None:
    assert measured("16.1C") == (16.1, "C")
    assert measured("1\xff2") is None
    assert measured("") is None
    assert coordinate(4527.852) == pytest.approx(45.4642)
    assert coordinate(4560.0) is None
    assert [as_written(2.5, like) for like in ("002.74", "+1.0", "3", "16.1C")] == ["002.50", "+2.5", "2", "2.5C"]
    assert as_written(-0.001, "1.0") == "0.0"


def sensor(profile: Profile, every: str | None = None, state: Recorder | None = None) -> Sensor:
    settings = DeviceSettings.model_validate({"link": "air", "profile": "x-y", "every": every})
    device = Device("lp-1/x", points("lp-1/x", profile, settings), settings=settings, profile=profile)
    return Sensor(device, state or Recorder())


def test_rain_goes_on_over_a_restart_of_the_gateway_and_of_the_sensor(wxt530: Profile) -> None:
    state = Recorder()
    state.committed["lp-1/x/rain"] = 4.0
    one = sensor(wxt530, state=state)
    (told,) = one.hear(Heard("reading", {"rain": Sample(4.6)}), 1.0, 1000)
    assert (told.value, told.quality) == (0.6, Quality.GOOD)
    assert one.state() == {"lp-1/x/rain": 4.6}
    one.taken()
    assert one.hear(Heard("restarted", means=Meaning.RESTARTED), 2.0, 2000) == []
    (told,) = one.hear(Heard("reading", {"rain": Sample(0.1)}), 3.0, 3000)
    assert (told.value, told.reason) == (0.1, Reason.COUNTER_RESET)


def test_a_sensor_rests_between_measurements(sds011: Profile) -> None:
    """Wake, warm up 15 s, measure 5 s, tell the mean of that, sleep until the next."""
    one = sensor(sds011, every="5min")
    assert one.shift is Shift.WAKING
    assert one.turn(0.0, 0) == ("wake", [])
    assert one.turn(1.0, 0) == ("", [])
    assert one.turn(6.0, 0) == ("wake", []), "it did not start: once more"
    for second in range(7, 27):
        value = 99.0 if second < 22 else float(second)
        assert one.hear(Heard("", {"pm25": Sample(value)}), float(second), second * 1000) == []
    due, told = one.turn(27.0, 27_000)
    assert due == "sleep"
    assert [(reading.value, reading.quality) for reading in told] == [(24.0, Quality.GOOD)]
    assert (one.shift, one.turns_at) == (Shift.RESTING, 300.0)
    assert one.turn(299.0, 0) == ("", [])
    assert one.turn(300.0, 0) == ("wake", [])


def test_a_sensor_without_time_to_rest_goes_on(sds011: Profile) -> None:
    assert sensor(sds011, every="30s").shift is Shift.ALWAYS
    assert sensor(sds011).shift is Shift.ALWAYS


def test_what_a_sensor_says_before_it_agrees_to_its_unit_is_no_value(ops24x: Profile) -> None:
    """It may still count in km/h; it is told again until it says that it does not."""
    one, speed = sensor(ops24x), {"speed": Sample(50.0)}
    one.opened()
    assert one.init_at == 0.0
    one.init_sent(1.0)
    assert one.init_at == 6.0, "no answer yet: once more"
    (told,) = one.hear(Heard("plain", speed), 2.0, 2000)
    assert (told.value, told.reason) == (None, Reason.CONFIG_ERROR)
    one.hear(Heard("metres", means=Meaning.ACKNOWLEDGED), 3.0, 3000)
    assert one.init_at == math.inf
    (told,) = one.hear(Heard("plain", speed), 4.0, 4000)
    assert (told.value, told.quality) == (50.0, Quality.GOOD)
    one.hear(Heard("other_unit", means=Meaning.RESTARTED), 5.0, 5000)
    (told,) = one.hear(Heard("plain", speed), 6.0, 6000)
    assert told.reason is Reason.CONFIG_ERROR


def test_doubt_about_a_counter_is_doubt_about_its_growth() -> None:
    one = Series(point(counter={}), 0.0, 1.0, Growth(Counter(), 10.0))
    doubtful = Sample(10.5, Quality.UNCERTAIN, Reason.WARMING_UP)
    assert one.hear(doubtful, 1.0, 0.0) == Sample(0.5, Quality.UNCERTAIN, Reason.WARMING_UP)
    assert one.hear(Sample(11.0), 1.0, 1.0) == Sample(0.5)


def test_a_mean_that_cannot_be_is_none() -> None:
    assert combined("energy", [(9999.0, 1)]) is None
    assert combined("energy", [(-9999.0, 1)]) is None
    assert combined("mean", [(1e308, 1), (1e308, 1)]) is None
