"""Hours in a street, as an emulated sensor measures them and the driver tells them."""

import asyncio
from collections.abc import Callable, Coroutine
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from drivers.serial import driver
from drivers.serial.emulator import Emulator
from drivers.serial.scenario import DAY, Fault, Play, Scenario, level, read
from gateway.document import DocumentError
from gateway.model import Quality
from tests.drivers.serial.bus import Bus, true

HOUR = 3600.0
Jumped = Callable[[Coroutine[Any, Any, None]], None]


def course(scenario: Scenario, quantity: str, hours: float = 8) -> list[float]:
    """The quantity each quarter of an hour."""
    found = [level(scenario, quantity, quarter * 900.0) for quarter in range(round(4 * hours) + 1)]
    assert all(one is not None for one in found)
    return [one for one in found if one is not None]


def test_traffic_brings_dust_and_noise_at_half_past_eight() -> None:
    for quantity, least in (("pm25", 10.0), ("pm10", 20.0), ("noise_laeq", 15.0), ("co2", 40.0)):
        hours = course(Scenario.TRAFFIC, quantity)
        assert hours.index(max(hours)) == 2, "it begins at eight"
        assert max(hours) - hours[20] > least, f"{quantity} falls until one o'clock"


def test_weather_is_a_front_at_three() -> None:
    def extreme(quantity: str, which: Callable[[list[float]], float]) -> int:
        hours = course(Scenario.WEATHER, quantity, 4)
        return hours.index(which(hours))

    assert {extreme(one, max) for one in ("wind_speed", "rain_intensity")} == {4}, "it begins at two"
    assert extreme("air_pressure", min) == 4
    assert course(Scenario.WEATHER, "temperature")[4] < course(Scenario.TRAFFIC, "temperature", 7)[28] - 4


def test_rain_that_has_fallen_never_falls_back() -> None:
    fallen = course(Scenario.WEATHER, "precipitation", 24)
    assert all(later >= earlier for earlier, later in pairwise(fallen))
    assert 10 < fallen[-1] < 60, "mm"
    assert set(course(Scenario.TRAFFIC, "precipitation", 24)) == {0.0}


def test_the_night_is_dark_cool_still_and_clean() -> None:
    night, day = Scenario.NIGHT, Scenario.TRAFFIC
    assert set(course(night, "illuminance", 5)) == set(course(night, "solar_irradiance", 5)) == {0.0}
    assert max(course(night, "wind_speed", 5)) < 2
    for quantity in ("pm25", "noise_laeq", "temperature"):
        assert max(course(night, quantity, 4)) < max(course(day, quantity, 4))


@pytest.mark.parametrize("scenario", Scenario)
def test_a_scenario_knows_a_whole_week(scenario: Scenario) -> None:
    for second in range(0, round(7 * DAY), 1800):
        humidity = level(scenario, "relative_humidity", second)
        assert humidity is not None
        assert 0 <= humidity <= 100
    assert level(scenario, "voltage", 0) is None


Told = Callable[[str, Scenario, float], dict[str, list[Any]]]


@pytest.fixture
def told(jumped: Jumped, monkeypatch: pytest.MonkeyPatch) -> Told:
    monkeypatch.setattr(driver, "AT_LEAST_EVERY", 300.0)
    return lambda *what: _told(jumped, *what)


def _told(jumped: Jumped, name: str, scenario: Scenario, hours: float) -> dict[str, list[Any]]:
    """What a sensor tells in a scenario, by point: good values, one in five minutes."""
    bus = Bus(true(name).model_copy(update={"cadence": 300.0, "silence": 1200.0, "warm_up": 0.0}))
    bus.emulator.scenario = scenario

    async def story() -> None:
        async with bus.running():
            await asyncio.sleep(hours * HOUR)

    jumped(story())
    assert bus.said("device_down") == []
    values: dict[str, list[Any]] = {}
    for one in bus.recorder.readings:
        if one.quality is Quality.GOOD:
            values.setdefault(one.point.rpartition("/")[2], []).append(one.value)
    return values


def test_the_front_passes_over_the_wire(told: Told) -> None:
    values = told("vaisala-wxt530", Scenario.WEATHER, 3)
    assert max(values["rain_intensity"]) > 15
    assert values["rain_intensity"][0] < 10
    assert max(values["wind_speed"]) > 10
    assert min(values["pressure"]) < 1003 < values["pressure"][0] + 8
    fallen = [level(Scenario.WEATHER, "precipitation", second) for second in (300, 3 * HOUR)]
    assert sum(values["rain"]) == pytest.approx(fallen[1] - fallen[0], abs=2), "what was told adds up to what fell"


def test_the_rush_passes_over_the_wire(told: Told) -> None:
    dust = told("nova-sds011", Scenario.TRAFFIC, 4)["pm10"]
    assert max(dust[:12]) > 35 > 25 > max(dust[-6:])


def test_the_dark_is_zero_and_not_silence(told: Told) -> None:
    light = told("davis-vantage", Scenario.NIGHT, 2)["solar"]
    assert len(light) > 20
    assert set(light) == {0.0}


def test_a_file_says_what_is_played(tmp_path: Path) -> None:
    path = tmp_path / "storm.yaml"
    path.write_text("hours: weather\nfault: split\n")
    assert read(path) == Play(hours=Scenario.WEATHER, fault=Fault.SPLIT)
    path.write_text("hours: wether\n")
    with pytest.raises(DocumentError, match="did you mean `weather`"):
        read(path)


def test_it_is_played_from_the_first_frame_on(jumped: Jumped) -> None:
    bus = Bus(true("nova-sds011"))
    play = Play(hours=Scenario.NIGHT, fault=Fault.SILENCE)
    bus.emulator = Emulator(bus.settings("/dev/none"), bus.devices, None, None, play)

    async def story() -> None:
        async with bus.running():
            await asyncio.sleep(30)

    jumped(story())
    assert bus.emulator.scenario is Scenario.NIGHT
    assert len(bus.said("device_down")) == 1
    assert bus.good() == []
