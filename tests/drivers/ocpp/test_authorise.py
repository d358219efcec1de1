"""Who may charge: the list, the platform, and what speaks against any charge."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from drivers.ocpp import codec
from drivers.ocpp.tags import Pseudonyms
from gateway.errors import CommandError, StorageError
from gateway.testing import Recorder
from tests.drivers.ocpp.chargers import SECRETS, connect, gateway, make_device, make_settings, of, order

if TYPE_CHECKING:
    import aiohttp


AT = "2026-11-22T10:00:00Z"
START = {"connectorId": 1, "idTag": "04A1B2C3", "meterStart": 0, "timestamp": AT}


async def test_sessions_that_cannot_be_kept_are_not_let_in(session: aiohttp.ClientSession) -> None:
    recorder = Recorder()
    async with gateway(recorder) as running:
        charger = await connect(session, running)
        assert (await charger.ask("Authorize", {"idTag": "04A1B2C3"}))["idTagInfo"]["status"] == "Accepted"
        recorder.fail = StorageError("the disk is full")
        await charger.send([2, "1", "StartTransaction", START])
        assert await charger.closed() == 1013
        again = await connect(session, running)
        assert (await again.ask("Authorize", {"idTag": "04A1B2C3"}))["idTagInfo"] == {"status": "Blocked"}
        recorder.fail = None
        await again.ask("StartTransaction", START)
        told = await again.ask("Authorize", {"idTag": "04A1B2C3"})
        assert told["idTagInfo"]["status"] == "Accepted"
    assert len(of(recorder, "sessions_allowed")) == 1


@pytest.mark.parametrize("admit", ["pending", "rejected"])
async def test_a_charger_that_is_not_admitted(session: aiohttp.ClientSession, admit: str) -> None:
    recorder = Recorder()
    async with gateway(recorder, devices=[make_device(admit=admit)]) as running:
        charger = await connect(session, running)
        booted = await charger.ask("BootNotification", {"chargePointVendor": "V", "chargePointModel": "M"})
        assert booted["status"] == admit.capitalize()
        assert (await charger.ask("StartTransaction", START))["transactionId"] > 0  # what has flowed is kept
        if admit == "pending":
            assert (await charger.ask("Authorize", {"idTag": "04A1B2C3"}))["idTagInfo"] == {"status": "Blocked"}
        else:
            await charger.send([2, "1", "Authorize", {"idTag": "04A1B2C3"}])
            assert (await charger.receive())[:3] == [4, "1", "SecurityError"]
        with pytest.raises(CommandError, match="may not charge"):
            await running.driver.execute(order("start", tag="04A1B2C3"))


async def test_a_tag_may_be_kept_from_charging_twice(session: aiohttp.ClientSession) -> None:
    devices, settings = [make_device(), make_device("cp-2/evse")], make_settings(concurrent="refused")
    async with gateway(Recorder(), settings, devices) as running:
        one = await connect(session, running)
        two = await connect(session, running, "/cp-2", user="cp-2", key=SECRETS["cp-2/evse.key"])
        first = await one.ask("StartTransaction", START)
        assert first["idTagInfo"]["status"] == "Accepted"
        assert (await two.ask("StartTransaction", START))["idTagInfo"]["status"] == "ConcurrentTx"
        await one.ask("StopTransaction", {**first, "meterStop": 1, "timestamp": AT})


async def test_the_platform_decides_by_pseudonym_in_time_or_as_it_last_did(session: aiohttp.ClientSession) -> None:
    recorder = Recorder()
    settings = make_settings(authorise="platform", authorise_within="300ms")
    async with gateway(recorder, settings) as running:
        charger = await connect(session, running)

        async def ask(tag: str) -> Any:
            return (await charger.ask("Authorize", {"idTag": tag}))["idTagInfo"]

        assert await ask("STRANGER") == {"status": "Invalid"}  # nobody answers, and the list does not have it
        assert (await ask("04A1B2C3"))["status"] == "Accepted"  # the list has it
        names = [str(event.more["tag"]) for event in of(recorder, "authorise")]
        asking = asyncio.create_task(ask("STRANGER"))
        await recorder.until(lambda found: len(of(found, "authorise")) == 3)
        loop = asyncio.get_running_loop()
        began = loop.time()
        await running.driver.execute(order("authorise", tag=names[0], status="Accepted", group="fleet"))
        assert await asking == {"status": "Accepted", "parentIdTag": "fleet"}
        assert loop.time() - began < 0.25
        assert await ask("STRANGER") == {"status": "Accepted", "parentIdTag": "fleet"}  # as it last said
        await running.driver.execute(order("authorise", tag=names[1], status="Blocked"))
        assert (await ask("04A1B2C3"))["status"] == "Blocked"
    assert "STRANGER" not in repr(recorder.records)


async def test_nobody_is_asked_about_history_or_about_who_has_charged(session: aiohttp.ClientSession) -> None:
    recorder = Recorder()
    async with gateway(recorder, make_settings(authorise="platform", authorise_within="10s")) as running:
        charger = await connect(session, running)
        hours_ago = codec.iso(running.driver._link.clock.wall() - 5 * 3_600_000)
        async with asyncio.timeout(2):
            begun = await charger.ask("StartTransaction", {**START, "timestamp": hours_ago})
            stop = {"transactionId": begun["transactionId"], "meterStop": 9, "idTag": "STRANGER"}
            now = codec.iso(running.driver._link.clock.wall())
            ended = await charger.ask("StopTransaction", {**stop, "timestamp": now})
        assert begun["idTagInfo"]["status"] == "Accepted"  # by the list
        assert ended["idTagInfo"]["status"] == "Invalid"
    assert not of(recorder, "authorise")


def test_a_new_pseudonym_key_overlaps_with_the_former_one() -> None:
    before, after, both = Pseudonyms(b"old"), Pseudonyms(b"new"), Pseudonyms(b"new", b"old")
    assert both.of("04A1") == after.of("04a1") != before.of("04A1")
    assert both.all_of("04A1") == [after.of("04A1"), before.of("04A1")]
    assert before.of("04A1").partition(".")[0] != after.of("04A1").partition(".")[0]


async def test_a_start_under_the_former_key_is_known_again(session: aiohttp.ClientSession) -> None:
    recorder, settings = Recorder(), make_settings(pseudonym="secret")
    numbers = []
    for key in ("old", "new\nold"):
        async with gateway(recorder, settings, secrets={**SECRETS, "pseudonym": key}) as running:
            charger = await connect(session, running)
            numbers.append((await charger.ask("StartTransaction", START))["transactionId"])
            await charger.ask("StartTransaction", {**START, "meterStart": len(numbers)})
    assert numbers[0] == numbers[1]
    assert [sorted(event.more.keys() & {"tag", "tag_was"}) for event in of(recorder, "transaction_begin")] == [
        ["tag"], ["tag"], ["tag", "tag_was"],
    ]  # fmt: skip
