"""SunSpec: a device says where its models lie, so nobody writes addresses. Pure.

A device begins with `SunS`, then come its models, each an id, a length and so many registers; 0xFFFF ends them. What
is not known is skipped by its length. Blocks may move with a new firmware, so every answer carries the id and the
length of its model, and is no value where they are others.

Source: SunSpec device information model; the layouts in config/sunspec, which name theirs.
"""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import config
from drivers.modbus.codec import Field, Special
from gateway import document
from gateway.document import Mistake

Question = tuple[int, int, int]
"""Function, address, count."""
Walk = Generator[Question, Sequence[int] | None, "Place"]
"""Yields questions, is sent the registers, or None where they are refused."""

FC, BASES, MARKER, LAST = 3, (40000, 50000, 0), [0x5375, 0x6E53], 0xFFFF
HEAD = 2
"""Registers of a model's id and length."""
BEGINNING = len(MARKER) + HEAD
ADDRESS_AT = BEGINNING + 64
"""Where model 1, which comes first, has the address of the device."""
COMMON, SERIAL_AT, SERIAL_WORDS = 1, 48, 16
MOST = 64
"""Models that are walked over before a device is taken for one that has no end."""

_TYPES = {
    "uint16": ("u16", ["0xFFFF"]), "int16": ("s16", ["0x8000"]), "enum16": ("u16", ["0xFFFF"]),
    "bitfield32": ("u32", ["0xFFFFFFFF"]), "acc32": ("acc32", []),
}  # fmt: skip
_UNITS = {"C": "Cel"}
_REST = {"int16": (0x8000,), "sunssf": (0x8000,), "pad": (0x8000,), "uint16": (0xFFFF,), "enum16": (0xFFFF,),
         "bitfield32": (0xFFFF, 0xFFFF), "acc32": (0, 0), "string16": (0,) * 16, "string8": (0,) * 8}  # fmt: skip
"""What each type holds where it is not implemented."""


@dataclass(frozen=True, slots=True)
class Layout:
    """What lies in a model, and in those that are like it."""

    models: Sequence[int]
    length: int
    points: Mapping[str, Mapping[str, Any]]

    def rest(self) -> list[int]:
        """The registers of a model in which nothing is implemented."""
        return [word for point in self.points.values() for word in _REST[point["type"]]]


@dataclass(frozen=True, slots=True)
class Place:
    """Where the first of the models that are asked for begins, with its id; or why there is none."""

    address: int = 0
    model: int = 0
    length: int = 0
    serial: str | None = None
    why_none: str = ""


@cache
def layouts() -> Sequence[Layout]:
    tree: Any = document.read(Path(config.__file__).parent / "sunspec" / "models.yaml").tree
    return [
        Layout([int(model) for model in one["models"]], int(one["length"]), one["points"]) for one in tree["layouts"]
    ]


def layout(models: Sequence[int]) -> Layout:
    """What all these models have at one place. Mistake: they are not known, or not of one length."""
    found = [one for one in layouts() if set(one.models) & set(models)]
    known = sorted(model for one in found for model in one.models)
    if not models or not set(models) <= set(known) or len({one.length for one in found}) > 1:
        every = ", ".join(str(model) for one in layouts() for model in one.models)
        why = f"the models {list(models)} have no common layout"
        raise Mistake("bad_value", why, f"Known are {every}; those of one length go together.", ("sunspec",))
    first, *others = (one.points for one in found)
    shared = {name: point for name, point in first.items() if all(one.get(name) == point for one in others)}
    return Layout(models, found[0].length, shared)


def common(texts: Mapping[str, str]) -> list[int]:
    """The registers of model 1 with these texts, id and length before them."""
    found = layout([COMMON])
    words = found.rest()
    for name, text in texts.items():
        raw = text.encode().ljust(2 * len(_REST[found.points[name]["type"]]), b"\0")
        at = int(found.points[name]["offset"])
        words[at : at + len(raw) // 2] = [int.from_bytes(raw[n : n + 2], "big") for n in range(0, len(raw), 2)]
    return [COMMON, found.length, *words]


def written(models: Sequence[int], point: str) -> dict[str, Any]:
    """The keys of a profile's point: where and how it lies, from the model's id. Mistake: there is none."""
    points = layout(models).points
    found = points.get(point)
    if found is None or found["type"] not in _TYPES:
        why, fix = document.unknown(point, [name for name, one in points.items() if one["type"] in _TYPES])
        raise Mistake("unknown_key", f"SunSpec point {why}", fix)
    kind, invalid = _TYPES[found["type"]]
    keys: dict[str, Any] = {"addr": HEAD + int(found["offset"]), "type": kind, "invalid": invalid}
    if "scale" in found:
        keys["scale"] = {"exponent_register": HEAD + int(points[found["scale"]]["offset"])}
        if found["unit"] == "Pct":
            keys["scale"]["times"] = 0.01
        else:
            keys["unit"] = _UNITS.get(found["unit"], found["unit"])
    if "words" in found:
        keys["map"] = found["words"]
    return keys


def located(field: Field, address: int, model: int, length: int) -> Field:
    """A field that counts from its model's id, where that begins at `address`; it holds only under this id."""
    special = field.special or Special(field.width, size=field.width)
    ahead = 0 if special.marks else field.addr
    places = {name: getattr(special, name) for name in ("at", "exponent_at", "scale_at", "minus_at", "status_at")}
    moved = {name: ahead + at for name, at in places.items() if at is not None}
    special = replace(special, span=ahead + special.span, marks=((0, model), (1, length)), **moved)
    return replace(field, addr=address, special=special)


def walk(models: Sequence[int]) -> Walk:
    """From `SunS` to the first of `models`."""
    for base in BASES:
        words = yield FC, base, BEGINNING
        if words is not None and list(words[:2]) == MARKER:
            return (yield from onwards(models, base + len(MARKER), words[2:]))
    return Place(why_none="it does not say `SunS` at 40000, 50000 or 0: it is no SunSpec device, or it is switched off")


def begins(bank: Mapping[int, Mapping[int, int]], question: Question) -> tuple[int, Sequence[int]] | None:
    """Where the first model begins, and its id and length, if `question` has brought `SunS`."""
    _, base, _ = question
    words = [bank.get(FC, {}).get(addr, 0) for addr in range(base, base + BEGINNING)]
    if base not in BASES or words[: len(MARKER)] != MARKER:
        return None
    return base + len(MARKER), words[len(MARKER) :]


def onwards(models: Sequence[int], address: int, head: Sequence[int], *, has_serial: bool = True) -> Walk:
    """From the id and length of the first model, which lies at `address`, to the first of `models`."""
    serial: str | None = None
    met: list[str] = []
    while len(met) < MOST:
        model, length = head
        if model in models:
            if length != layout([model]).length:
                why = f"its model {model} has {length} registers, and should have {layout([model]).length}"
                return Place(why_none=why)
            return Place(address, model, length, serial)
        if model == LAST:
            break
        met.append(str(model))
        if has_serial and model == COMMON and length >= SERIAL_AT + SERIAL_WORDS:
            words = yield FC, address + HEAD + SERIAL_AT, SERIAL_WORDS
            letters = b"".join(word.to_bytes(2, "big") for word in words or ())
            serial = letters.partition(b"\0")[0].decode("latin-1").strip() or None
        address += HEAD + length
        if address > 0xFFFF - HEAD:
            break
        words = yield FC, address, HEAD
        if words is None:
            break
        head = words
    wanted = ", ".join(map(str, models))
    return Place(why_none=f"it has none of the SunSpec models {wanted}, but {', '.join(met) or 'no model'}")
