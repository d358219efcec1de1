"""`lampione run` before it runs: what it refuses, and with which exit code."""

import os
from pathlib import Path

import pytest

from gateway.buffer import lock
from gateway.cli import main

SITE = """\
version: 1
gateway: {id: cab-017, tenant: milan}
links: {}
assets: {}
uplinks: {city: {uplink: file, path: out.jsonl}}
"""


def test_a_site_file_that_is_not_there_is_a_configuration_fault(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", str(tmp_path / "none.yaml"), "--state", str(tmp_path / "state")]) == 2
    assert "cannot be read" in capsys.readouterr().err


def test_a_state_folder_that_cannot_be_made_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "site.yaml").write_text(SITE)
    (tmp_path / "file").touch()
    assert main(["run", str(tmp_path / "site.yaml"), "--state", str(tmp_path / "file" / "state")]) == 2
    assert "Give another one with --state." in capsys.readouterr().err


def test_a_second_gateway_on_the_same_state_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "site.yaml").write_text(SITE)
    (tmp_path / "state" / "buffer").mkdir(parents=True)
    held = lock(tmp_path / "state" / "buffer" / "lock")
    assert held is not None
    assert main(["run", str(tmp_path / "site.yaml"), "--state", str(tmp_path / "state")]) == 2
    os.close(held)
    assert "Another lampione runs on" in capsys.readouterr().err
