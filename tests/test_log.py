"""The log: one JSON line for the journal, a readable one for people, and no secret in either."""

import asyncio
import io
import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from aiohttp import web

from gateway import log
from gateway.errors import UplinkError

SECRET = "hunter2-04A1B2C3D4"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _leave_no_trace() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level, raises = root.handlers[:], root.level, logging.raiseExceptions
    yield
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()
    root.handlers[:], logging.raiseExceptions = handlers, raises
    root.setLevel(level)


def lines(out: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_json_lines_for_the_journal() -> None:
    out = io.StringIO()
    log.configure(out=out)
    logger = structlog.get_logger()
    with structlog.contextvars.bound_contextvars(child="line"):
        logger.warning("link down", pause=0.5, ranges=[(1, 2)], say="È caduta")
    logger.debug("not at this level")
    [line] = lines(out)
    stamp = line.pop("timestamp")
    assert stamp.endswith("Z")
    assert line == {
        "event": "link down", "level": "warning", "child": "line", "pause": 0.5, "ranges": [[1, 2]], "say": "È caduta",
    }  # fmt: skip


def test_readable_on_a_terminal() -> None:
    out = Terminal()
    log.configure("debug", out)
    structlog.get_logger().debug("link down", child="line", password=SECRET)
    assert "link down" in out.getvalue()
    assert not out.getvalue().startswith("{")
    assert SECRET not in out.getvalue()


@pytest.mark.parametrize(
    "words",
    [
        {"token": SECRET},
        {"password": SECRET},
        {"links.cs.key": SECRET},
        {"client_secret": SECRET},
        {"idTag": SECRET},
        {"id_tag": SECRET},
        {"tags": [SECRET]},
        {"parentIdTag": SECRET},
        {"Authorization": SECRET},
        {"frame": {"payload": {"idTag": SECRET}}},
        {"frame": [{"key": SECRET}]},
        {"url": f"mqtts://post:{SECRET}@usp.example:8883"},
        {"url": f"/api/status?token={SECRET}&x=1"},
        {"say": f"Authorization: Bearer {SECRET}"},
        {"frame": f'[2,"1","Authorize",{{"idTag":"{SECRET}"}}]'},
        {"frame": f"{{'idTag': '{SECRET}'}}"},
        {"error": UplinkError(f"http://a:{SECRET}@b refused")},
    ],
    ids=str,
)
def test_no_secret_is_written(words: dict[str, Any]) -> None:
    out = io.StringIO()
    log.configure(out=out)
    structlog.get_logger().error("something", **words)
    assert SECRET not in out.getvalue()
    assert log.HIDDEN in out.getvalue()


def test_what_is_no_secret_stays() -> None:
    out = io.StringIO()
    log.configure(out=out)
    structlog.get_logger().info("ready", stage=1, keyed=2, url="mqtts://usp.example:8883", monkey=True)
    line = lines(out)[0]
    assert (line["stage"], line["keyed"], line["url"], line["monkey"]) == (1, 2, "mqtts://usp.example:8883", True)


@pytest.mark.parametrize("out", [io.StringIO(), Terminal()], ids=["journal", "terminal"])
def test_a_traceback_is_there_and_its_locals_are_not(out: io.StringIO) -> None:
    log.configure(out=out)

    def fails(password: str) -> None:
        raise RuntimeError(f"mqtt://post:{SECRET}@broker: {len(password)}")

    try:
        fails(SECRET)
    except RuntimeError:
        structlog.get_logger().exception("bug")
    assert "RuntimeError" in out.getvalue()
    assert SECRET not in out.getvalue()


def test_libraries_speak_through_the_same_door() -> None:
    out = io.StringIO()
    log.configure(out=out)
    logging.getLogger("asyncio").error("Task exception was never retrieved: %s", f"token={SECRET}")
    logging.getLogger("aiohttp.access").info("GET /?token=%s", SECRET)
    [line] = lines(out)
    assert (line["level"], line["library"]) == ("error", "asyncio")
    assert SECRET not in out.getvalue()


async def test_who_sends_no_http_to_a_port_fills_no_journal() -> None:
    """aiohttp logs what came, several times over, below a traceback: 128 KB a line."""
    out = io.StringIO()
    log.configure(out=out)
    runner = web.AppRunner(web.Application())
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    reader, writer = await asyncio.open_connection(*runner.addresses[0])
    writer.write(b"GET / HTTP/1.1\r\nX: " + b"A" * 100_000)
    await reader.read()
    writer.close()
    await writer.wait_closed()
    await runner.cleanup()
    [line] = lines(out)
    assert (line["level"], line["library"]) == ("warning", "aiohttp.server")
    assert len(out.getvalue()) < 300


def test_an_object_that_json_does_not_know_is_text() -> None:
    out = io.StringIO()
    log.configure(out=out)
    structlog.get_logger().info("odd", thing={1: object()}, kind=ValueError)
    assert "object at" in lines(out)[0]["thing"]["1"]


def test_importing_it_stays_cheap() -> None:
    """Memory of structlog and this file beyond what every asyncio program has; a gateway has 45 MB in all."""
    program = (
        "import asyncio, orjson\n"
        "def rss():\n"
        "    return int(next(l for l in open('/proc/self/status') if l.startswith('VmRSS')).split()[1])\n"
        "before = rss()\n"
        "import gateway.log\n"
        "print(rss() - before)\n"
    )
    grown = int(subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout)
    assert grown < 10 * 1024, f"{grown} kB"
