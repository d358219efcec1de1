"""The page over HTTP: nothing without the token, and then the truth."""

import asyncio
import json
import re
import socket
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from gateway.errors import ConfigError, LinkError
from gateway.model import Event, Reading
from gateway.status import Status
from gateway.web.server import Page
from tests.web.pages import TOKEN, running

STATIC = Path(__file__).resolve().parents[2] / "gateway" / "web" / "static"
BEARER = {"Authorization": f"Bearer {TOKEN}"}


def routes(status: Status) -> list[tuple[str, str]]:
    """Every route of the application, as (method, path)."""
    application = Page(status, TOKEN, "127.0.0.1:0", bound=lambda _address: None).application()
    found = []
    for route in application.router.routes():
        assert route.resource is not None
        found.append((route.method, route.resource.canonical))
    return found


@pytest.fixture
async def stranger(status: Status) -> AsyncIterator[aiohttp.ClientSession]:
    async with running(status) as address, aiohttp.ClientSession(f"http://{address}") as session:
        yield session


async def test_the_routes_are_those_we_know(status: Status) -> None:
    files = {path.name for path in STATIC.iterdir()} - {"index.html", "enter.html"}
    paths = {path for _, path in routes(status)}
    assert paths == {"/", "/api/status", "/api/events", *(f"/{name}" for name in files)}


WRONG: dict[str, tuple[Mapping[str, str], str]] = {
    "nothing": ({}, ""),
    "wrong bearer": ({"Authorization": "Bearer nonsense-nonsense-nonsense"}, ""),
    "empty bearer": ({"Authorization": "Bearer "}, ""),
    "basic": ({"Authorization": "Basic YWRtaW46YWRtaW4="}, ""),
    "token as cookie": ({"Cookie": f"lampione={TOKEN}"}, ""),
    "wrong token in the address": ({}, "?token=nonsense-nonsense-nonsense"),
}


@pytest.mark.parametrize("wrong", WRONG)
async def test_every_route_refuses_without_the_token(status: Status, wrong: str) -> None:
    headers, query = WRONG[wrong]
    known = [*routes(status), ("GET", "/no-such-page"), ("POST", "/api/status"), ("OPTIONS", "/api/events")]
    answers = set()
    for method, path in known:
        async with (
            running(status) as address,
            aiohttp.ClientSession(f"http://{address}") as session,
            session.request(method, path + query, headers=headers, allow_redirects=False) as answer,
        ):
            assert answer.status == 401, (method, path)
            assert "Set-Cookie" not in answer.headers
            if method != "HEAD":
                answers.add(await answer.read())
    assert answers == {(STATIC / "enter.html").read_bytes()}, "a stranger cannot tell one path from another"


async def test_every_route_answers_with_the_token(status: Status, stranger: aiohttp.ClientSession) -> None:
    for method, path in routes(status):
        async with stranger.request(method, path, headers=BEARER) as answer:
            assert answer.status == 200, (method, path)
    async with stranger.get("/no-such-page", headers=BEARER) as answer:
        assert answer.status == 404


async def test_the_token_in_another_address_opens_nothing(stranger: aiohttp.ClientSession) -> None:
    async with stranger.get(f"/api/status?token={TOKEN}") as answer:
        assert answer.status == 401


@pytest.mark.parametrize("way", ["link", "form"])
async def test_entering_leaves_the_token_behind(status: Status, way: str) -> None:
    jar = aiohttp.CookieJar(unsafe=True)
    async with running(status) as address, aiohttp.ClientSession(f"http://{address}", cookie_jar=jar) as session:
        entering = (
            session.get(f"/?token={TOKEN}") if way == "link" else session.post("/", data={"token": f" {TOKEN}\n"})
        )
        async with entering as answer:
            assert answer.status == 200
            assert 'http-equiv="refresh" content="0;url=/"' in await answer.text()
            cookie = answer.headers["Set-Cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=Strict" in cookie
        assert TOKEN not in cookie
        async with session.get("/") as answer:
            assert answer.status == 200
            assert "page.js" in await answer.text()
        async with session.get(f"/?token={TOKEN}") as answer:
            assert "refresh" in await answer.text()
        async with session.get("/api/status") as answer:
            assert (await answer.json())["gateway"] == "cab-017"


async def test_a_flood_in_the_entrance_form_is_refused(stranger: aiohttp.ClientSession) -> None:
    for body in (b"token=" + b"x" * 10_000, b"\xff" * 100):
        async with stranger.post(
            "/", data=body, headers={"Content-Type": "application/x-www-form-urlencoded"}
        ) as answer:
            assert answer.status == 401


async def test_guessing_is_slowed_down_and_sessions_are_not_shut_out(status: Status) -> None:
    jar = aiohttp.CookieJar(unsafe=True)
    async with running(status) as address, aiohttp.ClientSession(f"http://{address}", cookie_jar=jar) as session:
        async with session.get(f"/?token={TOKEN}"):
            pass
        async with aiohttp.ClientSession(f"http://{address}") as guesser:
            seen = []
            for number in range(8):
                async with guesser.get(f"/?token=guess-number-{number}") as answer:
                    seen.append(answer.status)
            assert seen == [401] * 5 + [429] * 3
            async with guesser.get(f"/?token={TOKEN}") as answer:
                assert answer.status == 429, "or the guess would be told from the others"
                assert int(answer.headers["Retry-After"]) >= 1
        async with session.get("/api/status") as answer:
            assert answer.status == 200


async def test_a_strangers_name_for_us_is_refused(stranger: aiohttp.ClientSession) -> None:
    for host, status in {"evil.example": 421, "127.0.0.1.evil.example:80": 421, "localhost:1": 200}.items():
        async with stranger.get("/api/status", headers=BEARER | {"Host": host}) as answer:
            assert answer.status == status, host


async def test_every_answer_is_hardened(stranger: aiohttp.ClientSession) -> None:
    for path, headers in {
        "/": BEARER,
        "/api/status": BEARER,
        "/api/events": BEARER,
        "/no": BEARER,
        "/page.js": {},
    }.items():
        async with stranger.get(path, headers=headers) as answer:
            policy = answer.headers["Content-Security-Policy"]
            assert policy.startswith("default-src 'self'")
            assert "frame-ancestors 'none'" in policy
            assert "unsafe" not in policy
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert answer.headers["Referrer-Policy"] == "no-referrer"
            assert answer.headers["Cache-Control"] == "no-store"
            assert answer.headers["Server"] == "lampione"


async def frames(answer: aiohttp.ClientResponse) -> AsyncIterator[dict[str, Any]]:
    async for line in answer.content:
        if line.startswith(b"data: "):
            yield json.loads(line[6:])


async def test_the_stream_tells_all_and_then_what_changed(status: Status, stranger: aiohttp.ClientSession) -> None:
    async with stranger.get("/api/events", headers=BEARER) as answer:
        assert answer.content_type == "text/event-stream"
        told = frames(answer)
        first = await anext(told)
        assert first["after"] == 0
        assert [device["id"] for device in first["devices"]] == ["here/feeder", "lp-1/pm"]
        status.note([Reading("here/feeder/voltage", 231.5, 60_000), Reading("here/feeder/power", 0.0, 60_000)])
        second = await anext(told)
        assert [device["id"] for device in second["devices"]] == ["here/feeder"]
        assert [point["value"] for point in second["devices"][0]["points"]] == [231.5, 0.0]
        status.note([Event("device_down", "lp-1/pm", 60_000, "Not one byte. Check power.")])
        third = await anext(told)
        assert [(device["id"], device["colour"], device["say"]) for device in third["devices"]] == [
            ("lp-1/pm", "red", "Not one byte. Check power.")
        ]


async def test_streams_are_counted_and_given_back(status: Status, stranger: aiohttp.ClientSession) -> None:
    for _ in range(3):
        async with asyncio.timeout(10):
            while True:
                held = [await stranger.get("/api/events", headers=BEARER) for _ in range(17)]
                seen = [each.status for each in held]
                for each in held:
                    each.close()
                if seen == [200] * 16 + [503]:
                    break
                await asyncio.sleep(0.02)


async def test_it_ends_at_once_with_a_page_open(status: Status) -> None:
    async with aiohttp.ClientSession() as session:
        async with running(status) as address:
            answer = await session.get(f"http://{address}/api/events", headers=BEARER)
            ending = asyncio.get_running_loop().time()
        assert asyncio.get_running_loop().time() - ending < 3
        answer.close()


async def test_a_port_that_is_taken_is_one_sentence(status: Status) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        listen = f"127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(LinkError, match=r"The page cannot listen on 127\.0\.0\.1:\d+: .*choose another"):
            await Page(status, TOKEN, listen, bound=lambda _address: None).run()


def test_a_short_token_never_listens() -> None:
    with pytest.raises(ConfigError, match="too short"):
        Page(None, "admin", "127.0.0.1:0", bound=lambda _address: None)  # type: ignore[arg-type]


def test_the_page_is_small_and_takes_nothing_from_elsewhere() -> None:
    files = {path.name: path.read_text() for path in STATIC.iterdir()}
    assert sum(len(text.encode()) for text in files.values()) <= 60_000
    for name, text in files.items():
        elsewhere = re.findall(r"(?:https?:)?//[\w.-]+\.\w+", text.replace("http://www.w3.org/2000/svg", ""))
        assert elsewhere == [], name
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|\son\w+=", text), name
    assert "<style>" not in files["index.html"]
    assert not re.search(r"<script(?![^>]*\bsrc=)", files["index.html"] + files["enter.html"])


def test_web_is_imported_with_aiohttp_only_when_a_site_has_a_page() -> None:
    assert web.Application  # what this file imports; the core must not
    root = STATIC.parents[1]
    lines = [line for path in root.glob("*.py") for line in path.read_text().splitlines()]
    assert not [line for line in lines if re.match(r"(from|import) (gateway\.web|aiohttp)", line)]
