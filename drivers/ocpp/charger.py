"""One charger, by its identity: what it says becomes records, and the answer it gets. Sockets come and go.

What belongs to a transaction is answered only when the billing lane has it on disk (`emit` returned), together with
the state that makes a repeated message known again. StorageError: no answer, the charger keeps it and tries again.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import structlog

from drivers.ocpp import codec, rpc
from drivers.ocpp.codec import Remarks
from drivers.ocpp.connection import Connection
from drivers.ocpp.faults import FAULTS
from drivers.ocpp.settings import DeviceSettings, Profile, routes
from drivers.ocpp.tags import Cards
from drivers.ocpp.transactions import Ids, Ledger, Transaction, digest
from gateway.errors import ConfigError, StorageError
from gateway.model import Device, Event, Json, Lane, PointId, Quality, Reading, Reason, Record
from gateway.ports import Emit, Link

HEARTBEAT = 300
"""Seconds, as told at boot: keeps the charger's clock right, for its frames are life enough."""
MOST_REMARKS = 100
ACKNOWLEDGED = {
    "DiagnosticsStatusNotification": "diagnostics_status",
    "FirmwareStatusNotification": "firmware_status",
    "LogStatusNotification": "log_status",
    "SecurityEventNotification": "security_event",
    "SignedFirmwareStatusNotification": "firmware_status",
}
_log = structlog.get_logger(__name__)


class Charger:
    """What the gateway knows of a charger, and how it answers it."""

    def __init__(self, device: Device, link: Link, emit: Emit, ids: Ids, cards: Cards) -> None:
        assert isinstance(device.settings, DeviceSettings)
        assert isinstance(device.profile, Profile)
        self.device, self.settings = device, device.settings
        self.connection: Connection | None = None
        self.rate_units: list[str] = []
        """The units of limits that it takes, once it was asked; kept while it is connected."""
        self.has_base = False
        """Whether its safe share is installed in it, as far as this connection knows."""
        self.limiting = asyncio.Lock()
        self._link, self._emit, self._ids, self._cards = link, emit, ids, cards
        self._routes = routes(device.id, device.profile, device.settings)
        self._ledger = Ledger(device.id, link.state)
        # A second socket of the same charger must see what the first one's message has committed.
        self._one_at_a_time = asyncio.Lock()
        self._said: set[str] = set()
        self._good: set[PointId] = set()
        self._faults: dict[int, str] = {}

    async def answer(self, call: rpc.Call) -> str | None:
        """The frame that answers `call`; None where what it tells could not be made durable."""
        remarks = Remarks()
        try:
            answer = await self._answer(call.action, call.payload, remarks)
        except StorageError as error:
            _log.warning("transaction message not stored", device=self.device.id, action=call.action, why=str(error))
            return None
        if answer is None:
            remarks.append("what this gateway does not take")
        await self._remark(f"in {call.action[:40]} ", remarks)
        if answer is None:
            known = call.action in codec.ACTIONS
            code = rpc.ErrorCode.NOT_SUPPORTED if known else rpc.ErrorCode.NOT_IMPLEMENTED
            return rpc.error(call.id, code, "")
        return rpc.result(call.id, answer)

    async def _answer(self, action: str, payload: Mapping[str, Any], remarks: Remarks) -> Mapping[str, Json] | None:
        match action:
            case "Heartbeat":
                return {"currentTime": codec.iso(self._link.clock.wall())}
            case "BootNotification":
                return await self._boot(payload, remarks)
            case "StatusNotification":
                return await self._status(payload, remarks)
            case "Authorize":
                return {"idTagInfo": self._authorise(codec.text(payload, "idTag", remarks))}
            case "StartTransaction":
                return await self._start(payload, remarks)
            case "MeterValues":
                return await self._meter(payload, remarks)
            case "StopTransaction":
                return await self._stop(payload, remarks)
            case "DataTransfer":
                return {"status": "UnknownVendorId"}
            case _ if kind := ACKNOWLEDGED.get(action):
                return await self._acknowledge(kind, payload)
            case _:
                return None

    async def connected(self, connection: Connection) -> None:
        """The newest authenticated socket wins: whoever holds the key and calls now is the charger."""
        before, self.connection = self.connection, connection
        self.rate_units, self.has_base = [], False
        if before:
            await before.close("was replaced by a newer connection")
        else:
            await self.tell("device_up", f"{self.device.id} is connected.")

    async def gone(self, connection: Connection) -> None:
        """Its socket has ended: unless a newer one has taken over, its values are no longer known."""
        if self.connection is not connection:
            return
        self.connection = None
        at = self._link.clock.boot()
        lost = [Reading(point, None, at, Quality.BAD, Reason.COMM_FAILURE) for point in sorted(self._good)]
        self._good.clear()
        why = f"{self.device.id} {connection.why}. Check its power and its network; it calls again by itself."
        await self.tell("device_down", why)
        await self._keep(lost, Lane.TELEMETRY)

    def forget(self) -> Connection | None:
        """The listener stops: its socket is to be closed, and that says nothing of the charger."""
        connection, self.connection = self.connection, None
        return connection

    async def tell(self, kind: str, say: str, more: Mapping[str, Json] | None = None, time: int | None = None) -> None:
        """An event of this charger. Where it cannot be kept, life goes on."""
        await self._keep([self._event(kind, say, more, time)], Lane.EVENT)

    async def report(self, quantity: str, connector: int, value: float | str, context: str | None = None) -> None:
        """What is known of a connector without a measurand: the limit that was confirmed."""
        if point := self._routes.get((connector, quantity, None, None)):
            self._good.add(point)
            await self._keep([Reading(point, value, self._link.clock.boot(), context=context)], Lane.TELEMETRY)

    async def malformed(self, why: str) -> None:
        """A frame of this charger was none."""
        await self._remark("", Remarks([why]))

    def _event(self, kind: str, say: str, more: Mapping[str, Json] | None, time: int | None) -> Event:
        at = self._link.clock.boot()
        return Event(kind, self.device.id, at, say, more or {}, time)

    async def _keep(self, records: Sequence[Record], lane: Lane) -> None:
        try:
            if records:
                await self._emit(records, lane=lane)
        except StorageError as error:
            _log.warning("records not stored", device=self.device.id, lane=lane, why=str(error))

    async def _remark(self, where: str, remarks: Remarks) -> None:
        fresh = [remark for remark in dict.fromkeys(remarks) if where + remark not in self._said]
        for remark in fresh[: MOST_REMARKS - len(self._said)]:
            self._said.add(where + remark)
            await self.tell("nonconforming", f"{self.device.id} sent {where}{remark}.")

    async def _boot(self, payload: Mapping[str, Any], remarks: Remarks) -> Mapping[str, Json]:
        serial = codec.optional(payload, "chargePointSerialNumber") or codec.optional(payload, "chargeBoxSerialNumber")
        more: dict[str, Json] = {
            "vendor": codec.text(payload, "chargePointVendor", remarks),
            "model": codec.text(payload, "chargePointModel", remarks),
            "serial": serial,
            "firmware": codec.optional(payload, "firmwareVersion"),
        }
        say = (
            f"{self.device.id} has booted: {more['vendor']} {more['model']}, firmware {more['firmware'] or 'unknown'}."
        )
        await self.tell("charger_booted", say, more)
        now = codec.iso(self._link.clock.wall())
        return {"status": "Accepted", "currentTime": now, "interval": HEARTBEAT}

    async def _status(self, payload: Mapping[str, Any], remarks: Remarks) -> Mapping[str, Json]:
        connector = codec.whole(payload, "connectorId", remarks) or 0
        status = codec.text(payload, "status", remarks)
        fault = codec.optional(payload, "errorCode", 50) or "NoError"
        stamp = payload.get("timestamp")
        time = None if stamp is None else codec.moment(stamp, remarks)
        point = self._routes.get((connector, "connector_status" if connector else "device_status", None, None))
        at = self._link.clock.boot()
        if point is None:
            remarks.append(f"connector {connector}, which the site file does not have: correct `connectors`")
        elif status in codec.STATUSES:
            self._good.add(point)
            await self._keep([Reading(point, status, at, device_time=time)], Lane.TELEMETRY)
        else:
            remarks.append(f"the unknown status `{status[:40]}`")
            bad = Reading(point, None, at, Quality.BAD, Reason.OUT_OF_RANGE, time)
            await self._keep([bad], Lane.TELEMETRY)
        await self._note_fault(connector, status, fault, payload, time)
        return {}

    async def _note_fault(
        self, connector: int, status: str, fault: str, payload: Mapping[str, Any], time: int | None
    ) -> None:
        if connector not in range(self.settings.connectors + 1):
            return
        name = f"{self.device.id}, connector {connector}" if connector else self.device.id
        trouble = fault if fault != "NoError" else ("OtherError" if status == "Faulted" else "")
        if trouble == self._faults.get(connector, ""):
            return
        self._faults[connector] = trouble
        more: dict[str, Json] = {"connector": connector, "error": fault}
        if trouble:
            more["vendor_error"] = codec.optional(payload, "vendorErrorCode", 50)
            more["detail"] = codec.optional(payload, "info", 50)
            say = FAULTS.get(trouble, "reports a fault of its maker. Look the code up in its manual.")
            await self.tell("connector_fault", f"{name} {say}", more, time)
        else:
            await self.tell("connector_clear", f"{name} works again.", more, time)

    def _authorise(self, tag: str) -> dict[str, Json]:
        try:
            return self._cards.authorise(tag)
        except ConfigError as error:
            _log.warning("no local list", device=self.device.id, why=str(error))
            return {"status": "Invalid"}

    async def _start(self, payload: Mapping[str, Any], remarks: Remarks) -> Mapping[str, Json]:
        connector = codec.whole(payload, "connectorId", remarks) or 0
        tag = codec.text(payload, "idTag", remarks)
        meter = codec.number(payload, "meterStart", remarks)
        time = codec.moment(payload.get("timestamp"), remarks)
        told = self._authorise(tag)
        start = Transaction(0, connector, self._cards.pseudonym(tag), meter, str(payload.get("timestamp") or "")[:64])
        async with self._one_at_a_time:
            if known := self._ledger.begun_as(start):
                return {"transactionId": known.id, "idTagInfo": told}
            number, state = self._ids.take()
            begun = replace(start, id=number)
            more: dict[str, Json] = {
                "transaction": str(number),
                "connector": connector,
                "tag": begun.tag,
                "meter_start": meter,
                "authorised": told["status"],
            }
            event = self._event("transaction_begin", f"{self.device.id} has begun to charge.", more, time)
            state |= self._ledger.begin(begun, digest("StartTransaction", payload)) | self._cards.unsaved()
            await self._emit([event], lane=Lane.BILLING, state=state)
        return {"transactionId": number, "idTagInfo": told}

    async def _meter(self, payload: Mapping[str, Any], remarks: Remarks) -> Mapping[str, Json]:
        connector = codec.whole(payload, "connectorId", remarks)
        if payload.get("transactionId") is None:
            readings = self._readings(connector or 0, payload.get("meterValue"), None, remarks)
            await self._keep(readings, Lane.TELEMETRY)
            return {}
        number = codec.whole(payload, "transactionId", remarks)
        transaction = "unknown" if number is None else str(number)
        mark = digest("MeterValues", payload)
        async with self._one_at_a_time:
            if not self._ledger.is_repeated(mark):
                readings = self._readings(connector or 0, payload.get("meterValue"), transaction, remarks)
                await self._emit(readings, lane=Lane.BILLING, state=self._ledger.note(mark))
        return {}

    async def _stop(self, payload: Mapping[str, Any], remarks: Remarks) -> Mapping[str, Json]:
        number = codec.whole(payload, "transactionId", remarks)
        stopper = codec.optional(payload, "idTag")
        answer: dict[str, Json] = {"idTagInfo": self._authorise(stopper)} if stopper else {}
        mark = digest("StopTransaction", payload)
        async with self._one_at_a_time:
            begun = self._ledger.by_id(number)
            if self._ledger.is_repeated(mark) or (begun and not begun.is_open):
                return answer
            transaction = "unknown" if number is None else str(number)
            meter = codec.number(payload, "meterStop", remarks)
            more: dict[str, Json] = {
                "transaction": transaction,
                "connector": begun.connector if begun else None,
                "tag": begun.tag if begun else self._cards.pseudonym(stopper or ""),
                "meter_start": begun.meter_start if begun else None,
                "meter_stop": meter,
                "energy": _energy(begun, meter),
                "reason": codec.optional(payload, "reason", 50) or "Local",
            }
            time = codec.moment(payload.get("timestamp"), remarks)
            event = self._event("transaction_end", f"{self.device.id} has ended charging.", more, time)
            readings: list[Reading] = []
            if payload.get("transactionData"):
                connector = begun.connector if begun else (1 if self.settings.connectors == 1 else 0)
                readings = self._readings(connector, payload["transactionData"], transaction, remarks)
            state = self._ledger.end(begun, mark) if begun else self._ledger.note(mark)
            await self._emit([*readings, event], lane=Lane.BILLING, state=state | self._cards.unsaved())
        return answer

    async def _acknowledge(self, kind: str, payload: Mapping[str, Any]) -> Mapping[str, Json]:
        status = codec.optional(payload, "status", 50) or codec.optional(payload, "type", 50) or "something"
        await self.tell(kind, f"{self.device.id} reports {status}.", {"status": status})
        return {}

    def _readings(
        self, connector: int, meter_values: object, transaction: str | None, remarks: Remarks
    ) -> list[Reading]:
        at = self._link.clock.boot()
        readings = []
        for sample in codec.samples(meter_values, remarks):
            point = self._routes.get((connector, sample.measurand, sample.phase, sample.location))
            if point is None:
                phase = f" of {sample.phase}" if sample.phase else ""
                where = f"at connector {connector} ({sample.location})"
                remarks.append(f"{sample.measurand}{phase} {where}, for which there is no point; it is left out")
                continue
            if sample.quality is Quality.GOOD:
                self._good.add(point)
            readings.append(
                Reading(
                    point, sample.value, at, sample.quality, sample.reason, sample.time, sample.context, transaction
                )
            )
        return readings


def _energy(begun: Transaction | None, meter_stop: float | None) -> float | None:
    """Wh; None where either end is not known, or the register ran backwards."""
    if begun is None or begun.meter_start is None or meter_stop is None or meter_stop < begun.meter_start:
        return None
    return round(meter_stop - begun.meter_start, 3)
