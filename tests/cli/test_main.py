"""The command line itself: exit codes, and that a verb costs only what it needs."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import subprocess
import sys
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

import gateway
from gateway import cli
from gateway.cli import VERBS, main
from gateway.errors import CommandError, ConfigError, DeviceError, LinkError, StorageError, UplinkError

if TYPE_CHECKING:
    from collections.abc import Callable


def test_help_names_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(verb in shown for verb in VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_its_file_and_its_help(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert callable(importlib.import_module(f"gateway.cli.{verb}").run)
    assert main([verb, "--help"]) == 0
    assert f"lampione {verb}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "required: VERB"),
        (["chek"], "`chek` is unknown; did you mean `check`?"),
        (["fly"], "Valid here: run, check,"),
        (["check", "--jsno"], "unrecognized arguments"),
        (["--version"], "required: VERB"),
    ],
)
def test_wrong_usage_is_2(words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert sentence in capsys.readouterr().err


@pytest.fixture
def verb(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException | int], None]:
    """Make `version` end as given."""

    def install(outcome: BaseException | int) -> None:
        def run(args: argparse.Namespace) -> int:
            if isinstance(outcome, BaseException):
                raise outcome
            return outcome

        module = ModuleType("gateway.cli.version")
        module.__dict__.update(add=lambda parser: None, run=run)
        monkeypatch.setitem(sys.modules, "gateway.cli.version", module)

    return install


@pytest.mark.parametrize(
    ("outcome", "code"),
    [
        (0, 0), (1, 1), (3, 3), (ConfigError("Wrong."), 2), (LinkError("Gone."), 3), (UplinkError("Gone."), 3),
        (StorageError("Full."), 1), (DeviceError("Sick."), 1), (CommandError("no", "Refused."), 1),
        (KeyboardInterrupt(), 130), (SystemExit(2), 2), (SystemExit(), 0),
    ],
)  # fmt: skip
def test_exit_codes(
    verb: Callable[[BaseException | int], None],
    outcome: BaseException | int,
    code: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    verb(outcome)
    assert main(["version"]) == code
    err = capsys.readouterr().err
    assert "Traceback" not in err
    if isinstance(outcome, BaseException) and str(outcome).endswith("."):
        assert err == f"{outcome}\n"


def test_a_bug_is_not_hidden(verb: Callable[[BaseException | int], None]) -> None:
    verb(ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        main(["version"])


def test_a_reader_that_goes_away_is_no_fault_of_ours() -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "gateway", "schema"], stdout=write, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")


def test_a_closed_output_is_no_fault_of_ours() -> None:
    line = f"exec {sys.executable} -m gateway version >&-"
    done = subprocess.run(["sh", "-c", line], stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_terminal_that_cannot_write_our_letters_gets_what_it_can(tmp_path: object) -> None:
    env = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(
        [sys.executable, "-m", "gateway", "check", "città.yaml"], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "citt?.yaml" in done.stderr


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["version"]) == 0
    assert f"lampione {gateway.__version__}" in capsys.readouterr().out
    assert main(["version", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["lampione"] == gateway.__version__


def test_the_command_line_alone_imports_next_to_nothing() -> None:
    program = "import sys, gateway.cli; print('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert not {"pydantic", "yaml", "asyncio", "aiohttp", "aiomqtt", "gateway.site", "gateway.load"} & loaded
    assert cli.__name__ in loaded
