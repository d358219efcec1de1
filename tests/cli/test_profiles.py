"""`lampione profiles`: the catalogue, and the check of a profile by its own examples."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gateway.cli import main
from gateway.site.read import shipped_profiles

SENSOR = (shipped_profiles() / "nova-sds011.yaml").read_text()


def test_list(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profiles", "list", "--site", str(path)]) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split() == ["profile", "kind", "driver", "points", "source"]
    assert any(row.split()[:4] == ["nova-sds011/1", "particulate", "serial", "2"] for row in rows)
    assert main(["profiles", "list", "--site", str(path), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert {one["profile"] for one in said} >= {"nova-sds011/1", "eastron-sdm630/1", "ocpp-generic/1"}


def test_a_sites_own_profiles_come_first_and_a_broken_one_is_said(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = path.parent / "profiles"
    own.mkdir()
    (own / "acme-dust.yaml").write_text(SENSOR.replace("nova-sds011/1", "acme-dust/3"))
    (own / "nova-sds011.yaml").write_text(SENSOR.replace("kind:", "knd:", 1))
    assert main(["profiles", "list", "--site", str(path)]) == 1
    shown = capsys.readouterr()
    assert "acme-dust/3" in shown.out
    assert "eastron-sdm630/1" in shown.out
    assert f"{own}/nova-sds011.yaml" in shown.err


def test_show(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profiles", "show", "nova-sds011", "--site", str(path)]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"# {shipped_profiles()}/nova-sds011.yaml\n")
    assert shown.endswith(SENSOR)
    assert main(["profiles", "show", "nova-sds011/1", "--site", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["profile"] == "nova-sds011/1"
    assert main(["profiles", "show", "nova-sds01", "--site", str(path)]) == 2
    assert "did you mean `nova-sds011`?" in capsys.readouterr().err


def test_show_says_what_goes_over_the_wire(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Eastron's own example: 04, start address 0x0034, 2 registers."""
    assert main(["profiles", "show", "eastron-sdm630", "--site", str(path)]) == 0
    assert "#   04 00 34 00 02  power\n" in capsys.readouterr().out


def test_check_runs_the_examples(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "nova-sds011.yaml"
    path.write_text(SENSOR)
    assert main(["profiles", "check", str(path)]) == 0
    assert capsys.readouterr().out.startswith(f"ok: {path}: nova-sds011/1, 2 points, ")
    path.write_text(SENSOR.replace("scale: 0.1", "scale: 0.2"))
    assert main(["profiles", "check", str(path)]) == 2
    shown = capsys.readouterr().err
    assert "[example_fails]" in shown
    assert "^" in shown


def test_check_goes_on_after_a_wrong_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, bad = tmp_path / "nova-sds011.yaml", tmp_path / "acme-m1.yaml"
    good.write_text(SENSOR)
    bad.write_text("profile: acme-m1/1\ndriver: zigbee\n")
    assert main(["profiles", "check", str(bad), str(good), str(tmp_path / "none.yaml")]) == 2
    shown = capsys.readouterr()
    assert shown.out.startswith(f"ok: {good}")
    assert "driver `zigbee` is unknown" in shown.err
    assert "[unreadable_file]" in shown.err
    assert main(["profiles", "check", str(bad), str(good), "--json"]) == 2
    said = json.loads(capsys.readouterr().out)
    assert [(one["ok"], [m["code"] for m in one["mistakes"]]) for one in said] == [
        (False, ["unknown_driver"]),
        (True, []),
    ]


@pytest.mark.parametrize(
    ("change", "under", "why"),
    [
        (("pm25: 12.3 ug/m3", "pm25: 12.4 ug/m3"), "12.4 ug/m3", "expected 12.4 ug/m3, got 12.3 ug/m3"),
        (("d9 75 ab", "d9 76 ab"), "aa c0 7b 00 c8 01 58 d9 76 ab", "this is not one good frame (checksum)"),
        (("why: end", "why: length"), "length", "it is refused, but for another reason: end"),
        (("readings: 2", "readings: 3"), "3", "2 readings are in these bytes"),
    ],
)
def test_check_points_at_the_wrong_word_of_a_serial_profile(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: tuple[str, str], under: str, why: str
) -> None:
    path = tmp_path / "nova-sds011.yaml"
    assert change[0] in SENSOR
    path.write_text(SENSOR.replace(*change, 1))
    assert main(["profiles", "check", str(path)]) == 2
    place, line, caret, fix = capsys.readouterr().err.splitlines()[:4]
    assert why in place
    number, column = map(int, place.removeprefix(f"{path}:").split(":")[:2])
    assert path.read_text().splitlines()[number - 1][column - 1 :].startswith(under)
    assert line[caret.index("^") :].startswith(under)
    assert caret.strip() == "^" * len(under)
    assert fix.strip().startswith("Fix: ")
