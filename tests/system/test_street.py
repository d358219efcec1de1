"""A whole street in processes of its own: emulators, gateway, Mosquitto and platform, real wires, real faults."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.cli import street, table
from gateway.cli.stage import Stage
from gateway.site import Credentials

DESK = street.DESK


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    async with Stage(tmp_path) as stage:
        street.write(tmp_path, url=stage.url, password=stage.password, posts=1, meters=1, chargers=1)
        yield stage


@pytest.fixture
async def http_stage(tmp_path: Path) -> AsyncIterator[Stage]:
    async with Stage(tmp_path, uplink="http") as stage:
        street.write(tmp_path, url=stage.url, password=stage.password, posts=1, meters=1, chargers=1)
        yield stage


async def shown(stage: Stage, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """The page's snapshot, once it says so."""
    async with asyncio.timeout(30):
        while not holds(snapshot := await stage.snapshot()):  # noqa: ASYNC110 - it is another process's event
            await asyncio.sleep(0.1)
    return snapshot


async def delivered(stage: Stage, count: int) -> None:
    await stage.until(lambda: sum(row.received for row in stage.platform.report()) >= count)


async def account(stage: Stage) -> table.Account:
    """Stop what produces, let the rest arrive, and count."""
    await stage.end("simulation")
    stage.simulation = None
    committed = await stage.drained()
    snapshot = await stage.snapshot()
    assert await stage.end("gateway") == 0
    return table.account(stage.produced(), snapshot, committed, stage.platform.report(), stage.platform.per_device())


def command(identity: str, on: str, do: str, args: dict[str, Any], **more: Any) -> dict[str, Any]:
    now = time.time_ns() // 1_000_000
    return {
        "v": 1, "id": identity, "issuer": DESK, "do": do, "on": on, "args": args,
        "issued": now, "expires": now + 60_000, **more,
    }  # fmt: skip


async def ended(stage: Stage, identity: str) -> dict[str, Any]:
    """The last state of a command, once it has one that is final."""
    final = {"succeeded", "failed", "rejected", "expired"}
    await stage.until(lambda: any(e.get("cmd") == identity and e["state"] in final for e in stage.platform.events()))
    return next(e for e in stage.platform.events() if e.get("cmd") == identity and e["state"] in final)


async def test_every_reading_of_every_protocol_arrives_once(stage: Stage) -> None:
    await stage.perform()
    await delivered(stage, 60)
    found = await account(stage)
    assert found.is_complete, found.text()
    assert {row.device for row in found.devices} == {"cab-017/meter-1", "lp-0001/pm", "cp-1/evse"}
    assert all(row.duplicates == 0 for row in found.lanes), found.text()
    assert all(row.produced > 0 for row in found.devices), found.text()


async def test_every_reading_arrives_over_http_too(http_stage: Stage) -> None:
    await http_stage.perform()
    await delivered(http_stage, 60)
    found = await account(http_stage)
    assert found.is_complete, found.text()


@pytest.mark.fault
async def test_a_broker_killed_and_started_again_loses_nothing(stage: Stage) -> None:
    await stage.perform()
    await delivered(stage, 30)
    await asyncio.to_thread(stage.broker.kill)
    before = sum(row.received for row in stage.platform.report())
    snapshot = await shown(stage, lambda it: not it["uplinks"][0]["connected"])
    assert "readings are safe" in snapshot["uplinks"][0]["say"]
    await asyncio.to_thread(stage.broker.start)
    await delivered(stage, before + 60)
    found = await account(stage)
    assert found.is_complete, found.text()


@pytest.mark.fault
async def test_a_wrong_broker_password_is_said_in_a_sentence_and_readings_are_kept(stage: Stage) -> None:
    secrets = Credentials.beside(stage.site)
    secrets.write("uplinks.city.password", "not-the-password")
    await stage.perform()
    uplink = (await shown(stage, lambda it: it["uplinks"][0]["say"] != ""))["uplinks"][0]
    assert uplink["say"].startswith("The broker refuses our password. Re-enter it"), uplink
    await shown(stage, lambda it: sum(lane["records"] for lane in it["lanes"]) > 30)
    assert sum(row.received for row in stage.platform.report()) == 0
    secrets.write("uplinks.city.password", stage.password)
    await delivered(stage, 30)
    found = await account(stage)
    assert found.is_complete, found.text()


@pytest.mark.fault
async def test_sigterm_in_the_middle_of_a_drain_loses_nothing(stage: Stage) -> None:
    await stage.perform()
    await delivered(stage, 20)
    await stage.cut.open()
    await asyncio.sleep(8)
    await stage.cut.close()
    await stage.until(lambda: stage.platform.counts.records > 20)
    assert await stage.end("gateway") == 0
    await stage.run()
    await delivered(stage, 120)
    found = await account(stage)
    assert all(row.missing == 0 for row in found.lanes), found.text()


@pytest.mark.fault
async def test_sigkill_loses_no_acknowledged_record_and_uses_no_number_twice(stage: Stage) -> None:
    await stage.perform()
    for round_ in range(3):
        await delivered(stage, 40 * (round_ + 1))
        await stage.kill()
        await stage.run()
    await delivered(stage, 200)
    found = await account(stage)
    assert all(row.missing == 0 for row in found.lanes), found.text()
    epochs = {(row.lane, row.epoch) for row in stage.platform.report()}
    assert len(epochs) == 3, "the buffer went on, no lane was made anew"


async def test_a_command_comes_back_with_what_the_charger_confirms(stage: Stage) -> None:
    await stage.perform()
    await delivered(stage, 20)
    await stage.platform.command(street.GATEWAY, command("limit-1", "cp-1/evse", "limit", {"amps": 10}))
    reply = await ended(stage, "limit-1")
    assert reply["state"] == "succeeded", reply
    assert reply["now"] == {"amps": 10}
    assert reply["proof"] == "GetCompositeSchedule"


async def test_a_command_writes_a_meters_register_and_reads_it_back(stage: Stage) -> None:
    await stage.perform()
    await delivered(stage, 20)
    on = "cab-017/meter-1/demand_period"
    await stage.platform.command(street.GATEWAY, command("period-1", on, "set", {"value": 30}))
    reply = await ended(stage, "period-1")
    assert reply["state"] == "succeeded", reply
    assert (reply["now"], reply["proof"]) == ({"value": 30}, "readback")
    await stage.platform.command(street.GATEWAY, command("period-2", on, "set", {"value": 99}))
    assert (await ended(stage, "period-2"))["code"] == "above_bound"


async def test_commands_come_over_http_too(http_stage: Stage) -> None:
    await http_stage.perform()
    await delivered(http_stage, 20)
    await http_stage.platform.command(street.GATEWAY, command("limit-1", "cp-1/evse", "limit", {"amps": 12}))
    assert (await ended(http_stage, "limit-1"))["state"] == "succeeded"


async def test_who_is_not_on_the_list_commands_nothing(stage: Stage) -> None:
    await stage.perform()
    await delivered(stage, 20)
    foreign = command("x-1", "cp-1/evse", "limit", {"amps": 10}) | {"issuer": "somebody"}
    await stage.platform.command(street.GATEWAY, foreign)
    assert (await ended(stage, "x-1"))["code"] == "not_allowed"


@pytest.mark.fault
async def test_a_broken_site_file_runs_the_last_good_one_and_says_so(stage: Stage) -> None:
    await stage.perform()
    await delivered(stage, 20)
    assert await stage.end("gateway") == 0
    good = stage.running.read_text()
    stage.running.write_text(good.replace('"every"', '"evry"'))
    await stage.run()
    say = (await stage.snapshot())["configuration"]["say"]
    assert "`evry` is unknown; did you mean `every`? The last good configuration still runs." in say
    assert say.startswith("Line ")
    await delivered(stage, 60)
    assert any(e.get("event") == "config_rejected" and e["say"] == say for e in stage.platform.events())


def test_the_demo_ends_by_itself_with_nothing_missing(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "gateway", "demo", "--seconds", "10", "--json", "--keep", str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    told = json.loads(done.stdout)
    assert told["complete"]
    assert len(told["devices"]) == 6 + 2 + 3
    assert all(row["missing"] == 0 and row["delivered"] > 0 for row in told["devices"])
    assert "The page: http://127.0.0.1:" in done.stderr
    assert "PLATFORM CUT OFF" in done.stderr


def test_the_demo_stops_in_order_when_told(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "gateway", "demo", "--posts", "1", "--chargers", "1", "--keep", str(tmp_path)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as demo:
        assert demo.stderr
        for line in demo.stderr:
            if "platform connected" in line:
                break
        os.kill(demo.pid, signal.SIGINT)
        out, _ = demo.communicate(timeout=90)
    assert "0 missing." in out
    assert demo.returncode == 0
