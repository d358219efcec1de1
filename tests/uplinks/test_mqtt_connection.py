"""Connections over MQTT that break, freeze or never come to be: noticed in time, said in one sentence."""

from __future__ import annotations

import asyncio
import socket
import time
from contextlib import suppress

import pytest

from gateway.errors import UplinkError
from gateway.model import Receipt
from gateway.uplinks import mqtt
from tests.brokers import Broker, free_port
from tests.faults import Fault, FaultProxy
from tests.platforms import fails, nothing, platform, running, telemetry, until
from tests.uplinks.far_side import far_side, uplink

# paho leaves the socket of a failed TLS handshake to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:Exception ignored in. <ssl.SSLSocket")


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
