"""What people write about Modbus: a link, a device on it, and a profile that says where a maker keeps each value."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, model_validator
from pydantic import Field as Key

from drivers.modbus.codec import WIDTH, Field, Kind, decode, encode, precision
from gateway.document import Location, Mistake
from gateway.fields import Duration, Slug, Whole, Written
from gateway.model import Argument, DeviceId, Point, Reason, Verb
from gateway.profile import DeviceKeys, LinkKeys, ProfilePoint
from gateway.profile import Profile as Head
from gateway.quantities import convert

SETTING_EVERY = 3600.0
"""Seconds between two reads of a writable setting: it changes only when somebody changes it."""


def _digits(written: object) -> object:
    return int(written) if isinstance(written, str) and written.isdigit() else written


WordOrder = Literal["big", "little"]
ReadFunction = Annotated[Literal[3, 4], BeforeValidator(_digits)]
WriteFunction = Annotated[Literal[6, 16], BeforeValidator(_digits)]


def _port(written: object) -> object:
    if isinstance(written, str) and "/" in written:
        raise Mistake(
            "bad_value",
            f"`{written}` is a serial line; this version speaks Modbus TCP only",
            "Write `host:` and `port: 502` of the meter or of its Modbus gateway.",
        )
    return written


def _unit(address: int) -> int:
    if address > 247 and address != 255:
        raise Mistake(
            "bad_value",
            f"{address} is no unit id",
            "Write the meter's address, 1 to 247; 0 or 255 for a device that speaks TCP itself.",
        )
    return address


class Settings(LinkKeys):
    """A Modbus TCP endpoint: a meter, or a gateway with meters behind it."""

    host: str
    port: Annotated[int, BeforeValidator(_port), Key(ge=1, le=65535)] = 502
    timeout: Annotated[Duration, Key(gt=0, le=60)] = 1.0
    """How long a connection or an answer may take."""


class DeviceSettings(DeviceKeys):
    """A device on a Modbus link."""

    address: Annotated[int, Key(ge=0, le=255), AfterValidator(_unit)]
    """Unit id: 1 to 247; 0 or 255 for a device that speaks TCP itself."""


class Place(ProfilePoint):
    """A point and its registers."""

    addr: Annotated[Whole, Key(ge=0, le=65535)]
    """Address on the wire, from 0: 30053 in a maker's table is 0x0034 here."""
    type: Kind | None = None
    word_order: WordOrder | None = None
    scale: Annotated[float, Key(allow_inf_nan=False)] = 1.0
    """Value in `unit` = register value * scale."""
    invalid: Sequence[Whole] = ()
    """Raw patterns, high word first, that mean "no value": [0x7FFFFFFF]."""
    range: tuple[float, float] | None = None
    """What the device can plausibly say, in `unit`; anything else is no value."""

    @model_validator(mode="after")
    def _makes_sense(self) -> "Place":
        if self.scale == 0:
            raise Mistake("bad_value", "a scale of 0 makes every value 0", "Write the maker's factor.")
        if self.range is not None and not self.range[0] < self.range[1]:
            raise Mistake("bad_value", f"the range {list(self.range)} is empty", "Write [lowest, highest].")
        return self


class ReadPoint(Place):
    """A point that is polled."""

    fc: ReadFunction | None = None
    """Read function: 3 holding registers, 4 input registers."""


class WritePoint(Place):
    """A setting that a command may write; it is read at start, every hour, and after each write."""

    fc: WriteFunction = 16
    min: float | None = None
    max: float | None = None
    values: Sequence[float] = ()
    """The only values the device takes, in `unit`, where it does not take all between `min` and `max`."""
    confirm: Literal["readback"] = "readback"
    role: Literal["operator", "commission"] = "commission"

    @model_validator(mode="after")
    def _is_bounded(self) -> "WritePoint":
        low, high = self.bounds
        if low is None or high is None or not low < high:
            raise Mistake("missing_key", "a writable value needs its bounds", "Add `min:` and `max:`, or `values: []`.")
        return self

    @property
    def bounds(self) -> tuple[float | None, float | None]:
        """(lowest, highest) in the device's unit."""
        if self.values:
            return min(self.values), max(self.values)
        return self.min, self.max


class Defaults(Written):
    """What holds for every point that does not say otherwise."""

    fc: ReadFunction = 4
    type: Kind = Kind.F32
    word_order: WordOrder = "big"


class Line(Written):
    """What the maker says of the wire."""

    max_regs: Annotated[int, Key(ge=1, le=125)] = 125
    """Registers per request."""
    pairs: bool = False
    """Only even addresses and even counts."""
    max_hole: Annotated[int, Key(ge=0, le=124)] = 0
    """Unassigned registers that a block may read over: only where the device answers them."""
    min_gap: Duration = 0.0
    """Silence before a request on a serial line; a TCP gateway paces its own line."""


Registers = Mapping[Annotated[Whole, Key(ge=3, le=4)], Mapping[Whole, Sequence[Annotated[Whole, Key(ge=0, le=65535)]]]]


class Example(Written):
    """Registers by function and address, and what they say: {power: 7200 W}."""

    regs: Registers
    expect: Mapping[Slug, str]


class Refusal(Written):
    """Registers that hold no value, and why: {power: not_a_number}."""

    regs: Registers
    because: Mapping[Slug, Reason]


class Profile(Head):
    """A Modbus device type."""

    address_base: Literal["wire"] = "wire"
    defaults: Defaults = Defaults()
    line: Line = Line()
    points: Mapping[Slug, ReadPoint]
    writes: Mapping[Slug, WritePoint] = {}
    examples: Annotated[Sequence[Example], Key(min_length=1)]
    refusals: Sequence[Refusal] = ()

    @model_validator(mode="after")
    def _fits_the_wire(self) -> "Profile":
        for slug, field in (*self.fields(), *self.writable()):
            if field.end > 65536 or field.width > self.line.max_regs:
                raise Mistake("bad_value", f"`{slug}` does not fit: {field.width} registers from {field.addr:#06x}")
            if self.line.pairs and (field.addr % 2 or field.width % 2):
                why = f"`{slug}` at {field.addr:#06x} breaks `pairs`: even addresses and even counts only"
                raise Mistake("bad_value", why, "Use the address on the wire, which starts at 0.")
        for slug, field in self.writable():
            place = self.writes[slug]
            for bound in place.bounds:
                try:
                    encode(field, (bound or 0) * field.factor + field.offset)
                except ValueError as error:
                    raise Mistake("bad_value", f"`{slug}`: {error}", "Correct the bound or the type.") from None
        if both := sorted(set(self.points) & set(self.writes)):
            raise Mistake(
                "duplicate_key",
                f"`{both[0]}` stands under `points` and under `writes`",
                "Keep it under `writes`: it is read as well.",
            )
        return self

    def fields(self) -> Iterator[tuple[str, Field]]:
        """The polled points, by slug."""
        for slug, place in self.points.items():
            yield slug, self._field(place, place.fc or self.defaults.fc)

    def writable(self) -> Iterator[tuple[str, Field]]:
        """The writable points as they are read back, by slug."""
        for slug, place in self.writes.items():
            yield slug, self._field(place, 3)

    def _field(self, place: Place, fc: int) -> Field:
        factor, offset = place.conversion
        low, high = place.range or (-math.inf, math.inf)
        return Field(
            fc=fc,
            addr=place.addr,
            kind=place.type or self.defaults.type,
            low_word_first=(place.word_order or self.defaults.word_order) == "little",
            scale=place.scale,
            factor=factor,
            offset=offset,
            invalid=tuple(place.invalid),
            low=low,
            high=high,
        )


def points(device_id: DeviceId, profile: Profile, settings: DeviceSettings) -> dict[str, Point]:
    """Everything the device says, by slug."""
    del settings
    return {slug: place.point(device_id, slug) for slug, place in (*profile.points.items(), *profile.writes.items())}


def verbs(profile: Profile, settings: DeviceSettings) -> dict[str, Verb]:
    """`set:<slug>` for each writable point; bounds in the point's canonical unit."""
    del settings
    found = {}
    for slug, place in profile.writes.items():
        factor, offset = place.conversion
        ends = sorted(end * factor + offset for end in place.bounds if end is not None)
        argument = Argument(unit=place.canonical_unit, minimum=ends[0], maximum=ends[-1])
        found[f"set:{slug}"] = Verb("set", {"value": argument}, role=place.role)
    return found


def address(settings: DeviceSettings) -> str | None:
    """Two devices of one link must not share this."""
    return str(settings.address)


def self_test(profile: Profile) -> list[tuple[Location, str]]:
    """What the profile's own examples and refusals do not bear out: place in the document, and one sentence."""
    fields = dict((*profile.fields(), *profile.writable()))
    found: list[tuple[Location, str]] = []
    for number, example in enumerate(profile.examples):
        for slug, text in example.expect.items():
            if why := _differs(profile, fields, example.regs, slug, text):
                found.append((("examples", number, "expect", slug), why))
    for number, refusal in enumerate(profile.refusals):
        for slug, reason in refusal.because.items():
            if why := _accepts(fields, refusal.regs, slug, reason):
                found.append((("refusals", number, "because", slug), why))
    return found


def _differs(profile: Profile, fields: Mapping[str, Field], regs: Registers, slug: str, text: str) -> str:
    words = _words(fields, regs, slug)
    if isinstance(words, str):
        return words
    field = fields[slug]
    place = profile.points.get(slug) or profile.writes[slug]
    value, reason = decode(field, words)
    said = re.fullmatch(r"\s*([-+]?[0-9.]+(?:[eE][-+]?[0-9]+)?)\s*(\S*)\s*", text)
    if not said:
        return f"`{text}` is not a number with a unit"
    try:
        wanted = float(said[1])
        factor, offset = convert(said[2], place.canonical_unit) if said[2] else place.conversion
    except ValueError as error:
        return f"`{text}`: {error}"
    wanted = wanted * factor + offset
    if value is None:
        return f"`{slug}` says no value ({reason}), the example says {text}"
    if not math.isclose(value, wanted, rel_tol=precision(field.kind), abs_tol=1e-12):
        return f"`{slug}` says {value:.9g} {place.canonical_unit}, the example says {text}"
    return ""


def _accepts(fields: Mapping[str, Field], regs: Registers, slug: str, reason: Reason) -> str:
    words = _words(fields, regs, slug)
    if isinstance(words, str):
        return words
    value, why = decode(fields[slug], words)
    if why is reason:
        return ""
    said = f"{value:.9g}" if value is not None else f"no value ({why})"
    return f"`{slug}` says {said}; it should say no value ({reason})"


def _words(fields: Mapping[str, Field], regs: Registers, slug: str) -> list[int] | str:
    """The registers of a point as an example gives them, or why they are not there."""
    if slug not in fields:
        return f"there is no point `{slug}`"
    field = fields[slug]
    given = {
        addr + n: word for addr, words in regs.get(field.fc, {}).items() for n, word in enumerate(words)
    }  # fmt: skip
    wanted = range(field.addr, field.addr + WIDTH[field.kind])
    if missing := [addr for addr in wanted if addr not in given]:
        return f"`{slug}` lies in function {field.fc} at {field.addr:#06x}; register {missing[0]:#06x} is not given"
    return [given[addr] for addr in wanted]
