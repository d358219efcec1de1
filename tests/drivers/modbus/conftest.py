"""A street of emulated meters on one endpoint, and the driver that polls them over real loopback TCP."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from drivers import modbus
from drivers.modbus.driver import Driver
from drivers.modbus.emulator import Emulator
from gateway import profile
from gateway.model import Command, Device
from gateway.testing import Recorder, make_link
from tests.ptys import PtyLoop

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

PROFILES = Path(__file__).resolve().parents[3] / "config" / "profiles"
SDM630 = profile.load(PROFILES / "eastron-sdm630.yaml", lambda _: modbus.Profile)
TRUSTED = SDM630.model_copy(update={"verify": (), "match": (), "serial_number": None})
"""The same, taken for what it is: nothing is asked but its points."""
TIMEOUT = "1s"


def pytest_asyncio_loop_factories(item: pytest.Item) -> dict[str, type[asyncio.AbstractEventLoop]]:
    """Seconds of waiting pass at once; the bytes still go over real sockets and ptys."""
    if item.path.name in ("test_tls.py", "test_moved.py"):  # another thread, or the kernel, takes what it takes
        return {"real": asyncio.SelectorEventLoop}
    return {"jumping": PtyLoop}


SELF_IDENTIFYING = modbus.Profile.model_validate(
    {
        "profile": "test-register/1",
        "driver": "modbus",
        "kind": "meter",
        "source": "made up: every register holds its own address",
        "defaults": {"type": "u16"},
        "points": {
            f"r{addr}": {"addr": addr, "quantity": "x_address", "unit": "1"} for addr in (*range(8), *range(40, 44))
        },
        "writes": {"target": {"addr": 7, "quantity": "x_target", "unit": "1", "min": 0, "max": 100}},
        "examples": [{"regs": {4: {3: [3]}}, "expect": {"r3": "3"}}],
    }
)
"""Two blocks of input registers that are told apart by their values, and one setting."""


_often = {"quantity": "x_address", "unit": "1", "every": "1s"}
_seldom = {"quantity": "x_address", "unit": "1", "every": "1h"}
EQUALS = modbus.Profile.model_validate(
    {
        "profile": "test-equals/1",
        "driver": "modbus",
        "kind": "meter",
        "source": "made up: every register holds its own address",
        "defaults": {"type": "u16"},
        "points": {f"r{addr}": {"addr": addr, **_often} for addr in (*range(4), *range(40, 44))}
        | {f"r{addr}": {"addr": addr, **_seldom} for addr in (*range(4, 9), *range(44, 48))},
        "writes": {"target": {"addr": 7, "quantity": "x_target", "unit": "1", "min": 0, "max": 100}},
        "examples": [{"regs": {4: {3: [3]}}, "expect": {"r3": "3"}}],
    }
)
"""The same, polled by two questions of one length: an answer of the one would fit the other."""

ISOLATED = modbus.Profile.model_validate(
    {
        "profile": "test-isolated/1",
        "driver": "modbus",
        "kind": "meter",
        "source": "made up: every register holds its own address",
        "defaults": {"type": "u16"},
        "points": {f"r{addr}": {"addr": addr, **_often} for addr in (0, 10, 20, 30, 31, 40)},
        "examples": [{"regs": {4: {10: [10]}}, "expect": {"r10": "10"}}],
    }
)
"""The same, and no point beside most of them: their questions cannot be told apart by lengths of answers."""

TELLING = (SELF_IDENTIFYING, EQUALS, ISOLATED)


def make_device(id: str, address: int, profile: Any = SDM630, every: str | None = "1s") -> Device:  # noqa: A002
    settings = modbus.DeviceSettings.model_validate({"link": "line", "address": address, "every": every})
    return Device(
        id=id,
        points=modbus.points(id, profile, settings),
        verbs=modbus.verbs(profile, settings),
        settings=settings,
        profile=profile,
    )


def make_settings(where: Mapping[str, str], timeout: str = TIMEOUT) -> modbus.Settings:
    return modbus.Settings.model_validate({"driver": "modbus", "timeout": timeout, **where})


WIRES: dict[str, dict[str, str]] = {
    "tcp": {"host": "127.0.0.1"},
    "rtu-over-tcp": {"port": "tcp://127.0.0.1:1", "baud": "19200"},
    "pty": {"port": "/dev/pts/x", "baud": "19200"},
}


class Street:
    """The emulator, the driver and what was recorded."""

    def __init__(self, devices: Sequence[Device], timeout: str = TIMEOUT, wire: str = "tcp") -> None:
        self.devices = devices
        self.recorder = Recorder()
        self.timeout = timeout
        self.wire = WIRES[wire]
        self.emulator = Emulator(make_settings(self.wire, timeout), devices)
        self.driver: Driver

    async def start(self) -> None:
        where = await self.emulator.start()
        for device in self.devices:
            if device.profile in TELLING:
                for slug, place in device.profile.points.items():  # type: ignore[attr-defined]
                    self.emulator.set(device.id, slug, place.addr + 1000 * (device.settings.address % 60))  # type: ignore[attr-defined]
        if not where["port"].startswith("/"):
            self.port = int(where["port"].rpartition(":")[2])
        self.settings = make_settings({**self.wire, **where}, self.timeout)
        self.driver = Driver(make_link(self.settings, self.devices, self.recorder))

    async def seen(self, count: int, of: str, within: float = 600.0) -> None:
        """Wait for `count` more good readings of a device."""
        before = self.good(of)
        await self.recorder.until(lambda _: self.good(of) >= before + count, within)

    async def until(self, holds: Callable[[Recorder], bool]) -> None:
        await self.recorder.until(holds, within=600)

    async def asked(self, count: int) -> None:
        """Wait until the emulator has been asked `count` more times."""
        wanted = self.emulator.requests + count
        async with asyncio.timeout(600):
            while self.emulator.requests < wanted:  # noqa: ASYNC110 - nothing tells of a request
                await asyncio.sleep(0.5)

    def hang_up(self) -> None:
        """The gateway or serial server ends the connection."""
        if self.emulator.bus:
            self.emulator.bus.unplug()
        for writer in list(self.emulator._open):
            writer.transport.abort()

    def good(self, of: str) -> int:
        return sum(r.quality == "good" for r in self.recorder.readings if r.point.startswith(f"{of}/"))

    def wrong(self) -> list[Any]:
        """Values of self-identifying points that are not their own."""
        places = {
            device.points[slug].id: place.addr + 1000 * (device.settings.address % 60)  # type: ignore[attr-defined]
            for device in self.devices
            if device.profile in TELLING
            for slug, place in device.profile.points.items()  # type: ignore[attr-defined]
        }
        return [r for r in self.recorder.readings if r.point in places and r.value not in (None, places[r.point])]


@asynccontextmanager
async def running(*devices: Device, timeout: str = TIMEOUT, wire: str = "tcp") -> AsyncIterator[Street]:
    street = Street(devices, timeout, wire)
    await street.start()
    task = asyncio.create_task(street.driver.run(street.recorder))
    try:
        yield street
    finally:
        task.cancel()
        async with asyncio.timeout(1):
            with pytest.raises(asyncio.CancelledError):
                await task
        await street.emulator.stop()


def order(on: str, value: Any, do: str = "set") -> Command:
    return Command(id="c1", issuer="test", do=do, on=on, args={"value": value}, issued=0, expires=1)
