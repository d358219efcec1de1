"""The SDS011, the Plantower, and a driver with an emulated sensor on a pty."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from drivers.serial import DeviceSettings, Profile, Settings, points
from drivers.serial.driver import Driver
from drivers.serial.emulator import Emulator
from gateway import profile as profiles
from gateway.errors import LinkError
from gateway.model import Device
from gateway.testing import Recorder, make_link
from tests.ptys import PtyLoop

PROFILES = Path(__file__).resolve().parents[3] / "config" / "profiles"
FACTS = yaml.safe_load(Path(__file__).with_name("vectors.yaml").read_text())

PLANTOWER = {
    "profile": "plantower-pms5003/1",
    "driver": "serial",
    "kind": "particulate",
    "source": "test",
    "line": {"baud": "9600"},
    "mode": "push",
    "cadence": "1s",
    "frame": {
        "type": "length_prefixed",
        "sync": "42 4d",
        "length_at": "2",
        "length_type": "u16be",
        "length_adds": "4",
        "max_length": "44",
        "checksum": {"algorithm": "sum16", "over": ["0", "-2"], "at": "-2"},
    },
    "points": {
        name: {"quantity": name, "unit": "ug/m3", "at": at, "type": "u16be"}
        for name, at in (("pm1", "10"), ("pm25", "12"), ("pm10", "14"))
    },
    "examples": [
        {"received": row["hex"], "expect": {"pm25": f"{row['pm25']} ug/m3"}, "origin": "capture"}
        for row in FACTS["plantower"]["readings"]
    ],
    "refusals": [{"received": row["hex"], "why": row["why"]} for row in FACTS["plantower"]["refused"]],
}


@pytest.fixture
def facts() -> dict[str, Any]:
    return FACTS["sds011"]


@pytest.fixture
def sds011() -> Profile:
    profile = profiles.load(PROFILES / "nova-sds011.yaml", lambda _driver: Profile)
    assert isinstance(profile, Profile)
    return profile


@pytest.fixture
def plantower() -> Profile:
    return Profile.model_validate(PLANTOWER)


@pytest.fixture
def quick(sds011: Profile) -> Profile:
    """The SDS011 for tests in real time: fast, without warm-up, patient with a busy machine."""
    return sds011.model_copy(update={"cadence": 0.02, "silence": 60.0, "warm_up": 0.0})


class Street:
    """One driver, one emulated sensor, and what the driver has emitted."""

    def __init__(self, profile: Profile, **device: Any) -> None:
        settings = DeviceSettings.model_validate({"link": "air", "profile": "nova-sds011", **device})
        self.profile = profile
        named = points("lp-1/pm", profile, settings)
        self.device = Device("lp-1/pm", named, settings=settings, profile=profile)
        self.emulator = Emulator(self.settings("/dev/none"), [self.device], None)
        self.recorder = Recorder()
        self.failures: list[str] = []
        self.pause = 0.05

    def settings(self, port: str) -> Settings:
        return Settings.model_validate({"driver": "serial", "port": port})

    def driver(self, port: str) -> Driver:
        return Driver(make_link(self.settings(port), [self.device], self.recorder))

    async def supervised(self, driver: Driver) -> None:
        """As the gateway does: a wire that is gone is tried again."""
        while True:
            try:
                await driver.run(self.recorder)
            except LinkError as error:
                self.failures.append(str(error))
            await asyncio.sleep(self.pause)

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Street"]:
        port = (await self.emulator.start())["port"]
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self.emulator.run()), group.create_task(self.supervised(self.driver(port)))]
            try:
                yield self
            finally:
                for task in tasks:
                    task.cancel()

    async def until(self, holds: Callable[[Recorder], bool], within: float = 20.0) -> None:
        await self.recorder.until(holds, within)

    async def settles(self, holds: Callable[[], bool], within: float = 20.0) -> None:
        """For what the recorder does not see."""
        async with asyncio.timeout(within):
            while not holds():  # noqa: ASYNC110 - counters of the emulator, which tells nobody
                await asyncio.sleep(0.005)


Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def _serving(talk: Talk) -> AsyncIterator[int]:
    """A serial server's port number: `talk` is had with whoever calls, one after another."""
    calls: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()

    async def answer() -> None:
        while True:
            reader, writer = await calls.get()
            try:
                await talk(reader, writer)
            except ConnectionError:
                pass
            finally:
                writer.close()

    server = await asyncio.start_server(lambda *call: calls.put_nowait(call), "127.0.0.1", 0)
    async with server, asyncio.TaskGroup() as group:
        answering = group.create_task(answer())
        yield server.sockets[0].getsockname()[1]
        answering.cancel()


@pytest.fixture
def serving() -> Callable[[Talk], AbstractAsyncContextManager[int]]:
    return _serving


@pytest.fixture
def street(quick: Profile) -> Street:
    return Street(quick)


@pytest.fixture
def slow_street(sds011: Profile) -> Street:
    """With the sensor's true times, for `jumped`."""
    return Street(sds011)


@pytest.fixture
def make_street() -> type[Street]:
    return Street


@pytest.fixture
def jumped() -> Callable[[Coroutine[Any, Any, None]], None]:
    """Run a story in jumped time: seconds of silence cost nothing, and a busy machine is not mistaken for one."""

    def run(story: Coroutine[Any, Any, None]) -> None:
        with asyncio.Runner(loop_factory=PtyLoop) as runner:
            runner.run(story)

    return run


@pytest.fixture
def wxt530() -> Profile:
    profile = profiles.load(PROFILES / "vaisala-wxt530.yaml", lambda _driver: Profile)
    assert isinstance(profile, Profile)
    return profile


@pytest.fixture
def ops24x() -> Profile:
    profile = profiles.load(PROFILES / "omnipresense-ops24x.yaml", lambda _driver: Profile)
    assert isinstance(profile, Profile)
    return profile
