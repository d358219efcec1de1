"""What people type wrong at every verb: one sentence and its exit code, never a traceback."""

from __future__ import annotations

import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from gateway.cli import main
from gateway.cli.table import Screen
from gateway.site import Credentials

if TYPE_CHECKING:
    from argparse import Namespace

STREET = """\
version: 1
gateway: {id: cab-017, tenant: milan}
links: {line: {driver: modbus, host: 127.0.0.1, port: 1}}
assets: {here: {devices: {feeder: {link: line, profile: eastron-sdm630, address: 1}}}}
uplinks: {city: {uplink: mqtt, url: "mqtts://usp.example", username: u, password: secret}}
"""
KERB = """\
version: 1
gateway: {id: cab-017, tenant: milan}
links: {cs: {driver: ocpp, listen: "127.0.0.1:0", security: 0, authorise: open}}
assets: {cp-1: {devices: {evse: {link: cs}}}}
"""


@pytest.fixture
def street(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "noise").write_bytes(bytes(range(128, 256)))
    (tmp_path / "site.yaml").write_text(STREET)
    (tmp_path / "kerb.yaml").write_text(KERB)
    return tmp_path


@pytest.mark.parametrize(
    ("typed", "code", "say"),
    [
        ("simulate kerb.yaml --out folder", 2, "folder cannot be written: Is a directory."),
        ("simulate kerb.yaml --out none/out.yaml", 2, "none/out.yaml cannot be written"),
        ("simulate kerb.yaml --produced none/count", 2, "none/count cannot be written"),
        ("simulate kerb.yaml --state noise", 2, "noise is no folder."),
        ("demo --keep noise --seconds 1", 2, "noise cannot be used: File exists."),
        ("demo --seconds 0", 2, "--seconds is more than 0."),
        ("receive folder --report", 2, "folder is not a receiver's database"),
        ("receive x.db --mqtt mqtt://127.0.0.1:99999", 2, "is no address of a broker. Write mqtt://host:port"),
        ("receive x.db --mqtt 127.0.0.1:1883", 2, "is no address of a broker."),
        ("receive x.db --mqtt mqtts://127.0.0.1:1 --ca folder", 2, "folder is no certificate in PEM: Is a directory."),
        ("receive x.db --mqtt mqtts://127.0.0.1:1 --ca noise", 2, "noise is no certificate in PEM"),
        ("receive x.db --mqtt mqtt://127.0.0.1:1 --password-file noise", 2, "noise is not text."),
        ("receive x.db --http 127.0.0.1:1 --token-file noise", 2, "noise is not text."),
        ("receive x.db --http 127.0.0.1:99999 --token-file noise", 2, "is not HOST:PORT."),
        ("profiles new Acme_Dust noise", 2, "`Acme_Dust` is no profile's name. Write maker-model"),
        ("profiles show nobody-x", 2, "profile `nobody-x` is unknown. Valid here: "),
        ("profiles show eastron-sdm630/99", 2, "There is no `eastron-sdm630/99`, only eastron-sdm630/1 in "),
        ("read 127.0.0.1:1 --unit 1 --profile eastron-sdm630/99", 2, "There is no `eastron-sdm630/99`, only "),
        ("read 127.0.0.1:1 --unit 1 --profile nova-sds011", 2, "nova-sds011/1 is for serial: a device on a wire "),
        ("read 127.0.0.1:1 --unit 999 --profile eastron-sdm630", 2, "--unit: `999` is too large: at most 255. Write 2"),
        ("read here/feeder --site site.yaml", 3, "127.0.0.1:1 refuses the connection."),
        ("read cp-1/evse --site kerb.yaml", 2, "cp-1/evse: cs is no line that can be borrowed. Its values: lampione"),
        ("write cp-1/evse limit 10A --dry-run --site kerb.yaml", 2, "cp-1/evse: cs is no line that can be borrowed."),
        ("read here/feder --site site.yaml", 2, "device `here/feder` is unknown"),
        (
            "write here/feeder demand_period 15V --dry-run --site site.yaml",
            2,
            "is not a unit of this quantity; write min.",
        ),
        ("scan 127.0.0.1:1 --timeout 5", 2, "WIRE: `5` has no unit of time. Write `5s`"),
        ("monitor --raw foo", 2, "--raw: `foo` is neither a device nor a serial server. Write `/dev/serial"),
        ("monitor --raw tcp://127.0.0.1:1 --profile eastron-sdm630/99", 2, "There is no `eastron-sdm630/99`, only "),
        ("monitor --raw tcp://127.0.0.1:1 --seconds -1", 2, "--seconds is more than 0."),
        ("assign 127.0.0.1:1 246 --count 5", 2, "--count 5: from 246 on there are 2 addresses."),
        ("decode nan --words 4366", 2, "invalid _finite value: 'nan'"),
        ("buffer resend city telemetry abc 5 1", 2, "5 to 1 are no sequence numbers."),
    ],
)
def test_it_is_said_in_a_sentence(
    street: Path, typed: str, code: int, say: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = typed.split()
    if words[0] in ("read", "write", "scan", "monitor", "assign", "simulate") and "--state" not in words:
        words += ["--state", str(street / "state")]
    assert main(words) == code
    assert say in capsys.readouterr().err


def test_what_the_system_refuses_is_said_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(args: Namespace) -> int:
        raise PermissionError(13, "Permission denied", "/etc/lampione")

    monkeypatch.setattr("gateway.cli.version.run", refuse)
    assert main(["version"]) == 1
    assert capsys.readouterr().err == "/etc/lampione: Permission denied.\n"


def test_assign_takes_its_answers_from_a_file(street: Path) -> None:
    """No event loop waits for a file, nor for /dev/null."""
    ours, line = pty.openpty()
    words = ["assign", os.ttyname(line), "11", "--timeout", "50ms", "--state", str(street)]
    done = subprocess.run(
        [sys.executable, "-m", "gateway", *words, "--site", str(street / "site.yaml")],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20, check=False,
    )  # fmt: skip
    os.close(ours)
    os.close(line)
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.startswith("Connect the meter that gets address 11")


def test_a_command_to_type_survives_a_folder_with_spaces(tmp_path: Path) -> None:
    credentials = Credentials(tmp_path / "here and there")
    fault = credentials.fault("page.token")
    assert fault
    assert fault.fix == f"Type: lampione secret set page.token --secrets '{credentials.folder}'"


def test_a_secret_that_nobody_uses_is_stored_and_said(
    street: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin.read", lambda: "hunter2")
    assert main(["secret", "set", "uplinks.city.passwort", "--stdin", "--site", str(street / "site.yaml")]) == 0
    assert "did you mean `uplinks.city.password`?" in capsys.readouterr().err
    assert (street / "secrets" / "uplinks.city.passwort").exists()


def test_without_a_terminal_a_secret_is_not_asked_for(street: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "gateway", "secret", "set", "page.token", "--secrets", str(street)],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (2, "There is no terminal to ask at. Pass the secret with --stdin.\n")


def test_the_demo_fits_into_a_small_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal:
        text = ""

        def isatty(self) -> bool:
            return True

        def write(self, text: str) -> None:
            self.text += text

        def flush(self) -> None:
            pass

    monkeypatch.setattr(shutil, "get_terminal_size", lambda: os.terminal_size((40, 6)))
    device = {"id": "lp-1/pm", "colour": "red", "readings": 3, "say": "It is silent. " * 9, "points": []}
    terminal: Any = Terminal()
    platform: Any = type("Platform", (), {"counts": type("Counts", (), {"records": 5})})
    Screen(terminal).show({"lanes": [], "devices": [device] * 9}, platform, 1.0, 60.0, is_cut=True)
    rows = terminal.text.replace("\033[31m", "").replace("\033[0m", "").rstrip("\n").split("\n")
    assert len(rows) == 5
    assert max(map(len, rows)) < 40
