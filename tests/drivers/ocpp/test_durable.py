"""The same promises on the real buffer: what was answered is found again after the process is gone."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from drivers.ocpp.driver import Driver
from gateway.buffer import Buffer
from gateway.testing import LoopClock, Recorder, make_link
from tests.drivers.ocpp.chargers import SECRETS, Gateway, connect, make_device, make_settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    import aiohttp

START = {"connectorId": 1, "idTag": "04A1B2C3", "meterStart": 1000, "timestamp": "2026-11-22T10:00:00Z"}


@asynccontextmanager
async def on_disk(folder: Path) -> AsyncIterator[Gateway]:
    buffer = Buffer(folder, "cab-1", LoopClock())
    await buffer.open()
    committing = asyncio.create_task(buffer.run())
    state, settings, devices = buffer.state("link/cs/"), make_settings(), [make_device()]
    buffer.know(list(devices[0].points.values()))
    bound = asyncio.get_running_loop().create_future()
    link = replace(make_link(settings, devices, Recorder(), secrets=SECRETS), state=state, bound=bound.set_result)
    driver = Driver(link)
    running = asyncio.create_task(driver.run(state.emit))
    gateway = Gateway(driver, await bound, settings, devices, [])
    try:
        yield gateway
    finally:
        for task in (running, committing):
            task.cancel()
            await asyncio.wait([task])
        for caller in gateway.callers:
            await caller.socket.close()
        await buffer.close()


async def test_ids_and_pseudonyms_outlive_the_process(session: aiohttp.ClientSession, tmp_path: Path) -> None:
    async with on_disk(tmp_path) as gateway:
        charger = await connect(session, gateway)
        first = await charger.ask("StartTransaction", START)
        # Nothing of it becomes a reading: only the state says that it came.
        value = {"timestamp": "2026-11-22T10:05:00Z", "sampledValue": [{"value": "1", "measurand": "RPM"}]}
        meter = {"connectorId": 1, "transactionId": first["transactionId"], "meterValue": [value]}
        assert await charger.ask("MeterValues", meter) == {}
    async with on_disk(tmp_path) as gateway:
        charger = await connect(session, gateway)
        assert await charger.ask("StartTransaction", START) == first
        second = await charger.ask("StartTransaction", {**START, "meterStart": 1001})
        assert second["transactionId"] == first["transactionId"] + 1
