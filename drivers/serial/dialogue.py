"""What is said and what it means: the messages of a sensor, the commands it takes, and when which is sent."""

from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, model_validator

from drivers.serial.layouts import Layout
from drivers.serial.words import BinaryType, Bytes, Condition
from gateway.document import Mistake
from gateway.fields import Duration, Slug, Whole, Written


class Meaning(StrEnum):
    """What a frame means that is no reading."""

    ACKNOWLEDGED = "acknowledged"
    """It answers a command."""
    ASLEEP = "asleep"
    """The sensor sleeps; `wake` is sent. No values."""
    NOT_READY = "not_ready"
    """It is starting: no values (bad, warming_up)."""
    NO_NEW_VALUE = "no_new_value"
    """There is nothing new since the last answer: not an error, and not zero."""
    WAIT = "wait"
    """The answer comes later: after `wait` seconds, a group of the message's `like`, or with a `ready` message."""
    READY = "ready"
    RESTARTED = "restarted"
    """It began anew: `init` is sent again, counters count from 0."""
    FAILED = "failed"
    """It cannot do what was asked (bad, device_failure)."""
    OTHER = "other"
    """Nothing that a point stands for."""


class Message(Condition):
    """One kind of frame. The first of the list whose `when` and `like` hold is it; without `means` it is a reading."""

    means: Meaning | None = None
    say: str = ""
    """In plain words, for the technician."""
    layout: Layout | None = None
    """Where it differs from the profile's."""

    @model_validator(mode="after")
    def _says_how_long(self) -> "Message":
        if self.means is Meaning.WAIT and "wait" not in (self.like.groupindex if self.like else ()):
            why = "`means: wait` needs to know how long"
            raise Mistake("bad_pattern", why, "Name a group of `like`: `(?P<wait>[0-9]{3})`.", ("means",))
        return self


class Command(Written):
    """What is sent, and what comes back. Nothing is sent twice by itself unless it is idempotent."""

    send: Bytes
    answer: Slug | Sequence[Slug] = ()
    """The messages that answer it; left out, none is waited for, but a `poll` waits for any reading."""
    idempotent: bool = True
    """Sent twice, it does what it does sent once. Not so for a toggle."""
    destructive: bool = False
    """It changes what cannot be changed back by another command: a calibration. Only a person sends it."""
    wait: Duration = 0.0
    """Silence that the sensor needs behind it."""
    verb: Literal["operator", "commission"] | None = None
    """Who may send it as a command from outside; left out, only the gateway itself."""

    @property
    def answers(self) -> tuple[str, ...]:
        return (self.answer,) if isinstance(self.answer, str) else tuple(self.answer)


class Dialogue(Written):
    """When which command is sent, by name."""

    init: Sequence[Slug] = ()
    """When the port has been opened, and when the sensor has restarted."""
    poll: Sequence[Slug] = ()
    """In every round; for `mode: poll`."""
    wake: Sequence[Slug] = ()
    """Before measuring, where the sensor rests between; and when it says that it sleeps."""
    sleep: Sequence[Slug] = ()
    """After measuring, where the sensor rests between."""
    probe: Sequence[Slug] = ()
    """After `silence`: only if nothing at all comes back is the sensor down."""
    timeout: Annotated[Duration, Field(gt=0, le=60)] = 1.0
    """How long an answer may take."""
    gap: Annotated[Duration, Field(le=10)] = 0.0
    """Silence before each command."""
    tries: Annotated[Whole, Field(ge=1, le=10)] = 2
    """Rounds of idempotent commands before the sensor counts as silent."""

    @property
    def by_key(self) -> dict[str, Sequence[str]]:
        return {key: getattr(self, key) for key in ("init", "poll", "wake", "sleep", "probe")}


class Address(Written):
    """Where the number or letter of a sensor stands that shares its wire with others."""

    type: BinaryType | Literal["text"] = "text"
    send_at: Whole = 0
    """In what is sent."""
    at: Whole = 0
    """In what is received."""


class Duty(Written):
    """The sensor wears out while it runs: where `every` leaves the time for it, it rests between measurements."""

    measure: Annotated[Duration, Field(gt=0)]
    """How long it measures after `warm_up`: the mean of that is one measurement."""
