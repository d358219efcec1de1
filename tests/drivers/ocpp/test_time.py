"""Chargers and time: a gateway that does not know it yet, and chargers whose clock is in 1970, 2000 or 2099."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from drivers.ocpp import codec
from gateway.model import ClockState
from gateway.testing import LoopClock, Recorder, jumped
from tests.drivers.ocpp.chargers import Charger, connect, gateway, make_device, make_settings, of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

BOOT = {"chargePointVendor": "V", "chargePointModel": "M"}
TAG = "04A1B2C3"


@asynccontextmanager
async def unset(recorder: Recorder, **keys: Any) -> AsyncIterator[tuple[Charger, LoopClock]]:
    """A connected charger of a gateway whose clock nobody has set."""
    async with gateway(recorder, make_settings(), [make_device(**keys)]) as running:
        clock = running.driver._link.clock
        assert isinstance(clock, LoopClock)
        clock.quality = ClockState.UNSYNCED
        async with aiohttp.ClientSession() as session:
            yield await connect(session, running), clock


async def charge(charger: Charger, begin: str | None, end: str | None) -> dict[str, Any]:
    """A session with one value; the answer to its start."""
    start = {"connectorId": 1, "idTag": TAG, "meterStart": 1000} | ({"timestamp": begin} if begin else {})
    begun = await charger.ask("StartTransaction", start)
    value = {"timestamp": end or codec.iso(0), "sampledValue": [{"value": "1200"}]}
    meter = {"connectorId": 1, "transactionId": begun["transactionId"], "meterValue": [value]}
    assert await charger.ask("MeterValues", meter) == {}
    stop = {"transactionId": begun["transactionId"], "meterStop": 1500} | ({"timestamp": end} if end else {})
    await charger.ask("StopTransaction", stop)
    return begun


def test_a_charger_waits_a_minute_at_most_for_the_time_and_then_charges_and_its_session_says_so() -> None:
    async def main() -> None:
        recorder, loop = Recorder(), asyncio.get_running_loop()
        async with unset(recorder) as (charger, clock):
            began, answers = loop.time(), []
            while not answers or answers[-1]["status"] == "Pending":
                answers.append(await charger.ask("BootNotification", BOOT))
                assert abs((codec.moment(answers[-1]["currentTime"], codec.Remarks()) or 0) - clock.wall()) < 1000
                if answers[-1]["status"] == "Pending":
                    assert answers[-1]["interval"] <= 10
                    assert not of(recorder, "charger_booted"), "it is told once, when it is admitted"
                    await asyncio.sleep(answers[-1]["interval"])
            assert 50 <= loop.time() - began < 61
            assert (answers[-1]["status"], answers[-1]["interval"]) == ("Accepted", 300)
            assert len(of(recorder, "charger_booted")) == 1
            assert (await charger.ask("BootNotification", BOOT))["status"] == "Accepted", "it does not wait again"
            await charge(charger, codec.iso(clock.wall()), codec.iso(clock.wall() + 60_000))
            for kind in ("transaction_begin", "session"):
                (event,) = of(recorder, kind)
                assert event.more["clock"] == "unsynced"
                assert event.device_time is not None
                assert event.at > 0, "its time and ours are both kept"

    jumped(main())


def test_a_charger_is_admitted_as_soon_as_the_time_is_known_and_its_session_is_not_marked() -> None:
    async def main() -> None:
        recorder = Recorder()
        async with unset(recorder) as (charger, clock):
            assert (await charger.ask("BootNotification", BOOT))["status"] == "Pending"
            await asyncio.sleep(10)
            clock.quality = ClockState.SYNCED
            assert (await charger.ask("BootNotification", BOOT))["status"] == "Accepted"
            await charge(charger, codec.iso(clock.wall()), codec.iso(clock.wall() + 60_000))
            assert "clock" not in of(recorder, "session")[0].more

    jumped(main())


def test_a_session_that_began_before_the_time_was_known_is_marked_at_its_end_too() -> None:
    async def main() -> None:
        recorder = Recorder()
        async with unset(recorder) as (charger, clock):
            start = {"connectorId": 1, "idTag": TAG, "meterStart": 1, "timestamp": codec.iso(clock.wall())}
            begun = await charger.ask("StartTransaction", start)
            clock.quality = ClockState.SYNCED
            stop = {"transactionId": begun["transactionId"], "meterStop": 2, "timestamp": codec.iso(clock.wall())}
            await charger.ask("StopTransaction", stop)
            assert of(recorder, "session")[0].more["clock"] == "unsynced"

    jumped(main())


def test_who_charges_without_waiting_is_recorded_like_anybody() -> None:
    async def main() -> None:
        recorder = Recorder()
        async with unset(recorder) as (charger, clock):
            assert (await charger.ask("BootNotification", BOOT))["status"] == "Pending"
            begun = await charge(charger, codec.iso(clock.wall()), codec.iso(clock.wall()))
            assert begun["idTagInfo"]["status"] == "Accepted"
            assert of(recorder, "session")[0].more["energy"] == 500

    jumped(main())


@pytest.mark.parametrize("admit", ["pending", "rejected"])
def test_a_charger_that_the_site_does_not_admit_is_answered_as_ever(admit: str) -> None:
    async def main() -> None:
        recorder = Recorder()
        async with unset(recorder, admit=admit) as (charger, _):
            assert (await charger.ask("BootNotification", BOOT))["status"] == admit.capitalize()
            assert len(of(recorder, "charger_booted")) == 1

    jumped(main())


@pytest.mark.parametrize("state", [ClockState.SYNCED, ClockState.HOLDOVER, ClockState.UNSYNCED])
@pytest.mark.parametrize(
    ("begin", "end"),
    [
        ("1970-01-01T00:00:07Z", "1970-01-01T01:00:07Z"),
        ("2000-01-01T00:00:00Z", "2026-11-22T11:00:00Z"),
        ("2099-12-31T00:00:00Z", "2099-12-31T01:00:00Z"),
        ("2099-12-31T00:00:00Z", "1970-01-01T00:00:07Z"),
        ("9999-12-31T23:59:59Z", "0001-01-01T00:00:00Z"),
        (None, None),
    ],
)
def test_a_charger_in_another_year_blocks_nothing_and_its_energy_is_right(
    begin: str | None, end: str | None, state: ClockState
) -> None:
    async def main() -> None:
        recorder = Recorder()
        async with unset(recorder) as (charger, clock):
            clock.quality = state
            begun = await charge(charger, begin, end)
            assert begun["idTagInfo"]["status"] == "Accepted"
            sessions = of(recorder, "session")
            assert sessions[-1].more["energy"] == 500
            boot = clock.boot()
            assert all(0 <= boot - event.at < 60_000 for event in sessions), "received now, whatever it says"
            points = [reading for reading in recorder.readings if reading.value == 1200]
            assert all(0 <= boot - reading.at < 60_000 for reading in points)

    jumped(main())


def test_a_charger_in_the_future_holds_no_tag_back_elsewhere() -> None:
    async def main() -> None:
        recorder = Recorder()
        devices = [make_device(), make_device("cp-2/evse")]
        async with (
            gateway(recorder, make_settings(concurrent="refused"), devices) as running,
            aiohttp.ClientSession() as session,
        ):
            odd = await connect(session, running)
            await odd.ask(
                "StartTransaction",
                {"connectorId": 1, "idTag": TAG, "meterStart": 1, "timestamp": "2099-12-31T00:00:00Z"},
            )
            other = await connect(session, running, "/cp-2", user="cp-2", key="another-key-of-16")
            start = {"connectorId": 1, "idTag": TAG, "meterStart": 1, "timestamp": "2026-11-22T00:01:00Z"}
            assert (await other.ask("StartTransaction", start))["idTagInfo"]["status"] == "Accepted"

    jumped(main())
