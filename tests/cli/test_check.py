"""`lampione check`: what it says, as text and as JSON, and with which exit code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gateway.cli import main
from gateway.site import Credentials


def store_all(path: Path) -> None:
    for name in ("uplinks.city.password", "page"):
        Credentials.beside(path).write(name, "x")


def test_a_site_that_can_run_is_0(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store_all(path)
    assert main(["check", str(path)]) == 0
    shown = capsys.readouterr()
    assert shown.out.startswith("ok: 1 device on 1 link, 1 uplink, configuration ")
    assert shown.err == ""


def test_a_missing_credential_is_1(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(path)]) == 1
    shown = capsys.readouterr().err
    assert f"Type: lampione secret set uplinks.city.password --secrets {tmp_path}/secrets" in shown
    assert f"{path}:6:15: The secret `page` is not set [missing_secret]" in shown
    assert shown.endswith("2 missing secrets; the rest is right\n")
    Credentials(tmp_path / "else").write("uplinks.city.password", "x")
    Credentials(tmp_path / "else").write("page", "x")
    assert main(["check", str(path), "--secrets", str(tmp_path / "else")]) == 0


def test_a_mistake_is_2(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path.write_text(path.read_text().replace("every", "evry").replace("milan", "Milan"))
    assert main(["check", str(path)]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "did you mean `every`?" in shown.err
    assert shown.err.endswith("2 mistakes\n")


def test_one_mistake_is_not_two(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path.write_text(path.read_text().replace("every", "evry"))
    assert main(["check", str(path)]) == 2
    assert capsys.readouterr().err.endswith("\n1 mistake\n")


def test_as_json(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path.write_text(path.read_text().replace("links: {air", "links: {spare: {driver: modbus, host: h}, air"))
    assert main(["check", str(path), "--json"]) == 1
    said = json.loads(capsys.readouterr().out)
    assert (said["ok"], said["devices"], said["links"], said["uplinks"], said["mistakes"]) == (False, 1, 2, 1, [])
    assert [one["code"] for one in said["warnings"]] == ["unused_link"]
    assert len(said["missing_secrets"]) == 2
    store_all(path)
    assert main(["check", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["ok"] is True
    path.write_text(path.read_text().replace("every", "evry"))
    assert main(["check", str(path), "--json"]) == 2
    said = json.loads(capsys.readouterr().out)
    assert [(one["code"], one["line"], one["column"]) for one in said["mistakes"]] == [("unknown_key", 4, 65)]


def test_a_warning_is_no_fault(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store_all(path)
    path.write_text(path.read_text().replace("links: {air", "links: {spare: {driver: modbus, host: h}, air"))
    assert main(["check", str(path)]) == 0
    assert capsys.readouterr().err.startswith(f"warning: {path}:3:9: no device is on link `spare`")
