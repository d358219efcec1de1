"""The small words that a serial profile is written in: bytes, patterns, conditions, places."""

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from gateway.document import Mistake
from gateway.fields import Whole, Written

Place = int | str
"""Byte offset, column, or key: where a value stands in a frame."""
MAX_LENGTH = 4096


def _bytes(written: Any) -> Any:
    if isinstance(written, Mapping) and list(written) == ["text"] and isinstance(written["text"], str):
        try:
            return written["text"].encode("latin-1")
        except UnicodeEncodeError:
            pass
    try:
        return bytes.fromhex(written)
    except (TypeError, ValueError):
        fix = 'Write them like `aa c0 0f`, or as text: `{text: "0R1\\r\\n"}`.'
        raise Mistake("bad_hex", f"`{written}` is not bytes in hexadecimal", fix) from None


Bytes = Annotated[bytes, BeforeValidator(_bytes), WithJsonSchema({"type": "string", "examples": ["aa c0"]})]
"""Bytes in hexadecimal, `aa c0`, or as `{text: "…"}`."""


def _pattern(written: Any) -> Any:
    try:
        return re.compile(written, re.ASCII)
    except (TypeError, re.error) as error:
        fix = "Write a regular expression as Python reads it, in single quotes."
        raise Mistake("bad_pattern", f"`{written}` is not a regular expression: {error}", fix) from None


Pattern = Annotated[re.Pattern[str], BeforeValidator(_pattern), WithJsonSchema({"type": "string"})]


def _masked(written: Any) -> Any:
    """`0f` or `00/f0`: bytes, and which of their bits count."""
    alternatives = written if isinstance(written, Sequence) and not isinstance(written, str) else [written]
    found = []
    for one in alternatives:
        value, _, mask = one.partition("/") if isinstance(one, str) else (one, "", "")
        wanted = _bytes(value)
        bits = _bytes(mask) if mask else b"\xff" * len(wanted)
        if not wanted or len(wanted) != len(bits):
            raise Mistake("bad_hex", f"`{one}`: value and mask differ in length", "Write `01/0f`, or bytes alone.")
        found.append((wanted, bits))
    return tuple(found)


Masked = Annotated[
    tuple[tuple[bytes, bytes], ...],
    BeforeValidator(_masked),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array"}], "examples": ["11", ["11", "12"], "01/0f"]}),
]


class Condition(Written):
    """Which frames something is for: bytes at offsets (`when`), and for text a regular expression (`like`)."""

    when: dict[Whole, Masked] = Field(default_factory=dict)
    """Offset, negative from the end -> the bytes there, or a list of alternatives; `01/0f` looks at the low bits."""
    like: Pattern | None = None
    """A regular expression that must be found in the text."""

    def holds(self, frame: bytes) -> bool:
        for at, alternatives in self.when.items():
            if at < -len(frame) or not any(_matches(frame[at:], wanted, bits) for wanted, bits in alternatives):
                return False
        return self.like is None or self.like.search(frame.decode("latin-1")) is not None


def _matches(rest: bytes, wanted: bytes, bits: bytes) -> bool:
    if rest.startswith(wanted):
        return True
    return len(rest) >= len(wanted) and all(
        (got ^ want) & bit == 0 for got, want, bit in zip(rest, wanted, bits, strict=False)
    )


def _place(written: Any) -> Place:
    if isinstance(written, bool) or not isinstance(written, str | int):
        raise Mistake("bad_place", f"`{written}` is no place in a frame", "Write an offset, a column or a key.")
    text = str(written)
    if re.fullmatch(r"-?\d+", text):
        return int(text)
    return int(text, 16) if re.fullmatch(r"0[xX][0-9a-fA-F]+", text) else text


def _places(written: Any) -> dict[str, tuple[Place, ...]]:
    """`4`, `[GGA.2, RMC.3]`, or by message `{wind: 1, mwv: 2}`; the message "" stands for every one."""
    if isinstance(written, Mapping):
        return {str(message): one for message, places in written.items() for one in _places(places).values()}
    if isinstance(written, Sequence) and not isinstance(written, str):
        return {"": tuple(_place(one) for one in written)}
    return {"": (_place(written),)}


Places = Annotated[
    dict[str, tuple[Place, ...]],
    BeforeValidator(_places),
    WithJsonSchema({"type": ["integer", "string", "array", "object"], "examples": [4, "Ta", ["GGA.2", "RMC.3"]]}),
]
"""Where a value stands: a place, a list of them (the first that is there), or places by message."""


def places_in(places: Mapping[str, tuple[Place, ...]], message: str) -> tuple[Place, ...]:
    """Where to look in a frame of `message`; empty where it has none."""
    return places.get(message) or places.get("", ())


Unsigned = Annotated[Whole, Field(ge=0)]
FORMATS = {
    "u8": "B", "s8": "b",
    "u16le": "<H", "u16be": ">H", "s16le": "<h", "s16be": ">h",
    "u32le": "<I", "u32be": ">I", "s32le": "<i", "s32be": ">i",
    "u64le": "<Q", "u64be": ">Q", "s64le": "<q", "s64be": ">q",
    "f32le": "<f", "f32be": ">f", "f64le": "<d", "f64be": ">d",
}  # fmt: skip
ODD = {"u24le": 3, "u24be": 3, "s24le": 3, "s24be": 3, "u48le": 6, "u48be": 6}
"""Widths that struct does not know, in bytes."""
SIZES = {name: int(re.sub(r"\D", "", name)) // 8 for name in (*FORMATS, *ODD)}
BinaryType = Literal[
    "u8", "s8", "u16le", "u16be", "s16le", "s16be", "u24le", "u24be", "s24le", "s24be", "u32le", "u32be", "s32le",
    "s32be", "u48le", "u48be", "u64le", "u64be", "s64le", "s64be", "f32le", "f32be", "f64le", "f64be",
]  # fmt: skip


class Crc(Written):
    """A CRC by its Rocksoft parameters, as catalogues print them."""

    width: Annotated[Whole, Field(ge=8, le=64)]
    poly: Unsigned
    init: Unsigned = 0
    refin: bool = False
    refout: bool = False
    xorout: Unsigned = 0

    @model_validator(mode="after")
    def _fits(self) -> "Crc":
        for name in ("poly", "init", "xorout"):
            if getattr(self, name) >> self.width:
                why = f"{getattr(self, name):#x} has more than {self.width} bits"
                raise Mistake("bad_frame", why, "Correct it, or `width`.", (name,))
        return self


class Checksum(Condition):
    """How a frame proves that it arrived whole. With `when` or `like`: only frames that these hold for have one."""

    algorithm: Literal[
        "sum8", "sum8_negated", "sum8_inverted", "sum16", "xor8",
        "crc8_maxim", "crc16_arc", "crc16_mcrf4xx", "crc16_modbus", "crc16_xmodem", "crc32", "crc",
    ]  # fmt: skip
    """Sums keep their low bits; negated: two's complement; inverted: one's. `crc` is any other, by its parameters."""
    crc: Crc | None = None
    """For `algorithm: crc`."""
    over: tuple[int, int]
    """[first, behind]: the bytes it is made of; negative counts from the end."""
    at: int
    encoding: Literal["big", "little", "hex", "sdi12"] = "big"
    """As bytes, high or low byte first; `hex`: as hexadecimal digits; `sdi12`: three printable characters."""

    @model_validator(mode="after")
    def _is_whole(self) -> "Checksum":
        if (self.algorithm == "crc") != (self.crc is not None):
            why = "`algorithm: crc` and `crc:` with its parameters belong together"
            raise Mistake("bad_frame", why, "Add `crc: {width: 16, poly: 0x8005, …}`, or name an algorithm.")
        return self
