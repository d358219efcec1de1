"""The connectors of an emulated charger: who charges there, what is kept for whom, what is out of use.

Commands from afar do what they do at a charger at the kerb: a start begins a charge where one can begin, an unlock ends
the one that runs, what is to go out of use does so after its charge (OCPP 1.6 §5.1–5.18).
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from drivers.ocpp import codec
from drivers.ocpp.charge import Charge

Answer = Mapping[str, Any]
_RESTING = ("Available", "Reserved", "Unavailable")
ACCEPTED, REJECTED = {"status": "Accepted"}, {"status": "Rejected"}


@dataclass(slots=True)
class Reservation:
    number: int
    tag: str
    until: int
    """UTC milliseconds."""


@dataclass(slots=True)
class Bay:
    """One connector. `sent`: tags that are to charge here by a command."""

    connector: int
    register: float
    """Of its own meter, Wh."""
    status: str = "Available"
    charge: Charge | None = None
    is_operative: bool = True
    kept: Reservation | None = None
    sent: asyncio.Queue[str] = field(default_factory=asyncio.Queue)

    def resting(self, now: int) -> str:
        """Its status when no car is there."""
        if not self.is_operative:
            return "Unavailable"
        return "Reserved" if self.is_kept(now) else "Available"

    def takes(self, tag: str, now: int) -> bool:
        return self.is_operative and not (self.is_kept(now) and self.kept and self.kept.tag != tag)

    def is_kept(self, now: int) -> bool:
        return self.kept is not None and now < self.kept.until

    def used(self) -> int | None:
        """The reservation that a charge uses up."""
        kept, self.kept = self.kept, None
        return kept.number if kept else None


class Bays:
    """All connectors of one charger. `changed` holds those whose resting status a command has changed."""

    def __init__(self, registers: Sequence[float]) -> None:
        """One connector for each energy register."""
        self.all = [Bay(number, register) for number, register in enumerate(registers, 1)]
        self.is_operative = True
        self.changed: set[int] = set()

    def answer(self, action: str, payload: Mapping[str, Any], now: int) -> Answer | None:
        """The answer to a command, carried out; None: it is none for a connector. `now`: UTC milliseconds."""
        match action:
            case "RemoteStartTransaction":
                return self._start(payload, now)
            case "RemoteStopTransaction":
                charging = [
                    bay for bay in self.all if bay.charge and bay.charge.transaction == payload["transactionId"]
                ]
                return ACCEPTED if self.stop(charging, "Remote") else REJECTED
            case "UnlockConnector":
                if not (found := self._at(payload)):
                    return {"status": "NotSupported"}
                self.stop(found, "UnlockCommand")
                return {"status": "Unlocked"}
            case "ChangeAvailability":
                return self._turn(payload)
            case "ReserveNow":
                return self._keep(payload, now)
            case "CancelReservation":
                found = [bay for bay in self.all if bay.kept and bay.kept.number == payload["reservationId"]]
                for bay in found:
                    bay.kept = None
                    self.changed.add(bay.connector)
                return ACCEPTED if found else REJECTED
            case _:
                return None

    def status(self, connector: int, now: int) -> str:
        """As a StatusNotification tells it; connector 0 is the charger."""
        if not connector:
            return "Available" if self.is_operative else "Unavailable"
        bay = self.all[connector - 1]
        # Who is not in use shows at once what a command has made of it.
        return bay.resting(now) if bay.status in _RESTING else bay.status

    def stop(self, bays: Sequence[Bay], reason: str) -> bool:
        """End the charges there; whether there were any."""
        charges = [bay.charge for bay in bays if bay.charge]
        for charge in charges:
            charge.stop(reason)
        return bool(charges)

    def _at(self, payload: Mapping[str, Any]) -> list[Bay]:
        number = payload.get("connectorId", 0)
        return [bay for bay in self.all if number in (0, bay.connector)]

    def _start(self, payload: Mapping[str, Any], now: int) -> Answer:
        tag = payload["idTag"]
        resting = [bay for bay in self._at(payload) if bay.status in _RESTING and bay.sent.empty()]
        free = [bay for bay in resting if bay.takes(tag, now)]
        if not free:
            return REJECTED
        free[0].sent.put_nowait(tag)
        return ACCEPTED

    def _turn(self, payload: Mapping[str, Any]) -> Answer:
        is_operative, found = payload["type"] == "Operative", self._at(payload)
        if not found:
            return REJECTED
        if not payload["connectorId"]:
            self.is_operative = is_operative
            self.changed.add(0)
        for bay in found:
            bay.is_operative = is_operative
            self.changed.add(bay.connector)
        return {"status": "Scheduled"} if not is_operative and any(bay.charge for bay in found) else ACCEPTED

    def _keep(self, payload: Mapping[str, Any], now: int) -> Answer:
        until = codec.moment(payload["expiryDate"], codec.Remarks())
        if not payload["connectorId"] or until is None or until <= now:
            return REJECTED  # §5.13: connector 0 only where ReserveConnectorZeroSupported says so
        for bay in self._at(payload):
            if not bay.is_operative:
                return {"status": "Unavailable"}
            is_again = bay.kept is not None and bay.kept.number == payload["reservationId"]
            if bay.charge or bay.status == "Preparing" or (bay.is_kept(now) and not is_again):
                return {"status": "Occupied"}
            bay.kept = Reservation(payload["reservationId"], payload["idTag"], until)
            self.changed.add(bay.connector)
            return ACCEPTED
        return REJECTED
