"""Sensors that nobody prepared, from their makers' public documents: one YAML each, no code, over a wire."""

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest

from gateway.model import Quality, Reason
from tests.drivers.serial.bus import serial_profiles, true

ROOT = Path(__file__).resolve().parents[3]
ALONE = ("benewake-tfmini-s", "cubic-cm1106", "hydreon-rg9", "maxbotix-hrusb")
PRINTED = ("hydreon-rg9", "maxbotix-hrusb")
"""Those whose documents print frames with their values; of the others only the layout is printed."""


@pytest.mark.parametrize("name", ALONE)
def test_no_code_knows_them(name: str) -> None:
    """The profile tests itself (every/), and is played by the emulator and read by the driver (test_profiles.py)."""
    assert name in serial_profiles()
    words = re.compile("|".join(word for word in name.split("-") if len(word) > 1), re.IGNORECASE)
    sources = [source for folder in ("drivers", "gateway") for source in (ROOT / folder).rglob("*.py")]
    assert len(sources) > 100
    assert [source for source in sources if words.search(source.read_text())] == []


@pytest.mark.parametrize("name", PRINTED)
def test_their_values_are_those_that_the_maker_prints(name: str) -> None:
    printed = [one for one in true(name).examples if one.origin == "vendor_document" and one.expect]
    assert len(printed) >= 2


def told(street: Any, jumped: Any, serving: Any, talk: Any, seconds: float) -> list[Any]:
    async def story() -> None:
        async with serving(talk) as port, asyncio.TaskGroup() as group:
            task = group.create_task(street.supervised(street.driver(f"tcp://127.0.0.1:{port}")))
            await asyncio.sleep(seconds)
            task.cancel()

    jumped(story())
    return [(one.value, one.quality, one.reason) for one in street.recorder.readings]


GOOD = (Quality.GOOD, None)


def test_a_dry_street_is_not_one_that_is_too_cold_to_tell(make_street: Any, jumped: Any, serving: Any) -> None:
    street = make_street(true("hydreon-rg9"))
    lines = iter([b"R 0\r\n", b"R 1\r\n", b"R 0 TooCold\r\n", b"R 0\r\n"])

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while question := await reader.readline():
            writer.write(b"p\r\n" if question == b"P\n" else next(lines, b""))

    assert told(street, jumped, serving, talk, 35) == [
        (0.0, *GOOD), (1.0, *GOOD), (None, Quality.BAD, Reason.ABSENT), (0.0, *GOOD),
    ]  # fmt: skip
    assert [event.say for event in street.recorder.events] == [
        "lp-1/pm sends Hydreon RG-9 frames.",
        "lp-1/pm says of itself: it is too cold to sense rain. Look at the sensor.",
        "lp-1/pm sends Hydreon RG-9 frames.",
    ]


def test_480_millimetres(make_street: Any, jumped: Any, serving: Any) -> None:
    street = make_street(true("maxbotix-hrusb"))

    async def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(b"R0480 \r")
            await asyncio.sleep(0.16)

    assert set(told(street, jumped, serving, talk, 2)) == {(480.0, *GOOD)}
