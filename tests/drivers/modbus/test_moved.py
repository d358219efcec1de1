"""Every meter of the catalogue that has registers for it gets an address and a speed, and is found where it is then."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from drivers import modbus
from drivers.modbus import assign
from drivers.modbus.driver import wire
from drivers.modbus.emulator import Emulator
from drivers.modbus.inquiry import Candidates
from drivers.modbus.scan import look
from gateway import load, profile
from gateway.testing import Recorder, make_link

from .conftest import PROFILES, make_device, make_settings

FOUND = [profile.load(path, load.profile_model) for path in sorted(PROFILES.glob("*.yaml"))]
METERS = [each for each in FOUND if isinstance(each, modbus.Profile) and each.match]
MOVABLE = [each for each in METERS if each.assign]
CANDIDATES = Candidates(METERS)
ALL = {
    "carlo-gavazzi-em100/1", "carlo-gavazzi-em300/1", "chint-dtsu666/1", "eastron-sdm120/1", "eastron-sdm230/1",
    "eastron-sdm630-v2/1", "eastron-sdm630/1", "eastron-sdm72-v1/1", "eastron-sdm72/1", "orno-we504/1", "orno-we516/1",
    "schneider-iem3000/1", "sunspec-inverter/1", "sunspec-meter/1",
}  # fmt: skip


class Line:
    """A meter on a pty of its own, which tells it at which speed it is spoken to."""

    def __init__(self, meter: modbus.Profile, serial: str) -> None:
        self.keys = {"port": "/dev/pts/x", **keys_of(serial)}
        self.emulator = Emulator(make_settings(self.keys), [make_device("a/m", 1, meter)])

    def wire_at(self, serial: str) -> Any:
        return wire(make_link(make_settings({**self.keys, **keys_of(serial)}), [], Recorder()), {})

    async def whoever(self, unit: int, serial: str) -> list[str]:
        """What a scan finds there."""
        line = self.wire_at(serial)
        try:
            found = await look(line, serial, unit, CANDIDATES)
        finally:
            line.close()
        return [match.profile.profile for match in found.matches] if found else []


def keys_of(serial: str) -> dict[str, str]:
    baud, _, form = serial.partition(" ")
    return {"baud": baud, "format": form}


async def moved(meter: modbus.Profile) -> tuple[list[str], list[str]]:
    """What is found where it should be after it has moved, and what where it was."""
    assert meter.assign
    old = meter.line.serial or "9600 8N1"
    speed, _, form = old.partition(" ")
    others = [word for word in (meter.assign.baud.codes if meter.assign.baud else ()) if word != speed]
    new = f"{others[0]} {form}" if others else old
    line = Line(meter, old)
    line.keys |= await line.emulator.start()
    try:
        await assign.move(line.wire_at, meter.assign, (1, old), (11, new))
        return await line.whoever(11, new), await line.whoever(*((11, old) if others else (1, old)))
    finally:
        await line.emulator.stop()


async def test_every_meter_with_registers_for_it_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    """In real time, each on its own line."""
    monkeypatch.setattr(assign, "SETTLE", 0.05)
    assert {each.profile for each in MOVABLE} == ALL
    async with asyncio.timeout(60):
        places = await asyncio.gather(*(moved(each) for each in MOVABLE))
    assert places == [([each.profile], []) for each in MOVABLE]
