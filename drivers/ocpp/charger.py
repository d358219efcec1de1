"""One charger, by its identity: what it says becomes records, and the answer it gets. Sockets come and go.

What belongs to a transaction is answered only when the billing lane has it on disk (`emit` returned), together with
the state that makes a repeated message known again. StorageError: no answer, the charger keeps it and tries again.
"""

import asyncio
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import structlog

from drivers.ocpp import codec, rpc
from drivers.ocpp.billing import Billing
from drivers.ocpp.charging import Charging, signed_events
from drivers.ocpp.codec import Remarks
from drivers.ocpp.connection import Connection
from drivers.ocpp.faults import FAULTS
from drivers.ocpp.meter import Meter
from drivers.ocpp.settings import DeviceSettings, Profile
from drivers.ocpp.tags import Cards
from drivers.ocpp.transactions import Ids, Transaction
from gateway.errors import ConfigError, StorageError
from gateway.model import ClockState, Device, Event, Json, Lane, Record
from gateway.ports import Emit, Link

HEARTBEAT = 300
"""Seconds, as told at boot: keeps the charger's clock right, for its frames are life enough."""
CLOCK_WITHIN = 60
"""Seconds that a charger waits for our clock to be set; then it charges, and its sessions are marked."""
_ASK_AGAIN = 10
MOST_REMARKS = 100
ACKNOWLEDGED = {
    "DiagnosticsStatusNotification": "diagnostics_status",
    "FirmwareStatusNotification": "firmware_status",
    "LogStatusNotification": "log_status",
    "SecurityEventNotification": "security_event",
    "SignedFirmwareStatusNotification": "firmware_status",
}
# What a charger that is not admitted may still tell: that it is there, and what is owed for.
_WHEN_REJECTED = ("BootNotification", "StartTransaction", "MeterValues", "StopTransaction")
_ADMITTED = {"accepted": "Accepted", "pending": "Pending", "rejected": "Rejected"}
_log = structlog.get_logger(__name__)


class Charger:
    """What the gateway knows of a charger, and how it answers it."""

    def __init__(
        self,
        device: Device,
        link: Link,
        emit: Emit,
        *,
        ids: Ids,
        cards: Cards,
        billing: Billing,
        elsewhere: Callable[[], Iterable[Transaction]] = tuple,
    ) -> None:
        assert isinstance(device.settings, DeviceSettings)
        assert isinstance(device.profile, Profile)
        self.device, self.settings, self.profile = device, device.settings, device.profile
        self.connection: Connection | None = None
        self.rate_units: list[str] = []
        """The units of limits that it takes, once it was asked; kept while it is connected."""
        self.has_base = False
        """Whether its safe share is installed in it, as far as this connection knows."""
        self.limiting = asyncio.Lock()
        self.booted = asyncio.Event()
        """It has booted since the gateway started; a charger that comes back does not boot again."""
        self.is_fresh = False
        """It has booted since its safe share was last installed."""
        self.is_told_to_wait = False
        """It has booted and will again in a few seconds: we do not know the time yet."""
        self._asked_at: int | None = None
        """Boot clock at which it was first told to wait for the time."""
        self.heard: set[int] = set()
        """Connectors that have told their status on this connection."""
        self._link, self._emit, self._cards, self._billing = link, emit, cards, billing
        self._meter = Meter(device, link.clock)
        self._charging = Charging(
            device, link.state, link.clock, meter=self._meter, ids=ids, cards=cards, billing=billing,
            allow=self._allow, ended=self._end, elsewhere=elsewhere,
        )  # fmt: skip
        self._said: set[str] = set()
        self._faults: dict[int, str] = {}
        self._unstored: set[str] = set()
        """Lanes and actions of which the last record could not be made durable."""

    def open_transactions(self) -> list[Transaction]:
        return self._charging.open()

    async def answer(self, call: rpc.Call) -> str | None:
        """The frame that answers `call`; None where what it tells could not be made durable."""
        if self.settings.admit == "rejected" and call.action not in _WHEN_REJECTED:
            return rpc.error(call.id, rpc.ErrorCode.SECURITY, "This charger is not admitted.")
        remarks = Remarks()
        try:
            answer = await self._answer(call.action, call.payload, remarks)
        except StorageError as error:
            self._not_stored(call.action, error)
            return None
        self._unstored.discard(call.action)
        if answer is None:
            remarks.append("what this gateway does not take")
        if remarks:
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
                return {"idTagInfo": await self._authorise(codec.tag(payload, remarks))}
            case "StartTransaction":
                return await self._charging.start(payload, remarks)
            case "MeterValues":
                return await self._measure(payload, remarks)
            case "StopTransaction":
                return await self._charging.stop(payload, remarks)
            case "DataTransfer":
                return {"status": "UnknownVendorId"}
            case _ if kind := ACKNOWLEDGED.get(action):
                return await self._acknowledge(kind, payload)
            case _:
                return None

    async def connected(self, connection: Connection) -> None:
        """The newest authenticated socket wins: whoever holds the key and calls now is the charger."""
        before, self.connection = self.connection, connection
        self.rate_units, self.has_base, self.heard = [], False, set()
        if before:
            await before.close("was replaced by a newer connection")
        else:
            await self.tell("device_up", f"{self.device.id} is connected.")

    async def gone(self, connection: Connection) -> None:
        """Its socket has ended: unless a newer one has taken over, its values are no longer known."""
        if self.connection is not connection:
            return
        self.connection = None
        why = f"{self.device.id} {connection.why}. Check its power and its network; it calls again by itself."
        await self.tell("device_down", why)
        await self._keep(self._meter.lost(), Lane.TELEMETRY)

    def forget(self) -> Connection | None:
        """The listener stops: its socket is to be closed, and that says nothing of the charger."""
        connection, self.connection = self.connection, None
        return connection

    async def tell(self, kind: str, say: str, more: Mapping[str, Json] | None = None, time: int | None = None) -> None:
        """An event of this charger. Where it cannot be kept, life goes on."""
        await self._keep([self._event(kind, say, more, time)], Lane.EVENT)

    async def report(
        self, quantity: str, connector: int, value: float | str | None, context: str | None = None
    ) -> None:
        """What is known of a connector without a measurand: the limit that was confirmed; None: none is known."""
        if reading := self._meter.state(quantity, connector, value, context=context):
            await self._keep([reading], Lane.TELEMETRY)

    def recall(self, key: str) -> Json:
        """What was last kept under `key`."""
        return self._link.state.get(key)

    async def remember(self, state: Mapping[str, Json]) -> None:
        """Keep what is known of it; where that cannot be, it is found out again."""
        try:
            await self._emit([], lane=Lane.EVENT, state=state)
            self._unstored.discard("state")
        except StorageError as error:
            self._not_stored("state", error)

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
                self._unstored.discard(lane)
        except StorageError as error:
            self._not_stored(lane, error)

    def _not_stored(self, what: str, error: StorageError) -> None:
        """Once, until such is stored again: a charger tells the same over and over."""
        if what not in self._unstored:
            _log.warning("not_stored", device=self.device.id, what=what, why=str(error))
        self._unstored.add(what)

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
        now = codec.iso(self._link.clock.wall())
        if left := self._time_left():
            self.is_told_to_wait = True
            return {"status": "Pending", "currentTime": now, "interval": min(_ASK_AGAIN, left)}
        await self.tell("charger_booted", say, more)
        await self.remember({self.device.id: {"serial": more["serial"], "firmware": more["firmware"]}})
        self.has_base, self.is_fresh, self.is_told_to_wait = False, True, False
        self.booted.set()
        return {"status": _ADMITTED[self.settings.admit], "currentTime": now, "interval": HEARTBEAT}

    def _time_left(self) -> int:
        """Seconds for which it is not yet admitted, because the time that we would give it is not known."""
        clock = self._link.clock
        if self.settings.admit != "accepted" or clock.state() is not ClockState.UNSYNCED:
            return 0
        if self._asked_at is None:
            self._asked_at = clock.boot()
        return max(0, CLOCK_WITHIN - math.ceil((clock.boot() - self._asked_at) / 1000))

    async def _status(self, payload: Mapping[str, Any], remarks: Remarks) -> Mapping[str, Json]:
        connector = codec.whole(payload, "connectorId", remarks) or 0
        status = codec.text(payload, "status", remarks)
        fault = codec.optional(payload, "errorCode", 50) or "NoError"
        stamp = payload.get("timestamp")
        time = None if stamp is None else codec.moment(stamp, remarks)
        self.heard.add(connector)
        quantity = "connector_status" if connector else "device_status"
        known = status if status in codec.STATUSES else None
        reading = self._meter.state(quantity, connector, known, time)
        if reading is None:
            remarks.append(f"connector {connector}, which the site file does not have: correct `connectors`")
        else:
            if known is None:
                remarks.append(f"the unknown status `{status[:40]}`")
            await self._keep([reading], Lane.TELEMETRY)
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

    async def _authorise(self, tag: str) -> dict[str, Json]:
        """For a session that is about to begin: none may that could not be kept, or at a charger not admitted."""
        if self.settings.admit != "accepted" or not await self._billing.takes_more():
            return {"status": "Blocked"}
        return await self._allow(tag, is_live=True)

    async def _allow(self, tag: str, *, is_live: bool) -> dict[str, Json]:
        try:
            return await self._cards.authorise(tag, self._ask if is_live else None)
        except ConfigError as error:
            _log.warning("no local list", device=self.device.id, why=str(error))
            return {"status": "Invalid"}

    async def _ask(self, asked: Mapping[str, Json]) -> None:
        await self.tell("authorise", f"{self.device.id} asks whether a tag may charge.", asked)

    async def _measure(self, payload: Mapping[str, Any], remarks: Remarks) -> Mapping[str, Json]:
        if payload.get("transactionId") is not None:
            return await self._charging.measure(payload, remarks)
        connector = codec.whole(payload, "connectorId", remarks) or 0
        measured = self._meter.read(connector, payload.get("meterValue"), None, remarks)
        await self._keep(measured.readings, Lane.TELEMETRY)
        signed = signed_events(self.device.id, connector, None, measured, self._link.clock.boot())
        await self._keep([*signed], Lane.EVENT)
        return {}

    async def _end(self, connector: int, time: int | None) -> None:
        await self._keep(self._meter.idle(connector, time), Lane.TELEMETRY)

    async def _acknowledge(self, kind: str, payload: Mapping[str, Any]) -> Mapping[str, Json]:
        status = codec.optional(payload, "status", 50) or codec.optional(payload, "type", 50) or "something"
        await self.tell(kind, f"{self.device.id} reports {status}.", {"status": status})
        return {}
