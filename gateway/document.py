"""YAML that people write: read with positions, checked against a model, every mistake said at once.

All plain scalars stay the text that was typed (YAML 1.1 would turn `on`, `23:30` and `04123456` into
something else): the model that reads them gives them their type. A mistake is a `Diagnostic` with
file, line and column, the line itself with a caret, why, and the fix.
"""

import difflib
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from gateway.errors import ConfigError

MAX_BYTES = 4 * 1024 * 1024
MAX_NODES = 200_000
MAX_DEPTH = 40

Location = tuple[str | int, ...]
Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One mistake. `code` is a stable slug with an entry in docs/diagnostics.md; line and column count from 1."""

    code: str
    file: str
    line: int
    column: int
    why: str
    fix: str = ""
    source: str = field(default="", compare=False)
    width: int = field(default=1, compare=False)

    def __str__(self) -> str:
        text = f"{self.file}:{self.line}:{self.column}: {self.why} [{self.code}]"
        if self.source:
            number = f"{self.line:>5} | "
            caret = " " * (len(number) + self.column - 1) + "^" * max(1, self.width)
            text += f"\n{number}{self.source}\n{caret}"
        return text + (f"\n      Fix: {self.fix}" if self.fix else "")

    def json(self) -> dict[str, Any]:
        return asdict(self)


class DocumentError(ConfigError):
    """Everything that is wrong with one document or several."""

    def __init__(self, diagnostics: Sequence[Diagnostic]) -> None:
        self.diagnostics = list(diagnostics)
        super().__init__("\n".join(map(str, self.diagnostics)))


@dataclass(frozen=True, slots=True)
class _Place:
    line: int
    column: int
    width: int


class Document:
    """A YAML document as plain maps, lists and text, with the place of every key and value."""

    def __init__(self, file: str, text: str) -> None:
        self.file = file
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
        source = self.lines[place.line - 1] if place.line <= len(self.lines) else ""
        return Diagnostic(code, self.file, place.line, place.column, why, fix, source, place.width)


def read(path: Path) -> Document:
    """The document in `path`. DocumentError: unreadable, not UTF-8, not YAML, duplicate keys."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DocumentError(
            [Diagnostic("unreadable_file", str(path), 1, 1, f"cannot be read: {error.strerror}", "Check the path.")]
        ) from None
    return parse(raw, str(path))


def parse(raw: bytes | str, file: str) -> Document:
    """The document in `raw`, all of whose syntax mistakes are raised together as a DocumentError."""
    try:
        text = raw if isinstance(raw, str) else raw.decode()
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1 if isinstance(raw, bytes) else 1
        why = "the file is not UTF-8 text"
        raise DocumentError([Diagnostic("not_utf8", file, line, 1, why, "Save it as UTF-8.")]) from None
    document = Document(file, text)
    if len(text) > MAX_BYTES:
        raise DocumentError([Diagnostic("too_large", file, 1, 1, f"larger than {MAX_BYTES} bytes", "Split the file.")])
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        source = document.lines[line - 1] if line <= len(document.lines) else ""
        why = f"not YAML: {error.problem or error.context}"
        fix = "Check the indentation, the colon after the key, and quotes around text with `: ` or `#`."
        raise DocumentError([Diagnostic("bad_yaml", file, line, column, why, fix, source)]) from None
    except (yaml.YAMLError, RecursionError) as error:
        raise DocumentError([Diagnostic("bad_yaml", file, 1, 1, f"not YAML: {error}")]) from None
    reader = _Reader(document)
    if node is not None:
        document.tree = reader.plain(node, ())
    if reader.found:
        raise DocumentError(reader.found)
    return document


class _Reader:
    def __init__(self, document: Document) -> None:
        self.document = document
        self.found: list[Diagnostic] = []
        self.nodes = 0

    def plain(self, node: yaml.Node, at: Location) -> Any:
        self.nodes += 1
        if self.nodes > MAX_NODES or len(at) > MAX_DEPTH:
            why = f"more than {MAX_NODES} values, or nested deeper than {MAX_DEPTH}"
            raise DocumentError([Diagnostic("too_large", self.document.file, 1, 1, why)])
        self.document.values[at] = _place(node)
        match node:
            case yaml.MappingNode():
                return self._map(node, at)
            case yaml.SequenceNode():
                return [self.plain(item, (*at, index)) for index, item in enumerate(node.value)]
            case yaml.ScalarNode():
                is_null = node.style is None and node.value in ("", "~", "null", "Null", "NULL")
                return None if is_null else node.value
            case _:
                raise AssertionError(node)

    def _map(self, node: yaml.MappingNode, at: Location) -> dict[str, Any]:
        tree: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                place = _place(key_node)
                self.found.append(
                    Diagnostic("bad_key", self.document.file, place.line, place.column, "a key must be one word")
                )
                continue
            key = key_node.value
            here = (*at, key)
            if key in tree:
                first = self.document.keys[here].line
                self.document.keys[here] = _place(key_node)
                why = f"`{key}` stands here a second time; the first is in line {first}"
                fix = "Keep one of the two: the other would be lost without a word."
                self.found.append(self.document.diagnostic("duplicate_key", here, why, fix, key=True))
                continue
            self.document.keys[here] = _place(key_node)
            tree[key] = self.plain(value_node, here)
        return tree


def _place(node: yaml.Node) -> _Place:
    start, end = node.start_mark, node.end_mark
    width = end.column - start.column if end.line == start.line else 1
    return _Place(start.line + 1, start.column + 1, max(1, width))


def check(document: Document, model: type[Model], tree: Any = None, at: Location = ()) -> Model:
    """`tree` (else the whole document) as `model`. DocumentError with every mistake, each at its place."""
    subject = document.tree if tree is None else tree
    try:
        return model.model_validate({} if subject is None else subject)
    except ValidationError as error:
        raise DocumentError([_explain(document, model, detail, at) for detail in error.errors()]) from None


class Mistake(ValueError):
    """Raised inside a model's validators: a mistake with its own code and fix."""

    def __init__(self, code: str, why: str, fix: str = "") -> None:
        super().__init__(why)
        self.code, self.fix = code, fix


def _explain(document: Document, model: type[BaseModel], detail: ErrorDetails, at: Location) -> Diagnostic:
    where = at + _known_part(document, at, detail["loc"])
    last = str(detail["loc"][-1]) if detail["loc"] else ""
    raised = detail.get("ctx", {}).get("error")
    match detail["type"]:
        case "extra_forbidden":
            why, fix = unknown(last, sorted(_allowed(model, detail["loc"][:-1])))
            return document.diagnostic("unknown_key", where, why, fix, key=True)
        case "missing":
            why = f"`{last}` is missing" + (f" in `{where[-1]}`" if where else "")
            return document.diagnostic("missing_key", where, why, f"Add `{last}: …`.", key=True)
        case "literal_error" | "enum":
            expected = [word.strip("' ") for word in detail["ctx"]["expected"].replace(" or ", ",").split(",")]
            why, fix = unknown(str(detail["input"]), expected)
            return document.diagnostic("unknown_word", where, why, fix)
        case _ if isinstance(raised, Mistake):
            return document.diagnostic(raised.code, where, str(raised), raised.fix)
        case _:
            why = str(raised) if raised else detail["msg"]
            why = why[0].lower() + why[1:]
            if isinstance(detail["input"], str | int | float):
                why = f"`{detail['input']}`: {why}" if f"`{detail['input']}`" not in why else why
            return document.diagnostic("bad_value", where, why, "")


def unknown(word: str, known: Sequence[str]) -> tuple[str, str]:
    """(why, fix) for a word that is not among the known ones, with the nearest of them."""
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if near:
        return f"`{word}` is unknown; did you mean `{near[0]}`?", f"Write `{near[0]}`."
    return f"`{word}` is unknown", f"Valid here: {', '.join(known)}." if known else "Remove it."


def _known_part(document: Document, at: Location, loc: Location) -> Location:
    """Pydantic's location without the union tags and function names that the document does not have."""
    found: Location = ()
    for part in loc:
        longer = (*at, *found, part)
        if longer in document.values or longer in document.keys:
            found = (*found, part)
    return found


def _allowed(model: type[BaseModel], loc: Location) -> set[str]:
    """The keys that the models found along `loc` take."""
    models: list[Any] = [model]
    for part in loc:
        models = [inner for outer in models for inner in _step(outer, part)] or models
    return {key for one in models for m in _models_in(one) for key in _keys(m)}


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
            yield typing.get_args(origin)[-1]


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
