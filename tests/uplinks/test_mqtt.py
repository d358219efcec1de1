"""The MQTT uplink against a real Mosquitto: what it takes for delivery, what it says of itself, how much at once."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any

import aiomqtt
import orjson
import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from pydantic import ValidationError

from gateway.batch import decode, decompress, encode_receipt, encode_refusal
from gateway.errors import REFUSED, UplinkError
from gateway.inventory import Inventory
from gateway.model import Lane, Receipt
from gateway.uplinks import mqtt
from tests.brokers import GATEWAY, PASSWORDS, PLATFORM, Broker
from tests.faults import Fault, FaultProxy
from tests.platforms import INVENTORY, nothing, running, telemetry, until
from tests.uplinks.far_side import ROOT, far_side, uplink

# paho leaves the socket of a failed TLS handshake to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:Exception ignored in. <ssl.SSLSocket")


async def test_only_the_platforms_answer_settles_a_batch(broker: Broker) -> None:
    up = uplink(broker)
    async with far_side(broker) as far, running(up), asyncio.TaskGroup() as group:
        sending = group.create_task(up.send(telemetry(1)))
        message = await far.batch()
        assert message.properties.ResponseTopic == f"{ROOT}/ack"
        assert message.properties.ContentType == "application/vnd.lampione.batch+json; v=1"
        assert ("content-encoding", "deflate") in message.properties.UserProperty
        assert decode(decompress(message.payload)).span == (1, 50)
        assert not sending.done()
        receipt = Receipt("9f2c", ((1, 49),), ((50, "unknown_quantity", False),))
        await far.answer(message, receipt)
        assert await sending == receipt


async def test_a_small_batch_goes_unpacked(broker: Broker) -> None:
    up = uplink(broker, ack="puback")
    async with far_side(broker) as far, running(up):
        await up.send(telemetry(1, count=1))
        message = await far.batch()
        assert not hasattr(message.properties, "UserProperty")
        assert decode(message.payload).span == (1, 1)


async def test_answers_find_their_batches_in_any_order(broker: Broker) -> None:
    up = uplink(broker)
    async with far_side(broker) as far, running(up), asyncio.TaskGroup() as group:
        sending = [group.create_task(up.send(telemetry(1 + 50 * n))) for n in range(5)]
        await far.batch(4)
        for message in reversed(far.on("batch/telemetry")):
            span = decode(decompress(message.payload)).span
            await far.answer(message, Receipt("9f2c", (span,)))
        assert [(await task).accepted for task in sending] == [((1 + 50 * n, 50 + 50 * n),) for n in range(5)]


async def test_an_answer_for_another_epoch_or_another_batch_settles_nothing(broker: Broker) -> None:
    up = uplink(broker)
    async with far_side(broker) as far, running(up), asyncio.TaskGroup() as group:
        sending = group.create_task(up.send(telemetry(1)))
        message = await far.batch()
        await far.answer(message, Receipt("0000", ((1, 50),)))
        stranger = Properties(PacketTypes.PUBLISH)
        stranger.CorrelationData = b"whatever"
        good = encode_receipt(GATEWAY, Lane.TELEMETRY, Receipt("9f2c", ((1, 50),)))
        await far.client.publish(f"{ROOT}/ack", good, properties=stranger)
        await far.client.publish(f"{ROOT}/ack", good)
        await far.client.publish(f"{ROOT}/ack", b"\xff not JSON", properties=_same(message))
        # The broker keeps the order, so what comes after these was not overtaken by them.
        await far.answer(message, Receipt("9f2c", ((1, 25),)))
        assert (await sending).accepted == ((1, 25),)


async def test_a_batch_that_the_platform_cannot_read_is_refused_for_its_own_sake(broker: Broker) -> None:
    """At once, so that delivery halves it: a platform that says nothing would cost the connection, again and again."""
    up = uplink(broker)
    async with far_side(broker) as far, running(up), asyncio.TaskGroup() as group:
        sending = group.create_task(_refused(up))
        message = await far.batch()
        await far.client.publish(
            f"{ROOT}/ack", encode_refusal(GATEWAY, "telemetry", "not JSON"), properties=_same(message)
        )
        error = await sending
    assert error.code == REFUSED
    assert str(error) == "The platform cannot read a batch: not JSON. Ask whoever runs it."


async def _refused(up: mqtt.Uplink) -> UplinkError:
    with pytest.raises(UplinkError) as failure:
        await up.send(telemetry(1))
    return failure.value


def _same(message: aiomqtt.Message) -> Properties:
    properties = Properties(PacketTypes.PUBLISH)
    properties.CorrelationData = message.properties.CorrelationData
    return properties


async def test_a_broker_that_takes_batches_for_a_silent_platform_is_not_delivery(broker: Broker) -> None:
    up = uplink(broker, ack_timeout="200ms")
    async with far_side(broker) as far, running(up):
        with pytest.raises(UplinkError, match=r"^The broker takes our batches, but no platform answers within 0\.2 s"):
            await up.send(telemetry(1))
        assert await far.batch()


async def test_without_any_subscriber_it_is_not_delivery(broker: Broker) -> None:
    for ack in ("application", "puback"):
        up = uplink(broker, ack=ack)
        async with running(up):
            with pytest.raises(UplinkError, match=r"^The broker has nobody to give our batches to"):
                await up.send(telemetry(1))


async def test_degraded_mode_takes_the_brokers_word(broker: Broker) -> None:
    up = uplink(broker, ack="puback")
    async with far_side(broker), running(up):
        assert await up.send(telemetry(1)) == Receipt("9f2c", ((1, 50),))


async def test_a_refused_publish_is_no_success(tmp_path: Path) -> None:
    access = f"user {GATEWAY}\ntopic readwrite {ROOT}/state\ntopic readwrite {ROOT}/inventory\ntopic read {ROOT}/#\n"
    broker = Broker(tmp_path / "broker", access=access).start()
    try:
        up = uplink(broker, ack="puback")
        async with running(up):
            with pytest.raises(UplinkError, match=rf"does not let us publish on {ROOT}/batch/telemetry \(0x87\)"):
                await up.send(telemetry(1))
    finally:
        broker.kill()


async def test_more_batches_than_the_broker_takes_at_once(tmp_path: Path) -> None:
    broker = Broker(tmp_path / "broker", options="max_inflight_messages 3").start()
    try:
        up = uplink(broker, ack="puback")
        async with far_side(broker), running(up), asyncio.TaskGroup() as group:
            for n in range(100):
                group.create_task(up.send(telemetry(1 + 50 * n)))
    finally:
        broker.kill()


async def test_a_message_that_the_broker_cannot_take_is_said_not_sent(tmp_path: Path) -> None:
    broker = Broker(tmp_path / "broker", options="max_packet_size 3000").start()
    try:
        up = uplink(broker, ack="puback")
        async with far_side(broker), running(up):
            with pytest.raises(UplinkError, match=r"^The broker takes 3000 bytes at most"):
                await up.send(telemetry(1, count=1000))
            assert await up.send(telemetry(1, count=5))
    finally:
        broker.kill()


async def test_what_it_says_of_itself(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    up = uplink(broker)
    async with far_side(broker) as far:
        async with running(up):
            await until(lambda: far.on("state"))
            assert orjson.loads(far.on("state")[0].payload) == {"v": 1, "gw": GATEWAY, "state": "online"}
            assert orjson.loads(far.on("inventory")[0].payload) == INVENTORY
            assert isinstance(up._platform.inventory, Inventory)
            up._platform.inventory.hear({"lp-0042/pm": {"serial": "4711"}})
            monkeypatch.setattr("gateway.inventory.SETTLE", 0.0)
            await up._platform.inventory.grow()
            await until(lambda: len(far.on("inventory")) == 2)
            renewed = orjson.loads(far.on("inventory")[1].payload)
            assert (renewed["version"], renewed["assets"][0]["devices"][0]["serial"]) == (8, "4711")
        await until(lambda: len(far.on("state")) == 2)
        assert orjson.loads(far.on("state")[1].payload)["state"] == "offline"
    async with far_side(broker) as late:
        await until(lambda: late.on("state") and late.on("inventory"))
        assert all(message.retain for message in late.seen)


async def test_the_broker_says_offline_for_a_gateway_that_is_gone(broker: Broker) -> None:
    up = uplink(broker)
    async with far_side(broker) as far:
        task = asyncio.create_task(up.run(nothing))
        await up.ready()
        assert up._connection
        up._connection._client._sock.shutdown(socket.SHUT_RDWR)
        await until(
            lambda: [orjson.loads(message.payload)["state"] for message in far.on("state")] == ["online", "offline"]
        )
        with pytest.raises(UplinkError):
            await task


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ({"url": "http://usp.example"}, "is not an address of mqtts or mqtt"),
        ({"url": "mqtts://"}, "is not an address"),
        ({"url": "mqtts://usp.example:99999"}, "has no port"),
        ({"url": "mqtts://usp..example"}, "cannot be a host's name"),
        ({"url": "mqtts://gw:word@usp.example"}, "stands in the url"),
        ({"url": "mqtts://usp.example", "password": "lantern"}, "in clear text"),
        ({"url": "mqtts://usp.example", "lanes": ["fast"]}, "billing"),
        ({"url": "mqtts://usp.example", "lanes": []}, "at least 1"),
        ({"url": "mqtts://usp.example", "from": "yesterday"}, "oldest"),
        ({"url": "mqtts://usp.example", "retries": "3"}, "Extra inputs"),
    ],
)
def test_what_may_not_be_written(keys: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        mqtt.Settings.model_validate({"uplink": "mqtt", **keys})


def test_what_is_meant_when_nothing_is_written() -> None:
    settings = mqtt.Settings.model_validate({"uplink": "mqtt", "url": "mqtts://usp.example"})
    assert settings.lanes == tuple(Lane)
    assert settings.commands == {}, "nobody may command unless named"
    assert settings.ack == "application"
    assert settings.start == "oldest"


async def test_the_window_is_what_the_broker_grants_and_fills_a_long_way(tmp_path: Path) -> None:
    """At 60 ms there and back, 100 messages at once are 1 600 a second at best; waiting for each would be 16.

    A machine that has too much else to do for 800 over a way of no length shows only that the length costs little.
    """
    broker = Broker(tmp_path / "broker", options="max_inflight_messages 100").start()
    try:
        async with FaultProxy.before(broker.url) as proxy:
            await _subscribe_and_leave(broker)
            up = uplink(broker, ack="puback", url=proxy.url)
            async with running(up):
                assert up.window == 100
                near = await _rate(up, 600)
                proxy.delay = 0.03
                await proxy.have(Fault.DELAY)
                rates = [await _rate(up, 600) for _ in range(3)]
    finally:
        broker.kill()
    assert max(rates) >= min(800, 0.7 * near), (near, rates)
    assert max(rates) < 100 / 0.06, "more than the broker granted was under way"


async def _subscribe_and_leave(broker: Broker) -> None:
    """Somebody to send to, who costs this process nothing."""
    stays = Properties(PacketTypes.CONNECT)
    stays.SessionExpiryInterval = 60
    async with aiomqtt.Client(
        "127.0.0.1", broker.port, username=PLATFORM, password=PASSWORDS[PLATFORM], identifier="away",
        protocol=aiomqtt.ProtocolVersion.V5, clean_start=False, properties=stays,
    ) as client:  # fmt: skip
        await client.subscribe(f"{ROOT}/batch/+", qos=1)


async def _rate(up: mqtt.Uplink, count: int) -> float:
    """Messages a second, with as many under way as the window allows."""
    loop = asyncio.get_running_loop()
    numbers = iter(range(count))

    async def send_some() -> None:
        for number in numbers:
            await up.send(telemetry(1 + number, count=1))

    began = loop.time()
    async with asyncio.TaskGroup() as senders:
        for _ in range(up.window):
            senders.create_task(send_some())
    return count / (loop.time() - began)
