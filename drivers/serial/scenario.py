"""Hours in a street, as values: what an emulated sensor measures, in canonical units; and what may go wrong with it."""

import math
from enum import StrEnum
from pathlib import Path

from gateway import document
from gateway.fields import Written

DAY = 86_400.0
RAIN = 18.0
"""mm/h, at its heaviest: at three in the afternoon."""


class Scenario(StrEnum):
    TRAFFIC = "traffic"
    """A dry working day from eight in the morning: dust, noise and gas rise with the traffic."""
    WEATHER = "weather"
    """A front passes: wind rises and turns, it rains, pressure and temperature fall."""
    NIGHT = "night"
    """From midnight: dark, cool, still, clean."""


class Fault(StrEnum):
    GARBAGE = "garbage"
    """Random bytes before each good frame."""
    SPLIT = "split"
    """Each good frame in several pieces."""
    MERGED = "merged"
    """Good frames two at a time."""
    CHECKSUM = "checksum"
    """Every second frame is damaged."""
    TRUNCATED = "truncated"
    """Each good frame comes directly behind the first bytes of another one."""
    SYNC_INSIDE = "sync_inside"
    """The sync's bytes stand where the first value does; in text, inside a line that is cut short."""
    WARM_UP = "warm_up"
    """It says that it is starting, in its own way; if it has none, every value is zero."""
    SILENCE = "silence"
    UNPLUG = "unplug"
    """The port hangs up and its name is gone, until the fault ends."""
    STUCK = "stuck"
    """The same values for ever."""


class Play(Written):
    """What an emulated sensor does."""

    hours: Scenario = Scenario.TRAFFIC
    fault: Fault | None = None
    """From the first frame on."""


def read(path: Path) -> Play:
    """What a YAML file says. DocumentError with every mistake."""
    return document.check(document.read(path), Play)


_BEGINS = {Scenario.TRAFFIC: 8 * 3600.0, Scenario.WEATHER: 14 * 3600.0, Scenario.NIGHT: 0.0}


def level(scenario: Scenario, quantity: str, second: float) -> float | None:
    """The quantity after so many seconds; None: the scenario knows nothing of it."""
    begins = _BEGINS[scenario]
    day, second_of_day = divmod(begins + second, DAY)
    hour = second_of_day / 3600
    rush = math.exp(-(((hour - 8.5) / 1.5) ** 2)) + math.exp(-(((hour - 18.5) / 2) ** 2))
    sun = max(0.0, math.sin(math.pi * (hour - 6) / 14)) if 6 < hour < 20 else 0.0
    storm = math.exp(-(((hour - 15) / 1.0) ** 2)) if scenario is Scenario.WEATHER else 0.0
    levels = {
        "pm1": 6 + 9 * rush,
        "pm25": 9 + 14 * rush,
        "pm10": 14 + 26 * rush,
        "x_pm4": 12 + 20 * rush,
        "co2": 430 + 60 * rush,
        "x_co": 2 + 3 * rush,
        "noise_laeq": 48 + 22 * min(1.0, rush),
        "noise_las": 48 + 22 * min(1.0, rush),
        "temperature": 12 + 9 * sun - 5 * storm,
        "relative_humidity": 70 - 25 * sun + 25 * storm,
        "air_pressure": 1013 - 12 * storm,
        "wind_speed": 1.2 + 1.5 * sun + 11 * storm,
        "wind_direction": (200 + 90 * storm) % 360,
        "rain_intensity": RAIN * storm,
        "precipitation": _fallen(day, hour) - _fallen(0, _BEGINS[scenario] / 3600)
        if scenario is Scenario.WEATHER
        else 0.0,
        "solar_irradiance": 850 * sun * (1 - 0.8 * storm),
        "illuminance": 90_000 * sun * (1 - 0.8 * storm),
    }
    return levels.get(quantity)


def _fallen(day: float, hour: float) -> float:
    """Millimetres since the first midnight: the integral of the rain."""
    return RAIN * math.sqrt(math.pi) * (day + (1 + math.erf(hour - 15)) / 2)
