"""The emulator as a running far end."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from drivers.ocpp.charge_point import USUAL
from drivers.ocpp.emulator import Emulator
from tests.drivers.ocpp.chargers import SECRETS, Gateway

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from drivers.ocpp.scenario import Scenario


@asynccontextmanager
async def emulated(
    gateway: Gateway, pace: float = 40, secrets: Mapping[str, str] = SECRETS, scenario: Scenario = USUAL
) -> AsyncIterator[Emulator]:
    emulator = Emulator(
        gateway.settings, gateway.devices, gateway.address, secrets.__getitem__, pace=pace, scenario=scenario
    )
    assert await emulator.start() == {}
    task = asyncio.create_task(emulator.run())
    try:
        yield emulator
    finally:
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            task.result()
