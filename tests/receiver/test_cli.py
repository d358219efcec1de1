"""`lampione receive` as a person calls it: what it prints, and its exit codes."""

from __future__ import annotations

import dataclasses
import logging
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import orjson
import pytest
import structlog

from gateway.cli import main
from gateway.receiver.store import Arrival, Store
from tests.brokers import PASSWORDS, PLATFORM, TENANT, Broker, free_port
from tests.platforms import telemetry

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NOW = 1_795_305_600_000


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    """The verb sets up logging for its process; the next test's stderr is another."""
    root, before = logging.getLogger(), logging.getLogger().handlers[:]
    yield
    structlog.reset_defaults()
    root.handlers[:] = before


@pytest.fixture
def held(tmp_path: Path) -> Path:
    store = Store(tmp_path / "platform.db")
    skips = dataclasses.replace(
        telemetry(51, count=2), skip=((51, 51, "not_selected"),), readings=[[52, 0, 0, 1.0]], time=NOW
    )
    store.commit([Arrival(TENANT, "mqtt", batch) for batch in (telemetry(1), telemetry(1), skips)], NOW)
    store.close()
    return tmp_path / "platform.db"


def test_the_report(held: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["receive", "--report", str(held)]) == 0
    streams, devices = capsys.readouterr().out.split("\n\n")
    assert [line.split("  ")[0] for line in streams.splitlines()] == ["gateway", "milan/cab-017"]
    assert streams.splitlines()[1].split() == [
        "milan/cab-017", "telemetry", "9f2c", "51", "50", "1", "not_selected", "0", "0", "0",
    ]  # fmt: skip
    assert [line.split()[:3] for line in devices.splitlines()[1:]] == [
        ["milan/cab-017/feeder", "26", "25"],
        ["milan/lp-0042/pm", "25", "25"],
    ]


def test_the_report_as_json_and_what_is_missing(held: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = Store(held)
    store.commit([Arrival(TENANT, "mqtt", telemetry(101, low=91))], NOW)
    store.close()
    assert main(["receive", "--report", "--json", str(held)]) == 1
    tables = orjson.loads(capsys.readouterr().out)
    (stream,) = tables["streams"]
    assert (stream["received"], stream["missing"], stream["to_come"]) == (101, 38, 10)
    assert stream["holes"] == [[53, 90], [91, 100]]
    assert stream["skipped"] == {"not_selected": 1}
    assert [row["device"] for row in tables["devices"]] == ["cab-017/feeder", "lp-0042/pm"]


def test_what_is_wrong_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    db = str(tmp_path / "platform.db")
    tokens = tmp_path / "tokens"
    tokens.write_text("# who token\n\ncab-017\n")
    empty = tmp_path / "empty"
    empty.write_text("# nobody\n")
    gone = tmp_path / "gone"
    port = free_port()
    for words, code, why in (
        (["--report"], 2, "is not there. Check the path."),
        ([], 2, "Say where to listen"),
        (["--http", "127.0.0.1:0"], 2, "nothing unauthenticated listens"),
        (["--http", "8080", "--token-file", str(tokens)], 2, "is not HOST:PORT"),
        (["--http", "127.0.0.1:0", "--token-file", str(tokens)], 2, f"{tokens}:3: write `WHO TOKEN`"),
        (["--http", "127.0.0.1:0", "--token-file", str(empty)], 2, "holds no token"),
        (["--http", "127.0.0.1:0", "--token-file", str(gone)], 2, f"{gone} cannot be read: No such file"),
        (["--mqtt", f"mqtt://127.0.0.1:{port}"], 3, "Connection refused"),
    ):
        assert main(["receive", db, *words]) == code, words
        assert why in capsys.readouterr().err, words
    assert main(["receive", str(tmp_path / "no" / "folder.db"), "--mqtt", "mqtt://127.0.0.1:1"]) == 1
    assert "cannot be opened" in capsys.readouterr().err


def test_it_receives_until_told_to_stop(broker: Broker, tmp_path: Path) -> None:
    (tmp_path / "password").write_text(f"{PASSWORDS[PLATFORM]}\n")
    (tmp_path / "tokens").write_text("cab-017 t0ken\n")
    command = [
        sys.executable, "-m", "gateway", "receive", str(tmp_path / "platform.db"), "--mqtt", broker.url,
        "--user", PLATFORM, "--password-file", str(tmp_path / "password"),
        "--http", "127.0.0.1:0", "--token-file", str(tmp_path / "tokens"),
    ]  # fmt: skip
    with subprocess.Popen(command, stderr=subprocess.PIPE, env=os.environ, text=True) as process:
        assert process.stderr
        try:
            said = process.stderr.readline()
            assert said.startswith("receiving at http://127.0.0.1:"), said + process.stderr.read()
            process.send_signal(signal.SIGTERM)
            assert process.wait(10) == 0, process.stderr.read()
        finally:
            process.kill()
