"""`lampione buffer` on a state folder that a gateway has, and on one that none has."""

import asyncio
import json
import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from gateway.buffer import Buffer
from gateway.buffer.block import EVENT, Anchor
from gateway.buffer.group import Group
from gateway.buffer.lanefile import LaneFile
from gateway.buffer.overview import Filling
from gateway.cli import main
from gateway.control import Control, socket_of
from gateway.model import ClockState, Lane, Point, Reading, Receipt
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


@contextmanager
def running(state: Path) -> Iterator[Buffer]:
    """A gateway's buffer and its control socket, in a thread of its own."""
    began, ended = threading.Event(), threading.Event()
    held: list[Buffer] = []

    async def gateway() -> None:
        buffer = Buffer(state / "buffer", "cab-017", LoopClock(), keep_after_ack=3600)
        await buffer.open()
        for lane in buffer.lanes.values():
            await lane.enrol({"city": "oldest"})
        control = Control(socket_of(state))
        control.answers("buffer", buffer.answer)
        async with asyncio.TaskGroup() as tasks:
            own = [tasks.create_task(buffer.run()), tasks.create_task(control.run())]
            held.append(buffer)
            while not socket_of(state).exists():  # noqa: ASYNC110 - the file system has no event
                await asyncio.sleep(0.01)
            began.set()
            await asyncio.to_thread(ended.wait)
            for task in own:
                task.cancel()
        await buffer.close()

    with ThreadPoolExecutor(1) as threads:
        run = threads.submit(asyncio.run, gateway())
        assert began.wait(10)
        try:
            yield held[0]
        finally:
            ended.set()
            run.result(10)


def answers(state: Path, stick: Path, capsys: pytest.CaptureFixture[str]) -> tuple[list[dict[str, object]], ...]:
    """What show, dead and export have to say."""
    found = []
    for action in ("show", "dead"):
        assert main(["buffer", action, "--json", "--state", str(state)]) == 0
        found.append(said(capsys))
    assert main(["buffer", "export", str(stick), "--state", str(state)]) == 0
    capsys.readouterr()
    return *found, [json.loads(line) for line in stick.read_text().splitlines()]


def test_a_running_gateway_tells_the_same(state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    of_files = answers(state, tmp_path / "stick.jsonl", capsys)
    with running(state):
        shown, *others = answers(state, tmp_path / "stick.jsonl", capsys)
    for row, before in zip(shown, of_files[0], strict=True):
        assert {key for key in row if row[key] != before[key]} <= {"bytes", "room", "committed"}
    assert shown[2]["room"] == 1024**3
    assert others == list(of_files[1:])
    assert len(others[1]) == 10


def test_a_running_gateway_sends_again_at_once(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with running(state) as buffer:
        lane = buffer.lanes[Lane.TELEMETRY]
        assert lane.settled("city").covers(1, 5)
        assert main(["buffer", "resend", "city", "telemetry", lane.epoch, "2", "3", "--state", str(state)]) == 0
        assert lane.settled("city").missing(1, 5) == [(2, 3)]
        assert main(["buffer", "resend", "city", "telemetry", "no-such", "2", "3", "--state", str(state)]) == 1
        assert "knows no epoch no-such" in capsys.readouterr().err


def test_a_gateway_without_its_socket_is_said_in_one_sentence(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async def look() -> None:
        buffer = Buffer(state / "buffer", "cab-017", LoopClock())
        await buffer.open()
        assert await asyncio.to_thread(main, ["buffer", "show", "--state", str(state)]) == 1
        await buffer.close()

    asyncio.run(look())
    assert "No gateway runs here" in capsys.readouterr().err


def test_looking_at_a_damaged_log_does_not_throw_it_away(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """SQLite forgets a log's end when it opens the file; what a gateway can still save stays there."""
    folder = state / "buffer"
    file = LaneFile(folder / "billing.sqlite", grow=1024 * 1024, max_bytes=2**24)
    for number in range(20):
        file.commit(Group(Anchor("b007", 0, 0, ClockState.SYNCED), [[EVENT, 0, {"n": number}]]))
    log = folder / "billing.sqlite-wal"
    raw = bytearray(log.read_bytes())
    file.close()
    (folder / "billing.sqlite").unlink()
    live = [at for at in range(32, len(raw) - 1047, 1048) if raw[at + 8 : at + 16] == raw[16:24]]
    middle = live[len(live) - 20] + 24
    raw[middle : middle + 1024] = bytes(1024)
    (folder / "billing.sqlite").touch()
    log.write_bytes(raw)
    assert main(["buffer", "show", "--state", str(state)]) == 1
    assert "is damaged" in capsys.readouterr().err
    assert log.read_bytes() == raw


def test_time_to_full_follows_the_pace_of_the_last_hour() -> None:
    filling, room = Filling(), 10_000_000
    assert filling.full_ms(0.0, 1000, room) is None
    assert filling.full_ms(100.0, 2000, room) == 1000 * 9_998_000 // 10
    assert filling.full_ms(200.0, 500, room) is None, "it empties"
    for minute in range(4, 200):
        full = filling.full_ms(minute * 60.0, 1_000_000, room)
    assert full is None, "an hour of standing still"
