"""Charging profiles as a charger keeps them: which limit holds now (OCPP 1.6 §3.13). Pure; for the emulator."""

from collections.abc import Mapping
from typing import Any

from drivers.ocpp import codec

VOLTS = 230


class Profiles:
    """The profiles installed in one charger, by connector; connector 0 is all of them."""

    def __init__(self) -> None:
        self._kept: list[tuple[int, Mapping[str, Any]]] = []

    def install(self, connector: int, profile: Mapping[str, Any]) -> None:
        """One with the same id, or the same purpose and level at the same connector, is replaced (§5.16)."""
        place = (connector, profile["chargingProfilePurpose"], profile["stackLevel"])
        self._kept = [
            (at, kept)
            for at, kept in self._kept
            if kept["chargingProfileId"] != profile["chargingProfileId"]
            and (at, kept["chargingProfilePurpose"], kept["stackLevel"]) != place
        ]
        self._kept.append((connector, profile))

    def clear(self, wanted: Mapping[str, Any]) -> bool:
        """Whether any was there to clear. An id alone decides; without one, what is named must all fit (§5.4)."""
        before = len(self._kept)
        self._kept = [one for one in self._kept if not _fits(one, wanted)]
        return len(self._kept) < before

    def amps(self, connector: int, now: int, began: int | None) -> float | None:
        """Amperes per phase at `now`, for a transaction that began at `began` (UTC ms); None: no limit."""
        limits = [
            limit
            for purposes in (("TxProfile", "TxDefaultProfile"), ("ChargePointMaxProfile",))
            if (limit := self._highest(connector, purposes, now, began)) is not None
        ]
        return min(limits) if limits else None

    def _highest(self, connector: int, purposes: tuple[str, ...], now: int, began: int | None) -> float | None:
        for purpose in purposes:
            active = [
                (profile["stackLevel"], at != 0, limit)
                for at, profile in self._kept
                if at in (0, connector) and profile["chargingProfilePurpose"] == purpose
                if (limit := self._limit(profile, now, began)) is not None
            ]
            if active:
                return max(active)[2]
        return None

    def _limit(self, profile: Mapping[str, Any], now: int, began: int | None) -> float | None:
        schedule = profile["chargingSchedule"]
        start = codec.moment(schedule.get("startSchedule"), codec.Remarks())
        if start is None or profile["chargingProfileKind"] == "Relative":
            start = began if began is not None else now
        elapsed = (now - start) / 1000
        duration = schedule.get("duration")
        if elapsed < 0 or (duration is not None and elapsed >= duration):
            return None
        running = [period for period in schedule["chargingSchedulePeriod"] if period["startPeriod"] <= elapsed]
        if not running:
            return None
        period = max(running, key=lambda one: float(one["startPeriod"]))
        limit = float(period["limit"])
        # §7.12 with its erratum: not the phases that the car uses.
        return limit if schedule["chargingRateUnit"] == "A" else limit / (VOLTS * period.get("numberPhases", 3))


def _fits(one: tuple[int, Mapping[str, Any]], wanted: Mapping[str, Any]) -> bool:
    connector, profile = one
    if "id" in wanted:
        return bool(profile["chargingProfileId"] == wanted["id"])
    has = {
        "connectorId": connector,
        "chargingProfilePurpose": profile["chargingProfilePurpose"],
        "stackLevel": profile["stackLevel"],
    }
    return all(wanted[key] == has[key] for key in has if key in wanted)
