"""An emulated charger apart from its connection: its configuration and profiles, and the physics of a charge."""

import random
from collections.abc import Mapping
from typing import Any

from drivers.ocpp.schedules import VOLTS, Profiles

_TRIGGERS = ("BootNotification", "Heartbeat", "MeterValues", "StatusNotification")


class Controls:
    """What a gateway can tell a charger. `configuration` and `refusing` (actions answered Rejected) are for a test
    to change.
    """

    def __init__(self, connectors: int, phases: int) -> None:
        self.profiles = Profiles(phases)
        self._watts_per_ampere = VOLTS * phases
        self.refusing: set[str] = set()
        self.unsupported: set[str] = set()
        self.configuration = {
            "NumberOfConnectors": str(connectors),
            "HeartbeatInterval": "300",
            "ChargingScheduleAllowedChargingRateUnit": "Current,Power",
            "ChargeProfileMaxStackLevel": "8",
        }

    def answer(self, action: str, payload: Mapping[str, Any], now: int) -> Mapping[str, Any] | None:
        """The answer to a call; None: not supported. `now`: UTC milliseconds."""
        if action in self.unsupported:
            return None
        if action in self.refusing:
            return {"status": "Rejected"}
        match action:
            case "SetChargingProfile":
                profile = payload["csChargingProfiles"]
                if profile["chargingSchedule"]["chargingRateUnit"] not in self._units():
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
            case _:
                return None

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


class Charge:
    """One car at one connector."""

    def __init__(self, dice: random.Random, most: float, phases: int, began: int) -> None:
        self._dice, self._phases = dice, phases
        self._takes = min(most, dice.choice([10.0, 13.0, 16.0, 32.0]))
        self._offered = most
        self._battery = dice.choice([28_000.0, 52_000.0, 77_000.0])
        self._soc = dice.uniform(10, 70)
        self.began = began
        self.transaction = -1
        """As the specification has it until the gateway has answered the start."""
        self.is_accepted = True
        self.amps, self.gained = 0.0, 0.0

    def advance(self, seconds: float, limit: float | None) -> None:
        """Charge for `seconds` within `limit` amperes. Below 6 A nothing flows (IEC 61851-1)."""
        self._offered = self._takes if limit is None else limit
        possible = min(self._takes, self._offered)
        self.amps = round(possible * self._dice.uniform(0.96, 1.0), 2) if possible >= 6 else 0.0
        self.gained = self.amps * VOLTS * self._phases * seconds / 3600
        self._soc = min(100.0, self._soc + 100 * self.gained / self._battery)

    def samples(self, register: float) -> list[dict[str, str]]:
        """SampledValues; `register` in Wh."""
        rows = [
            ("Energy.Active.Import.Register", "", f"{register:.1f}", "Wh"),
            ("Power.Active.Import", "", f"{self.amps * VOLTS * self._phases / 1000:.3f}", "kW"),
            ("Current.Offered", "", f"{self._offered:.1f}", "A"),
            ("SoC", "", f"{self._soc:.0f}", "Percent"),
        ]
        for phase in ("L1", "L2", "L3")[: self._phases]:
            rows.append(("Current.Import", phase, f"{self.amps:.2f}", "A"))
            rows.append(("Voltage", f"{phase}-N", f"{self._dice.uniform(228, 233):.1f}", "V"))
        return [
            {"measurand": measurand, "value": value, "unit": unit, "context": "Sample.Periodic",
             "location": "EV" if measurand == "SoC" else "Outlet", **({"phase": phase} if phase else {})}
            for measurand, phase, value, unit in rows
        ]  # fmt: skip
