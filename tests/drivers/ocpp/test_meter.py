"""Meter values on their way to readings: what is signed, and what no longer holds when a charge has ended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from drivers.ocpp import codec
from gateway.model import Lane, Quality, Reason
from gateway.status import Status
from gateway.testing import LoopClock, Recorder
from tests.drivers.ocpp.chargers import Charger, connect, gateway, make_device, of

if TYPE_CHECKING:
    import aiohttp


# OCMF 1.0 of the S.A.F.E. initiative: payload and signature between bars. Every byte counts.
OCMF = (
    'OCMF|{"FV":"1.0","GI":"GATE","PG":"T12","RD":[{"TM":"2026-11-22T10:00:00,000+0000 S","TX":"B","RV":2935.6}]}'
    '|{"SD":"3046022100e9é"}'
)
SIGNED = {
    "value": OCMF, "format": "SignedData", "context": "Transaction.Begin", "measurand": "Energy.Active.Import.Register",
}  # fmt: skip
AT = "2026-11-22T10:00:00Z"


async def begin(charger: Charger, at: str = AT, **other: Any) -> int:
    start = {"connectorId": 1, "idTag": "04A1B2C3", "meterStart": 1000, "timestamp": at}
    answer = await charger.ask("StartTransaction", start | other)
    number = answer["transactionId"]
    assert isinstance(number, int)
    return number


async def test_signed_values_are_kept_byte_for_byte_with_their_charge(session: aiohttp.ClientSession) -> None:
    recorder = Recorder()
    sampled = [SIGNED, {"value": "2935600"}]
    async with gateway(recorder) as running:
        charger = await connect(session, running)
        number = await begin(charger)
        values = [{"timestamp": AT, "sampledValue": sampled}]
        await charger.ask("MeterValues", {"connectorId": 1, "transactionId": number, "meterValue": values})
        ended = [{"timestamp": AT, "sampledValue": [SIGNED | {"context": "Transaction.End"}]}]
        stop = {"transactionId": number, "meterStop": 2935600, "timestamp": AT, "transactionData": ended}
        await charger.ask("StopTransaction", stop)
        await charger.ask("MeterValues", {"connectorId": 1, "meterValue": values})
    found = of(recorder, "signed_value")
    assert [event.more["value"] for event in found] == [OCMF] * 3
    assert [event.more["transaction"] for event in found] == [str(number), str(number), None]
    assert [event.more["context"] for event in found] == ["Transaction.Begin", "Transaction.End", "Transaction.Begin"]
    assert found[0].more == SIGNED | {"transaction": str(number), "connector": 1, "timestamp": AT}
    lanes = [lane for lane, records, _ in recorder.calls for record in records if record in found]
    assert lanes == [Lane.BILLING, Lane.BILLING, Lane.EVENT]
    assert [one.value for one in recorder.readings if one.value is not None] == [2935600] * 2
    assert not of(recorder, "nonconforming")


async def test_the_power_of_a_charge_that_has_ended_does_not_stand(session: aiohttp.ClientSession) -> None:
    recorder, device, clock = Recorder(), make_device(connectors=2), LoopClock()
    now = codec.iso(clock.wall())
    sampled = [
        {"value": "7000", "measurand": "Power.Active.Import", "unit": "W"},
        {"value": "64", "measurand": "SoC", "unit": "Percent"},
        {"value": "16", "measurand": "Current.Import", "unit": "A", "phase": "L1"},
        {"value": "230", "measurand": "Voltage", "unit": "V", "phase": "L1"},
        {"value": "1500"},
    ]
    async with gateway(recorder, devices=[device]) as running:
        charger = await connect(session, running)
        number = await begin(charger, now)
        for connector in (1, 2):
            values = [{"timestamp": now, "sampledValue": sampled}]
            payload = {"connectorId": connector, "transactionId": number, "meterValue": values}
            await charger.ask("MeterValues", payload)
        await charger.ask("StopTransaction", {"transactionId": number, "meterStop": 1500, "timestamp": now})
        status = Status("cab-1", clock, {"cs": [device]}, every={})
        status.note(recorder.records)
    idle = {one.point.rpartition("/")[2] for one in recorder.readings if one.reason == Reason.IDLE}
    assert idle == {"power_active", "state_of_charge", "current_l1"}
    for slug in idle:
        shown = status.last(f"cp-1/evse/{slug}")
        assert shown is not None
        assert (shown.value, shown.quality) == (None, Quality.BAD)
    for slug, value in (("energy_import", 1500), ("voltage_l1", 230), ("power_active-2", 7000)):
        shown = status.last(f"cp-1/evse/{slug}")
        assert shown is not None
        assert shown.value == value
    (told,) = status.snapshot()["devices"]  # type: ignore[misc, union-attr]
    assert told["health"] == "up", told["say"]  # type: ignore[index, call-overload]


async def test_a_charge_that_is_told_late_ends_in_the_past_too(session: aiohttp.ClientSession) -> None:
    recorder, clock = Recorder(), LoopClock()
    ago = clock.wall() - 5 * 3_600_000
    value = {"value": "7000", "measurand": "Power.Active.Import", "unit": "W"}
    async with gateway(recorder) as running:
        charger = await connect(session, running)
        number = await begin(charger, codec.iso(ago))
        values = [{"timestamp": codec.iso(ago), "sampledValue": [value]}]
        await charger.ask("MeterValues", {"connectorId": 1, "transactionId": number, "meterValue": values})
        stop = {"transactionId": number, "meterStop": 1500, "timestamp": codec.iso(ago + 60_000)}
        await charger.ask("StopTransaction", stop)
    told, ended = [one for one in recorder.readings if one.point.endswith("/power_active")][:2]
    assert (told.value, ended.value, ended.reason) == (7000, None, Reason.IDLE)
    assert ended.at - told.at == pytest.approx(60_000, abs=2000)
