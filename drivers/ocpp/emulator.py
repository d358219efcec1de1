"""Chargers that call a gateway: sessions come and go, commands and limits are obeyed, transactions survive a lost
connection.
"""

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence

import aiohttp

from drivers.ocpp.charge_point import USUAL, ChargePoint
from drivers.ocpp.scenario import Scenario
from drivers.ocpp.settings import Settings
from gateway.model import Device, DeviceId


class Emulator:
    """The chargers of one link. `pace` 1: a session takes 10 to 20 s, with meter values every 2 to 5 s."""

    def __init__(
        self,
        settings: Settings,
        devices: Sequence[Device],
        address: str | None,
        secret: Callable[[str], str] | None = None,
        *,
        seed: int = 0,
        pace: float = 1.0,
        scenario: Scenario = USUAL,
    ) -> None:
        if address is None:
            raise ValueError("a charger must be told where its gateway listens")
        self.points = {
            device.id: ChargePoint(
                settings, device, address, secret, random.Random(f"{seed}/{device.id}"), pace, scenario
            )
            for device in devices
        }

    async def start(self) -> Mapping[str, str]:
        """A charger calls in: it changes nothing in the site file."""
        return {}

    async def run(self) -> None:
        """Until cancelled; a gateway that is away is called for ever."""
        connector = aiohttp.TCPConnector(limit=0)  # or the hundred-and-first would wait for ever
        async with aiohttp.ClientSession(connector=connector) as session, asyncio.TaskGroup() as group:
            for point in self.points.values():
                group.create_task(point.run(session), name=f"emulated-{point.device.id}")

    def produced(self) -> Mapping[DeviceId, int]:
        """Statuses and meter values that the gateway has answered, by device."""
        return {name: point.values for name, point in self.points.items()}

    @property
    def confirmed(self) -> list[str]:
        """Ids of the transactions whose start the gateway has answered."""
        return [number for point in self.points.values() for number in point.confirmed]
