"""Examples and refusals as frames: what makers print is what is tested, and what is no answer holds no value."""

from __future__ import annotations

from typing import Any

import pytest

from drivers import modbus
from drivers.modbus.settings import Example, Refusal
from gateway.diagnostic import Mistake
from gateway.profile import load

from .conftest import PROFILES, make_device, running

ASKED = "fe 04 00 00 00 04 e5 c6"
"""SenseAir S8: its status and its CO2, of any sensor (esphome, senseair.cpp)."""
RIGHT = "fe 04 08 00 00 00 00 00 00 02 64 17 91"


def test_frames_are_registers() -> None:
    example = Example.model_validate({"asked": ASKED, "answered": RIGHT, "expect": {"co2": "612 ppm"}})
    assert example.regs == {4: {0: [0, 0, 0, 612]}}


@pytest.mark.parametrize(
    "answered",
    [
        "fe 04 08 00 00 00 00 00 00 02 64 17 00",  # a wrong checksum
        "fe 84 02 f2 f1",  # a Modbus exception
        RIGHT[:-3],  # cut short
        "ff" + RIGHT[2:],  # another unit
        "",
    ],
)
def test_what_is_no_answer_is_refused_and_shows_nothing(answered: str) -> None:
    assert Refusal.model_validate({"asked": ASKED, "answered": answered}).regs == {}
    with pytest.raises(ValueError, match="is no answer to `asked`"):
        Example.model_validate({"asked": ASKED, "answered": answered, "expect": {"co2": "612 ppm"}})
    with pytest.raises(ValueError, match="what is no answer says nothing"):
        Refusal.model_validate({"asked": ASKED, "answered": answered, "because": {"co2": "absent"}})


@pytest.mark.parametrize(
    ("tree", "code", "at"),
    [
        ({"asked": "fe 04 00 00 00 04 e5 c7", "answered": RIGHT}, "bad_frame", ("asked",)),
        ({"asked": "fe 06 00 1f 00 00 ac 03", "answered": RIGHT}, "bad_frame", ("asked",)),
        ({"answered": RIGHT}, "bad_frame", ("asked",)),
        ({"asked": ASKED, "answered": RIGHT, "regs": {4: {0: [1]}}}, "bad_frame", ("asked",)),
        ({"asked": "fe 0", "answered": RIGHT}, "bad_hex", ("asked",)),
        ({"asked": ASKED, "answered": "rubbish"}, "bad_hex", ("answered",)),
    ],
)
def test_a_mistake_in_a_frame_is_said_at_its_place(tree: dict[str, Any], code: str, at: tuple[str, ...]) -> None:
    with pytest.raises(Mistake) as wrong:
        Example._of_frames(tree)
    assert (wrong.value.code, wrong.value.at) == (code, at)


def test_a_whole_answer_is_refused_for_a_reason() -> None:
    with pytest.raises(ValueError, match="a whole answer is refused for what it says"):
        Refusal.model_validate({"asked": ASKED, "answered": RIGHT})


async def test_a_sensor_whose_status_speaks_against_it_says_no_value() -> None:
    """Unit 254, which every SenseAir obeys, on a port of its own."""
    sensor = load(PROFILES / "senseair-s8.yaml", lambda _: modbus.Profile)
    async with running(make_device("a/s8", 254, sensor), wire="rtu-over-tcp") as street:
        street.emulator.set("a/s8", "co2", 612)
        await street.until(lambda seen: any((r.point, r.value) == ("a/s8/co2", 612) for r in seen.readings))
        street.emulator.set("a/s8", "meter_status", 1)
        start = len(street.recorder.readings)
        await street.until(lambda seen: any(r.reason == "device_failure" for r in seen.readings[start:]))
        assert {r.value for r in street.recorder.readings if r.point == "a/s8/co2"} == {612, None}
