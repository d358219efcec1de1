"""A meter moves to another address and speed: written, and believed only when it answers there."""

from __future__ import annotations

from typing import Any, Self

import pytest

from drivers import modbus
from drivers.modbus.assign import Assign, Unwritten, changes, move
from drivers.modbus.driver import wire
from drivers.modbus.emulator import Emulator
from gateway import profile
from gateway.errors import DeviceError
from gateway.testing import Recorder, make_link

from .conftest import PROFILES, SDM630, make_device, make_settings

OLD, NEW = (1, "9600 8N1"), (11, "19200 8E1")


def meter_of(name: str) -> modbus.Profile:
    return profile.load(PROFILES / f"{name}.yaml", lambda _: modbus.Profile)


def assign_of(name: str) -> Assign:
    found = meter_of(name).assign
    assert found
    return found


def test_only_what_differs_is_written_and_the_address_comes_before_the_speed() -> None:
    """Eastron's codes: SDM630 protocol V2.0, holding 0x0012, 0x0014, 0x001C."""
    assign = assign_of("eastron-sdm630")
    written = [(assign.holdings[name].addr, number) for name, number in changes(assign, OLD, NEW).items()]
    assert written == [(0x14, 11), (0x12, 1), (0x1C, 3)]
    assert changes(assign, OLD, (11, "9600 8N1")) == {"unit": 11}
    assert changes(assign, OLD, (1, "9600 8E1")) == {"format": 1}


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("eastron-sdm630", "9600 8N1", "115200 8N1"),
        ("orno-we504", "9600 8E1", "4800 8N1"),
        ("schneider-iem3000", "19200 8E1", "9600 8E1"),
    ],
)
def test_a_setting_that_a_meter_does_not_have_is_not_written(name: str, old: str, new: str) -> None:
    with pytest.raises(LookupError):
        changes(assign_of(name), (1, old), (11, new))


class Bench:
    """One meter on a line."""

    def __init__(self, meter: modbus.Profile = SDM630, serial: str = OLD[1], port: str = "tcp://127.0.0.1:1") -> None:
        self.keys = {"port": port, **line_of(serial)}
        self.emulator = Emulator(make_settings(self.keys), [make_device("a/m", 1, meter)])
        self.opened: list[str] = []

    async def __aenter__(self) -> Self:
        self.keys |= await self.emulator.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.emulator.stop()

    def wire_at(self, serial: str) -> Any:
        self.opened.append(serial)
        return wire(make_link(make_settings({**self.keys, **line_of(serial)}, "250ms"), [], Recorder()), {})


def line_of(serial: str) -> dict[str, str]:
    baud, _, form = serial.partition(" ")
    return {"baud": baud, "format": form}


async def test_it_answers_where_it_should_be() -> None:
    async with Bench() as bench:
        await move(bench.wire_at, assign_of("eastron-sdm630"), OLD, NEW)
        assert bench.opened == ["9600 8N1", "19200 8E1"]
        held = bench.emulator._units[11].told[3]
        assert [held[addr] for addr in (0x14, 0x12, 0x1C)] == [0x4130, 0x3F80, 0x4040]


async def test_a_meter_whose_registers_do_not_say_how_it_is_set_is_not_written_to() -> None:
    async with Bench() as bench:
        bench.emulator.tell("a/m", 3, 0x1C, (0x4040, 0))  # 3, which is 19200; it is heard at 9600
        with pytest.raises(Unwritten) as error:
            await move(bench.wire_at, assign_of("eastron-sdm630"), OLD, NEW)
        assert str(error.value) == ("register 0x001c says 3, where its baud should stand as 2")
        assert list(bench.emulator._units) == [1]


async def test_settings_that_are_not_opened_stay_as_they_are() -> None:
    """Ten seconds after the password they are closed again."""
    meter = meter_of("orno-we504")
    async with Bench(meter, "9600 8E1") as bench:
        without = assign_of("orno-we504").model_copy(update={"opening": None})
        with pytest.raises(DeviceError, match="unit 1 refuses register 0x000f: exception 3"):
            await move(bench.wire_at, without, (1, "9600 8E1"), (11, "9600 8E1"))
        assert list(bench.emulator._units) == [1]


async def test_a_command_writes_what_does_not_change_as_it_stands() -> None:
    meter = meter_of("schneider-iem3000")
    async with Bench(meter, "19200 8E1") as bench:
        bench.emulator.tell("a/m", 3, 6501, (1, 2))
        await move(bench.wire_at, assign_of("schneider-iem3000"), (1, "19200 8E1"), (11, "19200 8E1"))
        held = bench.emulator._units[11].told[3]
        assert [held[addr] for addr in (6500, 6501, 6502)] == [11, 1, 2]


@pytest.mark.parametrize(
    ("fault", "say"),
    [
        ("silent", "its unit cannot be read from register 0x0014: no answer within 0.25 s"),
        ("exception_4", "its unit cannot be read from register 0x0014: exception 4, device failure"),
    ],
)
async def test_what_did_not_move_is_said(fault: Any, say: str) -> None:
    async with Bench() as bench:
        bench.emulator.fault("a/m", fault)
        with pytest.raises(Unwritten) as error:
            await move(bench.wire_at, assign_of("eastron-sdm630"), OLD, NEW)
        assert say in str(error.value)


async def test_a_meter_that_stays_where_it_was_is_said() -> None:
    class Stubborn(Bench):
        def wire_at(self, serial: str) -> Any:
            line = super().wire_at(serial)

            async def lost(*_: object) -> None: ...

            line.write = lost
            return line

    async with Stubborn() as bench:
        with pytest.raises(DeviceError, match="nobody answers as unit 11: no answer within"):
            await move(bench.wire_at, assign_of("eastron-sdm630"), OLD, NEW)
