"""Imports run downwards only. This table is the rule; CONTRIBUTING.md explains it.

A module imports lower layers and its own folder; in the three lowest layers, its own layer too. An import inside a
function or under TYPE_CHECKING is an import like any other.
"""

from __future__ import annotations

import ast
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[1]

# Lowest first. A name covers the modules inside it, except `gateway` and `drivers`, which are their __init__ alone.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("config", "gateway", "drivers", "gateway.model", "gateway.errors", "gateway.quantities"),
    (
        "gateway.diagnostic",
        "gateway.document",
        "gateway.fields",
        "gateway.ports",
        "gateway.profile",
        "gateway.clock",
        "gateway.batch",
        "gateway.ranges",
        "gateway.durable",
        "gateway.certificates",
        "gateway.tty",
        "gateway.punctual",
        "gateway.collector",
    ),
    (
        "gateway.buffer",
        "gateway.supervise",
        "gateway.status",
        "gateway.arguments",
        "gateway.commands",
        "gateway.expiry",
        "gateway.inventory",
        "gateway.compose",
        "gateway.control",
        "gateway.deadband",
        "gateway.delivery",
        "gateway.lending",
        "gateway.testing",
        "gateway.log",
        "gateway.notify",
        "gateway.steps",
        "gateway.timekeeping",
    ),
    ("drivers.*", "gateway.uplinks", "gateway.controls", "gateway.web", "gateway.receiver"),
    ("gateway.load",),
    ("gateway.site",),
    ("gateway.simulate",),
    ("gateway.app",),
    ("gateway.cli",),
    ("gateway.__main__",),
)
SAME_LAYER_MAY_IMPORT = 3  # that many, counted from the lowest

PACKAGES = ("gateway", "drivers", "config")
ANYWHERE = ("",)
# library -> the rooms that may import it. A library that is not here is not a dependency of the gateway.
LIBRARIES: dict[str, tuple[str, ...]] = {
    # the demo reads the page as a technician's phone does
    "aiohttp": ("drivers.ocpp", "gateway.uplinks.http", "gateway.receiver", "gateway.web", "gateway.cli.stage"),
    "aiomqtt": ("gateway.uplinks.mqtt", "gateway.receiver"),
    "jsonschema": ("drivers.ocpp",),
    "ocpp": ("drivers.ocpp",),
    "orjson": ANYWHERE,
    "paho": ("gateway.uplinks.mqtt", "gateway.receiver"),
    "pydantic": ANYWHERE,
    "pydantic_core": ANYWHERE,
    "pymodbus": ("drivers.modbus",),
    "serial": ("gateway.tty",),
    "sqlite3": ("gateway.buffer", "gateway.receiver"),
    "structlog": ANYWHERE,
    "yaml": ("gateway.document",),
}
# Never per reading: the path from wire to disk to uplink stays free of it.
WITHOUT_PYDANTIC = ("gateway.model", "gateway.batch", "gateway.buffer", "gateway.compose", "gateway.delivery")


def inside(module: str, room: str) -> bool:
    return not room or module == room or module.startswith(f"{room}.")


def layer(module: str) -> int | None:
    if module.startswith("drivers."):
        module = "drivers.*"
    for number, names in enumerate(LAYERS):
        for name in names:
            if module == name or (name not in PACKAGES and inside(module, name)):
                return number
    return None


def room(module: str) -> str:
    """The folder or file directly under gateway/ or drivers/."""
    return ".".join(module.split(".")[:2])


def modules(root: Path) -> dict[str, Path]:
    found = {}
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(module: str, path: Path, known: dict[str, Path]) -> Iterator[tuple[int, str]]:
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        match node:
            case ast.Import(names=names):
                for alias in names:
                    yield node.lineno, alias.name
            case ast.ImportFrom(module=source, names=names, level=level):
                base = source or ""
                if level:
                    above = package.split(".")[: len(package.split(".")) - level + 1]
                    base = ".".join([*above, *([source] if source else [])])
                for alias in names:
                    inner = f"{base}.{alias.name}"
                    yield node.lineno, inner if inner in known else base
            case ast.Call(
                func=ast.Name(id="import_module" | "__import__") | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                yield node.lineno, name


def why_not(module: str, target: str) -> str:
    """One sentence where `module` may not import `target`, or nothing."""
    top = target.partition(".")[0]
    if top not in PACKAGES:
        if top not in LIBRARIES:
            known = top in sys.stdlib_module_names
            return "" if known else f"{top} is no dependency; if it becomes one, add it to LIBRARIES in test_layers.py"
        if not any(inside(module, owner) for owner in LIBRARIES[top]):
            return f"{top} is imported only by {', '.join(LIBRARIES[top])}"
        if top.startswith("pydantic") and any(inside(module, name) for name in WITHOUT_PYDANTIC):
            return "pydantic is for what people write, never for what runs once per reading"
        return ""
    mine, theirs = layer(module), layer(target)
    if mine is None or theirs is None or room(module) == room(target) or theirs < mine:
        return ""
    if theirs == mine < SAME_LAYER_MAY_IMPORT:
        return ""
    if theirs > mine:
        return f"{target} stands in a higher layer ({theirs}) than {module} ({mine})"
    return f"{target} is a neighbour of {module}: what both need belongs in a lower layer"


def violations(root: Path) -> list[str]:
    known = modules(root)
    found = []
    graph: dict[str, set[str]] = {}
    for module, path in known.items():
        where = path.relative_to(root)
        if layer(module) is None:
            found.append(f"{where}: {module} has no layer; add it to its row of LAYERS in tests/test_layers.py")
        for line, target in imports(module, path, known):
            if reason := why_not(module, target):
                found.append(f"{where}:{line}: {reason}")
            if target in known and target != module:
                graph.setdefault(module, set()).add(target)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        found.append(f"import cycle: {' <- '.join(error.args[1])}")
    return found


def test_imports_run_downwards_only() -> None:
    assert modules(ROOT), "there is no code to look at"
    assert violations(ROOT) == []


def test_contributing_shows_every_layer() -> None:
    table = (ROOT / "CONTRIBUTING.md").read_text().partition("## Layers")[2].partition("\n## ")[0]
    rows = {int(row.split("|")[1]): row for row in table.splitlines() if row.startswith("| ") and row[2].isdigit()}
    for number, names in enumerate(LAYERS):
        for name in names:
            if name not in PACKAGES:
                assert f"`{name}`" in rows[number] or f"`{name.removeprefix('gateway.')}`" in rows[number], name


PLANTED = [
    ("upwards", {"gateway/model.py": "import gateway.buffer\n", "gateway/buffer/__init__.py": ""}, "higher layer"),
    (
        "inside a function",
        {"gateway/batch.py": "def f():\n    from gateway import app\n", "gateway/app.py": ""},
        "higher",
    ),
    ("relative", {"gateway/ports.py": "from .cli import run\n", "gateway/cli/__init__.py": ""}, "higher layer"),
    ("by name", {"gateway/log.py": "import importlib\nimportlib.import_module('drivers.modbus')\n"}, "higher layer"),
    (
        "driver to driver",
        {"drivers/modbus/driver.py": "from drivers.serial import codec\n", "drivers/serial/codec.py": ""},
        "neighbour",
    ),
    ("uplink to driver", {"gateway/uplinks/mqtt.py": "import drivers.ocpp\n"}, "neighbour"),
    ("receiver to uplink", {"gateway/receiver/inbox.py": "import gateway.uplinks.mqtt\n"}, "neighbour"),
    ("no layer", {"gateway/misplaced.py": ""}, "add it to its row of LAYERS"),
    ("foreign library", {"gateway/site.py": "import pymodbus.client\n"}, "only by drivers.modbus"),
    ("database", {"gateway/status.py": "import sqlite3\n"}, "only by gateway.buffer, gateway.receiver"),
    ("yaml", {"drivers/modbus/settings.py": "from yaml import safe_load\n"}, "only by gateway.document"),
    ("undeclared library", {"gateway/app.py": "import requests\n"}, "no dependency"),
    ("pydantic per reading", {"gateway/buffer/lane.py": "from pydantic import BaseModel\n"}, "never for what runs"),
    (
        "cycle",
        {"gateway/batch.py": "import gateway.ranges\n", "gateway/ranges.py": "def f():\n    import gateway.batch\n"},
        "import cycle",
    ),
]


@pytest.mark.parametrize(("files", "sentence"), [row[1:] for row in PLANTED], ids=[row[0] for row in PLANTED])
def test_a_planted_violation_is_found(tmp_path: Path, files: dict[str, str], sentence: str) -> None:
    plant(tmp_path, files)
    found = violations(tmp_path)
    assert len(found) == 1
    assert sentence in found[0]


def test_what_is_allowed_is_not_complained_about(tmp_path: Path) -> None:
    plant(
        tmp_path,
        {
            "gateway/buffer/__init__.py": "from gateway.buffer.lane import Lane\n",
            "gateway/buffer/lane.py": "import sqlite3\nfrom gateway import ranges\nfrom gateway.status import Status\n",
            "gateway/ranges.py": "",
            "gateway/status.py": "from . import ranges\n",
            "drivers/ocpp/driver.py": "import aiohttp\nfrom . import codec\nfrom gateway.ports import Driver\n",
            "drivers/ocpp/codec.py": "import ocpp.v16.enums\n",
            "gateway/ports.py": "from typing import Protocol\n",
            "gateway/app.py": "import drivers.ocpp.driver\nimport gateway.buffer\n",
        },
    )
    assert violations(tmp_path) == []


def plant(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
