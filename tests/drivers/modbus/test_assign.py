"""A meter moves to another address and speed: written, and believed only when it answers there."""

from __future__ import annotations

from typing import Any

import pytest

from drivers.modbus.assign import Assign, move, settings
from drivers.modbus.driver import wire
from drivers.modbus.emulator import Emulator
from gateway.errors import DeviceError
from gateway.testing import Recorder, make_link

from .conftest import SDM630, WIRES, make_device, make_settings

OLD, NEW = (1, "9600 8N1"), (11, "19200 8E1")


def test_the_address_comes_before_the_speed() -> None:
    """Eastron's codes: SDM630 protocol V2.0, holding 0x0012, 0x0014, 0x001C."""
    assign = SDM630.assign
    assert assign
    written = [(holding.addr, number) for holding, number in settings(assign, 11, "19200 8E1")]
    assert written == [(0x14, 11), (0x12, 1), (0x1C, 3)]
    assert [holding.addr for holding, _ in settings(assign, 11, "")] == [0x14]


def test_a_speed_that_a_meter_does_not_have_is_not_written() -> None:
    assign = SDM630.assign
    assert assign
    with pytest.raises(LookupError):
        settings(assign, 11, "115200 8N1")
    with pytest.raises(LookupError):
        settings(Assign.model_validate({"unit": {"addr": 5}}), 11, "9600 8N1")


class Bench:
    def __init__(self) -> None:
        self.emulator = Emulator(make_settings(WIRES["rtu-over-tcp"]), [make_device("a/m", 1)])
        self.opened: list[str] = []

    async def start(self) -> None:
        self.where = {**WIRES["rtu-over-tcp"], **await self.emulator.start()}

    def wire_at(self, serial: str) -> Any:
        self.opened.append(serial)
        return wire(make_link(make_settings(self.where), [], Recorder()), {})


async def test_it_answers_where_it_should_be() -> None:
    bench = Bench()
    await bench.start()
    assert SDM630.assign
    await move(bench.wire_at, SDM630.assign, OLD, NEW)
    assert bench.opened == ["9600 8N1", "19200 8E1"]
    held = bench.emulator._units[11].told[3]
    assert [held[addr] for addr in (0x14, 0x12, 0x1C)] == [0x4130, 0x3F80, 0x4040]
    await bench.emulator.stop()


@pytest.mark.parametrize(
    ("fault", "say"),
    [
        ("silent", "nobody answers as unit 11: no answer within"),
        ("exception_4", "unit 1 refuses register 0x0014: exception 4, device failure"),
    ],
)
async def test_what_did_not_move_is_said(fault: Any, say: str) -> None:
    bench = Bench()
    await bench.start()
    bench.emulator.fault("a/m", fault)
    assert SDM630.assign
    with pytest.raises(DeviceError) as error:
        await move(bench.wire_at, SDM630.assign, OLD, NEW)
    assert say in str(error.value)
    await bench.emulator.stop()
