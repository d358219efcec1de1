"""Who calls and is not in the site file: listed for the technician, and no burden to anybody else."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from drivers.ocpp import strangers
from drivers.ocpp.strangers import MOST, QUARANTINE, SAY_AGAIN_MS, Quarantine
from gateway import app
from gateway.errors import StorageError
from gateway.model import ClockState
from gateway.ports import Doorkeeper
from gateway.site import Credentials
from gateway.site import load as read_site
from gateway.testing import LoopClock, Recorder, make_link
from tests.drivers.ocpp.chargers import Gateway, connect, gateway, make_device, make_settings, of

SITE = """\
version: 1
gateway: {id: cab-017, tenant: milan}
links: {cs: {driver: ocpp, listen: "127.0.0.1:0", security: "0", authorise: open}}
assets: {cp-1: {devices: {evse: {link: cs}}}}
"""


async def call(session: aiohttp.ClientSession, running: Gateway, path: str) -> int:
    with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
        await connect(session, running, path)
    return caught.value.status


async def test_who_called_is_listed_and_known_after_a_restart(session: aiohttp.ClientSession) -> None:
    recorder = Recorder()
    async with gateway(recorder) as running:
        assert isinstance(running.driver, Doorkeeper)
        for path in ("/cp-8", "/ocpp/cp-9", "/cp-9"):
            assert await call(session, running, path) == 404
        listed: Any = running.driver.strangers()
        assert [(one["identity"], one["address"], one["protocols"], one["calls"]) for one in listed] == [
            ("cp-9", "127.0.0.1", "ocpp1.6", 2), ("cp-8", "127.0.0.1", "ocpp1.6", 1),
        ]  # fmt: skip
        assert all(one["last"] > 1_700_000_000_000 for one in listed)
    assert QUARANTINE in recorder.committed
    async with gateway(recorder) as running:
        listed = running.driver.strangers()
        assert {one["identity"] for one in listed} == {"cp-8", "cp-9"}
        assert await call(session, running, "/cp-9") == 404
        assert running.driver.strangers()[0]["calls"] >= 2  # type: ignore[index, call-overload, operator]
    assert len(of(recorder, "unknown_charger")) == 2, "it is said once a day, not with each call"
    assert of(recorder, "unknown_charger")[0].say == (
        "A charger that calls itself `cp-8` reached us from 127.0.0.1. If it is yours, add it to the site file."
    )


def quarantine(clock: LoopClock) -> tuple[Recorder, Quarantine]:
    recorder = Recorder()
    link = make_link(make_settings(), [make_device()], recorder)
    object.__setattr__(link, "clock", clock)
    return recorder, Quarantine(link, recorder)


async def test_it_is_said_again_after_a_day_of_a_clock_that_is_set() -> None:
    clock = LoopClock()
    recorder, door = quarantine(clock)
    for hours in (0, 1, 22, 1, 23):
        clock.start += hours * 3_600_000
        await door.note("cp-9", "10.0.0.9", "ocpp1.6")
    assert SAY_AGAIN_MS == 24 * 3_600_000
    assert [event.more["calls"] for event in of(recorder, "unknown_charger")] == [1, 4]
    unset = LoopClock(ClockState.UNSYNCED)
    recorder, door = quarantine(unset)
    for _ in range(3):
        unset.start += 2 * SAY_AGAIN_MS
        await door.note("cp-9", "10.0.0.9", "ocpp1.6")
    assert len(of(recorder, "unknown_charger")) == 1


async def test_the_list_has_an_end_and_what_cannot_be_shown_is_not_on_it() -> None:
    recorder, door = quarantine(LoopClock())
    await door.note("cp\n9", "10.0.0.9", "")
    assert door.listed() == []
    for number in range(MOST + 10):
        await door.note(f"cp-{number}" + "x" * 100, "10.0.0.9", "p" * 1000)
        if number % 2:
            await door.note("mine" + "x" * 100, "10.0.0.9", "")
    listed: Any = door.listed()
    assert len(listed) == MOST
    assert "mine" + "x" * 44 in {one["identity"] for one in listed}, "who calls often stays"
    assert max(len(one["protocols"]) for one in listed) == 60
    recorder.fail = StorageError("the disk is full")
    await door.note("cp-new", "10.0.0.9", "")  # the refusal stands without it


async def test_connections_that_become_no_chargers_are_ended(
    session: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(strangers, "HANDSHAKE_WITHIN", 0.2)
    monkeypatch.setattr(strangers, "MOST_WAITING", 3)
    async with gateway(Recorder()) as running:
        charger = await connect(session, running)
        host, port = running.address.split(":")
        held = [await asyncio.open_connection(host, int(port)) for _ in range(8)]
        async with asyncio.timeout(5):
            for reader, _ in held:
                with contextlib.suppress(ConnectionResetError):
                    assert await reader.read() == b""
        assert running.driver._door.dropped >= 8
        assert await charger.ask("Heartbeat", {}), "who has come in is not touched"
        for _, writer in held:
            writer.close()
    gc.collect()
    assert not caplog.records


async def test_the_page_of_a_running_gateway_lists_them(session: aiohttp.ClientSession, tmp_path: Path) -> None:
    file = tmp_path / "site.yaml"
    file.write_text(SITE)
    street = app.Gateway(read_site(file), tmp_path / "state", Credentials.beside(file))
    running = asyncio.create_task(street.run())
    try:
        async with asyncio.timeout(10):
            while "links.cs" not in street.addresses:  # noqa: ASYNC110 - it is told by nothing else
                await asyncio.sleep(0.01)
        with pytest.raises(aiohttp.WSServerHandshakeError):
            await session.ws_connect(f"ws://{street.addresses['links.cs']}/cp-9", protocols=["ocpp1.6"])
        (stranger,) = street.status.snapshot()["strangers"]  # type: ignore[misc, union-attr]
        assert stranger["identity"] == "cp-9"  # type: ignore[index, call-overload]
    finally:
        street.stop()
        await asyncio.wait([running])
    running.result()
