"""From the buffer through HTTP to a platform that refuses: what each status does to the records."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from email.utils import formatdate
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

from gateway.batch import decode, decompress, encode_receipt
from gateway.buffer import Buffer
from gateway.compose import seqs
from gateway.delivery import Delivery
from gateway.model import Lane, Point, Reading, Receipt
from gateway.ranges import Ranges
from gateway.supervise import Watch, supervise
from gateway.testing import LoopClock
from gateway.uplinks import http
from tests.brokers import GATEWAY
from tests.platforms import nothing, platform, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from gateway.batch import Batch
    from gateway.buffer.deadletters import DeadLetter

POWER = Point("here/feeder/power", "power_active", "W")
Answer = tuple[int, dict[str, str]]


class City:
    """A platform that stores what `judge` lets pass: it is given the packed size and the batch."""

    def __init__(self) -> None:
        self.judge: Callable[[int, Batch], Answer] = lambda _size, _batch: (200, {})
        self.settles: Callable[[Batch], Receipt] = lambda batch: Receipt(batch.epoch, (batch.span,))
        self.asked: list[float] = []
        self.answered: list[int] = []
        self.stored: list[int] = []

    async def answer(self, request: web.Request) -> web.Response:
        body = await request.content.read()
        if "batch" not in request.path:
            return web.Response(status=204)
        self.asked.append(time.monotonic())
        batch = decode(decompress(body) if "Content-Encoding" in request.headers else body)
        status, headers = self.judge(len(body), batch)
        self.answered.append(status)
        if status >= 300:
            return web.Response(status=status, headers=headers, text="no")
        receipt = self.settles(batch)
        taken = Ranges(receipt.accepted)
        self.stored += [seq for seq in seqs(batch) if seq in taken]
        return web.Response(body=encode_receipt(GATEWAY, Lane.TELEMETRY, receipt), status=status)


@asynccontextmanager
async def delivering(folder: Path, count: int) -> AsyncIterator[tuple[City, Buffer]]:
    """A platform, and a buffer of `count` readings on its way to it, as the gateway runs it."""
    city, buffer = City(), Buffer(folder, GATEWAY, LoopClock(), commit_every=0.01)
    application = web.Application()
    application.router.add_route("*", "/{rest:.*}", city.answer)
    runner = web.AppRunner(application, shutdown_timeout=0.1, auto_decompress=False)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    given = platform(http, {"url": f"http://127.0.0.1:{runner.addresses[0][1]}", "token": "secret"})
    await buffer.open()
    buffer.know([POWER])
    for lane in buffer.lanes.values():
        await lane.enrol({"city": "oldest"})

    async def connect_and_deliver() -> None:
        uplink = http.Uplink(given)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(uplink.run(nothing))
            await uplink.ready()
            await Delivery("city", uplink, buffer, gateway=GATEWAY, linger=0.0).run()

    async def down(say: str) -> None:
        assert "error of the gateway's own" not in say

    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(buffer.run())]
        await buffer.emit([Reading(POWER.id, float(n), 60_000) for n in range(count)])
        await buffer.lanes[Lane.TELEMETRY].flush()
        running.append(tasks.create_task(supervise("city", connect_and_deliver, watch=Watch(), down=down)))
        yield city, buffer
        for task in running:
            task.cancel()
    await buffer.close()
    await runner.cleanup()


def settled(buffer: Buffer, last: int) -> Callable[[], bool]:
    return lambda: buffer.lanes[Lane.TELEMETRY].settled("city").covers(1, last)


async def dead_letters(buffer: Buffer) -> tuple[int, list[DeadLetter]]:
    lane = buffer.lanes[Lane.TELEMETRY]
    await lane.flush()
    return await lane.ask(lambda file: (file.dead.count(), file.dead.newest(10)))


async def test_ranges_in_a_2xx_are_committed_and_the_rest_is_sent_again(tmp_path: Path) -> None:
    def half(batch: Batch) -> Receipt:
        first, last = batch.span
        return Receipt(batch.epoch, ((first, first + (last - first) // 2),))

    async with delivering(tmp_path, 100) as (city, buffer):
        city.settles = half
        city.judge = lambda _size, _batch: (202, {})
        await until(settled(buffer, 100))
    assert city.stored == list(range(1, 101)), "each once: what was settled is not sent again"
    assert 5 <= len(city.answered) <= 10


async def test_413_halves_until_it_fits_and_the_size_is_remembered(tmp_path: Path) -> None:
    async with delivering(tmp_path, 2000) as (city, buffer):
        city.judge = lambda size, _batch: (413 if size > 3000 else 200, {})
        await until(settled(buffer, 2000))
        before = city.answered.count(413)
        await buffer.emit([Reading(POWER.id, float(n), 60_000) for n in range(2000)])
        await until(settled(buffer, 4000))
        assert city.answered.count(413) <= before + 1
    assert sorted(city.stored) == list(range(1, 4001))
    assert 0 < before <= 8


@pytest.mark.parametrize("status", [400, 409, 422])
async def test_4xx_finds_the_one_record_that_is_at_fault(tmp_path: Path, status: int) -> None:
    async with delivering(tmp_path, 200) as (city, buffer):
        city.judge = lambda _size, batch: (status if 37 in seqs(batch) else 200, {})
        await until(settled(buffer, 200))
        dead, letters = await dead_letters(buffer)
    assert sorted(city.stored) == [seq for seq in range(1, 201) if seq != 37]
    assert dead == 1
    assert str(status) in letters[0].reason
    assert city.answered.count(status) <= 10, "halving, not one by one"


@pytest.mark.parametrize(("status", "wait"), [(429, "seconds"), (503, "date"), (500, "none")])
async def test_429_and_5xx_leave_the_platform_alone_as_long_as_it_says(tmp_path: Path, status: int, wait: str) -> None:
    """A date counts from the answer's own: here both are in 1970, and our clock does not matter."""
    headers = {
        "seconds": {"Retry-After": "1"},
        "date": {"Date": formatdate(1000, usegmt=True), "Retry-After": formatdate(1001, usegmt=True)},
        "none": {},
    }[wait]
    async with delivering(tmp_path, 50) as (city, buffer):
        city.judge = lambda _size, _batch: (status if len(city.answered) < 1 else 200, headers)
        await until(settled(buffer, 50))
        dead, _ = await dead_letters(buffer)
    assert city.answered == [status, 200]
    pause = city.asked[1] - city.asked[0]
    assert (0.2 <= pause < 5) if wait == "none" else (1.0 <= pause < 6)
    assert sorted(city.stored) == list(range(1, 51))
    assert dead == 0, "trouble of the platform is never the record's"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, 0.0),
        ({"Retry-After": "120"}, 120.0),
        ({"Retry-After": "99999999"}, 600.0),
        ({"Retry-After": "-5"}, 0.0),
        ({"Retry-After": "soon"}, 0.0),
        ({"Retry-After": "Thu, 01 Jan 1970 00:20:00 GMT"}, 0.0),
        ({"Retry-After": "Thu, 01 Jan 1970 00:20:00 GMT", "Date": "Thu, 01 Jan 1970 00:19:00 GMT"}, 60.0),
        ({"Retry-After": "Thu, 01 Jan 1970 00:19:00 GMT", "Date": "Thu, 01 Jan 1970 00:20:00 GMT"}, 0.0),
        ({"Retry-After": "Thu, 01 Jan 1970 00:20:00 GMT", "Date": "Thu, 01 Jan 1970 00:19:00 -0000"}, 0.0),
    ],
)
def test_how_long_the_platform_wants_to_be_left_alone(headers: dict[str, Any], seconds: float) -> None:
    assert http._pause(headers) == seconds
