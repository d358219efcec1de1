"""The emulator as a running far end."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from drivers.ocpp.emulator import Emulator
from tests.drivers.ocpp.chargers import SECRETS, Gateway

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping


@asynccontextmanager
async def emulated(gateway: Gateway, pace: float = 40, secrets: Mapping[str, str] = SECRETS) -> AsyncIterator[Emulator]:
    emulator = Emulator(gateway.settings, gateway.devices, gateway.address, secrets.__getitem__, pace=pace)
    assert await emulator.start() == {}
    task = asyncio.create_task(emulator.run())
    try:
        yield emulator
    finally:
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            task.result()
