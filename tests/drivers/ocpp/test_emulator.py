"""The emulator against the driver, over loopback: what it says was answered is what the gateway has."""

from __future__ import annotations

import asyncio
import resource
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import pytest

from drivers.ocpp.charge import Charge
from drivers.ocpp.connection import RefusedError
from drivers.ocpp.scenario import Car
from gateway.errors import ConfigError, StorageError
from gateway.model import Lane, Reading
from gateway.testing import Recorder
from tests.drivers.ocpp.chargers import SECRETS, gateway, make_device, make_settings
from tests.drivers.ocpp.emulated import emulated

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.model import Event


def ended(recorder: Recorder) -> list[str]:
    return [str(event.more["transaction"]) for event in recorder.events if event.kind == "session"]


async def test_every_value_that_was_answered_is_a_reading() -> None:
    recorder = Recorder()
    devices = [make_device(), make_device("cp-2/evse", connectors=2)]
    async with gateway(recorder, devices=devices) as running, emulated(running) as emulator:
        await recorder.until(lambda found: len(ended(found)) >= 4)
        for point in emulator.points.values():
            await point.drop()
    good = [reading for reading in recorder.readings if reading.value is not None]
    for device in devices:
        mine = [reading for reading in good if reading.point.startswith(f"{device.id}/")]
        assert emulator.produced()[device.id] <= len(mine)
        assert len(mine) - emulator.produced()[device.id] <= 12  # at most one answer was under way on each
    begun = [str(event.more["transaction"]) for event in recorder.events if event.kind == "transaction_begin"]
    assert len(set(begun)) == len(begun)
    assert set(emulator.confirmed) <= set(begun)
    billed = [record for lane, records, _ in recorder.calls if lane is Lane.BILLING for record in records]
    assert {reading.transaction for reading in billed if isinstance(reading, Reading)} <= set(begun)


async def test_what_happens_while_the_gateway_is_away_is_told_afterwards_and_once() -> None:
    recorder = Recorder()
    async with gateway(recorder) as running, emulated(running) as emulator:
        await recorder.until(lambda found: bool(of(found, "transaction_begin")))
        point = emulator.points["cp-1/evse"]
        recorder.fail = StorageError("the disk is full")  # so nothing is answered, and the charger keeps it
        await until(lambda: len({id(message.charge) for message in point._queue}) >= 3)
        last = point._queue[-1].charge
        recorder.fail = None
        await until(lambda: last.transaction > 0)
    begun = [event.more["transaction"] for event in of(recorder, "transaction_begin")]
    assert len(set(begun)) == len(begun) >= 3
    assert set(emulator.confirmed) <= set(begun)
    ends = [event.more["transaction"] for event in of(recorder, "session")]
    assert len(set(ends)) == len(ends)
    assert set(ends) <= set(begun)
    tagged = [(one.point, one.transaction, one.device_time) for one in recorder.readings if one.transaction]
    assert len(set(tagged)) == len(tagged)


async def test_a_charger_does_what_it_is_triggered_to_do() -> None:
    recorder = Recorder()
    async with gateway(recorder) as running, emulated(running, pace=1) as emulator:
        await recorder.until(lambda found: sum(one.point.endswith("status") for one in found.readings) == 2)
        line = running.driver._chargers["cp-1"].connection
        assert line
        for word in ("BootNotification", "StatusNotification", "MeterValues", "Heartbeat"):
            asked = {"requestedMessage": word, "connectorId": 1}
            assert await line.call("TriggerMessage", asked) == {"status": "Accepted"}
        await recorder.until(lambda found: any(one.context == "trigger" for one in found.readings))
        assert len(of(recorder, "charger_booted")) == 2
        refused = await line.call("TriggerMessage", {"requestedMessage": "DiagnosticsStatusNotification"})
        assert refused == {"status": "NotImplemented"}
        change = {"key": "HeartbeatInterval", "value": "1"}
        assert await line.call("ChangeConfiguration", change) == {"status": "Accepted"}
        asked = {"key": ["HeartbeatInterval", "Colour"]}
        told = await line.call("GetConfiguration", asked)
        assert told["configurationKey"] == [{"key": "HeartbeatInterval", "readonly": False, "value": "1"}]
        assert told["unknownKey"] == ["Colour"]
        with pytest.raises(RefusedError, match="NotSupported"):
            await line.call("UpdateFirmware", {"location": "ftp://x", "retrieveDate": "2026-11-22T10:00:00Z"})
        point = emulator.points["cp-1/evse"]
        await until(lambda: point.values == len([one for one in recorder.readings if one.value is not None]))


def test_a_car_takes_no_more_than_it_is_offered_and_nothing_below_six_amperes() -> None:
    charge = Charge(Random(1), 32.0, 3, 0, Car.model_validate({"takes": "32 A", "battery": "77 kWh"}))
    for limit in (16.0, 10.0, 6.0, None):
        for _ in range(5):
            charge.advance(1, limit)
            assert 0 < charge.amps <= (limit or 32)
            assert charge.gained == pytest.approx(charge.amps * 230 * 3 / 3600)
        assert charge.amps >= 0.96 * (limit or 32)
        assert charge.status == "Charging"
    for limit in (5.9, 0.0):
        charge.advance(60, limit)
        assert (charge.amps, charge.gained, charge.status) == (0, 0, "SuspendedEVSE")


def test_a_car_rises_in_steps_and_follows_down_at_once() -> None:
    charge = Charge(Random(1), 32.0, 3, 0, Car.model_validate({"takes": "32 A"}))
    risen = []
    for _ in range(4):
        charge.advance(1, 32)
        risen.append(charge.amps)
    assert risen == sorted(risen)
    assert risen[0] == 14 < risen[1] == 22 < risen[2]
    charge.advance(0.1, 8)
    assert charge.amps <= 8


def test_a_battery_that_fills_takes_less_and_then_nothing() -> None:
    charge = Charge(
        Random(1), 32.0, 3, 0, Car.model_validate({"takes": "16 A", "battery": "20 kWh", "charged": "70 %"})
    )
    taken = []
    for _ in range(120):
        charge.advance(60, None)
        taken.append(charge.amps)
    assert taken[0] > 15
    assert 5.7 < min(amps for amps in taken if amps) < 8
    assert (taken[-1], charge.status) == (0, "SuspendedEV")
    assert 80 < charge.soc <= 100


def test_a_car_of_one_phase_loads_one() -> None:
    charge = Charge(Random(1), 32.0, 3, 0, Car.model_validate({"takes": "16 A", "phases": 1}))
    charge.advance(10, None)
    told = {(one["measurand"], one.get("phase")): one["value"] for one in charge.samples(1000.0)}
    assert float(told["Current.Import", "L1"]) > 15
    assert (told["Current.Import", "L2"], told["Current.Import", "L3"]) == ("0.00", "0.00")
    assert float(told["Power.Active.Import", None]) == pytest.approx(charge.amps * 0.23, abs=0.001)


@pytest.mark.slow
async def test_a_fleet_of_500_in_one_process() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 4096)), hard))
    recorder = Recorder()
    devices = [make_device(f"cp-{number}/evse") for number in range(500)]
    settings = make_settings(security="0", authorise="open", tags=None)
    async with gateway(recorder, settings, devices) as running, emulated(running, pace=1) as emulator:
        await recorder.until(lambda found: len({event.on for event in of(found, "charger_booted")}) == 500, within=60)
        await recorder.until(lambda found: len({event.on for event in of(found, "session")}) >= 100, within=60)
        assert sum(emulator.produced().values()) > 1000
    ends = [event.more["transaction"] for event in of(recorder, "session")]
    assert len(set(ends)) == len(ends)
    assert not of(recorder, "nonconforming")


async def test_chargers_over_tls() -> None:
    recorder = Recorder()
    settings = make_settings(security="2", certificate="secret", key="secret")
    pem = Path(__file__).with_name("street.pem").read_text()
    secrets = {
        **SECRETS,
        "certificate": pem[: pem.index("-----BEGIN PRIV")],
        "key": pem[pem.index("-----BEGIN PRIV") :],
    }
    async with gateway(recorder, settings, secrets=secrets) as running, emulated(running, secrets=secrets):
        await recorder.until(lambda found: bool(of(found, "charger_booted")))
    with pytest.raises(ConfigError, match="do not make a pair"):
        async with gateway(recorder, settings, secrets={**secrets, "key": "none"}):
            pass


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110 - the charger has nothing to wait for but time
            await asyncio.sleep(0.01)


def of(recorder: Recorder, kind: str) -> list[Event]:
    return [event for event in recorder.events if event.kind == kind]
