"""A serial wire is let go for a technician's tool, and taken up again."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from drivers.serial import Profile
from gateway import profile

from .conftest import PROFILES


@pytest.mark.parametrize("mode", ["push", "poll"])
async def test_the_driver_leaves_at_once_and_comes_back(mode: str, quick: Profile, make_street: Any) -> None:
    """One that listens between two frames, one that asks between two questions: 10 s later at the earliest."""
    asked = profile.load(PROFILES / "winsen-mhz19.yaml", lambda _: Profile).model_copy(update={"warm_up": 0.0})
    street = make_street(quick if mode == "push" else asked)
    port = (await street.emulator.start())["port"]
    playing = asyncio.create_task(street.emulator.run())
    driver = street.driver(port)
    for _ in range(2):
        before = len(street.recorder.readings)
        running = asyncio.create_task(driver.run(street.recorder))
        await street.until(lambda recorder: len(recorder.readings) > before)  # noqa: B023
        driver.let_go()
        async with asyncio.timeout(2):
            await running
        driver.let_go()  # nobody runs: nothing happens
    assert street.recorder.events[0].kind == "device_up"
    assert len(street.recorder.events) == 1
    playing.cancel()
    await asyncio.wait([playing])
