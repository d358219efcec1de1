"""Gateway's uplinks and the receiver together, over a real broker and real HTTP: what is acknowledged is stored."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import zlib
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiomqtt
import orjson
import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from gateway.batch import encode
from gateway.errors import CommandError, LinkError, UplinkError
from gateway.model import Lane
from gateway.receiver import HttpIn, MqttIn, Receiver
from tests.brokers import GATEWAY, PASSWORDS, PLATFORM, TENANT, Broker, free_port
from tests.platforms import running, telemetry, until
from tests.receiver.receiving import TOKENS, Journal, at, command, over_http, over_mqtt, receiving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


async def test_what_goes_in_over_mqtt_is_stored_and_acknowledged(broker: Broker, tmp_path: Path) -> None:
    up = over_mqtt(broker)
    async with receiving(tmp_path, at(broker)) as receiver, running(up):
        async with asyncio.TaskGroup() as group:
            for n in range(40):
                group.create_task(up.send(telemetry(1 + 50 * n, low=1)))
        assert receiver.counts.records == 2000
        assert await up.send(telemetry(1))
        (row,) = receiver.report()
        assert (row.tenant, row.gateway, row.received, row.duplicates) == (TENANT, GATEWAY, 2000, 50)
        assert [device.p99_ms is not None for device in receiver.per_device()] == [True, True]


async def test_many_batches_are_one_transaction(broker: Broker, tmp_path: Path) -> None:
    up = over_mqtt(broker)
    async with receiving(tmp_path, at(broker)) as receiver, running(up):
        await up.send(telemetry(10_001))
        release = threading.Event()
        busy = asyncio.create_task(receiver._inbox.ask(lambda _: release.wait(10)))
        try:
            async with asyncio.TaskGroup() as group:
                sends = [group.create_task(up.send(telemetry(1 + 50 * n))) for n in range(30)]
                await until(lambda: len(receiver._inbox._waiting) >= 20)
                assert not any(task.done() for task in sends), "nothing is acknowledged before its commit"
                release.set()
        finally:
            release.set()
            await busy
    with sqlite3.connect(tmp_path / "platform.db") as db:
        (times,) = db.execute("SELECT count(DISTINCT received_at) FROM reading").fetchone()
    db.close()
    assert times <= 4


async def test_a_receiver_that_was_away_dedupes_what_it_had_taken(broker: Broker, tmp_path: Path) -> None:
    up = over_mqtt(broker, ack_timeout="5s")
    async with running(up):
        async with receiving(tmp_path, at(broker)):
            await up.send(telemetry(1))
        with pytest.raises(UplinkError, match="nobody to give"):
            await up.send(telemetry(51))
        async with receiving(tmp_path, at(broker)) as receiver:
            await up.send(telemetry(1))
            await up.send(telemetry(51))
            (row,) = receiver.report()
    assert (row.received, row.duplicates, row.missing) == (100, 50, 0)


async def test_a_broker_that_reboots_is_found_again(broker: Broker, tmp_path: Path) -> None:
    async with receiving(tmp_path, at(broker)) as receiver:
        async with running(over_mqtt(broker)) as task:
            broker.kill()
            await asyncio.wait((task,))
            assert task.exception()
        await until(lambda: receiver._mqtt and receiver._mqtt._client is None)
        broker.start()
        await until(lambda: receiver._mqtt and receiver._mqtt._client is not None)
        up = over_mqtt(broker)
        async with running(up):
            await up.send(telemetry(1))
        assert receiver.counts.records == 50


async def test_receivers_of_one_share_divide_the_batches(broker: Broker, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    up = over_mqtt(broker)
    async with (
        receiving(tmp_path / "a", at(broker, share="usp")) as a,
        receiving(tmp_path / "b", at(broker, share="usp")) as b,
        running(up),
    ):
        for n in range(20):
            await up.send(telemetry(1 + 50 * n))
        assert a.counts.records + b.counts.records == 1000
        assert a.counts.records
        assert b.counts.records
    (row,) = [row for row in a.report() if row.gateway == GATEWAY]
    assert row.received == a.counts.records


async def test_an_answer_goes_to_the_gateway_that_sent_whatever_it_asks_for(broker: Broker, tmp_path: Path) -> None:
    async with receiving(tmp_path, at(broker)), _client(broker, PLATFORM) as spy, _client(broker, GATEWAY) as sender:
        await spy.subscribe("lampione/1/#")
        properties = Properties(PacketTypes.PUBLISH)
        properties.ResponseTopic = f"lampione/1/{TENANT}/cab-018/cmd"
        properties.CorrelationData = b"x1"
        await sender.publish(
            f"lampione/1/{TENANT}/{GATEWAY}/batch/telemetry", encode(telemetry(1)), 1, properties=properties
        )
        async with asyncio.timeout(10):
            async for message in spy.messages:
                what = str(message.topic).rpartition("/")[2]
                if what in ("ack", "cmd"):
                    break
    assert str(message.topic) == f"lampione/1/{TENANT}/{GATEWAY}/ack"
    assert message.properties.CorrelationData == b"x1"
    assert orjson.loads(message.payload) == {
        "v": 1, "gw": GATEWAY, "lane": "telemetry", "ep": "9f2c", "ok": [[1, 50]],
    }  # fmt: skip


@asynccontextmanager
async def _client(broker: Broker, user: str) -> AsyncIterator[aiomqtt.Client]:
    async with aiomqtt.Client(
        "127.0.0.1", broker.port, username=user, password=PASSWORDS[user], protocol=aiomqtt.ProtocolVersion.V5
    ) as client:
        yield client


async def test_what_is_no_batch_of_that_gateway_is_not_stored_and_stops_nothing(broker: Broker, tmp_path: Path) -> None:
    topic = f"lampione/1/{TENANT}/cab-018/batch/telemetry"
    deflate = Properties(PacketTypes.PUBLISH)
    deflate.UserProperty = ("content-encoding", "deflate")
    up = over_mqtt(broker)
    async with receiving(tmp_path, at(broker)) as receiver, _client(broker, "cab-018") as stranger, running(up):
        await stranger.publish(topic, encode(telemetry(1)), 1)
        for payload in (b"", b"{}", b"\xff", zlib.compress(b"x" * 500)):
            await stranger.publish(topic, payload, 1)
        await stranger.publish(topic, b"no zlib", 1, properties=deflate)
        await stranger.publish(topic, zlib.compress(bytes(50_000_000), 9), 1, properties=deflate)
        await stranger.publish(f"lampione/1/{TENANT}/cab-018/state", b"\xff", 1)
        await up.send(telemetry(1))
        assert [(row.gateway, row.received) for row in receiver.report()] == [(GATEWAY, 50)]


async def test_a_batch_that_cannot_be_read_is_answered_so_that_its_sender_learns(
    broker: Broker, tmp_path: Path
) -> None:
    root = f"lampione/1/{TENANT}/{GATEWAY}"
    foreign = encode(replace(telemetry(1), gateway="cab-018"))
    wrong = {
        b"{": "not JSON: ", b'{"v":2}': "version 2 is not 1", foreign: "it says that it is telemetry of cab-018",
        encode(replace(telemetry(1), lane=Lane.BILLING)): "it says that it is billing of cab-017",
    }  # fmt: skip
    answers: dict[bytes, Any] = {}
    async with receiving(tmp_path, at(broker)) as receiver, _client(broker, GATEWAY) as sender:
        await sender.subscribe(f"{root}/ack")
        for number, payload in enumerate(wrong):
            properties = Properties(PacketTypes.PUBLISH)
            properties.CorrelationData = bytes([number])
            await sender.publish(f"{root}/batch/telemetry", payload, 1, properties=properties)
        async with asyncio.timeout(10):
            async for message in sender.messages:
                answers[message.properties.CorrelationData] = orjson.loads(message.payload)
                if len(answers) == len(wrong):
                    break
        assert receiver.report() == []
    for number, why in enumerate(wrong.values()):
        answer = answers[bytes([number])]
        assert answer.pop("refused").startswith(why)
        assert answer == {"v": 1, "gw": GATEWAY, "lane": "telemetry"}


async def test_inventory_and_state_are_kept(broker: Broker, tmp_path: Path) -> None:
    def kept() -> Any:
        with sqlite3.connect(tmp_path / "platform.db") as db:
            rows = db.execute(
                "SELECT via, json_extract(state, '$.state'), json_extract(inventory, '$.version') FROM gateway"
            )
            found = rows.fetchall()
        db.close()
        return found

    async with receiving(tmp_path, at(broker), HttpIn(TOKENS)) as receiver:
        async with running(over_mqtt(broker)):
            await until(lambda: kept() == [("mqtt", "online", 7)])
        await until(lambda: kept() == [("mqtt", "offline", 7)])
        async with running(over_http(receiver)):
            assert kept() == [("http", "offline", 7)]


async def test_commands_go_the_way_the_gateway_was_last_heard(broker: Broker, tmp_path: Path) -> None:
    async with receiving(tmp_path, at(broker), HttpIn(TOKENS)) as receiver:
        journal = Journal()
        up = over_mqtt(broker)
        async with running(up, journal):
            await up.send(telemetry(1))
            await receiver.command(GATEWAY, command("by-mqtt"))
            await until(lambda: journal.got)
        web = over_http(receiver, commands={"grid-desk": ["limit"]})
        async with running(web, journal):
            await receiver.command(GATEWAY, command("by-http"))
            await until(lambda: len(journal.got) == 2)
            await receiver.command(GATEWAY, command("by-http-2"), TENANT)
            await until(lambda: len(journal.got) == 3)
    assert [(document["id"], retained) for document, retained in journal.got] == [
        ("by-mqtt", False),
        ("by-http", False),
        ("by-http-2", False),
    ]


async def test_a_late_word_that_a_gateway_has_left_does_not_turn_commands_away_from_its_new_way(
    broker: Broker, tmp_path: Path
) -> None:
    async with receiving(tmp_path, at(broker), HttpIn(TOKENS)) as receiver, _client(broker, GATEWAY) as will:
        journal = Journal()
        async with running(over_http(receiver, commands={"grid-desk": ["limit"]}), journal):
            await will.publish(f"lampione/1/{TENANT}/{GATEWAY}/state", b'{"v":1,"gw":"cab-017","state":"offline"}', 1)
            with sqlite3.connect(tmp_path / "platform.db") as db:
                await until(lambda: db.execute("SELECT state FROM gateway").fetchone()[0])
            db.close()
            await receiver.command(GATEWAY, command("by-http"))
            await until(lambda: journal.got)


async def test_a_command_waits_for_a_gateway_until_it_expires(tmp_path: Path) -> None:
    async with receiving(tmp_path, None, HttpIn(TOKENS)) as receiver:
        async with running(over_http(receiver)):
            pass
        await receiver.command(GATEWAY, command("late", lives_ms=1))
        await receiver.command(GATEWAY, command("in-time"))
    async with receiving(tmp_path, None, HttpIn(TOKENS)) as receiver:
        journal = Journal()
        async with running(over_http(receiver, commands={"grid-desk": ["limit"]}), journal):
            await until(lambda: journal.got)
            assert [document["id"] for document, _ in journal.got] == ["in-time"]


async def test_a_command_that_cannot_be_sent_is_said(broker: Broker, tmp_path: Path) -> None:
    async with receiving(tmp_path, at(broker)) as receiver:
        with pytest.raises(CommandError, match="0 gateways are called cab-099"):
            await receiver.command("cab-099", command("x"))
        with pytest.raises(CommandError, match="needs an `id` and `expires`"):
            await receiver.command(GATEWAY, {"id": "x"})
        with pytest.raises(CommandError, match="expired already"):
            await receiver.command(GATEWAY, command("x", lives_ms=-1))
        async with running(over_mqtt(broker)):
            await until(lambda: not receiver._inbox._waiting)
        broker.kill()
        await until(lambda: receiver._mqtt and receiver._mqtt._client is None)
        with pytest.raises((LinkError, CommandError)):
            await receiver.command(GATEWAY, command("x"))


async def test_where_it_cannot_listen_is_said(broker: Broker, tmp_path: Path) -> None:
    port = free_port()
    for mqtt_in, why in (
        (MqttIn(f"mqtt://127.0.0.1:{port}"), "Connection refused"),
        (MqttIn(broker.url, PLATFORM, "wrong"), "Not authorized"),
        (MqttIn("broker.example"), "this is not mqtt://"),
    ):
        with pytest.raises(LinkError, match=why):
            await Receiver(tmp_path / "platform.db", mqtt=mqtt_in).run()
    with pytest.raises(LinkError, match="cannot be listened at"):
        await Receiver(tmp_path / "platform.db", http=HttpIn(TOKENS, port=broker.port)).run()
