"""docs/commissioning.md, typed by a test: what the page prints is what is printed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gateway.control import socket_of

from .bench import gateway_on, line_of, meter
from .test_assign import Typed

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "commissioning.md").read_text()
PORT = "tcp://10.0.0.8:4001"
SAYS = {
    "voltage_l1": (230.2, 231.4), "voltage_l2": (231.4, 230.0), "voltage_l3": (229.8, 230.1),
    "power_l1": (3000.0, 100.0), "power_l2": (2200.0, 200.0), "power_l3": (2000.0, 300.0), "power": (7200.0, 600.0),
    "frequency": (50.0, 50.0),
}  # fmt: skip


def commands(page: str) -> list[tuple[str, str]]:
    """Each command line of the page, and what it prints."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    typed = "".join(text for language, text in blocks if not language)
    return re.findall(r"^\$ lampione (.*?)\n(.*?)(?=^\$ |\Z)", typed, re.MULTILINE | re.DOTALL)


def printed(command: str, port: str, folder: Path) -> str:
    words = re.findall(r'"[^"]*"|\S+', command.replace(PORT, port))
    done = subprocess.run(
        [sys.executable, "-m", "gateway", *(word.strip('"') for word in words)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        cwd=folder,
        env={
            **os.environ,
            "PYTHONUNBUFFERED": "1",
            "STATE_DIRECTORY": str(folder / "state"),
            "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
        },
        check=False,
    )
    return done.stdout


def test_the_page_has_what_is_tested() -> None:
    verbs = [command.split()[0] for command, _ in commands(PAGE)]
    assert verbs == ["scan", "assign", "check", "read", "run", "read", "write", "write", "decode"]


@pytest.mark.slow
def test_a_pole_in_five_minutes(tmp_path: Path) -> None:
    scan, assign, check, read, _, *beside = commands(PAGE)
    (site,) = re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    with line_of(meter(1), baud=9600) as line:
        for slug, (value, _) in SAYS.items():
            line.set("here/feeder", slug, value)
        began = time.monotonic()
        assert printed(scan[0], line.port, tmp_path) == scan[1]
        typed = Typed(*assign[0].replace(PORT, line.port).split()[1:], state=tmp_path, fast=False)
        for _ in range(2):
            typed.until("Ctrl-D ends.\n")
            typed.type("")
            typed.until("[y/N] ")
            typed.type("y")
            typed.until("ok: ")
            if "here/second" not in line.emulator.produced():
                line.connect(meter(1, id="here/second"))
        assert typed.end() == 0
        assert typed.said == assign[1]
        for slug, (_, value) in SAYS.items():
            line.set("here/second", slug, value)
        (tmp_path / "site.yaml").write_text(site.replace(PORT, line.port))
        for command, says in (check, read):
            assert re.fullmatch(re.escape(says).replace("…", ".*"), printed(command, line.port, tmp_path))
        with gateway_on(tmp_path / "site.yaml", tmp_path / "state"):
            while not socket_of(tmp_path / "state").exists():
                assert time.monotonic() < began + 120
                time.sleep(0.02)
            for command, says in beside:
                assert printed(command, line.port, tmp_path) == says
        assert time.monotonic() < began + 120
