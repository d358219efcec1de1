"""A charging limit: SetChargingProfile, proved by GetCompositeSchedule.

Both profiles are TxDefaultProfile on connector 0, which every connector takes for itself: a ChargePointMaxProfile
is accepted and ignored by some chargers, a TxProfile ends with its transaction and needs one.

- BASE, stack level 0, without an end: the charger's safe share. Set before the first lease.
- LIVE, stack level 1: what was ordered; under a lease it ends by itself (§3.13.2), so that with the gateway dead
  the charger decays to BASE. Without a lease it holds until the next order.
"""

import math
from collections.abc import Mapping
from typing import Any

from drivers.ocpp import codec
from drivers.ocpp.charger import Charger
from drivers.ocpp.connection import Connection, GoneError, RefusedError
from drivers.ocpp.settings import MIN_AMPS
from gateway.errors import CommandError
from gateway.model import Command, CommandState, Json, Reply
from gateway.ports import Clock

BASE, LIVE = 1, 2
"""Profile ids; the stack level is one below."""
VOLTS = 230
EARLY_S = 60
"""The schedule starts that much in the past: a charger's clock that is behind must not hold the limit back."""
_TOLERANCE = 0.1
_UNIT_KEY = "ChargingScheduleAllowedChargingRateUnit"


async def install_base(charger: Charger, connection: Connection, clock: Clock) -> str:
    """Install the safe share: what holds in the charger while nobody tells it otherwise. '' or why it does not take
    it. GoneError: the connection ended.
    """
    async with charger.limiting:
        if charger.has_base:
            return ""
        if not charger.rate_units:
            charger.rate_units = await _rate_units(charger, connection)
        refusal = ""
        for unit in charger.rate_units:
            limit = _in(unit, _obeyed(charger, charger.settings.safe_current), charger.settings.phases)
            refusal = await _install(charger, connection, BASE, limit, unit, clock.wall())
            if not refusal:
                charger.has_base = True
                break
        return refusal


async def clear(charger: Charger, command: Command, clock: Clock) -> Reply:
    """Take the live limit away, so that the safe share holds."""
    connection = _connection(charger)
    async with charger.limiting:
        try:
            answer = await connection.call("ClearChargingProfile", {"id": LIVE})
            shown = [await _shown(charger, connection, one) for one in range(1, charger.settings.connectors + 1)]
        except GoneError as error:
            raise CommandError("no_answer", f"{charger.device.id}: {error}.") from None
        except RefusedError as error:
            raise CommandError("refused", f"{charger.device.id} answers {error}.") from None
    known = [limit for limit in shown if limit is not None]
    # `Unknown`: there was none to clear, which is what was wanted.
    if answer.get("status") not in ("Accepted", "Unknown"):
        raise CommandError("refused", f"{charger.device.id} answers {str(answer.get('status'))[:40]}.")
    now: dict[str, Json] = {"amps": round(max(known), 1)} if known and len(known) == len(shown) else {}
    for connector, amps in enumerate(shown, 1):
        await charger.report("charging_limit", connector, amps, "command")
    proof = "GetCompositeSchedule" if now else "ClearChargingProfile"
    return Reply(command.id, CommandState.SUCCEEDED, clock.boot(), now=now, proof=proof)


def _connection(charger: Charger) -> Connection:
    if charger.connection is None:
        say = f"{charger.device.id} is not connected. The limit in force is the last one that it confirmed."
        raise CommandError("not_connected", say)
    return charger.connection


def _obeyed(charger: Charger, amps: float) -> float:
    """The largest limit that this kind of charger obeys and that is no more than `amps`."""
    if charger.profile.steps:
        return max((step for step in charger.profile.steps if step <= amps), default=0.0)
    return math.floor(amps) if charger.profile.whole_amps else amps


async def execute(charger: Charger, command: Command, clock: Clock) -> Reply:
    """Set the limit and have it shown. CommandError: the charger is away, refuses, or shows another limit."""
    amps = _asked(charger, command)
    connection = _connection(charger)
    async with charger.limiting:
        try:
            await _set(charger, connection, amps, command.lease_s, clock)
            shown = [await _shown(charger, connection, one) for one in range(1, charger.settings.connectors + 1)]
        except GoneError as error:
            raise CommandError("no_answer", f"{charger.device.id}: {error}.") from None
        known = [limit for limit in shown if limit is not None]
        if len(known) == len(shown) and max(known) > amps + _TOLERANCE:
            say = f"{charger.device.id} accepted {amps:g} A, but its schedule shows {max(known):g} A."
            raise CommandError("not_applied", say)
        is_proved = len(known) == len(shown)
        now = round(max(known), 1) if is_proved else amps
        for connector in range(1, charger.settings.connectors + 1):
            await charger.report("charging_limit", connector, now, "command")
    return Reply(
        command=command.id,
        state=CommandState.SUCCEEDED,
        at=clock.boot(),
        now={"amps": now},
        proof="GetCompositeSchedule" if is_proved else "SetChargingProfile",
        until=None if command.lease_s is None else clock.wall() + command.lease_s * 1000,
    )


def _asked(charger: Charger, command: Command) -> float:
    """Amperes in whole tenths, rounded down: the schema takes no finer ones."""
    amps, most = command.args.get("amps"), charger.settings.max_current
    if isinstance(amps, bool) or not isinstance(amps, int | float) or not (amps == 0 or MIN_AMPS <= amps <= most):
        say = f"{charger.device.id} takes 0 A or {MIN_AMPS:g} to {most:g} A; {amps} was asked."
        raise CommandError("out_of_bounds", say)
    return _obeyed(charger, math.floor(round(amps * 10, 6)) / 10)


async def _set(charger: Charger, connection: Connection, amps: float, lease_s: int | None, clock: Clock) -> None:
    """In amperes where the charger takes them, else in watts."""
    if not charger.rate_units:
        charger.rate_units = await _rate_units(charger, connection)
    refusal, now = "", clock.wall()
    for unit in list(charger.rate_units):
        settings = charger.settings
        if lease_s is not None and not charger.has_base:
            safe = _in(unit, _obeyed(charger, settings.safe_current), settings.phases)
            refusal = await _install(charger, connection, BASE, safe, unit, now)
            if refusal:
                continue
            charger.has_base = True
        refusal = await _install(charger, connection, LIVE, _in(unit, amps, settings.phases), unit, now, lease_s)
        if not refusal:
            charger.rate_units = [unit]
            return
    raise CommandError("refused", f"{charger.device.id} takes no limit of {amps:g} A: {refusal}.")


async def _install(
    charger: Charger,
    connection: Connection,
    profile: int,
    limit: float,
    unit: str,
    now: int,
    duration: int | None = None,
) -> str:
    """'' or why the charger does not take it. `now`: UTC milliseconds; `duration`: seconds."""
    period: dict[str, Any] = {"startPeriod": 0, "limit": limit}
    if unit == "W" or charger.settings.phases == "1":
        # The current of a phase is the watts by the voltage and this number, whichever phases the car uses (§7.12 with
        # its erratum). Left out, 3 is meant; said, no charger has to guess.
        period["numberPhases"] = int(charger.settings.phases)
    schedule: dict[str, Any] = {
        "startSchedule": codec.iso(now - EARLY_S * 1000),
        "chargingRateUnit": unit,
        "chargingSchedulePeriod": [period],
    }
    if duration is not None:
        schedule["duration"] = duration + EARLY_S
    payload = {
        "connectorId": 0,
        "csChargingProfiles": {
            "chargingProfileId": profile,
            "stackLevel": profile - 1,
            "chargingProfilePurpose": "TxDefaultProfile",
            # A relative schedule would begin with the transaction: its end would be past for an old one.
            "chargingProfileKind": "Absolute",
            "chargingSchedule": schedule,
        },
    }
    try:
        answer = await connection.call("SetChargingProfile", payload)
    except RefusedError as error:
        return f"it answers {error}"
    status = answer.get("status")
    return "" if status == "Accepted" else f"it answers {str(status)[:40]}"


async def _rate_units(charger: Charger, connection: Connection) -> list[str]:
    """What its profile says, else what it says (`Current`, `Power` or both); amperes first where neither does."""
    if charger.profile.rate_unit:
        return [charger.profile.rate_unit]
    payload = {"key": [_UNIT_KEY]}
    try:
        answer = await connection.call("GetConfiguration", payload)
    except RefusedError:
        return ["A", "W"]
    listed = answer.get("configurationKey")
    entries = [entry for entry in listed if isinstance(entry, dict)] if isinstance(listed, list) else []
    value = next((str(entry.get("value")) for entry in entries if entry.get("key") == _UNIT_KEY), "")
    words = {word.strip().casefold() for word in value.split(",")}
    units = [unit for unit, names in (("A", {"current", "a"}), ("W", {"power", "w"})) if names & words]
    return units or ["A", "W"]


async def _shown(charger: Charger, connection: Connection, connector: int) -> float | None:
    """The amperes in the charger's own schedule for the present moment; None where it shows none."""
    payload = {"connectorId": connector, "duration": 60}
    try:
        answer = await connection.call("GetCompositeSchedule", payload)
    except RefusedError:
        return None
    schedule = answer.get("chargingSchedule")
    if answer.get("status") != "Accepted" or not isinstance(schedule, Mapping):
        return None
    periods = schedule.get("chargingSchedulePeriod")
    first = periods[0] if isinstance(periods, list) and periods else None
    if not isinstance(first, Mapping):
        return None
    limit = codec.number(first, "limit", codec.Remarks())
    if limit is None or schedule.get("chargingRateUnit") != "W":
        return limit
    # A charger that divides watts by the phases in use says so here. Left out, those of its supply are meant.
    divides_by = first.get("numberPhases")
    return limit / (VOLTS * (divides_by if divides_by in (1, 2, 3) else int(charger.settings.phases)))


def _in(unit: str, amps: float, phases: str) -> float:
    return amps if unit == "A" else float(math.floor(amps * VOLTS * int(phases)))
