"""`lampione secret`: never shown, asked twice, stored for its owner alone."""

from __future__ import annotations

import io
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.cli import main


def test_set_from_standard_input(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("hunter2\n"))
    assert main(["secret", "set", "page", "--stdin", "--site", str(path)]) == 0
    stored = path.parent / "secrets" / "page"
    assert stored.read_text() == "hunter2\n"
    assert stored.stat().st_mode & 0o777 == 0o600
    assert "hunter2" not in capsys.readouterr().out


@pytest.mark.parametrize(("typed", "code"), [(("hunter2", "hunter2"), 0), (("hunter2", "hunter3"), 2), (("", ""), 2)])
def test_set_asks_twice_without_echo(tmp_path: Path, typed: tuple[str, str], code: int) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "gateway", "secret", "set", "page", "--secrets", str(tmp_path)]
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True) as process:
        os.close(theirs)
        shown = b""
        for prompt, word in zip((b"page: ", b"once more: "), typed, strict=True):
            while not shown.endswith(prompt):
                shown += os.read(ours, 1000)
            os.write(ours, word.encode() + b"\n")
        while True:
            try:
                part = os.read(ours, 1000)
            except OSError:
                break
            shown += part
        assert process.wait(timeout=20) == code
    os.close(ours)
    assert b"hunter" not in shown
    assert [one.name for one in tmp_path.iterdir()] == (["page"] if code == 0 else [])
    if code == 0:
        assert (tmp_path / "page").read_text() == "hunter2"


def test_a_name_that_is_none_is_refused_before_anything_is_asked(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["secret", "set", "../x", "--site", str(path)]) == 2
    assert "is no name for a secret" in capsys.readouterr().err


def test_list_shows_which_are_set_and_never_what(
    path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["secret", "list", str(path)]) == 1
    assert capsys.readouterr().out.startswith("MISSING  page\n")
    for name in ("page", "uplinks.city.password"):
        monkeypatch.setattr("sys.stdin", io.StringIO("hunter2\n"))
        assert main(["secret", "set", name, "--stdin", "--site", str(path)]) == 0
    capsys.readouterr()
    assert main(["secret", "list", str(path)]) == 0
    assert capsys.readouterr().out == "set      page\nset      uplinks.city.password\n"
    (path.parent / "secrets" / "page").chmod(0o644)
    assert main(["secret", "list", str(path), "--json"]) == 1
    said = json.loads(capsys.readouterr().out)
    assert [(one["name"], one["set"]) for one in said] == [("page", False), ("uplinks.city.password", True)]
    assert "chmod 600" in said[0]["fault"]
