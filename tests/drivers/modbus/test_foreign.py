"""The driver against pymodbus's own server: an implementation of the far end that is not ours."""

from __future__ import annotations

import asyncio

import pytest
from pymodbus.constants import ExcCodes
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from drivers.modbus.driver import Driver
from gateway.errors import DeviceError
from gateway.model import Quality
from gateway.testing import Recorder, make_link

from .conftest import make_device, make_settings, order


async def test_it_reads_and_writes_a_foreign_server() -> None:
    settings = {2: [0x4270, 0x0000], 0x1E: [0, 0], 0x28: [0x4505, 0xD000], 0xFC00: [0x0012, 0xD687]}
    holding = [SimData(addr, values=words, datatype=DataType.REGISTERS) for addr, words in settings.items()]
    values = [0] * 0x100
    for addr, words in {
        0x00: (0x4366, 0x3333),
        0x34: (0x45E1, 0x0000),
        0x46: (0x4248, 0),
        0x48: (0x42F6, 0xE979),
    }.items():
        values[addr : addr + 2] = words
    inputs = [SimData(0, values=values, datatype=DataType.REGISTERS)]
    asked: list[tuple[int, int, int]] = []
    refuse: list[ExcCodes] = []

    async def note(function: int, _start: int, addr: int, count: int, _now: object, _set: object) -> ExcCodes | None:
        asked.append((function, addr, count))
        return refuse[0] if refuse else None

    bits = [SimData(0, values=[False], datatype=DataType.BITS)]
    server = ModbusTcpServer(
        [SimDevice(1, simdata=(bits, bits, holding, inputs), action=note)], address=("127.0.0.1", 0)
    )
    await server.serve_forever(background=True)
    assert server.transport
    port = server.transport.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
    recorder = Recorder()
    device = make_device("a/m", 1)
    driver = Driver(make_link(make_settings({"host": "127.0.0.1", "port": str(port)}), [device], recorder))
    task = asyncio.create_task(driver.run(recorder))
    try:
        await recorder.until(lambda r: len(r.readings) >= 20)
        said = {reading.point.rpartition("/")[2]: reading.value for reading in recorder.readings[:20]}
        assert said["voltage_l1"] == 230.2
        assert said["power"] == 7200
        assert said["frequency"] == 50
        assert said["energy_import"] == 123456
        assert said["demand_period"] == 60
        assert asked[:3] == [(3, 0x28, 2), (3, 0x1E, 2), (3, 0xFC00, 2)]
        assert asked[3] == (4, 0, 2), "three answers of one length are proved by one of another"
        assert asked[4:7] == [(3, 2, 2), (4, 0, 0x4E), (4, 0xC8, 26)]
        reply = await driver.execute(order("a/m/demand_period", 30))
        assert (reply.now, reply.proof) == ({"value": 30}, "readback")
        refuse.append(ExcCodes.DEVICE_BUSY)
        with pytest.raises(DeviceError, match="exception 6, device busy"):
            await driver.execute(order("a/m/demand_period", 30))
        await recorder.until(lambda r: bool(r.events), within=100)
        assert recorder.events[0].kind == "device_down"
        assert any(r.quality is Quality.BAD and r.reason == "device_failure" for r in recorder.readings)
    finally:
        task.cancel()
        await asyncio.wait({task})
        await server.shutdown()
