"""Writes config/sunspec/models.yaml from the SunSpec Alliance's own model files.

python -m tests.drivers.modbus.sunspec_models FOLDER           write it
python -m tests.drivers.modbus.sunspec_models FOLDER --check   exit with 1 where it is not what the files say

FOLDER holds the model_N.json of sunspec/models, which the Alliance's Python package pysunspec2 carries in
sunspec2/models/json. The project needs neither: what it needs of them is checked in.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

RELEASE = "pysunspec2 1.3.7"
"""Whose files those are that are checked in: a digest tells others."""
MODELS = (1, 101, 102, 103, 201, 202, 203, 204)
TARGET = Path(__file__).resolve().parents[3] / "config" / "sunspec" / "models.yaml"
HEAD = """\
# The SunSpec models that are walked to. Written by tests/drivers/modbus/sunspec_models.py from the Alliance's files: do
# not edit. An offset counts from the first register behind the model's id and length. Models of one layout are one.
# Facts (c) SunSpec Alliance, Apache-2.0.
"""
HEADING = 2
"""Registers of a model's id and length, which the files list as points."""


def extract(folder: Path) -> str:
    """The text of the facts file. OSError, ValueError: these are no such files."""
    lines = ["source:"]
    layouts: dict[str, list[int]] = {}
    for model in MODELS:
        raw = (folder / f"model_{model}.json").read_bytes()
        digest = hashlib.sha256(raw).hexdigest()[:16]
        lines.append(f'  - "{RELEASE} (sunspec/models) model_{model}.json, sha256 {digest}"')
        layouts.setdefault(_layout(json.loads(raw)), []).append(model)
    lines.append("layouts:")
    for layout, models in layouts.items():
        lines += [f"  - models: [{', '.join(map(str, models))}]", layout]
    return HEAD + "\n".join(lines) + "\n"


def _layout(model: Any) -> str:
    group = model["group"]
    if group.get("groups"):
        raise ValueError(f"model {model['id']} has groups that repeat: they have no fixed place")
    at, points = -HEADING, []
    for point in group["points"]:
        if at >= 0:
            points.append(f"      {point['name']}: {{{_point(point, at)}}}")
        at += point["size"]
    return "\n".join([f"    length: {at}", "    points:", *points])


def _point(point: Any, at: int) -> str:
    size = point["size"] if point["type"] == "string" else ""
    keys = {"offset": at, "type": f"{point['type']}{size}", "scale": point.get("sf"), "unit": point.get("units")}
    written = [f"{key}: {value}" for key, value in keys.items() if value is not None]
    if point["type"] == "enum16" and point.get("symbols"):
        words = ", ".join(f"{one['value']}: {one['name'].lower()}" for one in point["symbols"])
        written.append(f"words: {{{words}}}")
    return ", ".join(written)


if __name__ == "__main__":
    text = extract(Path(sys.argv[1]))
    if "--check" in sys.argv:
        sys.exit(text != TARGET.read_text())
    TARGET.write_text(text)
