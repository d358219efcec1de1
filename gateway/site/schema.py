"""The JSON Schema of the site file: for editors, and the ground of docs/site.md.

Descriptions are the docstrings under the settings, read from the source when the schema is made: keeping them
in memory would cost every gateway what only an author needs.
"""

import ast
import inspect
import json
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, cast

from pydantic import BaseModel

from gateway import load
from gateway.site.keys import SiteKeys

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def json_schema() -> dict[str, Any]:
    """Of the whole file, with the settings of every driver and uplink that is shipped."""
    definitions: dict[str, Any] = {}
    site = _schema(SiteKeys, "", definitions)
    drivers = {name: load.driver(name) for name in load.drivers()}
    links = [_chosen("driver", name, _schema(one.Settings, name, definitions)) for name, one in drivers.items()]
    devices = [
        _schema(one.DeviceSettings, f"{name}-device", definitions) | {"title": f"{name} device"}
        for name, one in drivers.items()
    ]
    uplinks = [
        _chosen("uplink", name, _schema(load.uplink(name).Settings, name, definitions)) for name in load.uplinks()
    ]
    third_party = {"properties": {"driver": {"type": "string", "pattern": r"\."}}, "required": ["driver"]}
    for entry, choices in (
        (site["properties"]["links"], [*links, third_party]),
        (site["properties"]["uplinks"], uplinks),
        (definitions["AssetKeys"]["properties"]["devices"], devices),
    ):
        entry["patternProperties"] = {pattern: {"anyOf": choices} for pattern in entry["patternProperties"]}
    site["title"] = "Lampione site file"
    whole = {"$schema": _DIALECT, **site, "$defs": dict(sorted(definitions.items()))}
    return cast(dict[str, Any], _tidy(whole))


def text() -> str:
    """As config/schema/site.json holds it."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


def _tidy(schema: Any) -> Any:
    """As an editor must see it: what may be left out is not `null`, and a word of digits may stand without quotes."""
    if isinstance(schema, list):
        return [_tidy(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    tidy = {key: _tidy(value) for key, value in schema.items() if not (key == "default" and value is None)}
    if any(one == {"type": "null"} for one in _alternatives(tidy)):
        rest = [one for one in tidy.pop("anyOf") if one != {"type": "null"}]
        tidy |= rest[0] if len(rest) == 1 else {"anyOf": rest}
    words = tidy.get("enum")
    if isinstance(words, list) and any(str(word).isdigit() for word in words):
        tidy["enum"] = list(dict.fromkeys([*(int(word) for word in words if str(word).isdigit()), *words]))
        tidy.pop("type", None)
    if isinstance(tidy.get("type"), str):
        is_number = tidy["type"] in ("integer", "number")
        for mine, theirs in (
            ("ge", "minimum"),
            ("le", "maximum"),
            ("gt", "exclusiveMinimum"),
            ("lt", "exclusiveMaximum"),
        ):
            if mine in tidy:
                bound = tidy.pop(mine)
                tidy |= {theirs: bound} if is_number else {}
    return tidy


def _alternatives(schema: Mapping[str, Any]) -> Sequence[Any]:
    found = schema.get("anyOf", ())
    return found if isinstance(found, list) else ()


def _chosen(key: str, name: str, schema: dict[str, Any]) -> dict[str, Any]:
    schema["properties"][key] = {"const": name, "description": schema["properties"][key].get("description", "")}
    schema["title"] = name
    return schema


def _schema(model: type[BaseModel], prefix: str, definitions: dict[str, Any]) -> dict[str, Any]:
    """The schema of `model`; what it refers to goes into `definitions`, under names of its own."""
    start = f"{prefix}." if prefix else ""
    made = model.model_json_schema(ref_template=f"#/$defs/{start}{{model}}")
    inner = made.pop("$defs", {})
    models = {one.__name__: one for one in _models(model)}
    _describe(made, model)
    for name, schema in inner.items():
        if name in models:
            _describe(schema, models[name])
        definitions[f"{start}{name}"] = schema
    return made


def _models(model: type[BaseModel]) -> list[type[BaseModel]]:
    found: list[type[BaseModel]] = []
    todo: list[Any] = [model]
    while todo:
        one = todo.pop()
        if isinstance(one, type) and issubclass(one, BaseModel):
            if one not in found:
                found.append(one)
                todo += [field.annotation for field in one.model_fields.values()]
        else:
            todo += getattr(one, "__args__", ())
    return found


def _describe(schema: dict[str, Any], model: type[BaseModel]) -> None:
    said = _docstrings(model)
    for name, field in model.model_fields.items():
        key = field.alias or name
        entry = schema["properties"].get(key)
        if entry is None:
            continue
        entry.pop("title", None)
        if name in said:
            entry["description"] = said[name]
        if "default" in entry and (unit := _unit(entry)):
            entry["default"] = written(entry["default"], unit)


def _unit(entry: Mapping[str, Any]) -> str | None:
    """The unit that `fields` notes beside a type, here or in one of the alternatives."""
    for one in (entry, *entry.get("anyOf", ())):
        if "unit" in one:
            return str(one["unit"])
    return None


def written(value: Any, unit: str) -> Any:
    """A default as an integrator would write it: 300.0 s is `5min`."""
    if not isinstance(value, int | float):
        return value
    steps = {
        "s": (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)),
        "B": (("GB", 1024**3), ("MB", 1024**2), ("KB", 1024)),
    }
    for name, size in steps.get(unit, ()):
        if value and value % size == 0:
            return f"{value / size:g} {name}" if unit == "B" else f"{value / size:g}{name}"
    return f"{value:g}s" if unit == "s" else f"{value:g} {unit}"


def _docstrings(model: type[BaseModel]) -> dict[str, str]:
    """The text under each setting, of the model and of those it inherits from."""
    found: dict[str, str] = {}
    for base in reversed(model.__mro__):
        if not (issubclass(base, BaseModel) and base is not BaseModel):
            continue
        body = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0]
        assert isinstance(body, ast.ClassDef)
        for first, second in zip(body.body, body.body[1:], strict=False):
            match first, second:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(words))):
                    found[name] = " ".join(words.split())
    return found
