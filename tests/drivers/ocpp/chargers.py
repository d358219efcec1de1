"""A listening driver, and a bare WebSocket client to call it with."""

from __future__ import annotations

import asyncio
import base64
import itertools
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import orjson
from yarl import URL

from drivers import ocpp
from drivers.ocpp.driver import Driver
from gateway import profile
from gateway.model import Command, Device
from gateway.testing import Recorder, make_link

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from drivers.ocpp.connection import Connection
    from gateway.model import Event

PROFILE = Path(__file__).parents[3] / "config/profiles/ocpp-generic.yaml"
GENERIC = profile.load(PROFILE, lambda _: ocpp.Profile)
KEY = "0011223344556677aabb"
TAGS = "04A1B2C3, family\n04EXPIRED1,,2020-01-01\nDEADBEEF,,2099-12-31T00:00:00Z\n"
SECRETS = {"cp-1/evse.key": KEY, "cp-2/evse.key": "another-key-of-16", "tags": TAGS}


def make_device(name: str = "cp-1/evse", **keys: Any) -> Device:
    settings = ocpp.DeviceSettings.model_validate({"link": "cs", **keys})
    assert isinstance(GENERIC, ocpp.Profile)
    return Device(
        id=name,
        points=ocpp.points(name, GENERIC, settings),
        verbs=ocpp.verbs(GENERIC, settings),
        settings=settings,
        profile=GENERIC,
    )


def make_settings(**keys: Any) -> ocpp.Settings:
    return ocpp.Settings.model_validate(
        {"driver": "ocpp", "listen": "127.0.0.1:0", "security": "1", "tags": "secret", **keys}
    )


class Gateway:
    """A running driver and where it listens."""

    def __init__(
        self, driver: Driver, address: str, settings: ocpp.Settings, devices: list[Device], callers: list[Charger]
    ) -> None:
        self.driver, self.address, self.settings, self.devices = driver, address, settings, devices
        self.callers = callers


@asynccontextmanager
async def gateway(
    recorder: Recorder,
    settings: ocpp.Settings | None = None,
    devices: list[Device] | None = None,
    secrets: Mapping[str, str] = SECRETS,
) -> AsyncIterator[Gateway]:
    settings, devices = settings or make_settings(), devices or [make_device()]
    bound = asyncio.get_running_loop().create_future()
    link = replace(make_link(settings, devices, recorder, secrets=secrets), bound=bound.set_result)
    driver = Driver(link)
    callers: list[Charger] = []
    task = asyncio.create_task(driver.run(recorder))
    try:
        async with asyncio.timeout(5):
            await asyncio.wait([task, bound], return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
        running = Gateway(driver, bound.result(), settings, devices, callers)
        yield running
    finally:
        task.cancel()
        await asyncio.wait([task])
        for caller in callers:
            await caller.socket.close()
        if not task.cancelled():
            task.result()


class Charger:
    """A charge point of a dozen lines, so that the driver is not only tested against its own emulator."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket
        self._ids = itertools.count(1)

    async def send(self, frame: object) -> None:
        await self.socket.send_str(frame if isinstance(frame, str) else orjson.dumps(frame).decode())

    async def receive(self) -> list[Any]:
        async with asyncio.timeout(5):
            message = await self.socket.receive()
        assert message.type is aiohttp.WSMsgType.TEXT, message
        answer = orjson.loads(message.data)
        assert isinstance(answer, list)
        return answer

    async def ask(self, action: str, payload: Mapping[str, Any]) -> dict[str, Any]:
        message_id = f"m{next(self._ids)}"
        await self.send([2, message_id, action, payload])
        kind, answered, content, *rest = await self.receive()
        while kind == 2:  # the gateway's own question comes between
            await self.send([4, answered, "NotSupported", "", {}])
            kind, answered, content, *rest = await self.receive()
        assert not rest
        assert (kind, answered) == (3, message_id)
        assert isinstance(content, dict)
        return content

    async def listen(self) -> None:
        """Be there, and answer nothing."""
        while not self.socket.closed:
            await self.socket.receive()

    async def closed(self) -> int | None:
        """Wait until the gateway has closed it; the close code."""
        async with asyncio.timeout(5):
            while not self.socket.closed:
                await self.socket.receive()
        return self.socket.close_code


async def connect(
    session: aiohttp.ClientSession,
    gateway: Gateway,
    path: str = "/cp-1",
    *,
    user: str = "cp-1",
    key: str | bytes | None = KEY,
    protocols: Sequence[str] = ("ocpp1.6",),
) -> Charger:
    """aiohttp.WSServerHandshakeError: the gateway refuses it."""
    password = key.encode() if isinstance(key, str) else key or b""
    words = base64.b64encode(user.encode() + b":" + password).decode()
    headers = {} if key is None else {"Authorization": f"Basic {words}"}
    url = URL(f"ws://{gateway.address}{path}", encoded=True)
    charger = Charger(await session.ws_connect(url, protocols=protocols, headers=headers))
    gateway.callers.append(charger)
    return charger


def limit(amps: Any, lease_s: int | None = None, on: str = "cp-1/evse") -> Command:
    return Command("c1", "grid-desk", "limit", on, {"amps": amps}, 0, 2**53, lease_s)


def order(do: str, **args: Any) -> Command:
    return Command("c1", "desk", do, "cp-1/evse", args, 0, 2**53)


def of(recorder: Recorder, kind: str) -> list[Event]:
    return [event for event in recorder.events if event.kind == kind]


def line(running: Gateway) -> Connection:
    """The connection of cp-1."""
    found = running.driver._chargers["cp-1"].connection
    assert found
    return found
