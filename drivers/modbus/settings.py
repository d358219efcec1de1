"""What people write about Modbus: a link, a device on it, and a profile that says where a maker keeps each value."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, StringConstraints, model_validator
from pydantic import Field as Key

from drivers.modbus import rtu, sunspec
from drivers.modbus.assign import Assign
from drivers.modbus.codec import Field, encode
from drivers.modbus.identify import Check, Told, Verify
from drivers.modbus.link import Settings
from drivers.modbus.plan import Limits
from drivers.modbus.points import SETTING_EVERY, Defaults, Place, ReadPoint, WritePoint
from gateway.document import Location, Mistake
from gateway.errors import DeviceError
from gateway.fields import Duration, Slug, Whole, Written
from gateway.model import Argument, DeviceId, Point, Reason, Verb
from gateway.profile import DeviceKeys, PointKeys
from gateway.profile import Profile as Head

__all__ = [
    "SETTING_EVERY",
    "DeviceSettings",
    "Place",
    "Profile",
    "ReadPoint",
    "Settings",
    "WritePoint",
    "address",
    "points",
    "verbs",
]


def _unit(address: int) -> int:
    if address > 247 and address not in (254, 255):
        raise Mistake(
            "bad_value",
            f"{address} is no unit id",
            "Write the meter's address, 1 to 247; 0 or 255 for what speaks TCP itself; 254 for a lone SenseAir.",
        )
    return address


class PolledKeys(PointKeys):
    """What a site says of some points of one device."""

    every: Annotated[Duration, Key(gt=0)] | None = None
    """Poll interval; wins over the device's and the profile's."""


class DeviceSettings(DeviceKeys):
    """A device on a Modbus link."""

    address: Annotated[int, Key(ge=0, le=255), AfterValidator(_unit)]
    """Unit id: 1 to 247; 0 or 255 for a device that speaks TCP itself; 254, which any sensor of SenseAir obeys."""
    quantities: Mapping[str, PolledKeys] = {}
    """What holds for all its points of one quantity: {voltage: {every: 5s, send: {change: 1 V, at_least: 15min}}}."""
    points: Mapping[Slug, PolledKeys] = {}
    """What holds for one point, by its slug."""


Function = Annotated[Whole, Key(ge=3, le=4)]
Span = tuple[Annotated[Whole, Key(ge=0)], Annotated[Whole, Key(le=65535)]]
"""The first and the last of some registers, as on the wire."""


class Line(Written):
    """What the maker says of the wire."""

    max_regs: Annotated[int, Key(ge=1, le=125)] = 125
    """Registers per request."""
    pairs: bool = False
    """Only even addresses and even counts."""
    max_hole: Annotated[int, Key(ge=0, le=124)] = 0
    """Unassigned registers that a block may read over: only where the device answers them."""
    forbidden: Mapping[Function, Sequence[Span]] = {}
    """Registers that no request reads over: {4: [[0x100, 0x10F]]}."""
    min_gap: Duration = 0.0
    """Silence before a request on a serial line; a TCP gateway paces its own line."""
    serial: Annotated[str, StringConstraints(pattern=r"^[0-9]+ [78][NEO][12]$")] | None = None
    """As it leaves the factory: 9600 8N1."""
    speeds: Sequence[Annotated[int, Key(ge=300, le=1000000)]] = ()
    """Bit rates that it can be set to."""
    unit: Annotated[int, Key(ge=0, le=255)] | None = None
    """Its unit id as it leaves the factory."""
    answer: tuple[Duration, Duration] | None = None
    """[typical, longest] time to an answer."""
    functions: Sequence[Annotated[Whole, Key(ge=1, le=127)]] = ()
    """Every function that it knows; left out: nobody says which."""
    one_table: bool = False
    """Functions 3 and 4 read the same registers."""


Registers = Mapping[Function, Mapping[Whole, Sequence[Annotated[Whole, Key(ge=0, le=65535)]]]]


def _bytes(written: object, at: str) -> bytes:
    try:
        return bytes.fromhex(str(written))
    except ValueError:
        fix = "Write two hexadecimal digits a byte: `fe 04 00 00 00 04 e5 c6`."
        raise Mistake("bad_hex", f"`{written}` are no bytes", fix, (at,)) from None


class Shown(Written):
    """Registers by function and address on the wire; or the two frames of a line from which they come."""

    regs: Annotated[Registers, Key(default_factory=dict)]
    asked: str | None = None
    """The question as it goes over a line, with unit and checksum."""
    answered: str | None = None
    """What came back."""
    note: str = ""

    @model_validator(mode="before")
    @classmethod
    def _of_frames(cls, tree: Any) -> Any:
        if not isinstance(tree, Mapping) or not {"asked", "answered"} & set(tree):
            return tree
        asked = _bytes(tree.get("asked", ""), "asked")
        if "regs" in tree or not rtu.is_whole(asked) or asked[1] not in (3, 4) or len(asked) != rtu.QUESTION:
            fix = "Write the whole question of function 3 or 4, with its checksum, beside `answered`, and no `regs`."
            raise Mistake("bad_frame", "`asked` is not a question whose registers are known", fix, ("asked",))
        try:
            answer = rtu.find_answer(asked, _bytes(tree.get("answered", ""), "answered"))
        except DeviceError:
            answer = None
        words = [answer[at : at + 2] for at in range(3, len(answer) - 2, 2)] if answer else []
        addr = int.from_bytes(asked[2:4], "big")
        return {**tree, "regs": {asked[1]: {addr: [int.from_bytes(word, "big") for word in words]}} if words else {}}


class Example(Shown):
    """Registers, and what they say: {power: 7200 W}."""

    expect: Mapping[Slug, str] = {}
    identifies: bool = False
    """These registers are what `match` looks for."""
    origin: Literal["capture", "vendor_document", "computed"] = "computed"
    """Who vouches for the bytes; `computed`: the format's own definition."""

    @model_validator(mode="after")
    def _says_something(self) -> "Example":
        if not self.regs:
            why = "`answered` is no answer to `asked`" if self.asked else "an example shows registers"
            raise Mistake("bad_frame" if self.asked else "missing_key", why, "Add `regs:`, or both whole frames.")
        if not self.expect and not self.identifies:
            raise Mistake("missing_key", "an example says what is expected", "Add `expect:` or `identifies: true`.")
        return self


class Refusal(Shown):
    """Registers that hold no value, and why: {power: not_a_number}; or bytes that are no answer, and nothing more."""

    because: Mapping[Slug, Reason] = {}

    @model_validator(mode="after")
    def _refuses_something(self) -> "Refusal":
        if bool(self.regs) != bool(self.because):
            why = "a whole answer is refused for what it says" if self.regs else "what is no answer says nothing"
            raise Mistake("missing_key", why, "Write `because:` beside registers, and only there.")
        return self


class Profile(Head):
    """A Modbus device type."""

    address_base: Literal["wire", "one", "modicom"] = "wire"
    """How addresses are written: `wire` from 0 as sent; `one` from 1; `modicom` 30001, 40001, 300001, 400001."""
    defaults: Defaults = Defaults()
    line: Line = Line()
    match: Sequence[Check] = ()
    """Registers by which the meter is known."""
    verify: Sequence[Verify] = ()
    """Settings of the meter that the points depend on."""
    sunspec: Sequence[Whole] = ()
    """The SunSpec models that it is for, all of one layout: the device says where the first of them lies."""
    serial_number: Told | None = None
    """Where it says who it is: another number is another meter, and its counters start anew."""
    answers: Mapping[Function, Sequence[Span]] = {}
    """What it answers beside its points: by this, too, it is found. {3: [[0, 3]]}."""
    assign: Assign | None = None
    """How a new one gets its address and speed over the line; left out: at its keys only."""
    points: Annotated[Mapping[Slug, ReadPoint], Key(min_length=1)]
    writes: Mapping[Slug, WritePoint] = {}
    examples: Annotated[Sequence[Example], Key(min_length=1)]
    refusals: Sequence[Refusal] = ()

    @model_validator(mode="before")
    @classmethod
    def _of_sunspec(cls, tree: Any) -> Any:
        """Where each point lies stands in the model, not in the profile."""
        if not isinstance(tree, Mapping) or not tree.get("sunspec") or not isinstance(tree.get("points"), Mapping):
            return tree
        models = [int(str(one)) for one in tree["sunspec"] if str(one).isdigit()]
        points = {}
        for slug, point in tree["points"].items():
            try:
                found = sunspec.written(models, str(point["sunspec"]))
            except KeyError:
                why, fix = f"`{slug}` does not say which SunSpec point it is", "Add `sunspec: W` or another name."
                raise Mistake("missing_key", why, fix, ("points", slug)) from None
            except Mistake as mistake:
                at = mistake.at or ("points", slug, "sunspec")
                raise Mistake(mistake.code, str(mistake), mistake.fix, at) from None
            points[slug] = found | {key: value for key, value in point.items() if key != "sunspec"}
        return {**tree, "sunspec": models, "points": points, "defaults": {"fc": sunspec.FC}}

    @model_validator(mode="after")
    def _fits_the_wire(self) -> "Profile":
        for slug, place in (*self.points.items(), *self.writes.items()):
            group = "points" if slug in self.points else "writes"
            try:
                self._fits(self._field(place))
            except Mistake as mistake:
                at = (group, slug, *mistake.at)
                raise Mistake(mistake.code, f"`{slug}`: {mistake}", mistake.fix, at) from None
        for slug, field in self.writable():
            for bound in self.writes[slug].bounds:
                try:
                    encode(field, (bound or 0) * field.factor + field.offset)
                except ValueError as error:
                    fix = "Correct the bound or the type."
                    raise Mistake("bad_value", f"`{slug}`: {error}", fix, ("writes", slug)) from None
        told: list[tuple[Location, Told]] = [(("match", n), one) for n, one in enumerate(self.match)]
        told += [(("verify", n), one) for n, one in enumerate(self.verify)]
        told += [(("serial_number",), self.serial_number)] if self.serial_number else []
        for at, one in told:
            try:
                function, _ = self.wire(one.addr, one.fc)
            except Mistake as mistake:
                raise Mistake(mistake.code, str(mistake), mistake.fix, (*at, "addr")) from None
            if function != one.fc:
                why, fix = f"{one.addr} is read by function {function}, not {one.fc}", f"Write `fc: {function}`."
                raise Mistake("bad_address_base", why, fix, (*at, "fc"))
        if both := sorted(set(self.points) & set(self.writes)):
            raise Mistake(
                "duplicate_key",
                f"`{both[0]}` stands under `points` and under `writes`",
                "Keep it under `writes`: it is read as well.",
                ("writes", both[0]),
            )
        return self

    def _fits(self, field: Field) -> None:
        if field.end > 65536 or field.width > self.line.max_regs:
            why = f"does not fit: {field.width} registers from {field.addr:#06x}"
            raise Mistake("bad_register", why, "A value and what it depends on come in one answer.", ("addr",))
        if self.line.pairs and (field.addr % 2 or field.width % 2):
            why = f"{field.addr:#06x} breaks `pairs`: even addresses and even counts only"
            raise Mistake("bad_value", why, "Use the address on the wire, which starts at 0.", ("addr",))
        for first, last in self.line.forbidden.get(field.fc, ()):
            if field.addr <= last and field.end > first:
                why = f"{field.addr:#06x} lies in the forbidden registers {first:#06x} to {last:#06x}"
                raise Mistake("bad_register", why, "Remove the point, or correct `forbidden`.", ("addr",))

    def wire(self, written: int, fc: int) -> tuple[int, int]:
        """(read function, address on the wire) of an address as this profile writes them. Mistake: there is none."""
        match self.address_base:
            case "wire":
                found = fc, written
            case "one":
                found = fc, written - 1
            case "modicom":
                table, number = divmod(written, 100_000 if written > 99_999 else 10_000)
                if table not in _TABLES or not number:
                    why = f"{written} is no Modicom address of a register"
                    raise Mistake("bad_address_base", why, "Write 30001… or 40001…, or another `address_base`.", _ADDR)
                found = _TABLES[table], number - 1
        if not 0 <= found[1] <= 65535:
            why = f"{written} is {found[1]} on the wire"
            fix = f"Addresses there go from 0 to 65535; `address_base` is `{self.address_base}`."
            raise Mistake("bad_address_base", why, fix, _ADDR)
        return found

    def limits(self) -> Limits:
        """What one request may ask."""
        forbidden = tuple((fc, first, last) for fc, spans in self.line.forbidden.items() for first, last in spans)
        alone = frozenset(slug for slug, place in (*self.points.items(), *self.writes.items()) if place.alone)
        return Limits(self.line.max_regs, self.line.max_hole, alone, forbidden)

    def fields(self) -> Iterator[tuple[str, Field]]:
        """The polled points, by slug."""
        for slug, place in self.points.items():
            yield slug, self._field(place)

    def writable(self) -> Iterator[tuple[str, Field]]:
        """The writable points as they are read back, by slug."""
        for slug, place in self.writes.items():
            yield slug, self._field(place)

    def frames(self) -> Iterator[tuple[str, str]]:
        """What is sent to read each point, as the wire carries it behind the unit id: (slug, "04 00 34 00 02")."""
        for slug, field in (*self.fields(), *self.writable()):
            frame = bytes((field.fc, *divmod(field.addr, 256), *divmod(field.width, 256))).hex(" ")
            # Where a SunSpec device has its models, only the device itself says.
            yield slug, f"{frame[:2]} ?? ??{frame[8:]}" if self.sunspec else frame

    def _field(self, place: Place) -> Field:
        fc, addr = self.wire(place.addr, (place.fc or self.defaults.fc) if isinstance(place, ReadPoint) else 3)
        if fc != 3 and isinstance(place, WritePoint):
            raise Mistake("bad_register", f"{place.addr} is an input register", "Only 4xxxx can be written.", _ADDR)
        others = {}
        for name, written in place.beside().items():
            function, others[name] = self.wire(written, fc)
            if function != fc:
                why = f"{written} is read by function {function}, the value by {fc}: not in one answer"
                raise Mistake("bad_register", why, "Only registers of one table can be read together.", (name,))
        field = place.field(fc, addr, others, self.defaults)
        if not self.sunspec:
            return field
        return sunspec.located(field, 0, self.sunspec[0], sunspec.layout(self.sunspec).length)


_TABLES = {3: 4, 4: 3}
_ADDR = ("addr",)


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
        rehearsal = Argument(choices=("yes",), optional=True)
        found[f"set:{slug}"] = Verb("set", {"value": argument, "dry_run": rehearsal}, role=place.role)
    return found


def address(settings: DeviceSettings) -> str | None:
    """Two devices of one link must not share this."""
    return str(settings.address)
