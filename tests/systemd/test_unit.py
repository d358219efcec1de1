"""The unit: systemd takes it, its exposure is small, and the gateway works inside what it leaves."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from tests.systemd import confined

pytestmark = pytest.mark.needs("systemd-analyze")
ROOT = Path(__file__).resolve().parents[2]
UNIT = ROOT / "systemd" / "lampione.service"
DROP_INS = ROOT / "systemd" / "drop-ins"
CONFINED = (sys.executable, str(ROOT / "tests" / "systemd" / "confined.py"))
TOKEN = "a-token-of-the-tests-0123456789"


def rendered(folder: Path, *drop_ins: str) -> Path:
    """The unit as README.md installs it, for the `lampione` of this environment."""
    lampione = shutil.which("lampione")
    assert lampione
    unit = folder / "lampione.service"
    unit.write_text(UNIT.read_text().replace("/usr/bin/lampione", lampione))
    (folder / "lampione.service.d").mkdir()
    for name in drop_ins:
        shutil.copy(DROP_INS / name, folder / "lampione.service.d")
    return unit


def exposure(unit: Path) -> float:
    command = ["systemd-analyze", "security", "--offline=yes", "--no-pager", str(unit)]
    said = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", said)
    assert found, said
    return float(found[1])


@pytest.mark.parametrize(
    "drop_ins", [(), ("serial.conf",), ("serial.conf", "timesyncd.conf"), ("addresses.conf", "serial.conf")], ids=str
)
def test_systemd_takes_it(tmp_path: Path, drop_ins: tuple[str, ...]) -> None:
    unit = rendered(tmp_path, *drop_ins)
    done = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("drop_ins", "most"),
    [
        ((), 1.5),
        (("serial.conf", "timesyncd.conf"), 1.5),
        (("serial.conf",), 1.7),
        (("serial.conf", "timesyncd.conf", "addresses.conf"), 1.2),
    ],
    ids=str,
)
def test_its_exposure_is_small(tmp_path: Path, drop_ins: tuple[str, ...], most: float) -> None:
    assert exposure(rendered(tmp_path, *drop_ins)) <= most


def test_what_the_unit_promises() -> None:
    lines = UNIT.read_text().splitlines()
    for line in (
        "Type=notify", "NotifyAccess=main", "WatchdogSec=30", "Restart=always", "StartLimitIntervalSec=0", "UMask=0077",
        "StateDirectoryMode=0700", "CapabilityBoundingSet=", "NoNewPrivileges=yes", "MemoryDenyWriteExecute=yes",
        "LoadCredential=secrets:/etc/lampione/secrets", "ProtectSystem=strict", "PrivateUsers=yes",
    ):  # fmt: skip
        assert line in lines, line


def test_the_clock_may_be_read_and_not_set() -> None:
    calls = confined.allowed([UNIT])
    assert {"adjtimex", "clock_adjtime", "clock_adjtime64"} <= calls, "glibc's adjtimex(3) is clock_adjtime(2)"
    assert not calls & {"settimeofday", "clock_settime", "clock_settime64"}
    asks = (
        "import ctypes, errno\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        "timex = ctypes.create_string_buffer(256)\n"
        "print(libc.adjtimex(timex))\n"
        "now = (ctypes.c_long * 2)()\n"
        "libc.clock_gettime(0, now)\n"
        "print(libc.clock_settime(0, now), errno.errorcode[ctypes.get_errno()])\n"
        "timex[0:4] = (0x10).to_bytes(4, 'little')\n"  # ADJ_STATUS: a write
        "print(libc.adjtimex(timex), errno.errorcode[ctypes.get_errno()])\n"
    )
    command = [*CONFINED, str(UNIT), "--", sys.executable, "-c", asks]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    read, *refused = done.stdout.splitlines()
    assert 0 <= int(read) <= 5, done
    assert refused == ["-1 EPERM", "-1 EPERM"], done


@pytest.mark.parametrize("drop_ins", [(), ("timesyncd.conf",)], ids=str)
def test_the_gateway_is_told_when_the_clock_is_set_and_how_far_it_is_trusted(drop_ins: tuple[str, ...]) -> None:
    """With timesyncd's drop-in the kernel is not asked; its file says as much."""
    asks = (
        "import asyncio, os\n"
        "from gateway.clock import RealMachine, SystemClock\n"
        "from gateway.steps import SetAlarm\n"
        "print(SystemClock().state(), RealMachine().bound())\n"
        "async def armed():\n"
        "    with SetAlarm().armed():\n"
        "        print('timerfd' in os.readlink('/proc/self/fd/6'))\n"  # after the loop's own three
        "asyncio.run(armed())\n"
    )
    files = [UNIT, *(UNIT.parent / "drop-ins" / name for name in drop_ins)]
    command = [*CONFINED, *map(str, files), "--", sys.executable, "-c", asks]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    clock, alarm = done.stdout.splitlines()
    assert clock.split()[0] in ("synced", "holdover", "unsynced"), done
    assert clock.endswith("None") or not drop_ins
    assert alarm == "True", done


SITE = """\
version: 1
gateway: {id: cab-017, tenant: milan}
links: {line: {driver: modbus, host: 127.0.0.1, port: 9}}
assets: {here: {devices: {feeder: {link: line, profile: eastron-sdm630, address: 1, every: 1s}}}}
uplinks: {archive: {uplink: file, path: STATE/records.jsonl}}
page: {listen: "127.0.0.1:0", token: secret}
"""


@pytest.mark.parametrize("drop_ins", [[], ["serial.conf", "timesyncd.conf"]], ids=str)
def test_the_gateway_works_in_it(tmp_path: Path, drop_ins: list[str]) -> None:
    """Ready, alive, its page open, stopping: told to the socket that systemd would hold."""
    site, state = tmp_path / "site.yaml", tmp_path / "state"
    site.write_text(SITE.replace("STATE", str(state)))
    (tmp_path / "credentials").mkdir()
    (tmp_path / "credentials" / "secrets_page.token").write_text(TOKEN)
    lampione = shutil.which("lampione")
    assert lampione
    files = [str(UNIT), *(str(DROP_INS / name) for name in drop_ins)]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd, (tmp_path / "log").open("wb") as log:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(30)
        gateway = subprocess.Popen(
            [*CONFINED, *files, "--", lampione, "run", str(site)],
            env=os.environ
            | {
                "NOTIFY_SOCKET": str(tmp_path / "notify"),
                "WATCHDOG_USEC": "1500000",
                "STATE_DIRECTORY": str(state),
                "CREDENTIALS_DIRECTORY": str(tmp_path / "credentials"),
            },
            stderr=log,
        )
        try:
            heard: set[bytes] = set()
            while not {b"READY=1", b"WATCHDOG=1"} <= heard:
                heard.add(systemd.recv(4096))
            status = page(state, systemd)
            assert status["gateway"] == "cab-017"
            assert status["clock"]["state"] in ("synced", "unsynced")
            gateway.send_signal(signal.SIGTERM)
            while b"STOPPING=1" not in heard:
                heard.add(systemd.recv(4096))
            assert gateway.wait(30) == 0, (tmp_path / "log").read_text()
        finally:
            gateway.kill()
            gateway.wait()
    assert "Operation not permitted" not in (tmp_path / "log").read_text()
    assert (state / "records.jsonl").stat().st_size > 0


def page(state: Path, systemd: socket.socket) -> dict[str, dict[str, str]]:
    """What the page says, once it listens; each watchdog message is a reason to look again."""
    for _ in range(20):
        found = json.loads((state / "addresses.json").read_text()) if (state / "addresses.json").exists() else {}
        if "page" in found:
            request = urllib.request.Request(
                f"{found['page']}/api/status", headers={"Authorization": f"Bearer {TOKEN}"}
            )
            with urllib.request.urlopen(request, timeout=10) as answer:
                return dict(json.load(answer))
        systemd.recv(4096)
    raise AssertionError(f"no page: {found}")
