"""The JSON Schema of the site file: up to date, valid, and of one mind with the gateway."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from gateway import load
from gateway.cli import main, schema
from gateway.site.schema import json_schema, written

EXAMPLE = Path(schema.__file__).parents[2] / "config" / "site.example.yaml"


def test_the_shipped_schema_is_up_to_date(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema", "--check"]) == 0, capsys.readouterr().err


def test_a_schema_out_of_date_is_found_and_written_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(schema, "FILE", tmp_path / "site.json")
    assert main(["schema", "--check"]) == 1
    assert "Type: lampione schema --write" in capsys.readouterr().err
    assert main(["schema", "--write"]) == 0
    assert main(["schema", "--check"]) == 0
    (tmp_path / "site.json").write_text("{}")
    assert main(["schema", "--check"]) == 1
    capsys.readouterr()
    assert main(["schema"]) == 0
    assert json.loads(capsys.readouterr().out) == json_schema()


@pytest.fixture(scope="module")
def validator() -> Any:
    made = json_schema()
    jsonschema.Draft202012Validator.check_schema(made)
    return jsonschema.Draft202012Validator(made)


def test_the_example_fits_as_an_editor_reads_it(validator: Any) -> None:
    assert [one.message for one in validator.iter_errors(yaml.safe_load(EXAMPLE.read_text()))] == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("tenant:", "tennant:"), ("driver: modbus", "driver: modbos"), ("every: 10s", "evry: 10s"),
        ("uplink: mqtt", "uplink: mqt"), ("password: secret", "password: hunter2"), ("version: 1", "version: 2"),
        ("commit_every", "commit_ever"), ("lat: 45.4508", "lat: 145.4508"), ("security: 2", "security: 9"),
    ],
)  # fmt: skip
def test_what_the_gateway_refuses_the_editor_marks(validator: Any, old: str, new: str) -> None:
    text = EXAMPLE.read_text()
    assert old in text
    assert not validator.is_valid(yaml.safe_load(text.replace(old, new, 1)))


def test_every_driver_and_uplink_is_in_it() -> None:
    text = json.dumps(json_schema())
    for name in (*load.drivers(), *load.uplinks()):
        assert f'"const": "{name}"' in text


def test_every_setting_is_described() -> None:
    """The editor shows the docstring under the setting; a setting of our own without one explains nothing."""
    made = json_schema()
    models = {
        name: one
        for name, one in made["$defs"].items()
        if name in ("GatewayKeys", "PageKeys", "BufferKeys", "AssetKeys")
    }
    assert len(models) == 4
    for name, one in models.items():
        for key, entry in one["properties"].items():
            assert entry.get("description"), f"{name}.{key}"


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [(1.0, "s", "1s"), (300.0, "s", "5min"), (90.0, "s", "90s"), (0.25, "s", "0.25s"), (86400.0, "s", "1d"),
     (0.0, "s", "0s"), (1024**3, "B", "1 GB"), (200 * 1024**2, "B", "200 MB"), (10, "B", "10 B"),
     (32.0, "A", "32 A"), (None, "s", None)],
)  # fmt: skip
def test_a_default_is_shown_as_one_would_write_it(value: Any, unit: str, text: Any) -> None:
    assert written(value, unit) == text
