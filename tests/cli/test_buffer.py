"""`lampione buffer` on a state folder that no gateway has."""

import json
import sqlite3
from pathlib import Path

import pytest

from gateway.buffer import Buffer
from gateway.cli import main
from gateway.model import Event, Lane, Point, Reading, Receipt
from gateway.testing import LoopClock, jumped

POWER = Point("here/feeder/power", "power_active", "W")


@pytest.fixture
def state(tmp_path: Path) -> Path:
    async def fill() -> None:
        buffer = Buffer(tmp_path / "buffer", "cab-017", LoopClock(), keep_after_ack=3600)
        await buffer.open()
        buffer.know([POWER])
        for lane in buffer.lanes.values():
            await lane.enrol({"city": "oldest"})
        await buffer.emit([Reading(POWER.id, float(n), 60_000) for n in range(10)])
        await buffer.lanes[Lane.TELEMETRY]._commit()
        lane = buffer.lanes[Lane.TELEMETRY]
        lane.settle("city", Receipt(lane.epoch, ((1, 4),), ((5, "unknown_device", False),)))
        await buffer.close()

    jumped(fill())
    return tmp_path


def said(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = json.loads(capsys.readouterr().out)
    return rows


def test_show_counts_what_waits(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["buffer", "show", "--state", str(state), "--json"]) == 0
    telemetry = next(row for row in said(capsys) if row["lane"] == "telemetry")
    assert telemetry["waiting"] == 5
    assert telemetry["uplinks"] == {"city": 5}
    assert telemetry["dead"] == 1
    assert telemetry["quarantined"] == 0


def test_dead_letters_show_reason_and_record(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["buffer", "dead", "--state", str(state), "--json"]) == 0
    [letter] = said(capsys)
    assert (letter["seq"], letter["reason"]) == (5, "unknown_device")
    assert json.loads(str(letter["record"])) == [["here/feeder/power", "power_active", "W"], 4.0]


def test_export_writes_every_record(state: Path, tmp_path: Path) -> None:
    file = tmp_path / "stick.jsonl"
    assert main(["buffer", "export", str(file), "--state", str(state)]) == 0
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["seq"] for line in lines] == list(range(1, 11))
    assert lines[9]["p"] == ["here/feeder/power", "power_active", "W"]
    assert lines[9]["r"][0] == 9.0


def test_resend_unsettles_what_is_still_here(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["buffer", "show", "--state", str(state), "--json"])
    epoch = str(next(row for row in said(capsys) if row["lane"] == "telemetry")["epoch"])
    assert main(["buffer", "resend", "city", "telemetry", epoch, "2", "3", "--state", str(state)]) == 0
    db = sqlite3.connect(state / "buffer" / "telemetry.sqlite")
    assert json.loads(db.execute("SELECT value FROM fact WHERE kind='settled'").fetchone()[0]) == [[1, 1], [4, 5]]
    db.close()
    assert main(["buffer", "resend", "city", "telemetry", "no-such", "2", "3", "--state", str(state)]) == 1


def test_a_gateway_that_runs_is_said_in_one_sentence(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async def look() -> None:
        buffer = Buffer(state / "buffer", "cab-017", LoopClock())
        await buffer.open()
        assert main(["buffer", "show", "--state", str(state)]) == 2
        await buffer.emit([Event("note", "line", 60_000)], lane=Lane.TELEMETRY)
        await buffer.close()

    jumped(look())
    assert "A gateway runs on" in capsys.readouterr().err
