"""OCPP 1.6 payloads to values and back: tolerant of what chargers send, strict in what is sent to them.

Source: OCPP 1.6 edition 2, §6 (messages) and §7 (types). What a charger gets wrong is read as far as it can be
read with certainty, and said in `remarks`; it never costs the charger its answer (§4.7–4.10).
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

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
_LARGEST = 1e15
"""No meter counts further; beyond it a float no longer holds every Wh."""
STATUSES = ("Available", "Preparing", "Charging", "SuspendedEVSE", "SuspendedEV", "Finishing", "Reserved",
            "Unavailable", "Faulted")  # fmt: skip


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
    found = read_number(value)
    if found is None or not found.is_integer():
        remarks.append(f"no `{key}`" if value is None else f"`{key}` that is not a whole number")
        return None
    remarks.append(f"`{key}` as {'text' if isinstance(value, str) else 'a number with decimals'}")
    return int(found)


def number(payload: Mapping[str, Any], key: str, remarks: Remarks) -> float | None:
    """The number under `key`; None where there is none."""
    value = payload.get(key)
    found = read_number(value)
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


def read_number(value: object) -> float | None:
    """The number that is meant, in text or not; None where that is not certain."""
    if type(value) is str:
        # Python reads more as a number than a meter writes: `1_000`, digits of other scripts; `nan` ends below.
        if len(value) > 64 or "_" in value or not value.isascii():
            return None
        try:
            found = float(value)
        except ValueError:
            return None
    elif isinstance(value, int | float) and not isinstance(value, bool):
        found = value
    else:
        return None
    return float(found) if abs(found) <= _LARGEST else None


def short(value: object) -> str:
    """Enough of a value to be known again."""
    return str(value)[:40] if isinstance(value, str | int | float) else type(value).__name__
