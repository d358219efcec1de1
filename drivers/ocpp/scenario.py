"""What happens at an emulated charger, as a file: cars, quirks by name, a network that fails.

quirks: [number_values, boots_once]
car: {takes: 16 A, phases: 1, battery: 52 kWh, charged: 20 %}
visits: false
lost_answers: 0.2
drops_every: 30s
"""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from gateway import document
from gateway.fields import Duration, Written, amount


class Quirk(StrEnum):
    """Each seen on a charger; the issue numbers are in docs/ocpp.md."""

    NUMBER_VALUES = "number_values"
    """Values as numbers instead of text."""
    SMALL_LETTERS = "small_letters"
    """Units in small letters: `kwh`."""
    OWN_CONTEXT = "own_context"
    """A context that the specification does not have."""
    LOCAL_TIME = "local_time"
    """Time stamps without a zone."""
    BOOTS_ONCE = "boots_once"
    """No BootNotification when it calls again."""
    REGISTER_PER_SESSION = "register_per_session"
    """Its energy register starts at 0 with each session."""
    WATTS_ONLY = "watts_only"
    """Rejects limits in amperes."""
    WHOLE_AMPS = "whole_amps"
    """Rejects limits with tenths."""
    STEPS_ONLY = "steps_only"
    """Rejects limits but 0, 6, 8, 10, 13 and 16."""
    CLOCK_UNSET = "clock_unset"
    """Never takes the gateway's time: it is 1970."""
    MISSING_FIELDS = "missing_fields"
    """Leaves out what it thinks goes without saying: location, reason, errorCode."""
    UNKNOWN_WORDS = "unknown_words"
    """Statuses, reasons and error codes that the specification does not have."""


_LEFT_OUT = ("location", "reason", "errorCode")
_OWN_WORDS = {"Preparing": "Occupied", "Finishing": "Occupied", "Local": "Bored", "NoError": "Error"}


Amperes: Any = amount("A")
WattHours: Any = amount("Wh")
PerCent: Any = amount("%")


class Car(Written):
    """What is plugged in. `battery` Wh, `charged` per cent when it comes."""

    takes: Amperes = 16.0
    phases: Annotated[int, Field(ge=1, le=3)] = 3
    battery: WattHours = 52_000.0
    charged: PerCent = 20.0


class Scenario(Written):
    """How the chargers of one emulator behave; left out, as the specification has it."""

    quirks: frozenset[Quirk] = frozenset()
    car: Car | None = None
    """The same one each time; left out, different ones come."""
    visits: bool = True
    """Whether people come; without them only a command begins a charge."""
    lasts: Duration | None = None
    """How long a car stays; left out, 10 to 20 s."""
    lost_answers: Annotated[float, Field(ge=0, le=1)] = 0.0
    """The share of answers that never reach it; it tells again under a new message id."""
    answer_within: Duration = 30.0
    drops_every: Duration | None = None
    """How often it loses its connection."""


def read(path: Path) -> Scenario:
    """The scenario in a YAML file. DocumentError with every mistake."""
    return document.check(document.read(path), Scenario)


def distorted(payload: Mapping[str, Any], quirks: frozenset[Quirk]) -> dict[str, Any]:
    """A payload as a charger with these quirks sends it."""
    left_out = _LEFT_OUT if Quirk.MISSING_FIELDS in quirks else ()
    return {key: _distorted(key, value, quirks) for key, value in payload.items() if key not in left_out}


def _distorted(key: str, value: Any, quirks: frozenset[Quirk]) -> Any:
    if isinstance(value, Mapping):
        return distorted(value, quirks)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_distorted(key, one, quirks) for one in value]
    if key == "value" and Quirk.NUMBER_VALUES in quirks:
        return float(value)
    if key == "unit" and Quirk.SMALL_LETTERS in quirks:
        return value.casefold()
    if key == "context" and Quirk.OWN_CONTEXT in quirks:
        return "Sample.Vendor"
    if key in ("status", "reason", "errorCode") and Quirk.UNKNOWN_WORDS in quirks:
        return _OWN_WORDS.get(value, value)
    if key == "timestamp" and Quirk.LOCAL_TIME in quirks:
        return value.removesuffix("Z")
    return value
