"""YAML that people write: read with positions, checked against a model, every mistake said at once.

All plain scalars stay the text that was typed (YAML 1.1 would turn `on`, `23:30` and `04123456` into
something else): the model that reads them gives them their type. A mistake is a `Diagnostic` with
file, line and column, the line itself with a caret, why, and the fix.
"""

import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from gateway.diagnostic import Diagnostic, DocumentError, Location, Mistake, unknown

__all__ = [
    "Diagnostic",
    "Document",
    "DocumentError",
    "Location",
    "Mistake",
    "check",
    "collect",
    "parse",
    "read",
    "unknown",
]

MAX_BYTES = 4 * 1024 * 1024
MAX_NODES = 200_000
MAX_DEPTH = 40

Model = TypeVar("Model", bound=BaseModel)

# libyaml reads a 300-device site eight times faster; armv7l has no wheel with it. Only its events are used: its
# composer recurses on the C stack, and a file of brackets would end the process.
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True, slots=True)
class _Place:
    line: int
    column: int
    width: int


class Document:
    """A YAML document as plain maps, lists and text, with the place of every key and value."""

    def __init__(self, file: str, text: str) -> None:
        self.file = file
        self.text = text
        self.lines = text.splitlines()
        self.values: dict[Location, _Place] = {}
        self.keys: dict[Location, _Place] = {}
        self.tree: Any = None

    def diagnostic(self, code: str, at: Location, why: str, fix: str = "", *, key: bool = False) -> Diagnostic:
        """A mistake at `at`; where that place does not exist, at the nearest one above it."""
        places = (self.keys, self.values) if key else (self.values, self.keys)
        while True:
            place = places[0].get(at) or places[1].get(at)
            if place or not at:
                break
            at = at[:-1]
        place = place or _Place(1, 1, 1)
        return Diagnostic(code, self.file, place.line, place.column, why, fix, self._line(place.line), place.width)

    def line(self, at: Location) -> int:
        """The line of the key, else the value, at `at`."""
        place = self.keys.get(at) or self.values.get(at)
        return place.line if place else 1

    def hide(self, at: Location) -> None:
        """Black out the value at `at`: a secret in clear text must not travel on in its own diagnostic."""
        if place := self.values.get(at):
            line, start = self._line(place.line), place.column - 1
            end = start + place.width if place.width > 1 else len(line)
            self.lines[place.line - 1] = line[:start] + "•" * (end - start) + line[end:]

    def ordered(self, found: Iterable[Diagnostic]) -> list[Diagnostic]:
        """In the order of the lines, each once, with what was hidden since blacked out."""
        unique: dict[tuple[str | int, ...], Diagnostic] = {}
        for one in found:
            if one.file == self.file and one.source:
                one = replace(one, source=self._line(one.line))
            # A value that fits none of several types is refused once for each of them: one sentence is enough.
            why = "" if one.code == "bad_value" else one.why
            unique.setdefault((one.file, one.code, one.line, one.column, why), one)
        return sorted(unique.values(), key=lambda one: (one.file != self.file, one.file, one.line, one.column))

    def _line(self, number: int) -> str:
        return self.lines[number - 1] if number <= len(self.lines) else ""


def read(path: Path) -> Document:
    """The document in `path`. DocumentError: unreadable, not UTF-8, not YAML, duplicate keys."""
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        why, fix = f"cannot be read: {error.strerror}", "Check the path, and who may read it."
        raise DocumentError([Diagnostic("unreadable_file", str(path), 1, 1, why, fix)]) from None
    return parse(raw, str(path))


def parse(raw: bytes | str, file: str) -> Document:
    """The document in `raw`, all of whose mistakes of form are raised together as a DocumentError."""
    if len(raw) > MAX_BYTES:
        why = f"larger than {MAX_BYTES // 1024**2} MB"
        raise DocumentError([Diagnostic("too_large", file, 1, 1, why, "Split the file.")])
    try:
        text = raw if isinstance(raw, str) else raw.decode()
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1 if isinstance(raw, bytes) else 1
        why = "the file is not UTF-8 text"
        raise DocumentError([Diagnostic("not_utf8", file, line, 1, why, "Save it as UTF-8.")]) from None
    document = Document(file, text)
    reader = _Reader(document)
    try:
        node = reader.graph(yaml.parse(text, Loader=_Loader))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        raise DocumentError([reader.bad_yaml(error.problem or error.context or "", line, column)]) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        why = f"character {error.character!r}" if isinstance(error.character, str) else f"U+{error.character:04X}"
        raise DocumentError([reader.bad_yaml(f"{why} cannot stand here", line, 1)]) from None
    if node is not None:
        document.tree = reader.plain(node, ())
    if reader.found:
        raise DocumentError(document.ordered(reader.found))
    return document


@dataclass(slots=True)
class _Node:
    """A scalar (`text`, None for YAML's null), a list (`items`), or a map (keys and values in turn)."""

    place: _Place
    text: str | None = None
    items: "list[_Node] | None" = None
    map: bool = False


class _Reader:
    def __init__(self, document: Document) -> None:
        self.document = document
        self.found: list[Diagnostic] = []
        self.nodes = 0

    def bad_yaml(self, problem: str, line: int, column: int) -> Diagnostic:
        lines = self.document.lines
        source = lines[line - 1] if line <= len(lines) else ""
        fix = "Check the indentation, the colon after the key, and quotes around text with `: ` or `#`."
        if "\t" in source[: max(1, column)]:
            fix = "Indent with spaces: YAML takes no tabs there."
        return Diagnostic("bad_yaml", self.document.file, line, column, f"not YAML: {problem}", fix, source)

    def graph(self, events: Iterable[Any]) -> _Node | None:
        """The root node; an alias is the very node that its anchor names."""
        root: _Node | None = None
        documents = 0
        anchors: dict[str, _Node] = {}
        above: list[_Node] = []
        for event in events:
            place = _place(event)
            match event:
                case yaml.DocumentStartEvent():
                    documents += 1
                    if documents > 1:
                        raise DocumentError([self.bad_yaml("a second document starts", place.line, place.column)])
                    continue
                case yaml.SequenceEndEvent() | yaml.MappingEndEvent():
                    above.pop()
                    continue
                case yaml.AliasEvent():
                    node = anchors.get(event.anchor or "")
                    if node is None or node in above:
                        problem = f"`*{event.anchor}` names nothing that stands above it"
                        raise DocumentError([self.bad_yaml(problem, place.line, place.column)])
                case yaml.ScalarEvent():
                    is_null = event.style in (None, "") and event.value in ("", "~", "null", "Null", "NULL")
                    node = _Node(place, None if is_null else event.value)
                case yaml.SequenceStartEvent() | yaml.MappingStartEvent():
                    node = _Node(place, items=[], map=isinstance(event, yaml.MappingStartEvent))
                case _:
                    continue
            if not isinstance(event, yaml.AliasEvent) and event.anchor:
                anchors[event.anchor] = node
            if above:
                typing.cast(list[_Node], above[-1].items).append(node)
            else:
                root = node
            if isinstance(event, yaml.SequenceStartEvent | yaml.MappingStartEvent):
                above.append(node)
                self._bounded(place, len(above))
        return root

    def _bounded(self, place: _Place, depth: int) -> None:
        self.nodes += 1
        if self.nodes > MAX_NODES or depth > MAX_DEPTH:
            why = f"more than {MAX_NODES} values, or nested deeper than {MAX_DEPTH}"
            fix = "Split the file; a list or map that repeats itself may be the cause."
            raise DocumentError([Diagnostic("too_large", self.document.file, place.line, place.column, why, fix)])

    def plain(self, node: _Node, at: Location) -> Any:
        self._bounded(node.place, len(at))
        self.document.values[at] = node.place
        if node.items is None:
            return node.text
        if not node.map:
            return [self.plain(item, (*at, index)) for index, item in enumerate(node.items)]
        tree: dict[str, Any] = {}
        pairs = iter(node.items)
        for key_node, value_node in zip(pairs, pairs, strict=True):
            key = key_node.text
            if key is None:
                where = (self.document.file, key_node.place.line, key_node.place.column)
                source = self.document.lines[key_node.place.line - 1]
                fix = "Write one word, or put it in quotes."
                self.found.append(Diagnostic("bad_key", *where, "a key must be one word", fix, source))
                continue
            here = (*at, key)
            if key in tree:
                first = self.document.keys[here].line
                self.document.keys[here] = key_node.place
                why = f"`{key}` stands here a second time; the first is in line {first}"
                fix = "Keep one of the two: the other would be lost without a word."
                self.found.append(self.document.diagnostic("duplicate_key", here, why, fix, key=True))
                continue
            self.document.keys[here] = key_node.place
            tree[key] = self.plain(value_node, here)
        return tree


def _place(event: Any) -> _Place:
    start, end = event.start_mark, event.end_mark
    width = end.column - start.column if end.line == start.line else 1
    return _Place(start.line + 1, start.column + 1, max(1, width))


def check(document: Document, model: type[Model], tree: Any = None, at: Location = ()) -> Model:
    """`tree` (else the whole document) as `model`. DocumentError with every mistake, each at its place."""
    made, found = collect(document, model, document.tree if tree is None else tree, at)
    if made is None:
        raise DocumentError(document.ordered(found))
    return made


def collect(
    document: Document, model: type[Model], tree: Any, at: Location = (), context: Any = None
) -> tuple[Model | None, list[Diagnostic]]:
    """`tree`, which stands at `at`, as `model`; or None and every mistake in it."""
    try:
        return model.model_validate({} if tree is None else tree, context=context), []
    except ValidationError as error:
        return None, [_explain(document, model, detail, at) for detail in error.errors()]


def _explain(document: Document, model: type[BaseModel], detail: ErrorDetails, at: Location) -> Diagnostic:
    context = detail.get("ctx", {})
    raised, given = context.get("error"), detail["input"]
    loc = detail["loc"]
    is_key = bool(loc) and loc[-1] == "[key]"
    if isinstance(raised, Mistake):
        loc = (*loc, *raised.at)
    where = at + _known_part(document, at, loc)
    last = str(loc[-1]) if loc else ""
    match detail["type"]:
        case "extra_forbidden":
            models = _models_at(model, loc[:-1])
            for one in models:
                if fix := getattr(one, "later", {}).get(last):
                    why = f"`{last}` is not supported in this version"
                    return document.diagnostic("later_version", where, why, fix, key=True)
            why, fix = unknown(last, sorted({key for one in models for key in _keys(one)}))
            if any(word in last.lower() for word in ("pas", "pw", "secret", "token", "key")):
                document.hide(where)
            return document.diagnostic("unknown_key", where, why, fix, key=True)
        case "missing":
            why = f"`{last}` is missing" + (f" in `{where[-1]}`" if where else "")
            return document.diagnostic("missing_key", where, why, f"Add `{last}: …`.", key=True)
        case "literal_error" | "enum":
            expected = [word.strip("' ") for word in context["expected"].replace(" or ", ",").split(",")]
            why, fix = unknown(str(given), expected)
            return document.diagnostic("unknown_word", where, why, fix)
        case _ if isinstance(raised, Mistake):
            if raised.code == "clear_text_secret":
                document.hide(where)
            return document.diagnostic(raised.code, where, str(raised), raised.fix)
        case kind if kind in _SENTENCES:
            why, fix = (text.format_map(context) for text in _SENTENCES[kind])
            subject = f"`{given}`" if isinstance(given, str | int | float) else "what stands here"
            return document.diagnostic("bad_value", where, f"{subject} {why}", fix, key=is_key)
        case _:
            why = str(raised) if raised else detail["msg"]
            why = why[0].lower() + why[1:]
            if isinstance(given, str | int | float) and f"`{given}`" not in why:
                why = f"`{given}`: {why}"
            return document.diagnostic("bad_value", where, why, key=is_key)


# Pydantic's error type -> what is wrong with `…` in plain words, and the fix.
_SENTENCES = {
    "int_parsing": ("is not a whole number", "Write digits only."),
    "int_from_float": ("is not a whole number", "Write digits only."),
    "int_type": ("is not a whole number", "Write digits only."),
    "float_parsing": ("is not a number", "Write digits, with a dot before decimals."),
    "float_type": ("is not a number", "Write digits, with a dot before decimals."),
    "finite_number": ("is not a finite number", "Write digits, with a dot before decimals."),
    "bool_parsing": ("is neither true nor false", "Write `true` or `false`."),
    "bool_type": ("is neither true nor false", "Write `true` or `false`."),
    "string_type": ("should be text", "Write one value after the colon."),
    "dict_type": ("should be a map: keys with values under it", "Write `key: value` lines below it, indented."),
    "model_type": ("should be a map: keys with values under it", "Write `key: value` lines below it, indented."),
    "list_type": ("should be a list", "Write `[one, two]`."),
    "tuple_type": ("should be a list", "Write `[one, two]`."),
    "string_pattern_mismatch": ("does not have the form {pattern}", "Write it so."),
    "greater_than_equal": ("is too small: at least {ge}", "Write {ge} or more."),
    "greater_than": ("is too small: more than {gt}", "Write more than {gt}."),
    "less_than_equal": ("is too large: at most {le}", "Write {le} or less."),
    "less_than": ("is too large: less than {lt}", "Write less than {lt}."),
}


def _known_part(document: Document, at: Location, loc: Location) -> Location:
    """Pydantic's location without the union tags and function names that the document does not have."""
    found: Location = ()
    for part in loc:
        longer = (*at, *found, part)
        if longer in document.values or longer in document.keys:
            found = (*found, part)
    return found


def _models_at(model: type[BaseModel], loc: Location) -> list[type[BaseModel]]:
    """The models found along `loc`."""
    models: list[Any] = [model]
    for part in loc:
        models = [inner for outer in models for inner in _step(outer, part)] or models
    return [found for one in models for found in _models_in(one)]


def _keys(model: type[BaseModel]) -> Iterator[str]:
    for name, info in model.model_fields.items():
        yield info.alias or name


def _step(annotation: Any, part: str | int) -> Iterator[Any]:
    for model in _models_in(annotation):
        for name, info in model.model_fields.items():
            if part in (name, info.alias):
                yield info.annotation
    for origin in _flatten(annotation):
        if typing.get_origin(origin) in (dict, list, tuple, Mapping, Sequence):
            yield [inner for inner in typing.get_args(origin) if inner is not ...][-1]


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    for one in _flatten(annotation):
        if isinstance(one, type) and issubclass(one, BaseModel):
            yield one


def _flatten(annotation: Any) -> Iterator[Any]:
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        yield from _flatten(typing.get_args(annotation)[0])
    elif origin in (typing.Union, types.UnionType):
        for one in typing.get_args(annotation):
            yield from _flatten(one)
    else:
        yield annotation
