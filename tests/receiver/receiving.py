"""A receiver for tests, and the uplinks that speak to it."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from gateway.clock import SystemClock
from gateway.receiver import HttpIn, MqttIn, Receiver
from gateway.uplinks import http, mqtt
from tests.brokers import GATEWAY, PASSWORDS, PLATFORM, TENANT, Broker
from tests.platforms import platform

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

TOKENS = {GATEWAY: "t0ken", "operator": "boss", "cab-018": "other"}
ROOT = f"/lampione/1/{TENANT}/{GATEWAY}"


def at(broker: Broker, **more: Any) -> MqttIn:
    return MqttIn(broker.url, PLATFORM, PASSWORDS[PLATFORM], **more)


@asynccontextmanager
async def receiving(
    path: Path, mqtt_in: MqttIn | None = None, http_in: HttpIn | None = None
) -> AsyncIterator[Receiver]:
    receiver = Receiver(path / "platform.db", mqtt=mqtt_in, http=http_in)
    task = asyncio.create_task(receiver.run())
    ready = asyncio.create_task(receiver.ready())
    try:
        done, _ = await asyncio.wait((task, ready), timeout=10, return_when=asyncio.FIRST_COMPLETED)
        if task in done:
            task.result()
        yield receiver
        assert not task.done(), "it has stopped by itself"
    finally:
        ready.cancel()
        task.cancel()
        await asyncio.wait((task, ready))
        if not task.cancelled():
            task.result()


def over_mqtt(broker: Broker, **keys: Any) -> mqtt.Uplink:
    return mqtt.Uplink(platform(mqtt, {"url": broker.url, "username": GATEWAY, "password": "secret"} | keys))


def over_http(receiver: Receiver, **keys: Any) -> http.Uplink:
    return http.Uplink(platform(http, {"url": receiver.url, "token": "secret"} | keys))


class Journal:
    def __init__(self) -> None:
        self.got: list[tuple[Any, bool]] = []

    async def __call__(self, payload: bytes, retained: bool) -> None:
        self.got.append((orjson.loads(payload), retained))


def command(name: str, *, lives_ms: int = 60_000) -> dict[str, Any]:
    now = SystemClock().wall()
    return {
        "v": 1, "id": name, "issuer": "grid-desk", "do": "limit", "on": "cp-1/evse", "args": {"amps": 16},
        "issued": now, "expires": now + lives_ms,
    }  # fmt: skip
