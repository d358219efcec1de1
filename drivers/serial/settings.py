"""What people write about serial sensors: the port in a site file, and the profile that describes a sensor's frames."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, WithJsonSchema, model_validator

from drivers.serial.dialogue import Address, Command, Dialogue, Duty, Meaning, Message
from drivers.serial.frames import FixedFrame, Frame
from drivers.serial.layouts import Binary, Layout
from drivers.serial.point import SerialPoint, Status, known
from drivers.serial.words import SIZES, Bytes, places_in
from gateway import profile as head
from gateway import tty
from gateway.document import Location, Mistake
from gateway.fields import Duration, Slug, Whole, Written
from gateway.model import DeviceId, Point, Reason, Verb
from gateway.profile import DeviceKeys, LinkKeys

Baud = Annotated[Whole, Field(gt=0)]
LineFormat = Annotated[str, StringConstraints(pattern=r"^[5-8][NEO][12]$")]
"""Data bits, parity, stop bits: 8N1."""


class Settings(LinkKeys):
    """A serial link in a site file. `baud` and `format` are the profile's unless the sensor was set otherwise."""

    port: Annotated[str, AfterValidator(tty.checked)]
    """A device by a name that stays (`/dev/serial/by-id/…`), or `tcp://host:port` of a serial server."""
    baud: Baud | None = None
    format: LineFormat | None = None
    echo: bool = False
    """The adapter hears what it sends itself, as two-wire RS-485 adapters may: those bytes are thrown away."""

    @model_validator(mode="after")
    def _line_is_ours(self) -> "Settings":
        if tty.is_server(self.port) and (self.baud or self.format):
            why = "a serial server has its own speed and format; what stands here would change nothing"
            raise Mistake("not_our_line", why, "Set them in the serial server, and remove `baud` and `format` here.")
        return self


class DeviceSettings(DeviceKeys):
    """A sensor on a serial link. Several share one link where their profile has addresses."""

    profile: str
    """`maker-model` (newest version) or `maker-model/N`."""
    address: str | None = None
    """Its number (`0x7001`) or letter on a wire that it shares; needed where its profile has addresses."""


class Line(Written):
    """How the maker sets the sensor's UART."""

    baud: Baud
    format: LineFormat = "8N1"
    flow: tty.Flow = "none"
    """Who stops the other when it is too fast: nobody, two wires, or two bytes that then stand for nothing else."""
    wakes: Duration = 0.0
    """A break of that length before each command, as SDI-12 wants; a serial server has to make it itself."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What an example's frame must give: a value, a doubtful value (with its reason), or none (with its reason)."""

    value: float | str | None
    unit: str
    reason: str | None


def _expected(text: Any) -> Any:
    words = str(text).split()
    if len(words) > 1 and words[0] == "is":
        return Expected(" ".join(words[1:]), "", None)
    reason = words.pop() if words and words[-1] in set(Reason) else None
    if not words and reason:
        return Expected(None, "", reason)
    try:
        number, unit = words
        return Expected(float(number), unit, reason)
    except ValueError:
        fix = "Write `0.6 ug/m3`, `999.9 ug/m3 out_of_range` (doubtful), `out_of_range` (no value), or `is free`."
        raise Mistake("bad_expectation", f"`{text}` is not what a point can be expected to give", fix) from None


Expectation = Annotated[
    Expected, BeforeValidator(_expected), WithJsonSchema({"type": "string", "examples": ["0.6 ug/m3"]})
]


class Example(Written):
    """What is received, and what it says: values, or what it means. `origin` says who vouches for it."""

    received: Bytes
    expect: dict[Slug, Expectation] = Field(default_factory=dict)
    means: Meaning | None = None
    """For a frame that is no reading."""
    origin: Literal["capture", "vendor_document", "computed"]
    note: str = ""

    @model_validator(mode="after")
    def _says_something(self) -> "Example":
        if bool(self.expect) == bool(self.means):
            why = "an example says what is expected of its points, or what the frame means"
            raise Mistake("bad_expectation", why, "Write either `expect` or `means`.")
        return self


class Refusal(Written):
    """Bytes that must give no value. `why`: the frame's own fault, or that it is a frame but no reading."""

    received: Bytes
    why: Literal["checksum", "end", "length", "escape", "garbled", "unknown", "not_a_reading"]
    """`garbled`: its text is not what the layout says; `unknown`: none of the messages."""
    note: str = ""


class Stream(Written):
    """Bytes as they may come one behind the other, and how many readings are in them."""

    received: Bytes
    readings: Annotated[Whole, Field(ge=0)]
    note: str = ""


class Profile(head.Profile):
    """A serial sensor."""

    line: Line
    mode: Literal["push", "poll"]
    """`push`: the sensor speaks by itself, one per wire. `poll`: it answers."""
    cadence: Annotated[Duration, Field(gt=0)]
    """How often a reading comes; for `poll`, how often it is asked for where the site does not say."""
    silence: Annotated[Duration, Field(gt=0)] | None = None
    """After that long without a good frame a sensor that pushes is down; absent where silence is normal."""
    warm_up: Duration = 0.0
    """So long after the first frame since the port was opened, or since a silence, values are doubtful."""
    frame: Annotated[Frame, Field(discriminator="type")]
    layout: Layout = Field(default_factory=Binary)
    """How the text of a frame falls into values; left out, they are bytes at offsets."""
    messages: dict[Slug, Message] = Field(default_factory=dict)
    """Kinds of frames, tried in this order; left out, every frame is a reading."""
    status: Status | None = None
    points: Annotated[dict[Slug, SerialPoint], Field(min_length=1)]
    address: Address | None = None
    """For sensors that share one wire."""
    commands: dict[Slug, Command] = Field(default_factory=dict)
    dialogue: Dialogue = Field(default_factory=Dialogue)
    duty: Duty | None = None
    examples: Annotated[Sequence[Example], Field(min_length=1)]
    refusals: Sequence[Refusal] = ()
    streams: Sequence[Stream] = ()

    def layout_of(self, message: str) -> Layout:
        return (self.messages[message].layout if message in self.messages else None) or self.layout

    @property
    def readings(self) -> list[str]:
        """The messages that are readings; [""] where there are no kinds of frames."""
        return [name for name, one in self.messages.items() if one.means is None] if self.messages else [""]

    @model_validator(mode="after")
    def _hangs_together(self) -> "Profile":
        if not self.readings:
            why = "none of the messages is a reading"
            raise Mistake("bad_frame", why, "Remove `means` from the one that has values.", ("messages",))
        for slug, point in self.points.items():
            self._check_point(slug, point)
        if self.status:
            self._check_status(self.status)
        for key, names in self.dialogue.by_key.items():
            for number, name in enumerate(names):
                self._check_said(key, name, ("dialogue", key, number))
        for name, command in self.commands.items():
            for answer in command.answers:
                known(answer, list(self.messages), "message", ("commands", name, "answer"))
        if self.mode == "poll" and not self.dialogue.poll:
            why = "`mode: poll` without a command to ask with"
            raise Mistake("bad_command", why, "Name one: `dialogue: {poll: [read]}`.", ("mode",))
        if self.address and self.mode == "push":
            why = "sensors that push have no address: two on one wire would talk over each other"
            raise Mistake("bad_command", why, "Write `mode: poll`, or remove `address`.", ("address",))
        if self.duty and not (self.dialogue.wake and self.dialogue.sleep):
            why = "to rest, the sensor needs commands for it"
            raise Mistake("bad_command", why, "Name them: `dialogue: {wake: [wake], sleep: [sleep]}`.", ("duty",))
        return self

    def _check_said(self, key: str, name: str, at: Location) -> None:
        known(name, list(self.commands), "command", at)
        command = self.commands[name]
        if command.destructive:
            why = f"`{name}` is destructive: only a person may send it"
            raise Mistake("bad_command", why, "Remove it here.", at)
        # A question is asked once in a round, and a sensor that says that it sleeps is woken once; these go out again.
        if not command.idempotent and (key in ("init", "probe") or (self.duty and key in ("wake", "sleep"))):
            why = f"`{name}` is not idempotent, and what stands in `{key}` may be sent again"
            raise Mistake("bad_command", why, "Name a command that does the same however often it is sent.", at)

    def _check_status(self, status: Status) -> None:
        for message in status.at:
            known(message, ["", *self.messages], "message", ("status", "at", message))
        for message in self.readings:
            places = places_in(status.at, message)
            is_binary = isinstance(self.layout_of(message), Binary)
            if places and is_binary != (status.type in SIZES):
                why = "the status needs a type of bytes" if is_binary else f"`{status.type}` is for bytes, not text"
                fix = "Write `type: u8` or another." if is_binary else "Write `type: hex`, or leave it out."
                raise Mistake("bad_point", why, fix, ("status", "type"))
            for place in places if is_binary else ():
                if not isinstance(place, int):
                    raise Mistake("bad_place", f"`{place}` is no offset", "Count bytes from 0.", ("status", "at"))
                self._check_inside("status", place, SIZES[str(status.type)], ("status", "at"))

    def _check_point(self, slug: str, point: SerialPoint) -> None:
        for message in {*point.at, *point.unit_at, *(point.sign.at if point.sign else ())}:
            known(message, ["", *self.readings], "message", ("points", slug, "at"))
        if point.weight:
            known(point.weight, list(self.points), "point", ("points", slug, "weight"))
        for message in self.readings:
            is_binary = isinstance(self.layout_of(message), Binary)
            for place in places_in(point.at, message):
                here = ("points", slug)
                if is_binary and not isinstance(place, int):
                    why = f"`{place}` is no offset, and the layout is binary"
                    raise Mistake("bad_place", why, "Count bytes from 0, or name a `layout`.", (*here, "at"))
                sizes = [SIZES[one] for one in (point.type, *(point.types.of.values() if point.types else ()))
                         if one in SIZES]  # fmt: skip
                if is_binary != bool(sizes):
                    why = f"`{slug}` needs a type of bytes" if is_binary else f"`{point.type}` is for bytes, not text"
                    fix = "Write `type: u16be` or another." if is_binary else "Write `type: number`, or leave it out."
                    raise Mistake("bad_point", why, fix, (*here, "type"))
                if is_binary and isinstance(place, int) and sizes:
                    self._check_inside(slug, place, max(sizes), (*here, "at"))

    def _check_inside(self, slug: str, place: int, size: int, at: Location) -> None:
        end = place + size if place >= 0 else self.frame.longest + place + size
        if end > self.frame.longest or (isinstance(self.frame, FixedFrame) and end - size < 0):
            why = f"`{slug}` ends at byte {end}, but the frame has {self.frame.longest}"
            fix = "Correct its `at` or `type`, or the frame's length."
            raise Mistake("outside_frame", why, fix, at)


def points(device_id: DeviceId, profile: Profile, settings: DeviceSettings) -> dict[str, Point]:
    """The points of a device, by slug. Mistake: an address too many, or one that is missing."""
    if profile.address and settings.address is None:
        why = f"{profile.title or profile.profile} shares its wire and needs an address"
        raise Mistake("missing_key", why, "Add `address: …`, as it is set in the sensor.")
    if settings.address is not None:
        if not profile.address:
            why = f"{profile.title or profile.profile} has no address"
            raise Mistake("bad_value", why, "Remove `address`.", ("address",))
        address_bytes(profile.address, settings.address)
    named = {slug: point.point(device_id, slug) for slug, point in profile.points.items()}
    for slug, point in profile.points.items():
        period = settings.every or point.every
        if point.combine != "last" and period:
            named[slug] = replace(named[slug], statistic="mean", window=round(period))
        elif point.counter:
            named[slug] = replace(named[slug], statistic="sum")
    return named


def address_bytes(rule: Address, written: str) -> bytes:
    """The address as it goes over the wire. Mistake: it does not fit."""
    if rule.type == "text":
        return written.encode("latin-1", "replace")
    try:
        return int(written, 0).to_bytes(SIZES[rule.type], "little" if rule.type.endswith("le") else "big")
    except (ValueError, OverflowError):
        why = f"`{written}` is no address of {8 * SIZES[rule.type]} bits"
        raise Mistake("bad_value", why, "Write a number, like `1` or `0x7001`.", ("address",)) from None


def verbs(profile: Profile, settings: DeviceSettings) -> dict[str, Verb]:  # noqa: ARG001
    """The commands that may come from outside."""
    return {
        name: Verb(name, {}, idempotent=one.idempotent, destructive=one.destructive, role=one.verb)
        for name, one in profile.commands.items()
        if one.verb
    }


def address(settings: DeviceSettings) -> str | None:
    """The sensor's own where it shares its wire; else the same for all, as two would talk over each other."""
    return settings.address or "whole-wire"
