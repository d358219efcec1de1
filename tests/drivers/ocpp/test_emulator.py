"""The emulator against the driver, over loopback: what it says was answered is what the gateway has."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from drivers.ocpp.emulator import Emulator
from gateway.model import Lane, Reading
from gateway.testing import Recorder
from tests.drivers.ocpp.chargers import SECRETS, Gateway, gateway, make_device

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@asynccontextmanager
async def emulated(gateway: Gateway, pace: float = 40) -> AsyncIterator[Emulator]:
    emulator = Emulator(gateway.settings, gateway.devices, gateway.address, SECRETS.__getitem__, pace=pace)
    assert await emulator.start() == {}
    task = asyncio.create_task(emulator.run())
    try:
        yield emulator
    finally:
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            task.result()


def ended(recorder: Recorder) -> list[str]:
    return [str(event.more["transaction"]) for event in recorder.events if event.kind == "transaction_end"]


async def test_every_value_that_was_answered_is_a_reading() -> None:
    recorder = Recorder()
    devices = [make_device(), make_device("cp-2/evse", connectors=2)]
    async with gateway(recorder, devices=devices) as running, emulated(running) as emulator:
        await recorder.until(lambda found: len(ended(found)) >= 4)
        for point in emulator.points.values():
            await point.drop()
    good = [reading for reading in recorder.readings if reading.value is not None]
    for device in devices:
        mine = [reading for reading in good if reading.point.startswith(f"{device.id}/")]
        assert emulator.produced()[device.id] <= len(mine)
        assert len(mine) - emulator.produced()[device.id] <= 12  # at most one answer was under way on each
    begun = [str(event.more["transaction"]) for event in recorder.events if event.kind == "transaction_begin"]
    assert len(set(begun)) == len(begun)
    assert set(emulator.confirmed) <= set(begun)
    billed = [record for lane, records, _ in recorder.calls if lane is Lane.BILLING for record in records]
    assert {reading.transaction for reading in billed if isinstance(reading, Reading)} <= set(begun)
