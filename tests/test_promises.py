"""docs/promises.md names tests that exist, at least one for each promise and for each lane."""

import ast
import re
from pathlib import Path

from gateway.model import Lane

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "promises.md").read_text()
ROWS = [line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith(("| lane", "| promise |"))]


def proofs(row: str) -> list[tuple[str, str]]:
    return re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", row)


def test_every_promise_names_its_proof() -> None:
    assert len(ROWS) > 10
    assert [row for row in ROWS if not proofs(row)] == []


def test_every_lane_has_its_promise() -> None:
    assert [row.split("`")[1] for row in ROWS[: len(Lane)]] == [lane.value for lane in Lane]


def test_every_proof_is_a_test() -> None:
    for file, name in proofs(PAGE):
        tree = ast.parse((ROOT / file).read_text())
        found = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
        assert name in found, f"{file}::{name}"
