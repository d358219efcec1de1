"""How frames are found in a stream of bytes: what people write under `frame`.

Offsets count bytes from the start of the frame; negative counts from its end. The content of a `delimited` frame is
what stands between `start` and `end`, that of a `stuffed` one what stands between the delimiters, unstuffed:
checksum, conditions and points count from there.
"""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from drivers.serial.words import MAX_LENGTH, Bytes, Checksum, Unsigned
from gateway.document import Mistake
from gateway.fields import Duration, Whole, Written

Sync = Annotated[Bytes, Field(min_length=1)]
Length = Annotated[Whole, Field(gt=1, le=MAX_LENGTH)]


class _Checked(Written):
    checksum: Checksum | None = None


class _Synced(_Checked):
    sync: Sync
    """The bytes that every frame starts with."""
    end: Bytes = b""
    """The bytes that every frame ends with."""
    lock: Annotated[Whole, Field(ge=1, le=16)] = 1
    """Good frames in a row before the first counts: more than 1 where sync and checksum are so short that chance
    makes them."""


class FixedFrame(_Synced):
    """Every frame has the same length."""

    type: Literal["fixed"]
    length: Length

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


LENGTH_TYPES = {"u8": 1, "u16be": 2, "u16le": 2}
LengthType = Literal["u8", "u16be", "u16le"]


class LengthPrefixedFrame(_Synced):
    """The frame says its own length: whole length = the number at `length_at` + `length_adds`."""

    type: Literal["length_prefixed"]
    length_at: Annotated[Whole, Field(ge=1)]
    length_type: LengthType
    length_adds: Whole = 0
    max_length: Length

    @property
    def longest(self) -> int:
        return self.max_length

    @property
    def shortest(self) -> int:
        return self.length_at + LENGTH_TYPES[self.length_type]


class DispatchedFrame(_Synced):
    """One byte says which frame it is, and with that how long."""

    type: Literal["dispatched"]
    id_at: Annotated[Whole, Field(ge=1)]
    lengths: Annotated[dict[Whole, Length], Field(min_length=1)]
    """The byte at `id_at` -> the frame's whole length. Other bytes are no frame."""

    @property
    def longest(self) -> int:
        return max(self.lengths.values())


class DelimitedFrame(_Checked):
    """A line of text: whatever stands between `start`, where there is one, and `end`."""

    type: Literal["delimited"]
    start: Bytes = b""
    end: Sync
    max_length: Length

    @property
    def longest(self) -> int:
        return self.max_length


class StuffedFrame(_Checked):
    """Between two delimiters; a byte that must not occur inside is sent as `escape` and another: SHDLC, HDLC, SLIP."""

    type: Literal["stuffed"]
    delimiter: Annotated[Bytes, Field(min_length=1, max_length=1)]
    escape: Annotated[Bytes, Field(min_length=1, max_length=1)]
    escapes: Annotated[dict[Annotated[Bytes, Field(min_length=1, max_length=1)], Bytes], Field(min_length=1)]
    """The byte behind `escape` -> the byte that is meant."""
    length_at: Annotated[Whole, Field(ge=0)] | None = None
    """Where the content says its own length: a sum does not see that a zero was lost, this does."""
    length_type: LengthType = "u8"
    length_adds: Whole = 0
    max_length: Length

    @property
    def longest(self) -> int:
        return self.max_length


class IdleFrame(_Checked):
    """Nothing marks a frame but the silence behind it. Not behind a serial server: it makes pauses of its own."""

    type: Literal["idle"]
    gap: Annotated[Duration, Field(gt=0, le=10)]
    min_length: Unsigned = 1
    max_length: Length

    @property
    def longest(self) -> int:
        return self.max_length


SyncedFrame = FixedFrame | LengthPrefixedFrame | DispatchedFrame
Frame = SyncedFrame | DelimitedFrame | StuffedFrame | IdleFrame


def joins_blind(rule: Frame) -> bool:
    """Whether the rest of a frame that had begun before we listened looks like a whole one."""
    return isinstance(rule, IdleFrame) or (isinstance(rule, DelimitedFrame) and not rule.start)


def joins_halves(rule: Frame) -> bool:
    """Whether the first half of a frame and the next frame look like one: nothing in it proves that it is whole."""
    return not isinstance(rule, IdleFrame) and (rule.checksum is None or joins_blind(rule))
