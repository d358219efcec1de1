"""What a profile says of one point: its registers, what stands in them, and what says how to read them."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, StringConstraints, WithJsonSchema, model_validator
from pydantic import Field as Key

from drivers.modbus.codec import Field, Special
from drivers.modbus.kinds import UNSIGNED, WHOLE, WIDTH, Half, Kind
from gateway.diagnostic import Mistake
from gateway.fields import Whole, Written
from gateway.model import Reason
from gateway.profile import ProfilePoint

SETTING_EVERY = 3600.0
"""Seconds between two reads of a writable setting: it changes only when somebody changes it."""


def digits(written: object) -> object:
    return int(written) if isinstance(written, str) and written.isdigit() else written


WordOrder = Literal["big", "little"]
ReadFunction = Annotated[Literal[3, 4], BeforeValidator(digits)]
WriteFunction = Annotated[Literal[6, 16], BeforeValidator(digits)]
Register = Annotated[Whole, Key(ge=0, le=465536)]
Finite = Annotated[float, Key(allow_inf_nan=False)]
Word = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_]{0,62}$")]


@dataclass(frozen=True, slots=True)
class Pattern:
    """Raw & mask = pattern means "no value"; `mask` None is the whole value."""

    pattern: int
    mask: int | None = None


def _pattern(written: Any) -> Any:
    text = str(written)
    if re.fullmatch(r"0[xX][0-9a-fA-FxX]+", text) and re.search("[xX]", text[2:]):
        nibbles = text[2:].lower()
        mask = int("".join("0" if nibble == "x" else "f" for nibble in nibbles), 16)
        return Pattern(int(nibbles.replace("x", "0"), 16), mask)
    try:
        return Pattern(int(text, 0))
    except ValueError:
        fix = "Write the registers in hexadecimal, high word first, with `x` for any digit: `0x7FFFxxxx`."
        raise Mistake("bad_value", f"`{text}` is no pattern of registers", fix) from None


Invalid = Annotated[
    Pattern,
    BeforeValidator(_pattern),
    WithJsonSchema({"type": ["integer", "string"], "examples": ["0x7FFFFFFF", "0x7FFFxxxx"]}),
]


class ExponentScale(Written):
    """A signed register beside the value says the power of ten."""

    exponent_register: Register
    times: Finite = 1.0
    """Value in `unit` = register value * 10^exponent * times: 0.01 where the device counts per cent."""


class MappedScale(Written):
    """A register beside the value says, by a table, the factor."""

    register_: Annotated[Register, Key(alias="register")]
    map: Annotated[Mapping[Whole, Finite], Key(min_length=1)]


class Status(Written):
    """A register beside the value whose bits say that it is none."""

    register_: Annotated[Register, Key(alias="register")]
    bits: Mapping[Annotated[Whole, Key(ge=0, le=15)], Reason] = {}
    """Why, by bit, the first that is set; any other bit that is set is a failure of the device."""


class Counter(Written):
    """What the maker says of a counter, so that a wrap is told from a reset and from another meter."""

    wraps_at: Annotated[float, Key(gt=0, allow_inf_nan=False)] | None = None
    """After this value, in `unit`, it starts again at 0."""
    resettable: bool = False
    """Somebody may set it to 0 on the device: never a base for billing."""


class Place(ProfilePoint):
    """A point and its registers."""

    addr: Register
    """Address, counted as `address_base` says."""
    type: Kind | None = None
    words: Annotated[int, Key(ge=1, le=125)] | None = None
    """How many registers `str` and `bcd` take."""
    bytes: Half | None = None
    """Which bytes of a register carry the text of a `str`: both, high or low."""
    bits: tuple[int, int] | None = None
    """[lowest, highest] bit of an unsigned type that is the value: [3, 3] is one bit."""
    map: Annotated[Mapping[Whole, Word], Key(min_length=1)] | None = None
    """Number to word: {0: idle, 1: running}; a number that is not in it is no value."""
    word_order: WordOrder | None = None
    scale: Finite | ExponentScale | MappedScale = 1.0
    """Value in `unit` = register value * scale; or the register beside it that says the scale."""
    minus: Register | None = None
    """Address of a second value of the same type that is taken off: power that is drawn minus power delivered."""
    sign: Literal["import_positive", "export_positive"] = "import_positive"
    """`export_positive`: the device counts delivered power as positive; the gateway turns it round."""
    status: Status | None = None
    counter: Counter | None = None
    alone: bool = False
    """The device answers this address only in a request of its own."""
    invalid: Sequence[Invalid] | None = None
    """Raw patterns, high word first, that mean "no value": [0x7FFFFFFF]; left out, those of the type."""
    range: tuple[float, float] | None = None
    """What the device can plausibly say, in `unit`; anything else is no value."""

    @model_validator(mode="after")
    def _makes_sense(self) -> "Place":
        if self.scale == 0 or (isinstance(self.scale, MappedScale) and 0 in self.scale.map.values()):
            raise Mistake("bad_scale", "a scale of 0 makes every value 0", "Write the maker's factor.", ("scale",))
        if self.range is not None and not self.range[0] < self.range[1]:
            raise Mistake("bad_value", f"the range {list(self.range)} is empty", "Write [lowest, highest].", ("range",))
        if self.map and (self.scale != 1 or self.minus is not None or self.sign != "import_positive"):
            why = "a word has neither scale, sign nor difference"
            raise Mistake("bad_register", why, "Remove `scale`, `sign` and `minus`, or `map`.", ("map",))
        return self

    def field(self, fc: int, start: int, others: Mapping[str, int], defaults: "Defaults") -> Field:
        """It as the codec reads it; `start` and `others` (minus, scale) are addresses on the wire. Mistake: nonsense.

        Where it needs other registers, the field spans them all: they come in one answer or not at all.
        """
        kind = self.type or defaults.type
        size = self._size(kind)
        self._fits(kind, size)
        patterns = defaults.invalid.get(kind, ()) if self.invalid is None else self.invalid
        low, high = self.range or (-math.inf, math.inf)
        factor, offset = (1.0, 0.0) if self.map or kind is Kind.STR else self.conversion
        scale = self.scale if isinstance(self.scale, float | int) else getattr(self.scale, "times", 1.0)
        ends = {"value": (start, size)} | {
            name: (addr, size if name == "minus" else 1) for name, addr in others.items()
        }
        first = min(addr for addr, _ in ends.values())
        masks = tuple((one.mask, one.pattern) for one in patterns if one.mask is not None)
        special = None
        if kind not in WIDTH or others or self.bits or self.map or masks or kind not in _ORDINARY:
            special = Special(
                span=max(addr + count for addr, count in ends.values()) - first,
                at=start - first,
                size=size,
                half=self.bytes or "both",
                bits=self.bits,
                words=self.map,
                exponent_at=others["scale"] - first if isinstance(self.scale, ExponentScale) else None,
                scale_at=others["scale"] - first if isinstance(self.scale, MappedScale) else None,
                scales=self.scale.map if isinstance(self.scale, MappedScale) else None,
                status_at=others["status"] - first if self.status else None,
                status=self.status.bits if self.status else None,
                minus_at=others["minus"] - first if "minus" in others else None,
                masks=masks,
            )
        return Field(
            fc=fc,
            addr=first,
            kind=kind,
            low_word_first=(self.word_order or defaults.word_order) == "little",
            scale=-scale if self.sign == "export_positive" else scale,
            factor=factor,
            offset=offset,
            invalid=tuple(one.pattern for one in patterns if one.mask is None),
            low=low,
            high=high,
            special=special,
        )

    def beside(self) -> dict[str, int]:
        """Addresses, as they are written, of the registers that the value depends on."""
        found = {} if self.minus is None else {"minus": self.minus}
        if self.status:
            found["status"] = self.status.register_
        match self.scale:
            case ExponentScale():
                found["scale"] = self.scale.exponent_register
            case MappedScale():
                found["scale"] = self.scale.register_
        return found

    def _size(self, kind: Kind) -> int:
        if kind in WIDTH:
            if self.words is not None:
                why = f"{kind} always takes {WIDTH[kind]} registers"
                raise Mistake("bad_register", why, "Remove `words`.", ("words",))
            return WIDTH[kind]
        if self.words is None:
            raise Mistake("missing_key", f"a {kind} needs its length", "Add `words:`, the number of registers.")
        if kind is Kind.BCD and self.words > 4:
            raise Mistake("bad_register", "a bcd of more than 16 digits is no number", "Use at most 4.", ("words",))
        return self.words

    def _fits(self, kind: Kind, size: int) -> None:
        if self.bytes and kind is not Kind.STR:
            raise Mistake("bad_register", f"{kind} has no letters", "Remove `bytes`, or use `type: str`.", ("bytes",))
        if self.bits and (kind not in UNSIGNED or not 0 <= self.bits[0] <= self.bits[1] < 16 * size):
            why = f"the bits {list(self.bits)} are not in {kind}"
            fix = f"Write [lowest, highest] from 0 to {16 * size - 1}, of u16, u32 or u64."
            raise Mistake("bad_register", why, fix, ("bits",))
        if self.map and kind not in WHOLE:
            raise Mistake("bad_register", f"{kind} is no whole number, as `map` needs", "Use u16 or u32.", ("map",))
        if kind is Kind.STR and (self.beside() or self.range or self.scale != 1):
            raise Mistake("bad_register", "text has no scale and no range", "Remove them.", ("type",))
        for one in self.invalid or ():
            if one.pattern >= 1 << 16 * size:
                why = f"the pattern {one.pattern:#x} is longer than {size} registers"
                raise Mistake("bad_register", why, "Compare `invalid` with the type.", ("invalid",))


_ORDINARY = frozenset((Kind.U16, Kind.S16, Kind.U32, Kind.S32, Kind.U64, Kind.S64, Kind.F32, Kind.F64))


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
    broadcast: bool = False
    """It is written to unit 0: every device on the line takes it and none answers; this one is read back."""
    confirm: Literal["readback"] = "readback"
    role: Literal["operator", "commission"] = "commission"

    @model_validator(mode="after")
    def _is_bounded(self) -> "WritePoint":
        low, high = self.bounds
        if low is None or high is None or not low < high:
            raise Mistake("missing_key", "a writable value needs its bounds", "Add `min:` and `max:`, or `values: []`.")
        if self.beside() or self.map or self.bits or self.type in (Kind.STR, Kind.BCD):
            why = "what is written is one number in its own registers"
            raise Mistake("bad_register", why, "Remove `map`, `bits`, `minus` and scale registers; write raw numbers.")
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
    invalid: Mapping[Kind, Sequence[Invalid]] = {}
    """Patterns that mean "no value", by type: {s32: [0x7FFFFFFF]}."""
