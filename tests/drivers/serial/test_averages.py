"""What is told of many frames, over a wire: directions as vectors, noise as energy, growth as a sum."""

import asyncio
from collections.abc import Iterator
from itertools import cycle
from typing import Any

import pytest

from drivers.serial import Profile
from gateway import document, load
from gateway.model import Quality
from tests.drivers.serial.bus import true

NOISE = """\
profile: acme-ear/1
driver: serial
kind: noise
source: test
line: {baud: 9600}
mode: push
cadence: 1s
silence: 30s
frame: {type: delimited, end: 0d 0a, max_length: 40}
layout: {type: expression, like: 'L (?P<laeq>[0-9.]+) dB'}
points:
  noise: {quantity: noise_laeq, unit: dB, at: laeq, range: [20, 140], combine: energy}
examples:
  - {received: {text: "L 61.5 dB\\r\\n"}, expect: {noise: 61.5 dB}, origin: computed}
"""


def noise() -> Profile:
    profile = load.profile(document.parse(NOISE, "acme-ear.yaml"), "acme-ear")
    assert isinstance(profile, Profile)
    return profile


def told(street: Any, jumped: Any, serving: Any, lines: Iterator[bytes], seconds: float) -> dict[str, list[Any]]:
    """Good values by point, while a serial server sends a line each second."""

    async def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for line in lines:
            writer.write(line)
            await asyncio.sleep(1)

    async def story() -> None:
        async with serving(talk) as port, asyncio.TaskGroup() as group:
            task = group.create_task(street.supervised(street.driver(f"tcp://127.0.0.1:{port}")))
            await asyncio.sleep(seconds)
            task.cancel()

    jumped(story())
    values: dict[str, list[Any]] = {}
    for one in street.recorder.readings:
        if one.quality is Quality.GOOD:
            values.setdefault(one.point.rpartition("/")[2], []).append(one.value)
    return values


def test_a_wind_round_north_is_north(make_street: Any, jumped: Any, serving: Any) -> None:
    """The plain mean of 350 and 10 degrees is south."""
    profile = true("gill-windsonic-nmea")
    lines = cycle([b"$WIMWV,350,R,2.0,M,A*3A\r\n", b"$WIMWV,010,R,2.0,M,A*3D\r\n"])
    values = told(make_street(profile, every="60s"), jumped, serving, lines, 200)
    wind = values["wind_direction"][1:]
    assert len(wind) >= 2
    assert all(min(one, 360 - one) < 0.5 for one in wind)
    assert values["wind_speed"][1:] == [2.0] * len(wind)


def test_a_calm_has_no_direction(make_street: Any, jumped: Any, serving: Any) -> None:
    street = make_street(true("gill-windsonic-nmea"), every="60s")
    lines = cycle([b"$WIMWV,350,R,0.0,M,A*38\r\n"])
    values = told(street, jumped, serving, lines, 200)
    assert "wind_direction" not in values
    assert set(values["wind_speed"]) == {0.0}, "and that is a value"


def test_noise_is_averaged_as_energy(make_street: Any, jumped: Any, serving: Any) -> None:
    """Half of the time ten times as loud: not 65 dB, but 67.4."""
    lines = cycle([b"L 60.0 dB\r\n", b"L 70.0 dB\r\n"])
    values = told(make_street(noise(), every="60s"), jumped, serving, lines, 200)["noise"][1:]
    assert len(values) >= 2
    assert values == [pytest.approx(67.404, abs=0.01)] * len(values)


def test_a_frame_that_a_lost_connection_cut_is_never_one(make_street: Any, jumped: Any, serving: Any) -> None:
    """`L 6` and, after the line came back, `1.5 dB`, `71.5 dB`: neither 61.5 nor 1.5 was measured."""
    street = make_street(noise())
    parts = iter([b"L 60.0 dB\r\nL 60.0 dB\r\nL 6", b"1.5 dB\r\nL 71.5 dB\r\n"])

    async def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(next(parts, b""))
        await writer.drain()
        await asyncio.sleep(0.2)

    async def story() -> None:
        async with serving(talk) as port, asyncio.TaskGroup() as group:
            task = group.create_task(street.supervised(street.driver(f"tcp://127.0.0.1:{port}")))
            await asyncio.sleep(5)
            task.cancel()

    jumped(story())
    assert [one.value for one in street.recorder.readings] == [60.0, 71.5]
    assert "closed the connection" in street.failures[0]
