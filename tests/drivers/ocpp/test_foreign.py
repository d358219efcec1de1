"""Somebody else's charger: the `ocpp` package's client, over a real socket. It checks our answers by the schemas."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import aiohttp
from ocpp.routing import on
from ocpp.v16 import ChargePoint, call, call_result
from ocpp.v16.enums import Action, ChargePointErrorCode, ChargePointStatus, ChargingProfileStatus, ConfigurationStatus

from gateway.testing import Recorder
from tests.drivers.ocpp.chargers import connect, gateway, limit

if TYPE_CHECKING:
    import pytest


class Wire:
    """What the package expects of a connection."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket

    async def send(self, frame: str) -> None:
        await self._socket.send_str(frame)

    async def recv(self) -> str:
        return await self._socket.receive_str()


class Foreign(ChargePoint):  # type: ignore[misc]
    limit = 0.0

    @on(Action.get_configuration)
    def configuration(self, **asked: Any) -> Any:
        return call_result.GetConfiguration(unknown_key=asked["key"])

    @on(Action.change_configuration)
    def change(self, **asked: Any) -> Any:
        return call_result.ChangeConfiguration(status=ConfigurationStatus.accepted)

    @on(Action.set_charging_profile)
    def set_profile(self, connector_id: int, cs_charging_profiles: dict[str, Any]) -> Any:
        self.limit = cs_charging_profiles["charging_schedule"]["charging_schedule_period"][0]["limit"]
        return call_result.SetChargingProfile(status=ChargingProfileStatus.accepted)

    @on(Action.get_composite_schedule)
    def composite(self, connector_id: int, duration: int, **asked: Any) -> Any:
        period = {"startPeriod": 0, "limit": float(self.limit)}
        schedule = {"duration": duration, "chargingRateUnit": "A", "chargingSchedulePeriod": [period]}
        return call_result.GetCompositeSchedule(
            status="Accepted", connector_id=connector_id, charging_schedule=schedule
        )


async def test_a_foreign_charger_boots_charges_and_is_limited(
    session: aiohttp.ClientSession, recwarn: pytest.WarningsRecorder
) -> None:
    recorder = Recorder()
    async with gateway(recorder) as running:
        charger = await connect(session, running)
        foreign = Foreign("cp-1", Wire(charger.socket), response_timeout=5)
        listening = asyncio.create_task(foreign.start())
        booted = await foreign.call(call.BootNotification(charge_point_model="M", charge_point_vendor="V"))
        assert booted.status == "Accepted"
        assert (await foreign.call(call.Heartbeat())).current_time.endswith("Z")
        allowed = await foreign.call(call.Authorize(id_tag="04A1B2C3"))
        assert allowed.id_tag_info == {"status": "Accepted", "parent_id_tag": "family"}
        await foreign.call(
            call.StatusNotification(
                connector_id=1, error_code=ChargePointErrorCode.no_error, status=ChargePointStatus.charging
            )
        )
        begun = await foreign.call(
            call.StartTransaction(connector_id=1, id_tag="04A1B2C3", meter_start=100, timestamp="2026-11-22T10:00:00Z")
        )
        value = [{"timestamp": "2026-11-22T10:01:00Z", "sampledValue": [{"value": "150"}]}]
        await foreign.call(call.MeterValues(connector_id=1, transaction_id=begun.transaction_id, meter_value=value))
        reply = await running.driver.execute(limit(13.7, lease_s=600))
        assert (reply.now, reply.proof) == ({"amps": 13.7}, "GetCompositeSchedule")
        await foreign.call(
            call.StopTransaction(meter_stop=150, timestamp="2026-11-22T10:02:00Z", transaction_id=begun.transaction_id)
        )
        listening.cancel()
        await asyncio.wait([listening])
    kinds = [event.kind for event in recorder.events]
    assert kinds[:4] == ["device_up", "charger_booted", "transaction_begin", "session"]
    (end,) = [event for event in recorder.events if event.kind == "session"]
    assert end.more["energy"] == 50
    assert "nonconforming" not in kinds
