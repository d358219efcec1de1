"""The kinds of value that people write in site files and profiles, each as a pydantic type with its unit and rules."""

import math
import re
import typing
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, StringConstraints, WithJsonSchema

from gateway.diagnostic import Mistake
from gateway.quantities import convert


class Written(BaseModel):
    """Base of everything that people write: unknown keys are mistakes, values never change afterwards."""

    # A validator is built when it is first used: those of the models inside others never are.
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, defer_build=True)
    later: ClassVar[Mapping[str, str]] = {}
    """Keys of later versions, each with what to write for now: the mistake is then called what it is."""


_SECONDS = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES = {"B": 1, "KB": 1024, "MB": 1024**2, "GB": 1024**3, "kB": 1024}
_AMOUNT = re.compile(r"\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*(\S*)\s*")


def _split(text: Any, example: str) -> tuple[float, str]:
    match = _AMOUNT.fullmatch(str(text))
    if not match:
        raise Mistake("bad_amount", f"`{text}` is not a number with a unit", f"Write it like `{example}`.")
    number = float(match[1])
    if not math.isfinite(number):
        raise Mistake("bad_amount", f"`{text}` is too large", f"Write it like `{example}`.")
    return number, match[2]


def _not_negative(number: float, text: Any) -> None:
    if number < 0:
        raise Mistake("bad_amount", f"`{text}` is negative", f"Write `{str(text).strip().removeprefix('-')}`.")


def _duration(text: Any) -> float:
    number, unit = _split(text, "10s")
    if unit not in _SECONDS:
        said = f"`{text}` has no unit of time" if not unit else f"`{unit}` is not a unit of time"
        raise Mistake("bad_amount", said, f"Write `{number:g}s`, or ms, min, h, d.")
    _not_negative(number, text)
    return number * _SECONDS[unit]


def _size(text: Any) -> int:
    number, unit = _split(text, "200 MB")
    if unit not in _BYTES:
        raise Mistake("bad_amount", f"`{text}` is not a size", f"Write `{number:g} MB`, or B, KB, GB.")
    _not_negative(number, text)
    return int(number * _BYTES[unit])


def _whole(text: Any) -> Any:
    """Decimal or 0x…: register numbers are written as the maker prints them."""
    if isinstance(text, str) and re.fullmatch(r"0[xX][0-9a-fA-F]+", text):
        return int(text, 16)
    return text


Duration = Annotated[
    float, BeforeValidator(_duration), WithJsonSchema({"type": "string", "unit": "s", "examples": ["10s", "5min"]})
]
"""Seconds, written with a unit: 250ms, 10s, 5min, 1h, 7d."""
Size = Annotated[int, BeforeValidator(_size), WithJsonSchema({"type": "string", "unit": "B", "examples": ["200 MB"]})]
"""Bytes, written with a unit: 64 KB, 200 MB."""
Whole = Annotated[
    int, BeforeValidator(_whole), WithJsonSchema({"type": ["integer", "string"], "examples": [1, "0x34"]})
]
"""A whole number, decimal or 0x hexadecimal."""


Amount = Annotated[
    tuple[float, str],
    BeforeValidator(lambda text: _split(text, "1 V")),
    WithJsonSchema({"type": "string", "examples": ["1 V", "0.1 kWh"]}),
]
"""(number, unit), where what it is a number of is known only elsewhere."""


def amount(unit: str) -> Any:
    """A number in `unit`, written with it or with one that converts to it: amount("W") takes `58 W`, `0.1 kW`."""

    def parse(text: Any) -> float:
        number, written = _split(text, f"5 {unit}")
        if not written:
            raise Mistake("bad_amount", f"`{text}` has no unit", f"Write `{number:g} {unit}`.")
        try:
            factor, offset = convert(written, unit)
        except ValueError as error:
            raise Mistake("bad_amount", str(error), f"Write it in {unit}.") from None
        return number * factor + offset

    return Annotated[
        float, BeforeValidator(parse), WithJsonSchema({"type": "string", "unit": unit, "examples": [f"5 {unit}"]})
    ]


Slug = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
"""A name in small letters, digits, `-` and `_`: assets, devices, links, points, uplinks."""


CREDENTIAL = r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}"


def _secret(text: Any) -> Any:
    if text == "secret" or (isinstance(text, str) and re.fullmatch(f"secret:{CREDENTIAL}", text)):
        return text
    raise Mistake(
        "clear_text_secret",
        "a secret stands here in clear text",
        "Write `secret` (the credential named after its place) or `secret:NAME`, and store the value with "
        "`lampione secret set NAME`. Change the one written here: it has been in a file.",
    )


class _IsSecret:
    """Marks a field that holds a reference to a credential."""


Secret = Annotated[
    str,
    BeforeValidator(_secret),
    _IsSecret(),
    WithJsonSchema({"type": "string", "pattern": f"^secret(:{CREDENTIAL})?$"}),
]
"""A reference to a credential, never the credential: `secret` or `secret:NAME`."""


def secrets(model: BaseModel) -> Iterator[tuple[str, str]]:
    """(key, reference) of every secret that `model` refers to; below another key as `tls.key`."""
    for name, field in type(model).model_fields.items():
        key, value = field.alias or name, getattr(model, name)
        if isinstance(value, str) and (
            _marked(field.annotation) or any(isinstance(m, _IsSecret) for m in field.metadata)
        ):
            yield key, value
        inner = value.items() if isinstance(value, Mapping) else [("", value)]
        for part, below in inner:
            if isinstance(below, BaseModel):
                for rest, reference in secrets(below):
                    yield ".".join(filter(None, (key, str(part), rest))), reference


def _marked(annotation: Any) -> bool:
    parts = typing.get_args(annotation)
    return any(isinstance(part, _IsSecret) or _marked(part) for part in parts)
