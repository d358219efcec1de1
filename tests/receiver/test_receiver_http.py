"""The receiver's HTTP side: nobody without a token, refusals with their status, an operator's commands and report."""

from __future__ import annotations

import zlib
from contextlib import asynccontextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp

from gateway.batch import encode
from gateway.receiver import HttpIn, Receiver
from gateway.receiver.http import HttpSide
from tests.brokers import GATEWAY, TENANT
from tests.platforms import running, telemetry, until
from tests.receiver.receiving import ROOT, TOKENS, Journal, command, over_http, receiving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


async def test_a_round_trip_over_http(tmp_path: Path) -> None:
    async with receiving(tmp_path, None, HttpIn(TOKENS)) as receiver:
        up = over_http(receiver)
        async with running(up):
            for batch in (telemetry(1), telemetry(1), telemetry(51, count=1)):
                assert (await up.send(batch)).accepted == (batch.span,)
        (row,) = receiver.report()
        assert (row.received, row.duplicates) == (51, 50)


@asynccontextmanager
async def browsing(receiver: Receiver, token: str | None) -> AsyncIterator[aiohttp.ClientSession]:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    async with aiohttp.ClientSession(receiver.url, headers=headers) as session:
        yield session


async def test_no_route_answers_without_its_token(tmp_path: Path) -> None:
    routes = HttpSide(HttpIn(TOKENS), None, None, None).application().router.routes()  # type: ignore[arg-type]
    asked = 0
    async with receiving(tmp_path, None, HttpIn(TOKENS)) as receiver:
        for route in routes:
            assert route.resource
            path = route.resource.canonical.format(tenant=TENANT, gateway=GATEWAY, lane="telemetry", id="1")
            is_operators = path.endswith("report") or (route.method, path) == ("POST", f"{ROOT}/cmd")
            for token in (None, "", "wrong", "other", "t0ken" if is_operators else "boss"):
                async with browsing(receiver, token) as session, session.request(route.method, path) as response:
                    assert response.status == (403 if token in ("other", "t0ken", "boss") else 401), (path, token)
                    asked += 1
        async with browsing(receiver, None) as session, session.get("/nothing/here") as response:
            assert response.status == 401
        assert receiver.report() == []
    assert asked == 30


async def test_what_http_refuses(tmp_path: Path) -> None:
    good = encode(telemetry(1))
    deflate = {"Content-Encoding": "deflate"}
    cases: list[tuple[str, str, bytes, dict[str, str], int]] = [
        ("POST", f"{ROOT}/batch/telemetry", b"{}", {}, 400),
        ("POST", f"{ROOT}/batch/billing", good, {}, 400),
        ("POST", f"{ROOT}/batch/telemetry", b"no zlib", deflate, 400),
        ("POST", f"{ROOT}/batch/telemetry", zlib.compress(bytes(50_000_000), 9), deflate, 400),
        ("POST", f"{ROOT}/batch/telemetry", bytes(5_000_000), {}, 413),
        ("POST", f"{ROOT}/batch/telemetry", good, {"Content-Encoding": "br"}, 415),
        ("POST", f"{ROOT}/inventory", b"[]", {}, 400),
        ("POST", f"{ROOT}/inventory", b"{", {}, 400),
        ("GET", f"{ROOT}/cmd?wait=long", b"", {}, 400),
        ("GET", f"{ROOT}/cmd", b"", {}, 204),
        ("DELETE", f"{ROOT}/cmd/none", b"", {}, 204),
        ("PUT", f"{ROOT}/inventory", b"{}", {}, 405),
        ("POST", f"{ROOT}/batch/telemetry", good, {}, 200),
    ]
    async with receiving(tmp_path, None, HttpIn(TOKENS)) as receiver, browsing(receiver, "t0ken") as session:
        for method, path, body, headers, status in cases:
            async with session.request(method, path, data=BytesIO(body), headers=headers) as response:
                assert (response.status, path) == (status, path), await response.text()
        assert [row.received for row in receiver.report()] == [50]


async def test_an_operator_sends_commands_and_reads_the_report_over_http(tmp_path: Path) -> None:
    async with receiving(tmp_path, None, HttpIn(TOKENS)) as receiver, browsing(receiver, "boss") as session:
        async with session.post(f"{ROOT}/cmd", json=command("x")) as response:
            assert (response.status, await response.text()) == (
                422,
                f"0 gateways are called {GATEWAY}. Name one that was heard.",
            )
        journal, up = Journal(), over_http(receiver, commands={"grid-desk": ["limit"]})
        async with running(up, journal):
            await up.send(telemetry(1))
            async with session.post(f"{ROOT}/cmd", json=command("x")) as response:
                assert response.status == 202
            await until(lambda: journal.got)
        async with session.get("/lampione/1/report") as response:
            (row,) = await response.json()
            assert (row["received"], row["missing"]) == (50, 0)
