"""An emulated street and a gateway beside the test, each on a loop of its own: verbs meet them as a technician's do."""

from __future__ import annotations

import asyncio
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from drivers import modbus
from drivers.modbus.emulator import Emulator
from gateway import profile, site
from gateway.app import Gateway
from gateway.model import Device
from gateway.profile import shipped_profiles
from gateway.site import Credentials

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping
    from pathlib import Path


class Beside:
    """A loop in a thread."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def do(self, work: Awaitable[Any]) -> Any:
        async def whole() -> Any:
            return await work

        return asyncio.run_coroutine_threadsafe(whole(), self.loop).result(timeout=20)

    def call(self, function: Callable[[], Any]) -> Any:
        async def whole() -> Any:
            return function()

        return self.do(whole())

    def close(self) -> None:
        self.do(asyncio.sleep(0.02))  # what has been closed here still hears of it
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


def meter(address: int, name: str = "eastron-sdm630", id: str = "here/feeder") -> Device:  # noqa: A002
    return device(address, profile.load(shipped_profiles() / f"{name}.yaml", lambda _: modbus.Profile), id)


def device(address: int, found: profile.Profile, id: str) -> Device:  # noqa: A002
    settings = modbus.DeviceSettings.model_validate({"link": "line", "address": address, "every": "1s"})
    assert isinstance(found, modbus.Profile)
    return Device(id, modbus.points(id, found, settings), modbus.verbs(found, settings), settings, found)


class Line:
    """An RS-485 line behind a serial server, with meters on it."""

    def __init__(self, beside: Beside, emulator: Emulator, where: Mapping[str, str]) -> None:
        self.emulator = emulator
        self.port = f"{where['host']}:{where['port']}" if "host" in where else where["port"]
        self._beside = beside

    def set(self, device: str, slug: str, value: Any) -> None:
        self._beside.call(lambda: self.emulator.set(device, slug, value))

    def connect(self, device: Device) -> None:
        self._beside.call(lambda: self.emulator.connect(device))

    def fault(self, device: str, fault: Any) -> None:
        self._beside.call(lambda: self.emulator.fault(device, fault))


@contextmanager
def line_of(*devices: Device, baud: int = 115200, tcp: bool = False) -> Iterator[Line]:
    beside = Beside()
    wire = {"host": "127.0.0.1"} if tcp else {"port": "tcp://127.0.0.1:1", "baud": str(baud)}
    settings = modbus.Settings.model_validate({"driver": "modbus", "timeout": "200ms", **wire})
    emulator = Emulator(settings, devices)
    where = beside.do(emulator.start())
    try:
        yield Line(beside, emulator, where)
    finally:
        beside.do(emulator.stop())
        beside.close()


@contextmanager
def gateway_on(path: Path, state: Path) -> Iterator[Gateway]:
    """The gateway of a site file, running."""
    beside = Beside()
    state.mkdir(exist_ok=True)
    running = beside.call(lambda: Gateway(site.load(path), state, Credentials.beside(path)))
    task = beside.call(lambda: asyncio.create_task(running.run()))
    try:
        yield running
    finally:
        beside.call(running.stop)
        beside.do(asyncio.wait([task], timeout=15))
        beside.close()
        assert task.exception() is None
