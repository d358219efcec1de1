"""The HTTP uplink against aiohttp servers that a test scripts, and the sentences for what goes wrong."""

from __future__ import annotations

import asyncio
import re
import ssl
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from aiohttp import web
from pydantic import ValidationError

from gateway.batch import decode, encode_receipt
from gateway.errors import StorageError, UplinkError
from gateway.model import Lane, Receipt
from gateway.uplinks import http
from tests.brokers import GATEWAY, TENANT, free_port
from tests.platforms import INVENTORY, nothing, platform, running, telemetry, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ROOT = f"/lampione/1/{TENANT}/{GATEWAY}"
TLS = Path(__file__).parent / "tls"


class City:
    """A platform that answers as told: `status` and `text` for batches, `commands` for polls."""

    def __init__(self) -> None:
        self.url = ""
        self.status = 200
        self.text: bytes | None = None
        self.tokens = {"t0ken"}
        self.offers = True
        self.breaks = False
        self.seen: list[tuple[str, str]] = []
        self.batches: list[Any] = []
        self.inventory: Any = None
        self.commands: list[dict[str, Any]] = []

    async def answer(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.seen.append((request.method, request.path_qs))
        if self.breaks and request.transport:
            request.transport.abort()
        if request.headers["Authorization"] not in {f"Bearer {token}" for token in self.tokens}:
            return web.Response(status=401)
        match request.method, request.path.removeprefix(ROOT).split("/")[1:]:
            case "POST", ["batch", lane]:
                if self.status != 200:
                    return web.Response(status=self.status, text="no", headers={"Location": "/elsewhere"})
                batch = decode(body)
                self.batches.append(batch)
                answer = encode_receipt(GATEWAY, Lane(lane), Receipt(batch.epoch, (batch.span,)))
                return web.Response(body=self.text if self.text is not None else answer)
            case "POST", ["inventory"] if self.offers:
                self.inventory = orjson.loads(body)
                return web.Response(status=204)
            case "GET", ["cmd"] if self.offers:
                if not self.commands:
                    await asyncio.sleep(0.05)
                return web.json_response({"v": 1, "cmd": self.commands})
            case "DELETE", ["cmd", command]:
                self.commands = [one for one in self.commands if one["id"] != command]
                return web.Response(status=204)
        return web.Response(status=404)


@asynccontextmanager
async def city(tls: ssl.SSLContext | None = None) -> AsyncIterator[City]:
    there = City()
    application = web.Application()
    application.router.add_route("*", "/{rest:.*}", there.answer)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    there.url = f"http{'s' if tls else ''}://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield there
    finally:
        await runner.cleanup()


def uplink(there: City, **keys: Any) -> http.Uplink:
    return http.Uplink(platform(http, {"url": there.url, "token": "secret"} | keys))


async def test_the_answer_to_a_batch_settles_it() -> None:
    async with city() as there:
        up = uplink(there)
        async with running(up):
            assert there.inventory == INVENTORY
            for batch in (telemetry(1), telemetry(51, count=1)):
                assert await up.send(batch) == Receipt("9f2c", (batch.span,))
            assert [batch.span for batch in there.batches] == [(1, 50), (51, 51)]
    assert not [path for method, path in there.seen if method == "GET"], "nobody may command: nobody is asked"


SENTENCES = {
    301: "The platform has moved (301). Write its new address as url.",
    400: "The platform refuses a batch (400: no). Ask whoever runs it.",
    401: "The platform refuses our token. Re-enter it.",
    403: "The platform refuses our token. Re-enter it.",
    404: "The platform does not take batches at this address. Correct the url.",
    408: "The platform has too much to do. It is tried again by itself.",
    413: "The platform refuses our batches as too large. Raise its limit to 1 MB.",
    429: "The platform has too much to do. It is tried again by itself.",
    500: "The platform is in trouble itself (500). It is tried again by itself.",
    503: "The platform is in trouble itself (503). It is tried again by itself.",
}


async def test_whatever_else_it_answers_keeps_the_batch_and_is_said() -> None:
    async with city() as there:
        up = uplink(there)
        async with running(up):
            for status, sentence in SENTENCES.items():
                there.status = status
                with pytest.raises(UplinkError) as failure:
                    await up.send(telemetry(1))
                assert str(failure.value) == sentence
            there.status = 200
            assert await up.send(telemetry(1))
    assert ("POST", "/elsewhere") not in there.seen, "our token goes nowhere else"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"", "makes no sense: not JSON"),
        (b"OK", "makes no sense: not JSON"),
        (b"{}", "version None"),
        (b'{"v":1,"ep":"9f2c"}', "has no 'ok'"),
        (b'{"v":1,"ep":"0000","ok":[[1,50]]}', "answered for epoch 0000, not 9f2c"),
        (b"x" * 2_000_000, "too long"),
    ],
)
async def test_a_200_that_acknowledges_nothing_is_no_delivery(text: bytes, why: str) -> None:
    async with city() as there:
        there.text = text
        up = uplink(there)
        async with running(up):
            with pytest.raises(UplinkError, match=why):
                await up.send(telemetry(1))


async def test_a_token_that_was_entered_anew_is_used_at_once() -> None:
    async with city() as there:
        words = {"token": "t0ken"}
        given = platform(http, {"url": there.url, "token": "secret"})
        up = http.Uplink(replace(given, secret=lambda place: words[place]))
        async with running(up):
            there.tokens = {"n3w"}
            with pytest.raises(UplinkError, match="refuses our token"):
                await up.send(telemetry(1))
            words["token"] = "n3w"
            assert await up.send(telemetry(1))


async def test_a_platform_that_takes_batches_only() -> None:
    async with city() as there:
        there.offers = False
        up = uplink(there, commands={"grid-desk": ["limit"]})
        async with running(up):
            assert await up.send(telemetry(1))


async def test_commands_are_fetched_once_each() -> None:
    got: list[tuple[Any, bool]] = []

    async def receive(payload: bytes, retained: bool) -> None:
        assert len([path for method, path in there.seen if method == "DELETE"]) == len(got), "journalled first"
        got.append((orjson.loads(payload), retained))

    async with city() as there:
        there.commands = [{"v": 1, "id": "a-0"}, {"v": 1, "id": "1"}]
        async with running(uplink(there, commands={"grid-desk": ["limit"]}), receive):
            await until(lambda: len(there.commands) == 0)
    assert got == [({"v": 1, "id": "a-0"}, False), ({"v": 1, "id": "1"}, False)]
    assert [path for method, path in there.seen if method == "DELETE"] == [f"{ROOT}/cmd/a-0", f"{ROOT}/cmd/1"]


async def test_a_command_that_could_not_be_journalled_stays_there() -> None:
    tried = asyncio.Event()

    async def refuse(payload: bytes, retained: bool) -> None:
        tried.set()
        raise StorageError("The disk is full.")

    async with city() as there:
        there.commands = [{"v": 1, "id": "1"}]
        up = uplink(there, commands={"grid-desk": ["limit"]})
        async with running(up, refuse):
            await tried.wait()
            assert await up.send(telemetry(1))
        assert there.commands
        assert not [path for method, path in there.seen if method == "DELETE"]


async def fails(up: http.Uplink) -> str:
    with pytest.raises(UplinkError) as failure:
        async with asyncio.timeout(15):
            await up.run(nothing)
    return str(failure.value)


async def test_why_there_is_no_connection() -> None:
    async with city() as there:
        there.tokens = set()
        assert await fails(uplink(there)) == "The platform refuses our token. Re-enter it."
        port = free_port()
        nobody = await fails(uplink(there, url=f"http://127.0.0.1:{port}"))
        assert nobody == f"Nothing listens at 127.0.0.1:{port}. Start the platform, or correct the url."
        plain = await fails(uplink(there, url=there.url.replace("http:", "https:")))
        assert plain.startswith("TLS with 127.0.0.1:") or "breaks off when TLS begins" in plain
    up = uplink(there)
    gone = await fails(up)
    assert gone.startswith("Nothing listens at")


async def test_a_platform_that_says_nothing() -> None:
    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()
        closed.set()

    closed = asyncio.Event()

    server = await asyncio.start_server(swallow, "127.0.0.1", 0)
    async with server:
        there = City()
        there.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        assert await fails(uplink(there, timeout="200ms")) == (
            f"{there.url.removeprefix('http://')} does not answer. Check the network, the firewall and the url."
        )
        await closed.wait()


async def test_a_connection_that_breaks_fails_what_waits_for_it() -> None:
    async with city() as there:
        up = uplink(there)
        async with running(up):
            there.breaks = True
            with pytest.raises(UplinkError, match=re.escape(http.LOST)):
                await up.send(telemetry(1))
            there.breaks = False
            assert await up.send(telemetry(1))


async def test_https_and_whose_certificate_it_is() -> None:
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(TLS / "broker.pem", TLS / "broker-key.pem")
    async with city(tls) as there:
        up = uplink(there, ca=str(TLS / "ca.pem"))
        async with running(up):
            assert await up.send(telemetry(1))
        stranger = await fails(uplink(there))
        assert stranger.startswith("The platform's certificate is not trusted: ")
        assert stranger.endswith("Put its authority's file in `ca`.")


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ({"url": "mqtts://usp.example", "token": "secret"}, "is not an address of https or http"),
        ({"url": "https://usp.example"}, "Field required"),
        ({"url": "https://usp.example", "token": "abc"}, "in clear text"),
        ({"url": "https://:pw@usp.example", "token": "secret"}, "stands in the url"),
    ],
)
def test_what_may_not_be_written(keys: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        http.Settings.model_validate({"uplink": "http", **keys})
