"""How the text of a frame falls into values: what people write under `layout`, and both directions of it."""

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from drivers.serial.words import Pattern, Place
from gateway.document import Mistake
from gateway.fields import Whole, Written

Found = Sequence[str] | dict[str, str]
"""The words of a text, by column or by key."""


class GarbledError(ValueError):
    """The text is not what the layout says: nothing in it can be trusted."""


def word(found: Found, place: Place) -> str | None:
    """The word at `place`; None where the text has none."""
    if isinstance(found, dict):
        return found.get(str(place))
    try:
        return found[int(place)]
    except (IndexError, ValueError):
        return None


class Binary(Written):
    """Values are bytes at offsets."""

    type: Literal["binary"] = "binary"


class Csv(Written):
    """Values by column, from 0; negative counts from the end."""

    type: Literal["csv"]
    separator: Annotated[str, Field(min_length=1, max_length=1)] = ","
    columns: Annotated[Whole, Field(ge=1)] | None = None
    """How many there must be; left out, any number."""

    def split(self, text: str) -> Found:
        words = text.split(self.separator)
        if self.columns is not None and len(words) != self.columns:
            raise GarbledError("columns")
        return [one.strip() for one in words]

    def put(self, text: str, place: Place, value: str) -> str:
        words = text.split(self.separator)
        words[int(place)] = value
        return self.separator.join(words)


class KeyValues(Written):
    """`Ta=16.1C,Ua=79.3P`: values by key. Words before the first `equals` are the line's head."""

    type: Literal["key_values"]
    separator: Annotated[str, Field(min_length=1, max_length=1)] = ","
    equals: Annotated[str, Field(min_length=1, max_length=1)] = "="

    def split(self, text: str) -> Found:
        found: dict[str, str] = {}
        for one in text.split(self.separator):
            key, equals, value = (part.strip() for part in one.partition(self.equals))
            if not equals and not found:
                continue
            if not equals or self.equals in value or key in found:
                raise GarbledError(one)
            found[key] = value
        return found

    def put(self, text: str, place: Place, value: str) -> str:
        words = text.split(self.separator)
        keys = [one.partition(self.equals)[0].strip() for one in words]
        words[keys.index(str(place))] = f"{place}{self.equals}{value}"
        return self.separator.join(words)


class Nmea(Written):
    """NMEA 0183, by sentence and field from 1: `GGA.2`. Of XDR by type and transducer: `XDR.C.2`, unit behind it."""

    type: Literal["nmea"]

    def split(self, text: str) -> Found:
        sentence, *fields = text.split(",")
        name = sentence[-3:]
        if name == "XDR":
            groups = list(zip(*[iter(fields)] * 4, strict=False))
            found: Found = {f"XDR.{kind}.{transducer}": value + unit for kind, value, unit, transducer in groups}
            if 4 * len(found) != len(fields):
                raise GarbledError("XDR groups")
            return found
        return {f"{name}.{number}": field for number, field in enumerate(fields, 1)}

    def put(self, text: str, place: Place, value: str) -> str:
        sentence, *fields = text.split(",")
        name, *where = str(place).split(".")
        if name == "XDR" and sentence.endswith("XDR"):
            for at in range(0, len(fields) - 3, 4):
                if [fields[at], fields[at + 3]] == where:
                    fields[at + 1] = value.removesuffix(fields[at + 2])
        elif sentence.endswith(name):
            fields[int(where[0]) - 1] = value
        return ",".join([sentence, *fields])


class Json(Written):
    """One object in each frame, by key; `outer.inner` looks inside."""

    type: Literal["json"]

    def split(self, text: str) -> Found:
        try:
            # NaN and Infinity are no JSON, although Python reads them.
            found = json.loads(text, parse_int=str, parse_float=str, parse_constant=_refuse, object_pairs_hook=_once)
        except (ValueError, RecursionError):
            raise GarbledError("json") from None
        if not isinstance(found, dict):
            raise GarbledError("json")
        return dict(_flat("", found))

    def put(self, text: str, place: Place, value: str) -> str:
        found = json.loads(text)
        *outer, last = str(place).split(".")
        inner = found
        for key in outer:
            inner = inner[key]
        quoted = isinstance(inner[last], str)
        inner[last] = value if quoted else json.loads(value)
        return json.dumps(found)


def _refuse(constant: str) -> str:
    raise ValueError(constant)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("the same key twice")
    return found


def _flat(before: str, found: Mapping[str, Any]) -> list[tuple[str, str]]:
    flat: list[tuple[str, str]] = []
    for key, value in found.items():
        if isinstance(value, dict):
            flat += _flat(f"{before}{key}.", value)
        elif isinstance(value, str) or value is None:
            flat.append((before + key, value or ""))
        elif value is True or value is False:
            flat.append((before + key, str(value).lower()))
    return flat


class Expression(Written):
    """A regular expression that the whole text must match; values by the names of its groups."""

    type: Literal["expression"]
    like: Pattern

    @model_validator(mode="after")
    def _has_groups(self) -> "Expression":
        if not self.like.groupindex:
            raise Mistake("bad_pattern", "the expression names no group", "Name one: `(?P<level>[0-9.]+)`.", ("like",))
        return self

    def split(self, text: str) -> Found:
        match = self.like.fullmatch(text)
        if not match:
            raise GarbledError("expression")
        return {name: found for name, found in match.groupdict().items() if found is not None}

    def put(self, text: str, place: Place, value: str) -> str:
        match = self.like.fullmatch(text)
        if not match:
            return text
        return text[: match.start(str(place))] + value + text[match.end(str(place)) :]


class Series(Written):
    """Values one behind another, each as `like` says, counted from 0; nothing else may stand behind `skip` characters:
    SDI-12's `0+12.5-3`."""

    type: Literal["series"]
    like: Pattern
    skip: Annotated[Whole, Field(ge=0)] = 0
    columns: Annotated[Whole, Field(ge=1)] | None = None
    """How many there must be; left out, any number."""

    def split(self, text: str) -> Found:
        words = [match[0] for match in self.like.finditer(text, self.skip)]
        if not words or "".join(words) != text[self.skip :] or self.columns not in (None, len(words)):
            raise GarbledError("series")
        return words

    def put(self, text: str, place: Place, value: str) -> str:
        words = [match[0] for match in self.like.finditer(text, self.skip)]
        signed = value if value.startswith("-") or not words[int(place)].startswith("+") else f"+{value}"
        words[int(place)] = signed
        return text[: self.skip] + "".join(words)


TextLayout = Csv | KeyValues | Nmea | Json | Expression | Series
Layout = Annotated[Binary | TextLayout, Field(discriminator="type")]
