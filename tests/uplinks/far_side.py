"""The far side of an MQTT uplink in the hand of a test, behind a real Mosquitto."""

from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiomqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from gateway.batch import encode_receipt
from gateway.model import Lane, Receipt
from gateway.uplinks import mqtt
from tests.brokers import GATEWAY, PASSWORDS, PLATFORM, TENANT, Broker
from tests.platforms import platform, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ROOT = f"lampione/1/{TENANT}/{GATEWAY}"


def uplink(broker: Broker, **keys: Any) -> mqtt.Uplink:
    secrets = {"password": keys.pop("word", PASSWORDS[GATEWAY])}
    return mqtt.Uplink(
        platform(mqtt, {"url": broker.url, "username": GATEWAY, "password": "secret"} | keys, secrets=secrets)
    )


class Platform:
    """The far side in the hand of a test: it answers only what it is told to."""

    def __init__(self, client: aiomqtt.Client) -> None:
        self.client = client
        self.seen: list[aiomqtt.Message] = []

    async def listen(self) -> None:
        async for message in self.client.messages:
            self.seen.append(message)

    def on(self, what: str) -> list[aiomqtt.Message]:
        return [message for message in self.seen if str(message.topic) == f"{ROOT}/{what}"]

    async def batch(self, number: int = 0) -> aiomqtt.Message:
        await until(lambda: len(self.on("batch/telemetry")) > number)
        return self.on("batch/telemetry")[number]

    async def answer(self, message: aiomqtt.Message, receipt: Receipt) -> None:
        properties = Properties(PacketTypes.PUBLISH)
        properties.CorrelationData = message.properties.CorrelationData
        payload = encode_receipt(GATEWAY, Lane.TELEMETRY, receipt)
        await self.client.publish(message.properties.ResponseTopic, payload, properties=properties)

    async def command(self, payload: bytes, *, retain: bool = False) -> None:
        await self.client.publish(f"{ROOT}/cmd", payload, qos=1, retain=retain)


@asynccontextmanager
async def far_side(broker: Broker) -> AsyncIterator[Platform]:
    async with aiomqtt.Client(
        "127.0.0.1",
        broker.port,
        username=PLATFORM,
        password=PASSWORDS[PLATFORM],
        protocol=aiomqtt.ProtocolVersion.V5,
        socket_options=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)],
    ) as client:
        await client.subscribe(f"{ROOT}/#", qos=1)
        far = Platform(client)
        task = asyncio.create_task(far.listen())
        try:
            yield far
        finally:
            task.cancel()
            await asyncio.wait((task,))
