"""`lampione scan` on emulated lines, alone and beside the gateway that polls them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from drivers import modbus
from gateway.cli import main
from gateway.control import socket_of

from .bench import device, gateway_on, line_of, meter

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .bench import Line

SITE = """\
version: 1
gateway: {{id: cab-017, tenant: milan}}
links: {{line: {{driver: modbus, port: "{port}", baud: 115200, timeout: 200ms}}}}
assets: {{here: {{devices: {{feeder: {{link: line, profile: eastron-sdm630, address: 1, every: 1s}}}}}}}}
uplinks: {{city: {{uplink: file, path: out.jsonl}}}}
"""


@pytest.fixture
def line() -> Iterator[Line]:
    with line_of(meter(1), meter(2, "abb-b23", "here/sub"), meter(4, "iskra-wm3", "here/lamps")) as line:
        yield line


def flags(tmp_path: Path, units: str = "1-4") -> list[str]:
    state = ["--site", str(tmp_path / "site.yaml"), "--state", str(tmp_path / "state")]
    return ["--units", units, "--baud", "115200", "--timeout", "100ms", *state]


@pytest.mark.slow
def test_every_meter_is_named_and_ready_to_be_written_down(
    line: Line, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["scan", line.port, *flags(tmp_path)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("unit 1 at 115200 8N1: Eastron SDM630-Modbus, profile eastron-sdm630/1")
    assert said[-4:] == [
        "For the site file, under `devices:` of an asset:",
        "  meter-1: {link: line, profile: eastron-sdm630, address: 1}  # 75% sure",
        "  meter-2: {link: line, profile: abb-b23, address: 2}  # 98% sure",
        "  meter-4: {link: line, profile: iskra-wm3, address: 4}  # 75% sure",
    ]


def test_a_clamp_the_wrong_way_round_is_said(line: Line, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for slug, watts in {"power_l1": 2000, "power_l2": -700, "power_l3": 900, "power": 2200}.items():
        line.set("here/feeder", slug, watts)
    assert main(["scan", line.port, "--json", *flags(tmp_path, "1")]) == 1
    (found,) = json.loads(capsys.readouterr().out)["found"]
    assert found["wrong"] == ["Unit 1 L2 power is negative while importing. Turn its clamp round."]
    assert found["profile"] == "eastron-sdm630/1"
    assert found["values"]["power_l2"] == -700
    assert found["confidence"] < 0.5


def test_two_meters_with_one_address_are_said(line: Line, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line.fault("here/feeder", "duplicate")
    assert main(["scan", line.port, *flags(tmp_path, "1")]) == 1
    assert "Two meters share address 1. Disconnect one" in capsys.readouterr().out


def test_a_line_without_a_sound_says_what_to_check(
    line: Line, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["scan", line.port, *flags(tmp_path, "9")]) == 3
    assert "line: not one byte. Check power, swap A and B." in capsys.readouterr().err


def test_a_quick_look_where_no_new_meter_can_be_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["scan", "tcp://127.0.0.1:1", "--quick", *flags(tmp_path, "5-9")]) == 2
    assert "No new meter has an address among 5-9." in capsys.readouterr().err


@pytest.mark.parametrize("units", ["0-3", "5-2", "1-300", "some"])
def test_what_are_no_units_is_said(units: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["scan", "tcp://127.0.0.1:1", *flags(tmp_path, units)]) == 2
    assert "are no unit ids" in capsys.readouterr().err


@pytest.mark.slow
def test_beside_a_gateway_its_link_is_borrowed_and_polled_again(
    line: Line, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "site.yaml").write_text(SITE.format(port=line.port))
    with gateway_on(tmp_path / "site.yaml", tmp_path / "state") as gateway:

        def polled(more: int) -> None:
            device = gateway.site.devices["cab-017/feeder"][1]
            wanted = count() + more * len(device.points)
            end = time.monotonic() + 15
            while count() < wanted:
                assert time.monotonic() < end
                time.sleep(0.02)

        def count() -> int:
            return gateway.status.snapshot()["devices"][0]["readings"]  # type: ignore[index, call-overload, no-any-return, return-value]

        end = time.monotonic() + 10
        while not socket_of(tmp_path / "state").exists():
            assert time.monotonic() < end
            time.sleep(0.02)
        polled(1)
        assert main(["scan", "line", "--blind", *flags(tmp_path, "1-2")]) == 0
        assert "profile abb-b23/1" in capsys.readouterr().out
        polled(1)


STRANGER = modbus.Profile.model_validate(
    {
        "profile": "acme-hidden/1",
        "driver": "modbus",
        "kind": "meter",
        "source": "made up",
        "defaults": {"type": "f32", "word_order": "little"},
        "points": {
            "v1": {"addr": 10, "quantity": "voltage", "phase": "L1", "unit": "V"},
            "v2": {"addr": 12, "quantity": "voltage", "phase": "L2", "unit": "V"},
            "v3": {"addr": 14, "quantity": "voltage", "phase": "L3", "unit": "V"},
            "hz": {"addr": 20, "quantity": "frequency", "unit": "Hz"},
        },
        "examples": [{"regs": {4: {10: [0x3334, 0x4366]}}, "expect": {"v1": "230.2 V"}}],
    }
)


def test_a_stranger_becomes_a_profile_that_finds_its_values(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with line_of(device(3, STRANGER, "here/x")) as line:
        assert main(["scan", line.port, "--json", *flags(tmp_path, "3")]) == 1
        scanned = capsys.readouterr().out
        (found,) = json.loads(scanned)["found"]
        assert found["profile"] is None
        assert found["wrong"] == ["Unit 3 fits no profile. Start one: lampione profiles new."]
        (tmp_path / "found.json").write_text(scanned)
        assert main(["profiles", "new", "acme-one", str(tmp_path / "found.json"), "--out", str(tmp_path)]) == 0
        path = tmp_path / "acme-one.yaml"
        assert main(["profiles", "check", str(path)]) == 0
        line.set("here/x", "v2", 231.5)
        capsys.readouterr()
        words = ["--unit", "3", "--profile", str(path), *flags(tmp_path)[2:]]
        assert main(["read", line.port, "voltage_l2", "frequency", *words]) == 0
        assert capsys.readouterr().out.startswith("voltage_l2  231.5 V\nfrequency   ")


def test_a_scan_without_such_a_meter_begins_no_profile(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = {"found": [{"unit": 4, "profile": None, "registers": {}}]}
    (tmp_path / "found.json").write_text(json.dumps(said))
    new = ["profiles", "new", "acme-one", str(tmp_path / "found.json")]
    assert main([*new, "--unit", "5"]) == 2
    assert "has no such meter. Say with --unit which one; it has 4." in capsys.readouterr().err
    assert main(new) == 2
    assert "Unit 4: no register says mains volts and hertz. Scan while mains is on" in capsys.readouterr().err


def test_a_meter_that_answers_as_every_unit_is_listed_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    units = (1, 2, 3, 235, 241, 246)
    with line_of(*(meter(unit, "siemens-pac3200", f"here/u{unit}") for unit in units), tcp=True) as line:
        assert main(["scan", line.port, "--json", *flags(tmp_path, "1-3")[:2], *flags(tmp_path)[4:]]) == 0
    said = capsys.readouterr()
    assert [one["unit"] for one in json.loads(said.out)["found"]] == [1]
    assert "It answers as every unit: it is one device. Write address 1." in said.err


def test_meters_behind_a_tcp_gateway_are_listed_each(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with line_of(meter(1), meter(2, id="here/b"), tcp=True) as line:
        assert main(["scan", line.port, "--json", "--blind", *flags(tmp_path, "1-3")[:2], *flags(tmp_path)[4:]]) == 0
    assert [one["unit"] for one in json.loads(capsys.readouterr().out)["found"]] == [1, 2]


def test_ctrl_c_ends_it_with_what_was_found_and_a_clean_line(
    line: Line, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scanning = subprocess.Popen(
        # What a shell starts in the background ignores SIGINT, and its children inherit that.
        ["env", "--default-signal=INT", sys.executable, "-m", "gateway", "scan", line.port, *flags(tmp_path, "1-247")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert scanning.stdout
    assert "unit 1 " in scanning.stdout.readline()
    scanning.send_signal(signal.SIGINT)
    out, err = scanning.communicate(timeout=15)
    assert scanning.returncode == 130
    assert "Interrupted; the line is free again." in err
    assert "meter-1: {link: line, profile: eastron-sdm630, address: 1}" in out
    assert main(["scan", line.port, "--blind", *flags(tmp_path, "2")]) == 0
    assert "abb-b23" in capsys.readouterr().out
