"""The meaning of one value in a frame: where it stands, how it is read, what it is in its unit."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Literal

from pydantic import Field, model_validator

from drivers.serial.words import BinaryType, Place, Places, Unsigned
from gateway import document
from gateway.document import Mistake
from gateway.fields import Duration, Slug, Whole, Written
from gateway.model import Reason
from gateway.profile import ProfilePoint
from gateway.quantities import convert


class Counter(Written):
    """A number that only grows: what is told is by how much it grew since it was last told, over restarts too."""

    wraps: Annotated[float, Field(gt=0)] | None = None
    """In `unit`: it goes on from 0 there. Left out, or where less than half of that is missing, a smaller number
    means that the sensor began anew."""


class Types(Written):
    """A value whose type the frame itself says."""

    at: Annotated[Whole, Field(ge=0)]
    """The byte that says it."""
    of: Annotated[dict[Whole, BinaryType], Field(min_length=1)]
    """That byte -> the type."""


class Sign(Written):
    """A direction that another word says: south and west are negative."""

    at: Places
    negative: Annotated[Sequence[str], Field(min_length=1)]
    """Words for the negative direction."""
    positive: Annotated[Sequence[str], Field(min_length=1)]
    """Words for the positive direction. Any other word: no value."""


class SerialPoint(ProfilePoint):
    """Where a value stands in the frame, and what makes a measurement of it."""

    at: Places
    """Byte offset, column or key; a list of them (the first that is there); or places by message."""
    type: BinaryType | Literal["number", "hex", "coordinate", "text"] | None = None
    """Of bytes: u8, s16be, f32le …; of text: `number` (the rule), `hex`, `coordinate` (NMEA's dddmm.mmmm), `text`."""
    types: Types | None = None
    """In place of `type`, where the frame says it."""
    bits: tuple[int, int] | None = None
    """[highest, lowest] of a whole number's bits that are meant."""
    sign: Sign | None = None
    exponent_at: Annotated[Whole, Field(ge=0)] | None = None
    """A signed byte: the number counts times ten to that power, -6 to 6."""
    scale: Annotated[float, Field(allow_inf_nan=False)] = 1.0
    offset: Annotated[float, Field(allow_inf_nan=False)] = 0.0
    """Value in `unit` = number in the frame * scale + offset."""
    polynomial: Sequence[float] = ()
    """In place of scale and offset: [a, b, c] gives a + b·x + c·x²."""
    table: Sequence[tuple[float, float]] = ()
    """In place of scale and offset: [[number, value], …], straight lines between, nothing outside."""
    words: dict[str, str] = Field(default_factory=dict)
    """For a state: the number or word in the frame -> its name. Anything else is no value."""
    units: dict[str, str] = Field(default_factory=dict)
    """Letters in the frame, behind the number or at `unit_at` -> the unit, or the reason for no value."""
    unit_at: Places = Field(default_factory=dict)
    invalid: Sequence[Whole] = ()
    """Numbers in the frame that stand for "no measurement" (bad, absent)."""
    range: tuple[float, float] | None = None
    """In `unit`, both ends included; outside is no value (bad, out_of_range)."""
    saturates: float | None = None
    """In `unit`: from here on the sensor only says that it is more (uncertain, out_of_range)."""
    stuck: Annotated[Duration, Field(gt=0)] | None = None
    """The same value for longer than that is doubtful (uncertain, stale)."""
    counter: Counter | None = None
    combine: Literal["last", "mean", "energy", "vector"] = "last"
    """What is told of the values since the last time, where `every` thins them: `energy` for dB, `vector` for
    directions."""
    weight: Slug | None = None
    """For `combine: vector`: the point that says how long each vector is."""

    @model_validator(mode="after")
    def _scales(self) -> "SerialPoint":
        if self.scale == 0:
            raise Mistake("bad_scale", "a scale of 0 makes every value 0", "Write the maker's factor, like `0.1`.")
        if (self.scale != 1 or self.offset != 0) + bool(self.polynomial) + bool(self.table) + bool(self.words) > 1:
            why = "`scale` and `offset`, `polynomial`, `table` and `words` exclude each other"
            raise Mistake("bad_point", why, "Keep one of them.")
        if self.table and (len(self.table) < 2 or any(a[0] >= b[0] for a, b in pairwise(self.table))):
            why = "a table needs two rows or more, their numbers rising"
            raise Mistake("bad_point", why, "Sort it: `[[0, -40], [4095, 125]]`.", ("table",))
        if self.range and not self.range[0] < self.range[1]:
            raise Mistake("bad_point", f"the range {list(self.range)} is empty", "Write [lowest, highest].", ("range",))
        if self.type and self.types:
            raise Mistake("bad_point", "`type` and `types` exclude each other", "Keep one of them.", ("types",))
        if self.bits and not 63 >= self.bits[0] >= self.bits[1] >= 0:
            raise Mistake("bad_point", f"{list(self.bits)} are no bits", "Write [highest, lowest].", ("bits",))
        if self.combine == "vector" and self.canonical_unit != "deg":
            raise Mistake("bad_point", "`vector` is for directions in degrees", "Write `mean`.", ("combine",))
        if self.weight and self.combine != "vector":
            raise Mistake("bad_point", "`weight` is for `combine: vector`", "Remove it.", ("weight",))
        if self.counter and self.combine != "last":
            raise Mistake("bad_point", "a counter is never averaged", "Remove `combine`.", ("combine",))
        for letter, unit in self.units.items():
            if unit not in set(Reason):
                try:
                    convert(unit, self.canonical_unit)
                except ValueError as error:
                    raise Mistake("bad_unit", str(error), "", ("units", letter)) from None
        if self.unit_at and not self.units:
            raise Mistake("bad_point", "`unit_at` without `units`", "Say what its letters mean: `units: {M: m/s}`.")
        return self

    @property
    def is_text(self) -> bool:
        return self.type == "text"

    @property
    def places(self) -> list[Place]:
        return [place for places in self.at.values() for place in places]


class Verdict(Written):
    """What a status says of the values beside it."""

    quality: Literal["uncertain", "bad"] = "bad"
    reason: Reason = Reason.DEVICE_FAILURE
    say: str = ""
    """In plain words, for the technician."""


class Status(Written):
    """A word of state in the frame. `good`, `codes` are for its whole value, `bits` for each bit that is set."""

    at: Places
    type: BinaryType | Literal["number", "hex", "text"] | None = None
    good: Sequence[str] = ()
    """The values that mean all is well; where there are `codes` or `good`, any other is a device failure."""
    codes: dict[str, Verdict] = Field(default_factory=dict)
    bits: dict[Annotated[Unsigned, Field(le=63)], Verdict] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _says_something(self) -> "Status":
        if not (self.good or self.codes or self.bits):
            why, fix = "a status that means nothing", "Add `good`, `codes` or `bits`."
            raise Mistake("bad_point", why, fix)
        return self


def known(word: str, among: Sequence[str], what: str, at: tuple[str | int, ...]) -> None:
    """Mistake where `word` names nothing."""
    if word not in among:
        why, fix = document.unknown(word, sorted(among))
        raise Mistake("unknown_word", f"{what} {why}", fix, at)
