"""What people write about serial sensors: the port in a site file, and the profile that describes a sensor's frames.

Offsets count bytes from the start of the frame; `over: [a, b]` takes a up to but not including b; negative counts
from the end.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import (
    BeforeValidator,
    Field,
    StringConstraints,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from gateway import profile as head
from gateway.document import Mistake
from gateway.fields import Duration, Slug, Whole, Written
from gateway.model import DeviceId, Point, Reason, Verb
from gateway.profile import DeviceKeys, LinkKeys, ProfilePoint


def _hex(text: Any) -> Any:
    try:
        return bytes.fromhex(text)
    except (TypeError, ValueError):
        raise Mistake("bad_hex", f"`{text}` is not bytes in hexadecimal", "Write them like `aa c0 0f`.") from None


Hex = Annotated[bytes, BeforeValidator(_hex), WithJsonSchema({"type": "string", "examples": ["aa c0"]})]
"""Bytes, written in hexadecimal as the maker prints them."""


def _port(text: str) -> str:
    fix = "Write `/dev/serial/by-id/…` (see `ls /dev/serial/by-id`) or `tcp://host:port`."
    if text.startswith("tcp://"):
        try:
            url = urlsplit(text)
            complete = bool(url.hostname and url.port and not url.path.strip("/"))
        except ValueError:
            complete = False
        if not complete:
            raise Mistake("bad_port", f"`{text}` does not say which host and port", fix)
    elif not text.startswith("/"):
        raise Mistake("bad_port", f"`{text}` is neither a device nor a serial server", fix)
    return text


Baud = Annotated[Whole, Field(gt=0)]
LineFormat = Annotated[str, StringConstraints(pattern=r"^[5-8][NEO][12]$")]
"""Data bits, parity, stop bits: 8N1."""


class Settings(LinkKeys):
    """A serial link in a site file. `baud` and `format` are the profile's unless the sensor was set otherwise."""

    port: Annotated[str, BeforeValidator(_port)]
    """A device by a name that stays (`/dev/serial/by-id/…`), or `tcp://host:port` of a serial server."""
    baud: Baud | None = None
    format: LineFormat | None = None

    @model_validator(mode="after")
    def _line_is_ours(self) -> "Settings":
        if self.port.startswith("tcp://") and (self.baud or self.format):
            why = "a serial server has its own speed and format; what stands here would change nothing"
            raise Mistake("not_our_line", why, "Set them in the serial server, and remove `baud` and `format` here.")
        return self


class DeviceSettings(DeviceKeys):
    """A sensor that pushes has its wire to itself: it needs no key of its own."""

    profile: str
    """`maker-model` (newest version) or `maker-model/N`."""


class Line(Written):
    """How the maker sets the sensor's UART."""

    baud: Baud
    format: LineFormat = "8N1"


class Checksum(Written):
    """`sum8`: the sum of the bytes, low 8 bits. `sum16be`: low 16 bits, high byte first."""

    algorithm: Literal["sum8", "sum16be"]
    over: tuple[int, int]
    at: int


class FixedFrame(Written):
    """Every frame has the same length."""

    type: Literal["fixed"]
    sync: Annotated[Hex, Field(min_length=1)]
    length: Annotated[Whole, Field(gt=1, le=4096)]
    end: Hex = b""
    checksum: Checksum | None = None

    @model_validator(mode="after")
    def _fits(self) -> "FixedFrame":
        if len(self.sync) + len(self.end) > self.length:
            raise Mistake("bad_frame", f"`sync` and `end` do not fit into {self.length} bytes", "Correct `length`.")
        if self.checksum and not -self.length <= self.checksum.at < self.length:
            raise Mistake("bad_frame", f"the checksum lies outside the {self.length} bytes", "Correct `at`.")
        return self

    @property
    def longest(self) -> int:
        return self.length

    @property
    def shortest(self) -> int:
        return self.length


LENGTH_TYPES = {"u8": 1, "u16be": 2, "u16le": 2}


class LengthPrefixedFrame(Written):
    """The frame says its own length: whole length = the number at `length_at` + `length_adds`."""

    type: Literal["length_prefixed"]
    sync: Annotated[Hex, Field(min_length=1)]
    length_at: Annotated[Whole, Field(ge=1)]
    length_type: Literal["u8", "u16be", "u16le"]
    length_adds: Whole = 0
    max_length: Annotated[Whole, Field(gt=1, le=4096)]
    end: Hex = b""
    checksum: Checksum | None = None

    @property
    def longest(self) -> int:
        return self.max_length

    @property
    def shortest(self) -> int:
        return self.length_at + LENGTH_TYPES[self.length_type]


Frame = FixedFrame | LengthPrefixedFrame

FORMATS = {
    "u8": "B", "s8": "b",
    "u16le": "<H", "u16be": ">H", "s16le": "<h", "s16be": ">h",
    "u32le": "<I", "u32be": ">I", "s32le": "<i", "s32be": ">i",
}  # fmt: skip
SIZES = {name: int(re.sub(r"\D", "", name)) // 8 for name in FORMATS}


class SerialPoint(ProfilePoint):
    """Where a value lies in the frame. `range`, `saturates` and `invalid` keep what is no measurement out."""

    at: Annotated[Whole, Field(ge=0)]
    type: Literal["u8", "s8", "u16le", "u16be", "s16le", "s16be", "u32le", "u32be", "s32le", "s32be"]
    scale: float = 1.0
    """Value in `unit` = number in the frame * scale."""
    range: tuple[float, float] | None = None
    """In `unit`, both ends included; outside is no value (bad, out_of_range)."""
    saturates: float | None = None
    """In `unit`: from here on the sensor only says that it is more (uncertain, out_of_range)."""
    invalid: Sequence[Whole] = ()
    """Numbers in the frame that stand for "no measurement" (bad, absent)."""

    @model_validator(mode="after")
    def _scales(self) -> "SerialPoint":
        if self.scale == 0:
            raise Mistake("bad_scale", "a scale of 0 makes every value 0", "Write the maker's factor, like `0.1`.")
        return self


@dataclass(frozen=True, slots=True)
class Expected:
    """What an example's frame must give: a value, a doubtful value (with its reason), or none (with its reason)."""

    value: float | None
    unit: str
    reason: str | None


def _expected(text: Any) -> Any:
    words = str(text).split()
    reason = words.pop() if words and words[-1] in set(Reason) else None
    if not words and reason:
        return Expected(None, "", reason)
    try:
        number, unit = words
        return Expected(float(number), unit, reason)
    except ValueError:
        fix = "Write `0.6 ug/m3`, `999.9 ug/m3 out_of_range` (doubtful), or `out_of_range` (no value)."
        raise Mistake("bad_expectation", f"`{text}` is not what a point can be expected to give", fix) from None


Expectation = Annotated[
    Expected, BeforeValidator(_expected), WithJsonSchema({"type": "string", "examples": ["0.6 ug/m3"]})
]


class Example(Written):
    """One frame and what it means. `origin` says who vouches for it."""

    received: Hex
    expect: Annotated[dict[Slug, Expectation], Field(min_length=1)]
    origin: Literal["capture", "vendor_document", "computed"]
    note: str = ""


class Refusal(Written):
    """Bytes that must give no value. `why`: the frame's own fault, or that it is a frame but no reading."""

    received: Hex
    why: Literal["checksum", "end", "length", "not_a_reading"]
    note: str = ""


class Profile(head.Profile):
    """A serial sensor."""

    line: Line
    mode: Literal["push"]
    """The sensor speaks by itself, one per wire."""
    cadence: Annotated[Duration, Field(gt=0)]
    """How often a frame comes."""
    silence: Annotated[Duration, Field(gt=0)] | None = None
    """After that long without a good frame the device is down; absent where silence is normal."""
    warm_up: Duration = 0.0
    """So long after the first frame since the port was opened, or since a silence, values are doubtful."""
    frame: Annotated[Frame, Field(discriminator="type")]
    points: Annotated[dict[Slug, SerialPoint], Field(min_length=1)]
    examples: Annotated[Sequence[Example], Field(min_length=1)]
    refusals: Sequence[Refusal] = ()

    @field_validator("points")
    @classmethod
    def _inside_the_frame(cls, points: dict[str, SerialPoint], known: ValidationInfo) -> dict[str, SerialPoint]:
        frame: Frame | None = known.data.get("frame")
        for slug, point in points.items():
            end = point.at + SIZES[point.type]
            if frame and end > frame.longest:
                why = f"`{slug}` ends at byte {end}, but the frame has {frame.longest}"
                raise Mistake("outside_frame", why, "Correct its `at` or `type`, or the frame's length.")
        return points


def points(device_id: DeviceId, profile: Profile, settings: DeviceSettings) -> dict[str, Point]:  # noqa: ARG001
    """The points of a device, by slug."""
    return {slug: point.point(device_id, slug) for slug, point in profile.points.items()}


def verbs(profile: Profile, settings: DeviceSettings) -> dict[str, Verb]:  # noqa: ARG001
    """A sensor that pushes takes no orders."""
    return {}


def address(settings: DeviceSettings) -> str | None:  # noqa: ARG001
    """The same for all: two sensors that push on one wire would talk over each other."""
    return "whole-wire"
