"""Sensors of one profile on one emulated wire, for tests."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from drivers.serial import DeviceSettings, Profile, Settings, points
from drivers.serial.driver import Driver
from drivers.serial.emulator import Emulator
from drivers.serial.frames import IdleFrame
from gateway import profile as profiles
from gateway.errors import LinkError
from gateway.model import Device, Quality
from gateway.testing import Recorder, make_link

PROFILES = Path(__file__).resolve().parents[3] / "config" / "profiles"


def serial_profiles() -> list[str]:
    return [path.stem for path in sorted(PROFILES.glob("*.yaml")) if "\ndriver: serial\n" in path.read_text()]


def true(name: str) -> Profile:
    """With the sensor's own times."""
    profile = profiles.load(PROFILES / f"{name}.yaml", lambda _driver: Profile)
    assert isinstance(profile, Profile)
    return profile


def load(name: str, **changes: Any) -> Profile:
    """Quick, without warm-up, patient with a busy machine."""
    profile = true(name)
    # Only pauses part idle frames: faster, they would run together.
    quick = {"cadence": 0.2 if isinstance(profile.frame, IdleFrame) else 0.02, "silence": 60.0, "warm_up": 0.0}
    dialogue = profile.dialogue.model_copy(update={"gap": 0.0})
    return profile.model_copy(update={**quick, "dialogue": dialogue, **changes})


class Bus:
    """Sensors of one profile on one emulated wire, and the driver that reads them."""

    def __init__(self, profile: Profile, *addresses: str | None, every: str | None = None) -> None:
        self.recorder = Recorder()
        keys = {"link": "bus", "profile": "x-y", "every": every}
        self.devices = []
        for number, address in enumerate(addresses or ("0" if profile.address else None,)):
            settings = DeviceSettings.model_validate({**keys, "address": address})
            device_id = f"lp-{number}/x"
            named = points(device_id, profile, settings)
            self.devices.append(Device(device_id, named, settings=settings, profile=profile))
        self.emulator = Emulator(self.settings("/dev/none"), self.devices, None)
        self.driver: Driver | None = None
        self.failures: list[LinkError] = []

    def settings(self, port: str) -> Settings:
        return Settings.model_validate({"driver": "serial", "port": port})

    async def _drive(self, port: str) -> None:
        while True:
            self.driver = Driver(make_link(self.settings(port), self.devices, self.recorder))
            try:
                await self.driver.run(self.recorder)
            except LinkError as error:
                self.failures.append(error)
                await asyncio.sleep(0.05)

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Bus"]:
        port = (await self.emulator.start())["port"]
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self.emulator.run()), group.create_task(self._drive(port))]
            try:
                yield self
            finally:
                for task in tasks:
                    task.cancel()

    def good(self, slug: str = "") -> list[float]:
        return [
            one.value
            for one in self.recorder.readings
            if one.quality is Quality.GOOD and one.point.endswith(slug) and isinstance(one.value, int | float)
        ]

    def said(self, kind: str) -> list[str]:
        return [event.say for event in self.recorder.events if event.kind == kind]
