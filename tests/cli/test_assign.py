"""`lampione assign` as a technician uses it: one new meter after the other, found again where it should be."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from gateway.cli import main

from .bench import line_of, meter

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .bench import Line


@pytest.fixture
def line() -> Iterator[Line]:
    with line_of(meter(1)) as line:
        yield line


class Typed:
    """The command in a terminal."""

    def __init__(self, *words: str, state: Path, fast: bool = True) -> None:
        self.said = ""
        common = ["--state", str(state), "--site", str(state / "site.yaml")]
        common += ["--baud", "115200", "--timeout", "100ms"] if fast else []
        self._child = subprocess.Popen(
            [sys.executable, "-m", "gateway", "assign", *words, *common],
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )

    def until(self, text: str) -> None:
        assert self._child.stdout
        seen = ""
        while text not in seen:
            byte = self._child.stdout.read(1).decode()
            assert byte, self.said
            seen += byte
            self.said += byte

    def type(self, line: str) -> None:
        assert self._child.stdin
        self._child.stdin.write(f"{line}\n".encode())
        self._child.stdin.flush()

    def end(self) -> int:
        rest, _ = self._child.communicate(timeout=15)
        self.said += rest.decode()
        return self._child.returncode


def test_two_new_meters_with_one_address_get_their_own(line: Line, tmp_path: Path) -> None:
    typed = Typed(line.port, "11", "--count", "2", state=tmp_path)
    typed.until("Connect the meter that gets address 11")
    typed.type("")
    typed.until("Eastron SDM630-Modbus at address 1, 115200 8N1. Give it address 11 and 115200 8N1? [y/N]")
    assert 1 in line.emulator._units
    typed.type("y")
    typed.until("ok: Eastron SDM630-Modbus answers at address 11, 115200 8N1.")
    line.connect(meter(1, id="here/second"))
    typed.until("Connect the meter that gets address 12")
    typed.type("")
    typed.until("[y/N]")
    typed.type("y")
    assert typed.end() == 0
    assert sorted(line.emulator._units) == [11, 12]
    assert typed.said.endswith(
        "  meter-11: {link: line, profile: eastron-sdm630, address: 11}\n"
        "  meter-12: {link: line, profile: eastron-sdm630, address: 12}\n"
    )


@pytest.mark.slow
def test_nothing_is_written_where_nobody_says_yes(line: Line, tmp_path: Path) -> None:
    typed = Typed(line.port, "11", state=tmp_path)
    typed.until("Connect the meter")
    typed.type("")
    typed.until("[y/N]")
    typed.type("")
    typed.until("Nothing was written.")
    assert typed.end() == 1
    assert list(line.emulator._units) == [1]


def test_an_address_that_is_taken_is_not_given_twice(line: Line, tmp_path: Path) -> None:
    line.connect(meter(11, id="here/old"))
    typed = Typed(line.port, "11", "--yes", state=tmp_path)
    typed.until("Connect the meter")
    typed.type("")
    typed.until("Address 11 is taken. Disconnect who has it, or begin with another address.")
    assert typed.end() == 1
    assert sorted(line.emulator._units) == [1, 11]


@pytest.mark.slow
def test_a_meter_that_is_set_at_its_keys_only_is_waited_for(tmp_path: Path) -> None:
    with line_of(meter(1, "abb-b23")) as line:
        typed = Typed(line.port, "5", "--count", "1", state=tmp_path)
        typed.until("Connect the meter")
        typed.type("")
        typed.until("it takes its address at its keys only. Set 5 and 115200 8N1 there.")
        line.emulator._units.clear()
        line.connect(meter(5, "abb-b23", "here/set"))
        typed.until("Connect the meter")
        typed.type("")
        typed.until("as it should be.")
        assert typed.end() == 0


def test_a_meter_that_does_not_say_how_it_is_set_is_not_written_to(line: Line, tmp_path: Path) -> None:
    typed = Typed(line.port, "11", state=tmp_path)
    typed.until("Connect the meter")
    typed.type("")
    typed.until("[y/N]")
    line.fault("here/feeder", "exception_4")
    typed.type("y")
    typed.until("Nothing was written: its unit cannot be read from register 0x0014: exception 4, device failure.")
    assert typed.end() == 1


@pytest.mark.parametrize(
    ("words", "say"),
    [
        (["line", "0"], "0 is no address: 1 to 247."),
        (["line", "1", "--to", "fast"], "`fast` is no line setting."),
        (["127.0.0.1:502", "1"], "is no Modbus line"),
        (["tcp://127.0.0.1:1", "1", "--to", "19200 8E1"], "is set at the serial server"),
    ],
)
def test_what_cannot_be_is_said(
    words: list[str], say: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    read, write = os.pipe()
    with os.fdopen(read) as stdin, os.fdopen(write):
        monkeypatch.setattr(sys, "stdin", stdin)
        assert main(["assign", *words, "--state", str(tmp_path), "--site", str(tmp_path / "site.yaml")]) == 2
    assert say in capsys.readouterr().err
