"""What a gateway can set in an emulated charger: its configuration, its local list and its charging profiles."""

from collections.abc import Collection, Mapping
from typing import Any

from drivers.ocpp.scenario import Quirk
from drivers.ocpp.schedules import VOLTS, Profiles

STEPS = (0, 6, 8, 10, 13, 16)
"""Amperes that a charger with `steps_only` takes."""
_TRIGGERS = ("BootNotification", "Heartbeat", "MeterValues", "StatusNotification")


class Controls:
    """What a gateway can tell a charger. `configuration` and `refusing` (actions answered Rejected) are for a test
    to change.
    """

    def __init__(self, connectors: int, phases: int, quirks: Collection[Quirk] = ()) -> None:
        self._quirks = quirks
        self.profiles = Profiles()
        self._watts_per_ampere = VOLTS * phases
        self.refusing: set[str] = set()
        self.unsupported: set[str] = set()
        self.configuration = {
            "NumberOfConnectors": str(connectors),
            "HeartbeatInterval": "300",
            "ChargingScheduleAllowedChargingRateUnit": "Power" if Quirk.WATTS_ONLY in quirks else "Current,Power",
            "ChargeProfileMaxStackLevel": "8",
            "AuthorizeRemoteTxRequests": "true",
            "SendLocalListMaxLength": "20",
        }
        self.listed: dict[str, Mapping[str, Any]] = {}
        """The local list: what it knows of each tag."""
        self.list_version = 0

    def answer(self, action: str, payload: Mapping[str, Any], now: int) -> Mapping[str, Any] | None:
        """The answer to a call; None: not supported. `now`: UTC milliseconds."""
        if action in self.unsupported:
            return None
        if action in self.refusing:
            return {"status": "Rejected"}
        match action:
            case "SetChargingProfile":
                profile = payload["csChargingProfiles"]
                if not self._can_obey(profile["chargingSchedule"]):
                    return {"status": "Rejected"}
                self.profiles.install(payload["connectorId"], profile)
                return {"status": "Accepted"}
            case "ClearChargingProfile":
                return {"status": "Accepted" if self.profiles.clear(payload) else "Unknown"}
            case "GetCompositeSchedule":
                return self._composite(payload, now)
            case "GetConfiguration":
                wanted = payload.get("key") or list(self.configuration)
                known = [key for key in wanted if key in self.configuration]
                entries = [{"key": key, "readonly": False, "value": self.configuration[key]} for key in known]
                return {"configurationKey": entries, "unknownKey": [key for key in wanted if key not in known]}
            case "ChangeConfiguration":
                if payload["key"] not in self.configuration:
                    return {"status": "NotSupported"}
                self.configuration[payload["key"]] = payload["value"]
                return {"status": "Accepted"}
            case "TriggerMessage":
                return {"status": "Accepted" if payload["requestedMessage"] in _TRIGGERS else "NotImplemented"}
            case "GetLocalListVersion":
                return {"listVersion": self.list_version}
            case "SendLocalList":
                return self._take_list(payload)
            case "ClearCache" | "Reset":
                return {"status": "Accepted"}
            case "DataTransfer":
                if payload["vendorId"] != "Lampione":
                    return {"status": "UnknownVendorId"}
                return {"status": "Accepted", "data": payload.get("data", "")}
            case _:
                return None

    def _take_list(self, payload: Mapping[str, Any]) -> Mapping[str, Any]:
        """§5.15: a difference must be newer than what is here; an entry without anything to know is taken out."""
        version, entries = payload["listVersion"], payload.get("localAuthorizationList", [])
        if len(entries) > int(self.configuration["SendLocalListMaxLength"]):
            return {"status": "Failed"}
        if payload["updateType"] == "Full":
            self.listed = {}
        elif version <= self.list_version:
            return {"status": "VersionMismatch"}
        for entry in entries:
            self.listed.pop(entry["idTag"], None)
            if "idTagInfo" in entry:
                self.listed[entry["idTag"]] = entry["idTagInfo"]
        self.list_version = version
        return {"status": "Accepted"}

    def _can_obey(self, schedule: Mapping[str, Any]) -> bool:
        limits = [period["limit"] for period in schedule["chargingSchedulePeriod"]]
        if schedule["chargingRateUnit"] not in self._units():
            return False
        if Quirk.STEPS_ONLY in self._quirks and any(limit not in STEPS for limit in limits):
            return False
        return Quirk.WHOLE_AMPS not in self._quirks or all(limit == int(limit) for limit in limits)

    def _units(self) -> list[str]:
        allowed = self.configuration["ChargingScheduleAllowedChargingRateUnit"]
        return [unit for unit, word in (("A", "Current"), ("W", "Power")) if word in allowed]

    def _composite(self, payload: Mapping[str, Any], now: int) -> Mapping[str, Any]:
        amps = self.profiles.amps(payload["connectorId"], now, None)
        if amps is None:
            return {"status": "Accepted", "connectorId": payload["connectorId"]}
        unit = self._units()[0]
        limit = round(amps if unit == "A" else amps * self._watts_per_ampere, 1)
        schedule = {
            "duration": payload["duration"],
            "chargingRateUnit": unit,
            "chargingSchedulePeriod": [{"startPeriod": 0, "limit": limit}],
        }
        return {"status": "Accepted", "connectorId": payload["connectorId"], "chargingSchedule": schedule}
