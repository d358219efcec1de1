"""The words of the system as values: readings, events, commands, replies, devices and points.

Standard library only, frozen and slotted: these are made by the hundred thousand.

Times. `at` is always milliseconds of the boot clock (`Clock.boot()`): it never steps. The buffer's row
beside it carries the boot id and one wall/boot pair, so the UTC time is worked out when it is sent and
nothing stored is ever rewritten (contract 5). A device's own time, where there is one, is `device_time`,
UTC milliseconds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import NamedTuple, TypeAlias

Json: TypeAlias = bool | int | float | str | Sequence["Json"] | Mapping[str, "Json"] | None
Value: TypeAlias = bool | int | float | str | None
PointId: TypeAlias = str
DeviceId: TypeAlias = str

_EMPTY: Mapping[str, Json] = MappingProxyType({})


def nothing() -> Mapping[str, Json]:
    """The empty map that all share: a default costs no allocation."""
    return _EMPTY


class Lane(StrEnum):
    """A durable queue of its own: one lane full or corrupt never touches another."""

    BILLING = "billing"
    EVENT = "event"
    TELEMETRY = "telemetry"


class Quality(StrEnum):
    GOOD = "good"
    UNCERTAIN = "uncertain"
    BAD = "bad"


class Reason(StrEnum):
    """Why a reading is not good. Drivers choose among these; a sentence goes with the device, not here."""

    COMM_FAILURE = "comm_failure"
    DEVICE_FAILURE = "device_failure"
    OUT_OF_RANGE = "out_of_range"
    NOT_A_NUMBER = "not_a_number"
    ABSENT = "absent"
    STALE = "stale"
    WARMING_UP = "warming_up"
    SUBSTITUTED = "substituted"
    COUNTER_RESET = "counter_reset"
    CONFIG_ERROR = "config_error"
    IDLE = "idle"
    """Nothing runs that it could be measured of: no car charges. Nothing is wrong."""


class ClockState(StrEnum):
    SYNCED = "synced"
    HOLDOVER = "holdover"
    UNSYNCED = "unsynced"
    CORRECTED = "corrected"


@dataclass(frozen=True, slots=True)
class Point:
    """What one series means. `id` is `asset/device/slug`; `unit` is canonical for `quantity`."""

    id: PointId
    quantity: str
    unit: str
    phase: str | None = None
    direction: str | None = None
    statistic: str | None = None
    part: str | None = None
    window: int | None = None
    """Seconds that a mean, minimum, maximum or sum covers."""


class Reading(NamedTuple):
    """One value of one point, in the point's unit; no value is `None` with a reason, never a zero."""

    point: PointId
    value: Value
    at: int
    quality: Quality = Quality.GOOD
    reason: str | None = None
    device_time: int | None = None
    context: str | None = None
    """periodic (None), clock_aligned, transaction_begin, transaction_end, trigger, command …"""
    transaction: str | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to `on` (a link, device, uplink, session or the gateway id itself).

    `kind` is a slug (link_down, device_up, transaction_begin, config_applied, gap …); `say` is one
    sentence for a person or ''; `more` is JSON.
    """

    kind: str
    on: str
    at: int
    say: str = ""
    more: Mapping[str, Json] = field(default_factory=nothing)
    device_time: int | None = None


class CommandState(StrEnum):
    RECEIVED = "received"
    ACCEPTED = "accepted"
    REJECTED = "rejected"
    EXECUTING = "executing"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    EXPIRED = "expired"
    SUPERSEDED = "superseded"


@dataclass(frozen=True, slots=True)
class Command:
    """An order to one device, as it came down (contract 4). `issued`, `expires`: UTC milliseconds."""

    id: str
    issuer: str
    do: str
    on: str
    args: Mapping[str, Json]
    issued: int
    expires: int
    lease_s: int | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """One state of one command; a record on the event lane like any other."""

    command: str
    state: CommandState
    at: int
    code: str | None = None
    say: str = ""
    now: Mapping[str, Json] = field(default_factory=nothing)
    """What holds after execution, in canonical units: {"amps": 16}."""
    proof: str | None = None
    """How the device showed it: readback, GetCompositeSchedule, …"""
    until: int | None = None
    """End of the lease, UTC milliseconds."""


Record: TypeAlias = Reading | Event | Reply


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument of a verb: a number within bounds (inclusive, in `unit`), one of `choices`, or text."""

    unit: str | None = None
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()
    longest: int | None = None
    """It is text of at most so many characters."""
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Verb:
    """What a device can be told to do. Declared by a driver or a profile, checked by `commands`."""

    name: str
    arguments: Mapping[str, Argument]
    idempotent: bool = True
    destructive: bool = False
    leasable: bool = False
    """A lease may be put on it: at the lease's end `release` is executed."""
    release: Mapping[str, Json] | None = None
    """Arguments that restore the safe state; None with `leasable` means the verb's own default."""
    role: str = "operator"
    safe_when_lower: str | None = None
    """Argument whose lowering is always safe (a charging limit), even on an unsynchronised clock."""


@dataclass(frozen=True, slots=True)
class Device:
    """What speaks on a link. `settings` is the driver's own model of the device's keys in the site file;
    `profile` is the driver's own profile model, or None where the driver needs none.
    """

    id: DeviceId
    points: Mapping[str, Point]
    """By slug: the last part of the point id."""
    verbs: Mapping[str, Verb] = field(default_factory=dict)
    """By verb name; a writable point's verb is under `set:<slug>`."""
    settings: object = None
    profile: object = None


@dataclass(frozen=True, slots=True)
class Receipt:
    """What the platform said of one batch: settled ranges, and records it will never take."""

    epoch: str
    accepted: tuple[tuple[int, int], ...]
    rejected: tuple[tuple[int, str, bool], ...] = ()
    """(seq, reason, retryable)"""
