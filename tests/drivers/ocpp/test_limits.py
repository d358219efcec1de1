"""A charging limit, from the command to what the charger's own schedule shows."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.ocpp import codec, outgoing
from drivers.ocpp.schedules import Profiles
from gateway.errors import CommandError
from gateway.model import CommandState, Verb
from gateway.testing import Recorder
from tests.drivers.ocpp.chargers import GENERIC, Gateway, connect, gateway, limit, make_device
from tests.drivers.ocpp.emulated import emulated

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import aiohttp

    from drivers.ocpp.charge_point import ChargePoint

UNIT = "ChargingScheduleAllowedChargingRateUnit"


@asynccontextmanager
async def charger(recorder: Recorder, **keys: Any) -> AsyncIterator[tuple[Gateway, ChargePoint]]:
    """A connected emulated charger."""
    async with gateway(recorder, devices=[make_device(**keys)]) as running, emulated(running, pace=2) as emulator:
        await recorder.until(lambda found: any(event.kind == "charger_booted" for event in found.events))
        yield running, emulator.points["cp-1/evse"]


def held(point: ChargePoint, connector: int = 1, later_s: int = 0) -> float | None:
    return point.controls.profiles.amps(connector, point.wall() + later_s * 1000, None)


async def test_a_limit_is_set_and_shown() -> None:
    recorder = Recorder()
    async with charger(recorder) as (running, point):
        reply = await running.driver.execute(limit(16))
        assert (reply.state, reply.now, reply.proof) == (CommandState.SUCCEEDED, {"amps": 16}, "GetCompositeSchedule")
        assert held(point) == 16
        assert held(point, later_s=86_400) == 16
        for asked, given_ in ((10.29, 10.2), (32, 32), (0, 0), (6, 6), (16.1, 16.1)):
            assert (await running.driver.execute(limit(asked))).now == {"amps": given_}
    shown = [one.value for one in recorder.readings if one.point == "cp-1/evse/charging_limit"]
    assert shown[:6] == [16, 10.2, 32, 0, 6, 16.1]


async def test_a_lease_ends_in_the_charger_itself_at_its_safe_share() -> None:
    async with charger(Recorder(), safe_current="8 A", connectors=2) as (running, point):
        reply = await running.driver.execute(limit(16, lease_s=900))
        assert reply.until is not None
        for connector in (1, 2):
            assert held(point, connector) == 16
            assert held(point, connector, later_s=890) == 16
            assert held(point, connector, later_s=901) == 8


def test_what_a_leases_end_executes_is_the_safe_share() -> None:
    verb = make_device(safe_current="8 A").verbs["limit"]
    assert isinstance(verb, Verb)
    assert (verb.leasable, verb.idempotent, verb.release) == (True, True, {"amps": 8})
    assert verb.safe_when_lower == "amps"
    assert (verb.arguments["amps"].minimum, verb.arguments["amps"].maximum) == (0, 32)


@pytest.mark.parametrize(("phases", "watts"), [("3", 11040), ("1", 3680)])
async def test_a_charger_that_says_it_takes_only_watts_is_told_watts(phases: str, watts: int) -> None:
    async with charger(Recorder(), phases=phases) as (running, point):
        point.controls.configuration[UNIT] = "Power"
        assert (await running.driver.execute(limit(16))).now == {"amps": 16}
        (_, profile), *_ = point.controls.profiles._kept
        schedule = profile["chargingSchedule"]
        assert schedule["chargingRateUnit"] == "W"
        assert schedule["chargingSchedulePeriod"] == [{"startPeriod": 0, "limit": watts, "numberPhases": int(phases)}]


@pytest.mark.parametrize(
    ("shown", "amps"),
    [({"limit": 11040}, 16), ({"limit": 11040, "numberPhases": 3}, 16), ({"limit": 3680, "numberPhases": 1}, 16),
     ({"limit": 11040, "numberPhases": 1}, None), ({"limit": 7360, "numberPhases": "x"}, 10.7)],
)  # fmt: skip
async def test_a_charger_that_divides_watts_by_the_phases_in_use_is_found_out(
    session: aiohttp.ClientSession, shown: dict[str, Any], amps: float | None
) -> None:
    """A car on one phase of three would get three times what was ordered."""
    async with gateway(Recorder()) as running:
        charger = await connect(session, running)
        order = asyncio.create_task(running.driver.execute(limit(16)))
        schedule = {"duration": 60, "chargingRateUnit": "W", "chargingSchedulePeriod": [{"startPeriod": 0, **shown}]}
        for answer in (
            {"configurationKey": [{"key": UNIT, "readonly": True, "value": "Power"}]},
            {"status": "Accepted"},
            {"status": "Accepted", "chargingSchedule": schedule},
        ):
            _, message_id, *_ = await charger.receive()
            await charger.send([3, message_id, answer])
        if amps:
            assert (await order).now == {"amps": amps}
        else:
            with pytest.raises(CommandError, match="its schedule shows 48 A"):
                await order


async def test_a_charger_that_rejects_amperes_without_having_said_so_is_told_watts() -> None:
    async with charger(Recorder()) as (running, point):
        point.controls.configuration[UNIT] = "Power"
        point.controls.unsupported.add("GetConfiguration")
        reply = await running.driver.execute(limit(16, lease_s=60))
        assert (reply.now, reply.proof) == ({"amps": 16}, "GetCompositeSchedule")
        assert held(point, later_s=120) == 6


async def test_refusals_are_said() -> None:
    async with charger(Recorder()) as (running, point):
        point.controls.refusing.add("SetChargingProfile")
        with pytest.raises(CommandError, match="takes no limit of 16 A: it answers Rejected") as caught:
            await running.driver.execute(limit(16))
        assert caught.value.code == "refused"
        point.controls.refusing.clear()
        point.controls.unsupported.add("SetChargingProfile")
        with pytest.raises(CommandError, match="it answers NotSupported"):
            await running.driver.execute(limit(16))
        for amps in (3, 33, -1, True, "16", None, float("nan")):
            with pytest.raises(CommandError, match="takes 0 A or 6 to 32 A") as caught:
                await running.driver.execute(limit(amps))
            assert caught.value.code == "out_of_bounds"


async def test_without_a_schedule_to_show_the_proof_is_only_its_word() -> None:
    async with charger(Recorder()) as (running, point):
        point.controls.unsupported.add("GetCompositeSchedule")
        assert (await running.driver.execute(limit(16))).proof == "SetChargingProfile"
        point.controls.unsupported.clear()
        point.controls.refusing.add("GetCompositeSchedule")
        assert (await running.driver.execute(limit(16))).proof == "SetChargingProfile"


async def test_another_profile_that_holds_it_lower_is_told_as_it_is() -> None:
    async with charger(Recorder()) as (running, point):
        point.controls.profiles.install(0, profile("ChargePointMaxProfile", 10))
        assert (await running.driver.execute(limit(16))).now == {"amps": 10}


async def test_a_charger_that_accepts_and_does_not_obey_has_failed() -> None:
    async with charger(Recorder()) as (running, point):
        point.controls.profiles.install(
            0, {**profile("TxDefaultProfile", 25), "stackLevel": 5, "chargingProfileId": 99}
        )
        with pytest.raises(CommandError, match="accepted 16 A, but its schedule shows 25 A") as caught:
            await running.driver.execute(limit(16))
        assert caught.value.code == "not_applied"


async def test_a_charger_that_is_away_cannot_be_told(session: aiohttp.ClientSession) -> None:
    recorder = Recorder()
    async with gateway(recorder) as running:
        with pytest.raises(CommandError, match="cp-1/evse is not connected") as caught:
            await running.driver.execute(limit(16))
        assert caught.value.code == "not_connected"
        away = await connect(session, running)
        order = asyncio.create_task(running.driver.execute(limit(16)))
        assert (await away.receive())[2] == "GetConfiguration"
        await away.socket.close()
        with pytest.raises(CommandError, match="its connection ended") as caught:
            await order
        assert caught.value.code == "no_answer"


async def test_a_short_callerror_ends_our_call(session: aiohttp.ClientSession) -> None:
    async with gateway(Recorder()) as running:
        charger_ = await connect(session, running)
        order = asyncio.create_task(running.driver.execute(limit(16)))
        for _ in range(3):  # GetConfiguration, then amperes, then watts
            _, message_id, *_ = await charger_.receive()
            await charger_.send([3, "unsolicited", {"status": "Accepted"}])
            await charger_.send([4, message_id, "VendorError"])
        with pytest.raises(CommandError, match="it answers VendorError"):
            await order


def profile(purpose: str, amps: float, **schedule: Any) -> dict[str, Any]:
    period = [{"startPeriod": 0, "limit": amps}]
    return {
        "chargingProfileId": 50,
        "stackLevel": 0,
        "chargingProfilePurpose": purpose,
        "chargingProfileKind": "Absolute",
        "chargingSchedule": {"chargingRateUnit": "A", "chargingSchedulePeriod": period, **schedule},
    }


def test_schedules_stack_replace_and_clear() -> None:
    kept = Profiles()
    now = 1_795_305_600_000
    kept.install(0, profile("TxDefaultProfile", 16))
    assert kept.amps(1, now, None) == 16
    kept.install(1, {**profile("TxProfile", 20), "chargingProfileId": 51})
    assert kept.amps(1, now, None) == 20
    assert kept.amps(2, now, None) == 16
    kept.install(0, {**profile("ChargePointMaxProfile", 13), "chargingProfileId": 52})
    assert kept.amps(1, now, None) == 13
    later = {**profile("TxDefaultProfile", 9, startSchedule=codec.iso(now + 1000)), "chargingProfileId": 50}
    kept.install(0, later)
    assert kept.amps(2, now, None) == 13
    assert kept.amps(2, now + 1000, None) == 9
    assert kept.clear({"id": 52})
    assert not kept.clear({"id": 52})
    assert kept.clear({"chargingProfilePurpose": "TxProfile"})
    assert kept.amps(1, now, None) is None
    watts = profile("TxDefaultProfile", 0)
    watts["chargingSchedule"] |= {
        "chargingRateUnit": "W",
        "chargingSchedulePeriod": [{"startPeriod": 0, "limit": 6900}],
    }
    kept.install(0, watts)
    assert kept.amps(1, now, None) == 10


@given(st.floats(6, 32), st.integers(1, 86_400) | st.none(), st.sampled_from(["1", "3"]))
def test_whatever_is_asked_what_is_sent_fits_the_schema(amps: float, lease_s: int | None, phases: str) -> None:
    from drivers.ocpp import limits

    sent: list[dict[str, Any]] = []

    class Line:
        async def call(self, action: str, payload: dict[str, Any]) -> dict[str, str]:
            outgoing.check(action, payload)
            sent.append(payload)
            return {"status": "Accepted"}

    class Asked:
        device, settings, profile = make_device(), make_device(phases=phases).settings, GENERIC

    exact = limits._asked(Asked(), limit(amps))  # type: ignore[arg-type]
    assert amps - 0.1001 < exact <= amps + 1e-6
    asyncio.run(limits._install(Asked(), Line(), 2, exact, "A", 1_795_305_600_000, lease_s))  # type: ignore[arg-type]
    assert sent[0]["csChargingProfiles"]["stackLevel"] == 1
    (period,) = sent[0]["csChargingProfiles"]["chargingSchedule"]["chargingSchedulePeriod"]
    assert period.get("numberPhases") == (1 if phases == "1" else None)
