"""A gateway in a process of its own whose wall clock is really set, back and forth, while it works.

The machine's clock stays as it is: only this process sees another, by libfaketime, or by a library made here that
plays the kernel's word on synchronisation too.
"""

from __future__ import annotations

import sqlite3
import struct
import subprocess
import time
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from gateway.cli import street
from gateway.cli.stage import Stage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = [pytest.mark.slow, pytest.mark.fault]  # tests/test_timekeeping.py shows the same with a jumping loop
DAY = 86_400
FAKETIME = "*/faketime/libfaketime.so.1"


class Wrong(Protocol):
    """A wall clock that can be set."""

    def environment(self) -> dict[str, str]:
        """Of the process that is to see it."""

    def set(self, ahead: int, *, is_synchronised: bool = False) -> None:
        """Seconds before the machine's own clock."""


class Made:
    def __init__(self, folder: Path) -> None:
        self._library, self._told = folder / "wrong_clock.so", folder / "told"
        source = Path(__file__).with_name("wrong_clock.c")
        command = ["gcc", "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", str(self._library), str(source)]
        subprocess.run(command, check=True)
        self.set(0)

    def environment(self) -> dict[str, str]:
        return {"LD_PRELOAD": str(self._library), "WRONG_CLOCK": str(self._told)}

    def set(self, ahead: int, *, is_synchronised: bool = False) -> None:
        with self._told.open("r+b" if self._told.exists() else "wb") as file:
            file.write(struct.pack("=qq", ahead * 10**9, is_synchronised))


class Debians:
    def __init__(self, folder: Path) -> None:
        self._library = next(Path("/usr/lib").glob(FAKETIME))
        self._told = folder / "told"
        self.set(0)

    def environment(self) -> dict[str, str]:
        return {
            "LD_PRELOAD": str(self._library), "FAKETIME_TIMESTAMP_FILE": str(self._told), "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1", "NO_FAKE_STAT": "1",
        }  # fmt: skip

    def set(self, ahead: int, *, is_synchronised: bool = False) -> None:
        assert not is_synchronised, "libfaketime knows nothing of adjtimex"
        self._told.write_text(f"{ahead:+d}\n")


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    async with Stage(tmp_path, uplink="http") as stage:
        street.write(tmp_path, url=stage.url, password=stage.password, posts=1, meters=1, chargers=1)
        trusting = stage.site.read_text()
        assert ", clock: trusted" in trusting
        stage.site.write_text(trusting.replace(", clock: trusted", ""))
        yield stage


async def began(stage: Stage, wrong: Wrong, ahead: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The gateway, and it alone, on this clock."""
    wrong.set(ahead)
    await stage.simulate()
    with monkeypatch.context() as only:
        for name, value in wrong.environment().items():
            only.setenv(name, value)
        await stage.run()
    await stage.until(lambda: received(stage) >= 20)


def received(stage: Stage) -> int:
    return sum(row.received for row in stage.platform.report())


def told(stage: Stage, kind: str) -> list[dict[str, Any]]:
    return [event for event in stage.platform.events() if event.get("event") == kind]


async def set_by_hand(stage: Stage, wrong: Wrong, ahead: int, count: int) -> int:
    """Wait until the step is told, and then for more readings; milliseconds."""
    wrong.set(ahead)
    await stage.until(lambda: len(told(stage, "clock_stepped")) == count)
    reached = received(stage) + 20
    await stage.until(lambda: received(stage) >= reached)
    by: int = told(stage, "clock_stepped")[-1]["more"]["by_ms"]
    return by


def meter_times(stage: Stage) -> list[list[tuple[Any, ...]]]:
    """(time, received, clock, error) of each point of the meter, in the order in which they were read."""
    with closing(sqlite3.connect(stage.folder / "platform.sqlite")) as db:
        points = db.execute("SELECT id FROM point WHERE device = 'cab-017/meter-1'").fetchall()
        query = "SELECT time, received_at, clock, error FROM reading WHERE point = ? ORDER BY seq"
        return [db.execute(query, point).fetchall() for point in points]


async def nothing_was_upset(stage: Stage) -> None:
    """No link and no uplink fell, nothing expired, nothing is missing, and the meter was asked as ever."""
    snapshot = await stage.snapshot()
    assert [link["restarts"] for link in snapshot["links"]] == [0] * len(snapshot["links"])
    assert [uplink["restarts"] for uplink in snapshot["uplinks"]] == [0]
    await stage.end("simulation")
    stage.simulation = None
    await stage.drained()
    assert await stage.end("gateway") == 0
    for row in stage.platform.report():
        assert (row.missing, row.to_come, row.skipped, row.rejected) == (0, 0, {}, {}), row


@pytest.mark.needs("gcc")
async def test_a_clock_that_is_set_three_times_upsets_nothing_and_all_is_dated_in_the_end(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = Made(tmp_path)
    in_1970 = -int(time.time()) + 3600
    await began(stage, wrong, in_1970, monkeypatch)
    snapshot = await stage.snapshot()
    assert snapshot["clock"]["state"] == "unsynced"
    assert snapshot["clock"]["time"] > 1_700_000_000_000, "the floor: no clock shows a time before the build"
    assert abs(await set_by_hand(stage, wrong, -DAY, 1) - (-DAY - in_1970) * 1000) < 500
    assert abs(await set_by_hand(stage, wrong, -400 * DAY, 2) + 399 * DAY * 1000) < 500
    assert {row[2] for rows in meter_times(stage) for row in rows} == {"unsynced"}
    wrong.set(0, is_synchronised=True)
    await stage.until(lambda: bool(told(stage, "clock_anchor")))
    reached = received(stage) + 20
    await stage.until(lambda: received(stage) >= reached)
    assert (await stage.snapshot())["clock"]["state"] == "synced"
    await nothing_was_upset(stage)
    for rows in meter_times(stage):
        assert {row[2] for row in rows} == {"synced", "corrected"}
        for at, arrived, _, error in rows:
            assert -error <= arrived - at <= 15_000 + error, "read shortly before it came"
    fast = [rows for rows in meter_times(stage) if len(rows) > 15]
    assert len(fast) > 10, "what is read every 2 s"
    apart = [later[0] - earlier[0] for rows in fast for earlier, later in pairwise(rows)]
    assert min(apart) > 1_000, "no burst"
    assert max(apart) < 5_000, "nor a pause"


@pytest.mark.needs("faketime")
async def test_steps_by_libfaketime_upset_nothing(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = Debians(tmp_path)
    await began(stage, wrong, -DAY, monkeypatch)
    assert abs(await set_by_hand(stage, wrong, 30 * DAY, 1) - 31 * DAY * 1000) < 500
    assert abs(await set_by_hand(stage, wrong, -400 * DAY, 2) + 430 * DAY * 1000) < 500
    await nothing_was_upset(stage)
