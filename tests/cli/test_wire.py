"""`lampione read`, `write` and `decode` on an emulated line: alone, and beside the gateway that polls it."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING

import pytest

from gateway.cli import main
from gateway.control import ask, socket_of

from .bench import gateway_on, line_of, meter

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .bench import Line

SITE = """\
version: 1
gateway: {{id: cab-017, tenant: milan}}
links: {{line: {{driver: modbus, port: "{port}", baud: 115200, timeout: 200ms}}}}
assets: {{here: {{devices: {{feeder: {{link: line, profile: eastron-sdm630, address: 7, every: 1s}}}}}}}}
uplinks: {{city: {{uplink: file, path: out.jsonl}}}}
"""
FEEDER = "cab-017/feeder"


@pytest.fixture
def line() -> Iterator[Line]:
    with line_of(meter(7)) as line:
        line.set("here/feeder", "voltage_l1", 230.2)
        line.set("here/feeder", "frequency", 50.0)
        yield line


@pytest.fixture
def site(line: Line, tmp_path: Path) -> Path:
    path = tmp_path / "site.yaml"
    path.write_text(SITE.format(port=line.port))
    return path


def of(site: Path) -> list[str]:
    return ["--site", str(site), "--state", str(site.parent / "state")]


def on(line: Line, site: Path) -> list[str]:
    return [*of(site), "--unit", "7", "--profile", "eastron-sdm630", "--baud", "115200", "--timeout", "200ms"]


def test_a_device_says_all_its_points(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["read", FEEDER, *of(site)]) == 0
    said = capsys.readouterr().out
    assert "voltage_l1              230.2 V\n" in said
    assert "demand_period           60 min\n" in said
    assert len(said.splitlines()) == 20


def test_one_point_of_a_device_that_no_site_file_has(
    line: Line, site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["read", line.port, "frequency", "--json", *on(line, site)]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["points"] == [{"point": "frequency", "value": 50.0, "unit": "Hz", "reason": None}]


def test_a_point_without_a_value_says_why(line: Line, site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line.set("here/feeder", "voltage_l1", (0x7FC0, 0))
    assert main(["read", FEEDER, "voltage_l1", *of(site)]) == 1
    assert capsys.readouterr().out == "voltage_l1  no value (not_a_number)\n"


def test_a_device_that_is_silent_is_not_reached(line: Line, site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line.fault("here/feeder", "silent")
    assert main(["read", FEEDER, *of(site)]) == 3
    assert "not one byte. Check power and unit id, swap A and B." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "say"),
    [
        (["cab-017/feder"], "did you mean `cab-017/feeder`?"),
        ([FEEDER, "voltage_l4"], "did you mean `voltage_l"),
        (["lien"], "is a wire: say with --unit and --profile"),
        (["lien", "--unit", "7", "--profile", "eastron-sdm630"], "did you mean `line`?"),
        (["line", "--unit", "7", "--profile", "eastron-sdm360"], "did you mean `eastron-sdm"),
    ],
)
def test_what_is_not_there_is_said(words: list[str], say: str, site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["read", *words, *of(site)]) == 2
    assert say in capsys.readouterr().err


def test_a_dry_run_says_the_frame_and_writes_nothing(
    line: Line, site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["write", FEEDER, "demand_period", "30 min", "--dry-run", *of(site)]) == 0
    said = capsys.readouterr().out
    assert "is 60 min. To set 30 min" in said
    assert "07 10 00 02 00 02 04 41 f0 00 00" in said
    assert main(["read", FEEDER, "demand_period", *of(site)]) == 0
    assert "60 min" in capsys.readouterr().out


def test_what_is_confirmed_is_written_and_read_back(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["write", FEEDER, "demand_period", "30min", "--confirm", *of(site)]) == 0
    assert capsys.readouterr().out == f"{FEEDER}/demand_period is 30 min, read back.\n"
    assert main(["read", FEEDER, "demand_period", *of(site)]) == 0
    assert "30 min" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "code", "say"),
    [
        (["demand_period", "120 min", "--confirm"], 1, "takes 0 to 60 min; 120 min was asked"),
        (["demand_period", "7 min", "--confirm"], 1, "takes 0, 5, 8, 10"),
        (["power", "1", "--confirm"], 2, "power cannot be written; it takes demand_period."),
        (["demand_period", "30 V", "--confirm"], 2, "30 V"),
        (["demand_period", "soon", "--confirm"], 2, "is not a number"),
        (["demand_period", "30 min"], 2, "--dry-run --confirm"),
    ],
)
def test_what_may_not_be_written_is_not(
    words: list[str], code: int, say: str, site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["write", FEEDER, *words, *of(site)]) == code
    assert say in capsys.readouterr().err


def test_a_known_value_is_found_beside_its_address(line: Line, site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The maker's 30001 is register 0: who writes 1 finds it one before."""
    words = ["--unit", "7", "--baud", "115200", "--timeout", "200ms", *of(site)]
    assert main(["decode", "230", line.port, "--register", "4:0x0000", *words]) == 0
    assert "    230.2          {fc: 4, addr: 0x0000, type: f32}" in capsys.readouterr().out
    line.set("here/feeder", "voltage_l1", (0x3333, 0x4366))
    assert main(["decode", "230", line.port, "--register", "4:0x0000", *words]) == 0
    assert "{fc: 4, addr: 0x0000, type: f32, word_order: little}" in capsys.readouterr().out
    line.fault("here/feeder", "silent")
    assert main(["decode", "230", line.port, "--register", "4:0", *words]) == 3
    assert "Unit 7 at tcp://127.0.0.1:" in capsys.readouterr().err


def test_beside_a_running_gateway_each_verb_has_the_line_to_itself_and_polling_goes_on(
    line: Line, site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = site.parent / "state"
    with gateway_on(site, state) as gateway:

        def good(more: int) -> None:
            """Wait until the gateway has read it `more` times again."""
            wanted = count() + more * 19
            end = time.monotonic() + 15
            while count() < wanted:
                assert time.monotonic() < end
                time.sleep(0.02)

        def count() -> int:
            snapshot = asyncio.run(ask(socket_of(state), "status"))
            assert isinstance(snapshot, dict)
            return snapshot["devices"][0]["readings"]  # type: ignore[index, call-overload, return-value]

        end = time.monotonic() + 10
        while not socket_of(state).exists():
            assert time.monotonic() < end
            time.sleep(0.02)
        good(1)
        assert main(["read", FEEDER, "voltage_l1", *of(site)]) == 0
        assert "230.2 V" in capsys.readouterr().out
        good(1)
        assert main(["write", FEEDER, "demand_period", "15 min", "--confirm", *of(site)]) == 0
        good(1)
        assert main(["decode", "230", "line", "--unit", "7", "--register", "4:0", *of(site)]) == 0
        assert main(["decode", "230", line.port, "--unit", "7", "--register", "4:0", *of(site)]) == 0
        good(1)
        assert gateway.status.snapshot()["links"][0]["restarts"] == 0  # type: ignore[index, call-overload]
