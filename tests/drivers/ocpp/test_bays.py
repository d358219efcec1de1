"""Commands at an emulated charger do what they do at one at the kerb, and the gateway hears of it."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from drivers.ocpp import codec
from drivers.ocpp.scenario import Scenario
from gateway.errors import CommandError
from gateway.testing import Recorder
from tests.drivers.ocpp.chargers import Gateway, gateway, make_device, of, order
from tests.drivers.ocpp.emulated import emulated

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from drivers.ocpp.charge_point import ChargePoint
    from gateway.model import Json

NOBODY = Scenario.model_validate({"visits": False, "lasts": "1h", "car": {"takes": "16 A", "phases": 1}})


@asynccontextmanager
async def street(recorder: Recorder, scenario: Scenario = NOBODY) -> AsyncIterator[tuple[Gateway, ChargePoint]]:
    """A charger with two connectors at which only commands begin a charge."""
    async with (
        gateway(recorder, devices=[make_device(connectors=2)]) as running,
        emulated(running, scenario=scenario) as emulator,
    ):
        await status(recorder, "status", "Available")
        await status(recorder, "connector_status", "Available")
        await status(recorder, "connector_status-2", "Available")
        yield running, emulator.points["cp-1/evse"]


async def status(recorder: Recorder, slug: str, value: str) -> None:
    """Wait until it is the newest."""
    await recorder.until(
        lambda found: [one.value for one in found.readings if one.point == f"cp-1/evse/{slug}"][-1:] == [value]
    )


async def tell(running: Gateway, do: str, **args: Any) -> Json:
    return (await running.driver.execute(order(do, **args))).now["status"]


async def refused(running: Gateway, do: str, **args: Any) -> str:
    with pytest.raises(CommandError) as caught:
        await running.driver.execute(order(do, **args))
    return str(caught.value)


async def begun(recorder: Recorder, count: int = 1) -> list[Any]:
    await recorder.until(lambda found: len(of(found, "transaction_begin")) == count)
    return [event.more for event in of(recorder, "transaction_begin")]


async def ended(recorder: Recorder, count: int = 1) -> list[Any]:
    await recorder.until(lambda found: len(of(found, "session")) == count)
    return [event.more for event in of(recorder, "session")]


async def test_a_charge_is_begun_and_ended_from_afar() -> None:
    recorder = Recorder()
    async with street(recorder) as (running, _):
        assert await tell(running, "start", tag="04A1B2C3", connector=2) == "Accepted"
        (begin,) = await begun(recorder)
        assert (begin["connector"], begin["authorised"]) == (2, "Accepted")
        await status(recorder, "connector_status-2", "Charging")
        assert "answers Rejected" in await refused(running, "start", tag="04A1B2C3", connector=2)
        await recorder.until(lambda found: any(one.point.endswith("power_active-2") for one in found.readings))
        assert "answers Rejected" in await refused(running, "stop", transaction=4711)
        assert await tell(running, "stop", transaction=int(begin["transaction"])) == "Accepted"
        (end,) = await ended(recorder)
        assert (end["reason"], end["transaction"]) == ("Remote", begin["transaction"])
        await status(recorder, "connector_status-2", "Available")
        assert await tell(running, "start", tag="DEADBEEF") == "Accepted"  # at any
        assert (await begun(recorder, 2))[1]["connector"] == 1


async def test_a_tag_that_may_not_charge_charges_from_afar_only_where_nobody_is_asked() -> None:
    recorder = Recorder()
    async with street(recorder) as (running, _):
        assert await tell(running, "start", tag="STRANGER", connector=1) == "Accepted"
        await status(recorder, "connector_status", "Preparing")
        await status(recorder, "connector_status", "Available")
        assert not of(recorder, "transaction_begin")
        change = {"key": "AuthorizeRemoteTxRequests", "value": "false"}
        assert await tell(running, "change_configuration", **change) == "Accepted"
        await tell(running, "start", tag="STRANGER", connector=1)
        (begin,) = await begun(recorder)
        assert begin["authorised"] == "Invalid"
        (end,) = await ended(recorder)
        assert end["reason"] == "DeAuthorized"


async def test_an_unlock_ends_the_charge() -> None:
    recorder = Recorder()
    async with street(recorder) as (running, _):
        assert await tell(running, "unlock", connector=1) == "Unlocked"
        await tell(running, "start", tag="04A1B2C3", connector=1)
        await begun(recorder)
        assert await tell(running, "unlock", connector=1) == "Unlocked"
        assert (await ended(recorder))[0]["reason"] == "UnlockCommand"


@pytest.mark.parametrize("kind", ["Soft", "Hard"])
async def test_a_reset_ends_charges_and_boots(kind: str) -> None:
    recorder = Recorder()
    async with street(recorder) as (running, _):
        await tell(running, "start", tag="04A1B2C3", connector=1)
        await begun(recorder)
        assert await tell(running, "reset", kind=kind) == "Accepted"
        (end,) = await ended(recorder)
        assert (end["reason"], end["doubts"]) == (f"{kind}Reset", [])
        await recorder.until(lambda found: len(of(found, "charger_booted")) == 2)
        assert len(of(recorder, "session")) == 1


async def test_what_goes_out_of_use_does_so_after_its_charge() -> None:
    recorder = Recorder()
    async with street(recorder) as (running, _):
        assert await tell(running, "availability", connector=2, kind="Inoperative") == "Accepted"
        await status(recorder, "connector_status-2", "Unavailable")
        assert "answers Rejected" in await refused(running, "start", tag="04A1B2C3", connector=2)
        assert await tell(running, "availability", connector=2, kind="Operative") == "Accepted"
        await status(recorder, "connector_status-2", "Available")
        await tell(running, "start", tag="04A1B2C3", connector=1)
        (begin,) = await begun(recorder)
        assert await tell(running, "availability", connector=0, kind="Inoperative") == "Scheduled"
        await status(recorder, "status", "Unavailable")
        assert not of(recorder, "session")
        await tell(running, "stop", transaction=int(begin["transaction"]))
        await ended(recorder)
        await status(recorder, "connector_status", "Unavailable")


async def test_a_reservation_keeps_a_connector_for_one_tag() -> None:
    recorder = Recorder()
    async with street(recorder) as (running, point):
        until = codec.iso(point.wall() + 3_600_000)
        keep = {"reservation": 7, "connector": 1, "tag": "DEADBEEF", "until": until}
        assert await tell(running, "reserve", **keep) == "Accepted"
        await status(recorder, "connector_status", "Reserved")
        assert "answers Occupied" in await refused(running, "reserve", **keep | {"reservation": 8})
        assert "answers Rejected" in await refused(running, "reserve", **keep | {"connector": 0})
        past = {"until": "2020-01-01T00:00:00Z", "connector": 2}
        assert "answers Rejected" in await refused(running, "reserve", **keep | past)
        assert "answers Rejected" in await refused(running, "start", tag="04A1B2C3", connector=1)
        assert await tell(running, "cancel_reservation", reservation=7) == "Accepted"
        await status(recorder, "connector_status", "Available")
        assert "answers Rejected" in await refused(running, "cancel_reservation", reservation=7)
        await tell(running, "reserve", **keep)
        assert await tell(running, "start", tag="DEADBEEF", connector=1) == "Accepted"
        (begin,) = await begun(recorder)
        assert begin["reservation"] == 7
        assert point.bays.all[0].kept is None, "the charge has used it up"


async def test_a_reservation_ends_by_itself() -> None:
    recorder = Recorder()
    async with street(recorder) as (running, point):
        until = codec.iso(point.wall() + 300)
        await tell(running, "reserve", reservation=7, connector=1, tag="DEADBEEF", until=until)
        await status(recorder, "connector_status", "Reserved")
        await status(recorder, "connector_status", "Available")


async def test_each_connector_counts_for_itself() -> None:
    recorder = Recorder()
    async with street(recorder) as (running, _):
        for connector in (1, 2):
            await tell(running, "start", tag="04A1B2C3", connector=connector)
        one, two = await begun(recorder, 2)
        await recorder.until(lambda found: sum(reading.point.endswith("import-2") for reading in found.readings) >= 4)
        for begin in (one, two):
            await tell(running, "stop", transaction=int(begin["transaction"]))
        for end in await ended(recorder, 2):
            slug = "energy_import" + ("" if end["connector"] == 1 else f"-{end['connector']}")
            told = [reading for reading in recorder.readings if reading.transaction == end["transaction"]]
            values = [float(one.value or 0) for one in told if one.point == f"cp-1/evse/{slug}"]
            assert values == sorted(values)
            assert end["meter_start"] <= values[0]
            assert abs(end["meter_stop"] - values[-1]) <= 1


async def test_lists_and_words_of_the_makers_own() -> None:
    recorder = Recorder()
    async with street(recorder) as (running, point):
        now = (await running.driver.execute(order("send_local_list"))).now
        assert now == {"version": 1, "entries": 3, "sent": 3}
        assert point.controls.listed["04A1B2C3"] == {"status": "Accepted", "parentIdTag": "family"}
        assert (await running.driver.execute(order("local_list_version"))).now == {"version": 1}
        assert await tell(running, "clear_cache") == "Accepted"
        sent = order("data_transfer", vendor="Lampione", content="{}")
        assert (await running.driver.execute(sent)).now == {"status": "Accepted", "content": "{}"}
        assert "UnknownVendorId" in await refused(running, "data_transfer", vendor="Other")
        told = (await running.driver.execute(order("get_configuration", key="NumberOfConnectors"))).now
        assert told == {"values": {"NumberOfConnectors": "2"}, "unknown": []}


async def test_the_car_of_the_scenario_is_the_one_that_charges() -> None:
    recorder = Recorder()
    scenario = Scenario.model_validate(
        {"lasts": "20s", "car": {"takes": "10 A", "phases": 1, "battery": "20 kWh", "charged": "55 %"}}
    )
    async with street(recorder, scenario):
        await ended(recorder)
    told = {one.point.rpartition("/")[2]: one.value for one in recorder.readings if one.transaction}
    assert 9.5 <= float(told["current_l1"] or 0) <= 10
    assert told["current_l2"] == 0
    assert 55 <= float(told["state_of_charge"] or 0) < 60
