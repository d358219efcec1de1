"""One charger's socket: the order of calls, the bounds of what it may send, and who is taken for silent."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

import aiohttp
import pytest
from yarl import URL

from drivers.ocpp.connection import QUEUED, GoneError, Inbox
from drivers.ocpp.rpc import MAX_FRAME, Call
from gateway.testing import Recorder, jumped
from tests.drivers.ocpp.chargers import SECRETS, connect, gateway, line, make_device, make_settings, of

if TYPE_CHECKING:
    from typing import Any

START = {"connectorId": 1, "idTag": "04A1B2C3", "meterStart": 0, "timestamp": "2026-11-22T10:00:00Z"}


async def test_of_our_calls_one_is_in_flight(session: aiohttp.ClientSession) -> None:
    async with gateway(Recorder()) as running:
        charger = await connect(session, running)
        told = [asyncio.create_task(line(running).call("ClearCache", {"n": number})) for number in range(3)]
        for number in range(3):
            _, message_id, _, payload = await charger.receive()
            assert payload == {"n": number}
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await charger.socket.receive()
            await charger.send([3, message_id, {"status": str(number)}])
        assert [(await one)["status"] for one in told] == ["0", "1", "2"]


async def test_a_late_answer_is_not_the_next_calls(session: aiohttp.ClientSession) -> None:
    """Also not that of the next connection: message ids never come twice."""
    async with gateway(Recorder()) as running:
        ids = []
        for _ in range(2):
            charger = await connect(session, running)
            await charger.ask("Heartbeat", {})
            call = asyncio.create_task(line(running).call("ClearCache", {}))
            ids.append((await charger.receive())[1])
            await charger.send([3, ids[0] if len(ids) > 1 else "other", {"status": "Late"}])
            await charger.ask("Heartbeat", {})
            assert not call.done()
            await charger.socket.close()
            with pytest.raises(GoneError):
                await call
        assert ids[0] != ids[1]


async def test_a_frame_that_is_too_large_costs_its_sender_at_most_the_connection(
    session: aiohttp.ClientSession,
) -> None:
    devices = [make_device(), make_device("cp-2/evse")]
    async with gateway(Recorder(), devices=devices) as running:
        large = await connect(session, running)
        other = await connect(session, running, "/cp-2", user="cp-2", key=SECRETS["cp-2/evse.key"])
        await large.send('[2,"1","Heartbeat",{"a":"' + "x" * MAX_FRAME + '"}]')
        assert await large.ask("Heartbeat", {}), "half as much again is only not taken"
        await large.send('[2,"1","Heartbeat",{"a":"' + "x" * 3 * MAX_FRAME + '"}]')
        assert await large.closed() == aiohttp.WSCloseCode.MESSAGE_TOO_BIG
        assert await other.ask("Heartbeat", {})


async def test_nothing_is_compressed(session: aiohttp.ClientSession) -> None:
    """A window of 32 KB for each charger would be more than all else that it takes."""
    async with gateway(Recorder(), make_settings(security="0")) as running:
        url = URL(f"ws://{running.address}/cp-1")
        async with session.ws_connect(url, protocols=["ocpp1.6"], compress=15) as socket:
            assert socket.compress == 0
            await socket.send_str('[2,"1","Heartbeat",{}]')
            assert (await socket.receive_json())[:2] == [3, "1"]


async def test_the_inbox_is_bounded_and_in_order() -> None:
    inbox = Inbox()
    calls = [Call(number, "Heartbeat", {}) for number in range(QUEUED + 5)]

    async def put() -> None:
        for call in calls:
            await inbox.put(call)

    putting = asyncio.create_task(put())
    for _ in range(QUEUED * 3):
        await asyncio.sleep(0)
    assert inbox.is_full
    assert not putting.done()
    assert [await inbox.take() for _ in calls] == calls
    await putting
    taking = asyncio.create_task(inbox.take())
    await asyncio.sleep(0)
    inbox.end()
    assert await taking is None


def test_a_disk_that_is_slow_is_not_a_charger_that_is_silent() -> None:
    async def main() -> None:
        recorder = Recorder()
        async with gateway(recorder) as running, aiohttp.ClientSession() as session:
            charger = await connect(session, running)
            recorder.hold()
            for number in range(QUEUED + 10):
                await charger.send([2, str(number), "StartTransaction", START | {"meterStart": number}])
            await asyncio.sleep(1000)
            assert not of(recorder, "device_down")
            recorder.release()
            answered: list[Any] = []
            while len(answered) < QUEUED + 10:
                answer = await charger.receive()
                if answer[0] == 3:
                    answered.append(answer[1])
            assert answered == [str(number) for number in range(QUEUED + 10)]

    jumped(main())


def test_who_tells_and_takes_no_answers_is_given_up() -> None:
    async def main() -> None:
        recorder = Recorder()
        with socket.socket() as small:
            small.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            small.setblocking(False)  # noqa: FBT003
            async with gateway(recorder, make_settings(security="0")) as running:
                host, port = running.address.split(":")
                await asyncio.get_running_loop().sock_connect(small, (host, int(port)))
                reader, writer = await asyncio.open_connection(sock=small, limit=1024)
                writer.write(
                    b"GET /cp-1 HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                    b"Sec-WebSocket-Protocol: ocpp1.6\r\n\r\n"
                )
                await reader.readuntil(b"\r\n\r\n")
                wire = line(running)._socket.get_extra_info("socket")
                wire.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
                call = b'[2,"' + b"x" * 250 + b'","Heartbeat",{}]'
                frame = b"\x81\xfe" + len(call).to_bytes(2, "big") + bytes(4) + call
                while not of(recorder, "device_down"):
                    writer.write(20 * frame)
                    await asyncio.sleep(1)
                writer.transport.abort()
        (down,) = of(recorder, "device_down")
        assert down.say.startswith("cp-1/evse takes no answers. ")

    jumped(main())


def test_who_pings_is_there_and_keeps_its_share() -> None:
    """Some chargers ping and answer no pings; pings take nothing from what may be told."""

    async def main() -> None:
        recorder = Recorder()
        async with gateway(recorder, make_settings(security="0")) as running, aiohttp.ClientSession() as session:
            url = URL(f"ws://{running.address}/cp-1")
            async with session.ws_connect(url, protocols=["ocpp1.6"], autoping=False) as socket:
                loop = asyncio.get_running_loop()
                for number in range(200):
                    await socket.ping()
                    began = loop.time()
                    await socket.send_str(f'[2,"{number}","Heartbeat",{{}}]')
                    told = ""
                    while not told.startswith(f'[3,"{number}"'):
                        told = str((await socket.receive()).data)
                    assert loop.time() - began < 1
                    await asyncio.sleep(20)
            assert not of(recorder, "device_down")

    jumped(main())
