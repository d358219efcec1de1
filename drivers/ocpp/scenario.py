"""What an emulated charger does besides what the specification says, as a file: quirks by name, a network that fails.

quirks: [number_values, boots_once]
lost_answers: 0.2
drops_every: 30s
"""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from gateway import document
from gateway.fields import Duration, Written


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


class Scenario(Written):
    """How the chargers of one emulator behave; left out, as the specification has it."""

    quirks: frozenset[Quirk] = frozenset()
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
    return {key: _distorted(key, value, quirks) for key, value in payload.items()}


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
    if key == "timestamp" and Quirk.LOCAL_TIME in quirks:
        return value.removesuffix("Z")
    return value
