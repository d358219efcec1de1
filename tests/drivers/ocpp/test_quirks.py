"""What makes of chargers do differently, from their profiles down to the wire."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from drivers import ocpp
from drivers.ocpp import sessions
from drivers.ocpp.scenario import Scenario
from drivers.ocpp.sessions import Progress, Register
from drivers.ocpp.transactions import Transaction
from gateway import profile
from gateway.errors import CommandError
from gateway.testing import Recorder
from tests.drivers.ocpp.chargers import GENERIC, connect, gateway, limit, make_device, make_settings
from tests.drivers.ocpp.emulated import emulated

if TYPE_CHECKING:
    import aiohttp

    from gateway.model import Device

FOLDER = Path(__file__).parents[3] / "config/profiles"


def of_make(name: str, **keys: Any) -> Device:
    found = profile.load(FOLDER / f"{name}.yaml", lambda _: ocpp.Profile)
    assert isinstance(found, ocpp.Profile)
    device = make_device(**keys)
    return replace(device, profile=found, points=ocpp.points(device.id, found, device.settings))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["abb-terra-ac", "grizzl-e-smart", "necharge-wallbox", "foxess-wallbox"])
def test_a_profile_without_points_has_the_usual_ones(name: str) -> None:
    assert of_make(name).points.keys() == make_device().points.keys()


async def test_a_charger_that_obeys_only_steps_is_told_one() -> None:
    recorder = Recorder()
    devices = [of_make("necharge-wallbox", max_current="16 A")]
    async with gateway(recorder, devices=devices) as running, emulated(running, pace=2) as emulator:
        await recorder.until(lambda found: any(event.kind == "charger_booted" for event in found.events))
        point = emulator.points["cp-1/evse"]
        for asked, told in ((12.9, 10), (16, 16), (7, 6), (0, 0)):
            assert (await running.driver.execute(limit(asked))).now == {"amps": told}
            assert point.controls.profiles.amps(1, point.wall(), None) == told


async def test_a_charger_that_obeys_only_watts_is_never_asked(session: aiohttp.ClientSession) -> None:
    async with gateway(Recorder(), devices=[of_make("microocpp-simulator")]) as running:
        charger = await connect(session, running)
        order = asyncio.create_task(running.driver.execute(limit(10)))
        _, message_id, action, payload = await charger.receive()
        schedule = payload["csChargingProfiles"]["chargingSchedule"]
        assert (action, schedule["chargingRateUnit"]) == ("SetChargingProfile", "W")
        assert schedule["chargingSchedulePeriod"] == [{"startPeriod": 0, "limit": 6900.0, "numberPhases": 3}]
        await charger.send([3, message_id, {"status": "Accepted"}])
        _, message_id, *_ = await charger.receive()
        await charger.send([4, message_id, "NotSupported", "", {}])
        assert (await order).now == {"amps": 10}


@pytest.mark.parametrize(
    ("quirk", "keys", "unknown", "known"),
    [
        ("steps_only", {"steps": ["6 A", "8 A", "10 A"]}, None, 8),
        ("whole_amps", {"whole_amps": True}, 9.5, 9),  # unknown, it is told watts
    ],
)
async def test_a_quirk_is_met_by_its_profile(
    quirk: str, keys: dict[str, Any], unknown: float | None, known: float
) -> None:
    tree = GENERIC.model_dump(exclude={"examples", "refusals"}, exclude_none=True)
    fitting = replace(make_device(), profile=ocpp.Profile.model_validate({**tree, **keys}))
    odd = Scenario.model_validate({"quirks": [quirk], "visits": False})
    for device, amps in ((make_device(), unknown), (fitting, known)):
        recorder = Recorder()
        async with gateway(recorder, devices=[device]) as running, emulated(running, scenario=odd):
            await recorder.until(lambda found: any(event.kind == "charger_booted" for event in found.events))
            if amps is None:
                with pytest.raises(CommandError, match=r"takes no limit of 9.5 A: it answers Rejected"):
                    await running.driver.execute(limit(9.5))
            else:
                assert (await running.driver.execute(limit(9.5))).now == {"amps": amps}


async def charges(session: aiohttp.ClientSession, device: Device, *meters: tuple[int, int]) -> list[dict[str, Any]]:
    """The `session` records of charges from one meter to the other."""
    recorder = Recorder()
    async with gateway(recorder, make_settings(authorise="open"), [device]) as running:
        charger = await connect(session, running)
        for hour, (first, last) in enumerate(meters):
            start = {"connectorId": 1, "idTag": "A", "meterStart": first, "timestamp": f"2026-11-22T{hour:02}:00:00Z"}
            number = (await charger.ask("StartTransaction", start))["transactionId"]
            stop = {"transactionId": number, "meterStop": last, "timestamp": f"2026-11-22T{hour:02}:30:00Z"}
            await charger.ask("StopTransaction", stop)
    return [dict(event.more) for event in recorder.events if event.kind == "session"]


async def test_a_register_is_classified_by_what_it_does(session: aiohttp.ClientSession) -> None:
    lifetime = await charges(session, make_device(), (1000, 3000), (3000, 4000), (0, 5000), (5000, 6000))
    assert [one["energy"] for one in lifetime] == [2000, 1000, None, 1000]
    assert [one["register"] for one in lifetime] == ["unknown", "lifetime", "unknown", "lifetime"]
    assert lifetime[2]["doubts"] == ["no_baseline"]
    anew = await charges(session, make_device(), (0, 3000), (0, 4000), (0, 2000))
    assert [one["energy"] for one in anew] == [3000, 4000, 2000]
    assert [one["register"] for one in anew] == ["unknown", "session", "session"]
    known = await charges(session, of_make("abb-terra-ac"), (0, 3000), (0, 100))
    assert [(one["register"], one["energy"]) for one in known] == [("session", 3000), ("session", 100)]


def test_gaps_are_found_by_the_usual_spacing_and_listed_up_to_a_bound() -> None:
    progress = Progress(last=0)
    for time in (60_000, 120_000, 180_000, 600_000, 660_000):
        progress = progress.at(time)
    assert progress.gaps == [[180_000, 600_000]]
    for step in range(40):
        progress = progress.at(10_000_000 + step * 1_000_000)
    assert len(progress.gaps) == sessions.MOST_GAPS
    assert progress.unlisted == 41 - sessions.MOST_GAPS + 0
    assert Progress.of(progress.stored()) == progress
    assert Register.of(Register(5.0, -2).stored()) == Register(5.0, -2)


@pytest.mark.parametrize(
    ("begun", "stop", "energy", "doubts"),
    [
        (None, 5.0, None, ["no_start"]),
        (Transaction(1, 1, "t", None, ""), 5.0, None, ["no_baseline"]),
        (Transaction(1, 1, "t", 5, ""), None, None, ["no_end"]),
        (Transaction(1, 1, "t", 5, ""), 4.0, None, ["register_backwards"]),
        (Transaction(1, 1, "t", 5, ""), 5.0, 0, []),
        (Transaction(1, 1, "t", 5, ""), 9.0, 4, ["readings_beyond_end"]),
    ],
)
def test_energy_is_said_only_where_both_ends_are_certain(
    begun: Transaction | None, stop: float | None, energy: float | None, doubts: list[str]
) -> None:
    progress = Progress(register=20.0 if doubts == ["readings_beyond_end"] else None)
    assert sessions.energy(begun, stop, progress, "lifetime") == (energy, doubts)
