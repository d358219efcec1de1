"""The MQTT uplink against a real Mosquitto: what it takes for delivery, and what it says when there is none."""

from __future__ import annotations

import asyncio
import socket
import time
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiomqtt
import orjson
import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from pydantic import ValidationError

from gateway.batch import decode, decompress, encode_receipt, encode_refusal
from gateway.errors import REFUSED, StorageError, UplinkError
from gateway.inventory import Inventory
from gateway.model import Lane, Receipt
from gateway.uplinks import mqtt
from tests.brokers import GATEWAY, PASSWORDS, PLATFORM, TENANT, Broker, free_port
from tests.faults import Fault, FaultProxy
from tests.platforms import INVENTORY, fails, nothing, platform, running, telemetry, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

# paho leaves the socket of a failed TLS handshake to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:Exception ignored in. <ssl.SSLSocket")
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


async def test_a_killed_broker_fails_all_waiters_at_once_and_the_next_connection_works(broker: Broker) -> None:
    up = uplink(broker)
    async with far_side(broker) as far, running(up) as task:
        sending = [asyncio.create_task(up.send(telemetry(1 + 50 * n))) for n in range(60)]
        await far.batch(30)
        broker.kill()
        killed = time.monotonic()
        await asyncio.wait((task, *sending), timeout=5)
        assert time.monotonic() - killed < 1.0
        for one in (task, *sending):
            assert str(one.exception()) == mqtt.LOST
        with pytest.raises(UplinkError, match="lost"):
            await up.send(telemetry(1))
        not_ready = asyncio.create_task(up.ready())
        await asyncio.sleep(0)
        assert not not_ready.done()
        not_ready.cancel()
    broker.start()
    async with far_side(broker) as far, running(up), asyncio.TaskGroup() as group:
        sent = group.create_task(up.send(telemetry(1)))
        message = await far.batch()
        assert len(far.on("batch/telemetry")) == 1, "nothing of the old connection is sent by itself"
        await far.answer(message, Receipt("9f2c", ((1, 50),)))
        assert (await sent).accepted == ((1, 50),)


async def test_a_frozen_broker_is_noticed_within_one_and_a_half_keepalives(broker: Broker) -> None:
    up = uplink(broker, keepalive="2s")
    async with running(up) as task:
        broker.freeze()
        frozen = time.monotonic()
        await asyncio.wait((task,), timeout=8)
        assert time.monotonic() - frozen <= 3.0
        assert str(task.exception()) == mqtt.LOST
        broker.thaw()


async def test_all_waiters_fail_within_a_tenth_of_a_second_of_a_disconnect(broker: Broker) -> None:
    took: list[float] = []
    for _ in range(3):
        async with FaultProxy.before(broker.url) as proxy, far_side(broker) as far:
            up = uplink(broker, url=proxy.url)
            async with running(up) as task:
                sending = [asyncio.create_task(up.send(telemetry(1 + 50 * n))) for n in range(60)]
                await far.batch(10)
                await proxy.have(Fault.RESET)
                reset = time.monotonic()
                await asyncio.wait((task, *sending), timeout=5)
                took.append(time.monotonic() - reset)
                assert {str(one.exception()) for one in (task, *sending)} == {mqtt.LOST}
    assert min(took) < 0.1, took


async def test_nothing_queues_inside_the_library(broker: Broker) -> None:
    up = uplink(broker)
    async with far_side(broker), running(up):
        assert up._connection
        broker.freeze()
        sending = [asyncio.create_task(up.send(telemetry(1 + 2000 * n, count=2000))) for n in range(60)]
        inside = up._connection._client
        await until(inside.want_write)
        for _ in range(100):
            await asyncio.sleep(0.002)
            assert len(inside._out_packet) <= 1
        handed_over = len(inside._out_messages)
        assert 0 < handed_over < 40, "a broker that reads nothing stops us, not the memory"
        for one in sending:
            one.cancel()
        broker.thaw()
        await asyncio.wait(sending)


async def test_a_peer_that_reads_nothing_any_more_is_noticed_within_one_and_a_half_keepalives() -> None:
    """It goes on sending, so that it looks alive: only the kernel knows that our bytes stay here."""

    ended = asyncio.Event()

    async def greet_and_read_no_more(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        published = 0
        while published < 2:  # the inventory and the state
            kind, size, shift = (await reader.readexactly(1))[0] >> 4, 0, 0
            while (byte := (await reader.readexactly(1))[0]) & 0x80:
                size, shift = size | (byte & 0x7F) << shift, shift + 7
            body = await reader.readexactly(size | byte << shift)
            match kind:
                case 1:
                    writer.write(bytes.fromhex("2003000000"))  # CONNACK
                case 3:
                    published += 1
                    at = 2 + int.from_bytes(body[:2])
                    writer.write(bytes.fromhex("4002") + body[at : at + 2])  # PUBACK
                case 8:
                    writer.write(bytes.fromhex("9004") + body[:2] + bytes.fromhex("0001"))  # SUBACK
        with suppress(ConnectionError):
            while True:
                writer.write(bytes.fromhex("d000"))  # PINGRESP
                await writer.drain()
                await asyncio.sleep(0.2)
        writer.transport.abort()
        ended.set()

    server = await asyncio.start_server(greet_and_read_no_more, "127.0.0.1", 0, limit=1024)
    async with server:
        port = server.sockets[0].getsockname()[1]
        up = mqtt.Uplink(platform(mqtt, {"url": f"mqtt://127.0.0.1:{port}", "keepalive": "3s", "ack_timeout": "60s"}))
        async with running(up) as task:
            sending = [asyncio.create_task(up.send(telemetry(1 + 2000 * n, count=2000))) for n in range(40)]
            assert up._connection
            await until(up._connection._client.want_write)
            began = time.monotonic()
            await asyncio.wait((task,), timeout=10)
            assert time.monotonic() - began <= 1.5 * 3 + 0.5
            await asyncio.wait(sending, timeout=1)
            assert {str(one.exception()) for one in (task, *sending)} == {mqtt.LOST}
            await ended.wait()


async def test_a_slow_line_is_not_a_silent_platform(broker: Broker) -> None:
    """The platform's time to answer begins when a batch has gone out, not when it begins to wait for the line."""
    async with FaultProxy.before(broker.url) as proxy, far_side(broker):
        up = uplink(broker, url=proxy.url, ack="puback", ack_timeout="2s")
        async with running(up):
            proxy.rate = 100_000
            await proxy.have(Fault.TRICKLE)
            began = time.monotonic()
            async with asyncio.TaskGroup() as group:
                for n in range(70):
                    group.create_task(up.send(telemetry(1 + 500 * n, count=500)))
            assert time.monotonic() - began > 2.3, "the line was not slow"


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


async def test_what_it_says_of_itself(broker: Broker) -> None:
    up = uplink(broker)
    async with far_side(broker) as far:
        async with running(up):
            await until(lambda: far.on("state"))
            assert orjson.loads(far.on("state")[0].payload) == {"v": 1, "gw": GATEWAY, "state": "online"}
            assert orjson.loads(far.on("inventory")[0].payload) == INVENTORY
            assert isinstance(up._platform.inventory, Inventory)
            assert up._platform.inventory.hear({"lp-0042/pm": {"serial": "4711"}})
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


class Journal:
    """A `Receive` that remembers; `open` is when it is done."""

    def __init__(self) -> None:
        self.got: list[tuple[bytes, bool]] = []
        self.open = asyncio.Event()
        self.open.set()

    async def __call__(self, payload: bytes, retained: bool) -> None:
        self.got.append((payload, retained))
        await self.open.wait()


async def test_commands_come_once_and_are_told_from_retained_ones(broker: Broker) -> None:
    up, journal = uplink(broker), Journal()
    async with far_side(broker) as far:
        await far.command(b"kept", retain=True)
        async with running(up, journal):
            await until(lambda: journal.got)
            await far.command(b"fresh")
            await far.command(b"retained while we listen", retain=True)
            await until(lambda: len(journal.got) == 3)
    assert journal.got == [(b"kept", True), (b"fresh", False), (b"retained while we listen", True)]
    again = Journal()
    async with far_side(broker) as far, running(uplink(broker), again):
        await far.command(b"next")
        await until(lambda: again.got)
        assert again.got == [(b"next", False)], "what was journalled does not come again"


async def test_a_command_whose_journal_was_not_durable_comes_again(broker: Broker) -> None:
    up, journal = uplink(broker), Journal()
    journal.open.clear()
    async with far_side(broker) as far:
        async with running(up, journal):
            await far.command(b"limit")
            await until(lambda: journal.got)
        again = Journal()
        async with running(uplink(broker), again):
            await until(lambda: again.got)
        assert again.got == [(b"limit", False)]
        last = Journal()
        async with running(uplink(broker), last):
            await far.command(b"after")
            await until(lambda: last.got)
            assert last.got == [(b"after", False)]


async def test_a_journal_that_fails_leaves_the_command_with_the_broker(broker: Broker) -> None:
    async def refuse(payload: bytes, retained: bool) -> None:
        raise StorageError("The disk is full.")

    up, again = uplink(broker), Journal()
    async with far_side(broker) as far:
        async with running(up, refuse), asyncio.TaskGroup() as group:
            await far.command(b"limit")
            sending = group.create_task(up.send(telemetry(1)))
            await far.answer(await far.batch(), Receipt("9f2c", ((1, 50),)))
            assert await sending, "batches go on"
        async with running(uplink(broker), again):
            await until(lambda: again.got)
    assert again.got == [(b"limit", False)]


async def test_commands_wait_in_the_broker_for_a_gateway_that_is_away(broker: Broker) -> None:
    async with far_side(broker) as far:
        async with running(uplink(broker)):
            pass
        await far.command(b"limit")
        journal = Journal()
        async with running(uplink(broker), journal):
            await until(lambda: journal.got)
    assert journal.got == [(b"limit", False)]


async def test_a_slow_journal_does_not_delay_acknowledgements(broker: Broker) -> None:
    up, journal = uplink(broker), Journal()
    journal.open.clear()
    async with far_side(broker) as far, running(up, journal), asyncio.TaskGroup() as group:
        for n in range(30):
            await far.command(b"%d" % n)
        await until(lambda: journal.got)
        sending = group.create_task(up.send(telemetry(1)))
        await far.answer(await far.batch(), Receipt("9f2c", ((1, 50),)))
        assert (await sending).accepted == ((1, 50),)
        assert len(journal.got) == 1


async def test_why_there_is_no_connection(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    assert await fails(uplink(broker, word="wrong")) == "The broker refuses our password. Re-enter it."
    without = {"username": None, "password": None}
    assert await fails(uplink(broker, **without)) == (
        "The broker lets nobody in without a password. Add `username` and `password: secret`."
    )
    port = free_port()
    nobody = await fails(uplink(broker, url=f"mqtt://127.0.0.1:{port}"))
    assert nobody == f"Nothing listens at 127.0.0.1:{port}. Start the broker, or correct the url."
    reset = await fails(uplink(broker, url=broker.url.replace("mqtt:", "mqtts:")))
    assert reset == f"127.0.0.1:{broker.port} breaks off when TLS begins. Check the port, and whether it takes TLS."

    def no_name_server(*_: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", no_name_server)
    unknown = await fails(uplink(broker, url="mqtt://broker.invalid"))
    assert unknown == "The name broker.invalid is not found. Check the url, and that the network has a name server."


async def test_a_peer_that_is_no_broker(broker: Broker) -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        said = await fails(uplink(broker, url=f"mqtt://127.0.0.1:{port}"))
    assert "does not answer as an MQTT broker" in said


async def test_a_cancelled_attempt_leaves_no_socket_behind(broker: Broker) -> None:
    for _ in range(20):
        task = asyncio.create_task(uplink(broker).run(nothing))
        for _ in range(3):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait((task,))
        assert task.cancelled()
    async with running(uplink(broker)) as task:
        await asyncio.sleep(0.2)
        assert not task.done(), "a late connection took the session over"


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
