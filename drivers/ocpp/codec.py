"""OCPP 1.6 payloads to values and back: tolerant of what chargers send, strict in what is sent to them.

Source: OCPP 1.6 edition 2, §6 (messages) and §7 (types). What a charger gets wrong is read as far as it can be
read with certainty, and said in `remarks`; it never costs the charger its answer (§4.7–4.10). A value that
cannot be read with certainty becomes no value with its reason.
"""

import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from gateway.model import Quality, Reason
from gateway.quantities import QUANTITIES, convert

# Every action of OCPP 1.6 and its security extension: another is not known, one of these not supported.
ACTIONS = frozenset((
    "Authorize", "BootNotification", "CancelReservation", "CertificateSigned", "ChangeAvailability",
    "ChangeConfiguration", "ClearCache", "ClearChargingProfile", "DataTransfer", "DeleteCertificate",
    "DiagnosticsStatusNotification", "ExtendedTriggerMessage", "FirmwareStatusNotification",
    "GetCompositeSchedule", "GetConfiguration", "GetDiagnostics", "GetInstalledCertificateIds",
    "GetLocalListVersion", "GetLog", "Heartbeat", "InstallCertificate", "LogStatusNotification", "MeterValues",
    "RemoteStartTransaction", "RemoteStopTransaction", "ReserveNow", "Reset", "SecurityEventNotification",
    "SendLocalList", "SetChargingProfile", "SignCertificate", "SignedFirmwareStatusNotification",
    "SignedUpdateFirmware", "StartTransaction", "StatusNotification", "StopTransaction", "TriggerMessage",
    "UnlockConnector", "UpdateFirmware",
))  # fmt: skip
# Measurand (§7.31) -> canonical quantity. `x_` where the vocabulary has none.
MEASURANDS = {
    "Current.Export": "current",
    "Current.Import": "current",
    "Current.Offered": "current_offered",
    "Energy.Active.Export.Register": "energy_active",
    "Energy.Active.Import.Register": "energy_active",
    "Energy.Reactive.Export.Register": "energy_reactive",
    "Energy.Reactive.Import.Register": "energy_reactive",
    "Energy.Active.Export.Interval": "x_energy_interval",
    "Energy.Active.Import.Interval": "x_energy_interval",
    "Energy.Reactive.Export.Interval": "x_reactive_interval",
    "Energy.Reactive.Import.Interval": "x_reactive_interval",
    "Frequency": "frequency",
    "Power.Active.Export": "power_active",
    "Power.Active.Import": "power_active",
    "Power.Factor": "power_factor",
    "Power.Offered": "power_offered",
    "Power.Reactive.Export": "power_reactive",
    "Power.Reactive.Import": "power_reactive",
    "RPM": "x_fan_speed",
    "SoC": "state_of_charge",
    "Temperature": "temperature",
    "Voltage": "voltage",
}
_OWN_UNITS = {"x_energy_interval": "Wh", "x_reactive_interval": "varh", "x_fan_speed": "1/min"}
DEFAULT_MEASURAND = "Energy.Active.Import.Register"
# Where a measurand is taken when the charger does not say (§7.29 says Outlet, which these cannot mean).
DEFAULT_LOCATION = {"RPM": "Body", "SoC": "EV", "Temperature": "Body"}
LOCATIONS = ("Body", "Cable", "EV", "Inlet", "Outlet")
# Phase (§7.35) -> canonical phase; against neutral is the phase itself.
PHASES = {
    "L1": "L1", "L2": "L2", "L3": "L3", "N": "N", "L1-N": "L1", "L2-N": "L2", "L3-N": "L3",
    "L1-L2": "L12", "L2-L3": "L23", "L3-L1": "L31",
}  # fmt: skip
CONTEXTS = {
    "Sample.Periodic": None,
    "Sample.Clock": "clock_aligned",
    "Transaction.Begin": "transaction_begin",
    "Transaction.End": "transaction_end",
    "Interruption.Begin": "interruption_begin",
    "Interruption.End": "interruption_end",
    "Trigger": "trigger",
    "Other": "other",
}
# Unit (§7.45), small letters -> as `quantities.convert` knows it. `Celcius` is the specification's own slip.
_UNITS = {
    "wh": "Wh", "kwh": "kWh", "varh": "varh", "kvarh": "kvarh", "w": "W", "kw": "kW", "va": "VA", "kva": "kVA",
    "var": "var", "kvar": "kvar", "a": "A", "v": "V", "celsius": "degC", "celcius": "degC", "fahrenheit": "degF",
    "k": "K", "percent": "%", "%": "%", "hz": "Hz", "hertz": "Hz",
}  # fmt: skip
_SPELLED = {"Wh", "kWh", "varh", "kvarh", "W", "kW", "VA", "kVA", "var", "kvar", "A", "V", "Celsius", "Celcius",
            "Fahrenheit", "K", "Percent"}  # fmt: skip
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d{1,3})?", re.ASCII)
_LARGEST = 1e15
"""No meter counts further; beyond it a float no longer holds every Wh."""
STATUSES = ("Available", "Preparing", "Charging", "SuspendedEVSE", "SuspendedEV", "Finishing", "Reserved",
            "Unavailable", "Faulted")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Sample:
    """One sampledValue in the canonical unit of its quantity. `value` None: no value, and `reason` says why."""

    measurand: str
    phase: str | None
    location: str
    value: float | None
    context: str | None
    time: int | None
    """The charger's time, UTC milliseconds."""
    quality: Quality = Quality.GOOD
    reason: str | None = None


class Remarks(list[str]):
    """What a payload has wrong, each a fragment that follows `cp-1/evse sent`."""


def text(payload: Mapping[str, Any], key: str, remarks: Remarks, limit: int = 255) -> str:
    """The text under `key`, or '' where there is none. A number is its digits."""
    value = payload.get(key)
    if isinstance(value, str):
        if len(value) > limit:
            remarks.append(f"`{key}` with more than {limit} characters")
        return value[:limit]
    if value is None:
        remarks.append(f"no `{key}`")
        return ""
    remarks.append(f"`{key}` that is not text")
    return str(value)[:limit] if isinstance(value, int | float) and not isinstance(value, bool) else ""


def optional(payload: Mapping[str, Any], key: str, limit: int = 255) -> str | None:
    """The text under `key`, or None."""
    value = payload.get(key)
    return value[:limit] if isinstance(value, str) and value else None


def tag(payload: Mapping[str, Any], remarks: Remarks) -> str:
    """The idTag, whole also where it is longer than the 20 characters it may have: cut, it would be another's."""
    found = text(payload, "idTag", remarks)
    if len(found) > 20:
        remarks.append("`idTag` with more than 20 characters")
    return found


def whole(payload: Mapping[str, Any], key: str, remarks: Remarks) -> int | None:
    """The whole number under `key`; None where there is none that can be read with certainty."""
    value = payload.get(key)
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < _LARGEST:
        return value
    found = _number(value)
    if found is None or not found.is_integer():
        remarks.append(f"no `{key}`" if value is None else f"`{key}` that is not a whole number")
        return None
    remarks.append(f"`{key}` as {'text' if isinstance(value, str) else 'a number with decimals'}")
    return int(found)


def number(payload: Mapping[str, Any], key: str, remarks: Remarks) -> float | None:
    """The number under `key`; None where there is none."""
    value = payload.get(key)
    found = _number(value)
    if found is None:
        remarks.append(f"no `{key}`" if value is None else f"`{key}` that is no number")
    elif isinstance(value, str):
        remarks.append(f"`{key}` as text")
    return found


def moment(value: object, remarks: Remarks) -> int | None:
    """An ISO 8601 time as UTC milliseconds. Without a zone it is taken as UTC, as §3.16 has it."""
    if not isinstance(value, str) or not value.strip():
        remarks.append("no time stamp")
        return None
    try:
        when = datetime.fromisoformat(value.strip())
    except ValueError:
        remarks.append("a time stamp that is none")
        return None
    if when.tzinfo is None:
        remarks.append("a time stamp without a zone")
        when = when.replace(tzinfo=UTC)
    try:
        return round(when.timestamp() * 1000)
    except (OverflowError, ValueError):
        remarks.append("a time stamp that is none")
        return None


def iso(utc_ms: int) -> str:
    """UTC milliseconds as chargers take them: with milliseconds and `Z`."""
    return datetime.fromtimestamp(utc_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def samples(meter_values: object, remarks: Remarks) -> Iterator[Sample]:
    """Every sampledValue of a `meterValue` or `transactionData` list, in order."""
    for entry in _objects(meter_values, "meterValue", remarks):
        time = moment(entry.get("timestamp"), remarks)
        for sampled in _objects(entry.get("sampledValue"), "sampledValue", remarks):
            if sample := _sample(sampled, time, remarks):
                yield sample


def _objects(value: object, name: str, remarks: Remarks) -> Iterator[Mapping[str, Any]]:
    entries: Sequence[Any] = value if isinstance(value, list) else [value]
    if not isinstance(value, list) or not value:
        remarks.append(f"`{name}` that is no list, or empty")
    for entry in entries:
        if isinstance(entry, dict):
            yield entry


def _sample(sampled: Mapping[str, Any], time: int | None, remarks: Remarks) -> Sample | None:
    measurand = sampled.get("measurand") or DEFAULT_MEASURAND
    if not isinstance(measurand, str) or measurand not in MEASURANDS:
        remarks.append(f"the unknown measurand `{_short(measurand)}`; it is left out")
        return None
    if sampled.get("format", "Raw") not in ("Raw", "", None):
        # Signed meter values are for a court, not for arithmetic.
        remarks.append(f"signed data for {measurand}; it is left out")
        return None
    phase = sampled.get("phase") or None
    if phase is not None and (not isinstance(phase, str) or phase not in PHASES):
        remarks.append(f"the unknown phase `{_short(phase)}`; its value is left out")
        return None
    context = sampled.get("context") or "Sample.Periodic"
    if not isinstance(context, str) or context not in CONTEXTS:
        remarks.append(f"the unknown context `{_short(context)}`")
        context = "Other"
    default = DEFAULT_LOCATION.get(measurand, "Outlet")
    location = sampled.get("location") or default
    if not isinstance(location, str) or location not in LOCATIONS:
        remarks.append(f"the unknown location `{_short(location)}`; its value is left out")
        return None
    value, quality, reason = _value(sampled, measurand, remarks)
    return Sample(
        measurand=measurand,
        phase=PHASES[phase] if phase else None,
        location="EV" if measurand == "SoC" else location,  # only the car has a state of charge
        value=value,
        context=CONTEXTS[context],
        time=time,
        quality=quality,
        reason=reason,
    )


def _value(sampled: Mapping[str, Any], measurand: str, remarks: Remarks) -> tuple[float | None, Quality, str | None]:
    written = sampled.get("value")
    if isinstance(written, int | float) and not isinstance(written, bool):
        remarks.append("values as numbers instead of text")
    found = _number(written)
    if found is None:
        remarks.append(f"`{_short(written)}` as the value of {measurand}")
        return None, Quality.BAD, Reason.NOT_A_NUMBER
    name = MEASURANDS[measurand]
    usual = QUANTITIES[name].unit if name in QUANTITIES else _OWN_UNITS[name]
    unit = sampled.get("unit")
    if usual == "1/min" or (unit is None and usual in ("1", "Hz", "Wh", "varh")):
        return found, Quality.GOOD, None
    if not unit:
        remarks.append(f"{measurand} without a unit; it is taken as {usual}")
        return found, Quality.GOOD, None
    known = _UNITS.get(unit.casefold()) if isinstance(unit, str) else None
    if usual == "1":  # a power factor in percent would be a factor of 100
        known = "1" if known is None and unit in ("1", "-") else known
    try:
        factor, offset = _factor(known or "?", usual)
    except ValueError:
        remarks.append(f"the unit `{_short(unit)}` for {measurand}, which is none of its units")
        return None, Quality.BAD, Reason.CONFIG_ERROR
    if unit not in _SPELLED and usual not in ("Hz", "1"):
        remarks.append(f"the unit `{_short(unit)}`, read as {known}")
    return round(found * factor + offset, 6), Quality.GOOD, None


_factor = functools.cache(convert)  # of the few units above


def _number(value: object) -> float | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return float(value) if abs(value) <= _LARGEST else None
    if not isinstance(value, str) or len(value) > 64 or not _NUMBER.fullmatch(value.strip()):
        return None
    found = float(value)
    return found if abs(found) <= _LARGEST else None


def _short(value: object) -> str:
    return str(value)[:40] if isinstance(value, str | int | float) else type(value).__name__
