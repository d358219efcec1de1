"""sd_notify over a real datagram socket, as systemd would hold it."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.notify import Notifier


@pytest.fixture(params=["path", "abstract"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    name = str(tmp_path / "notify") if request.param == "path" else f"@lampione-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(name.replace("@", "\0", 1))
        listening.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        yield listening


def test_what_systemd_hears(systemd: socket.socket) -> None:
    notifier = Notifier()
    notifier.status("Line 14: `evry` is unknown.\nThe last configuration still runs: 3 °C")
    notifier.ready()
    notifier.alive()
    notifier.stopping()
    assert [systemd.recv(4096).decode() for _ in range(4)] == [
        "STATUS=Line 14: `evry` is unknown. The last configuration still runs: 3 °C",
        "READY=1",
        "WATCHDOG=1",
        "STOPPING=1",
    ]


def test_without_systemd_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    monkeypatch.delenv("WATCHDOG_USEC", raising=False)
    notifier = Notifier()
    notifier.ready()
    assert notifier.watchdog is None


def test_a_service_manager_that_is_gone_or_does_not_read_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    Notifier().alive()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as deaf:
        deaf.bind(str(tmp_path / "deaf"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "deaf"))
        notifier = Notifier()
        for _ in range(2000):
            notifier.alive()


@pytest.mark.parametrize(
    ("microseconds", "process", "seconds"),
    [
        ("30000000", None, 30.0),
        ("30000000", "own", 30.0),
        ("30000000", "other", None),
        ("0", None, None),
        ("x", None, None),
    ],
)
def test_the_watchdog_interval(
    monkeypatch: pytest.MonkeyPatch, microseconds: str, process: str | None, seconds: float | None
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", microseconds)
    if process is None:
        monkeypatch.delenv("WATCHDOG_PID", raising=False)
    else:
        monkeypatch.setenv("WATCHDOG_PID", str(os.getpid() + (process == "other")))
    assert Notifier().watchdog == seconds
