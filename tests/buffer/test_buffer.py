"""The buffer: identity, promises, settlement, state beside records, damage."""

import asyncio
import secrets
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.buffer import Buffer
from gateway.errors import ConfigError, StorageError
from gateway.model import CommandState, Event, Lane, Point, Quality, Reading, Receipt, Reply
from gateway.ranges import Ranges
from gateway.testing import LoopClock

POWER = Point("here/feeder/power", "power_active", "W", direction="import")
ENERGY = Point("here/feeder/energy", "energy_active", "Wh", direction="import")


async def opened(folder: Path, commit_every: float = 0.01, uplinks: dict[str, str] | None = None) -> Buffer:
    buffer = Buffer(folder, "cab-017", LoopClock(), commit_every=commit_every)
    await buffer.open()
    buffer.know([POWER, ENERGY])
    for lane in buffer.lanes.values():
        await lane.enrol(uplinks if uplinks is not None else {"city": "oldest"})
    return buffer


@pytest.fixture
async def buffer(tmp_path: Path) -> AsyncIterator[Buffer]:
    buffer = await opened(tmp_path)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(buffer.run())
        yield buffer
        running.cancel()
    await buffer.close()


def power(value: float, at: int = 60_000) -> Reading:
    return Reading(POWER.id, value, at)


async def rows(buffer: Buffer, lane: Lane = Lane.TELEMETRY) -> list[object]:
    blocks = await buffer.lanes[lane].read(1, 10**9, 10**9)
    return [row for block in blocks for row in block.rows or ["corrupt"]]


async def test_records_get_consecutive_seqs_and_come_back_as_they_were(buffer: Buffer) -> None:
    telemetry = buffer.lanes[Lane.TELEMETRY]
    await buffer.emit([power(0.0), Reading(ENERGY.id, None, 60_000, Quality.BAD, "comm_failure")])
    await telemetry.news(2)
    assert telemetry.head == 3
    first, second = await rows(buffer)
    assert first[2] == 0.0, "zero is data"
    assert second[2:] == [None, "bad", "comm_failure"]
    assert telemetry.entry(first[0]) == ["here/feeder/power", "power_active", "W", None, "import"]


async def test_billing_and_events_are_on_disk_when_emit_returns(buffer: Buffer, tmp_path: Path) -> None:
    await buffer.emit([power(1.0)], lane=Lane.BILLING, state={"links/cs/next": 7})
    await buffer.emit([Event("link_down", "line", 60_000, "gone")], lane=Lane.EVENT)
    copy = sqlite3.connect(":memory:")
    for name in ("billing", "event"):
        # A second reader sees only what is in the file and its log, which is what a crash would leave.
        for suffix in ("", "-wal"):
            source = tmp_path / f"{name}.sqlite{suffix}"
            (tmp_path / f"copy-{name}.sqlite{suffix}").write_bytes(source.read_bytes())
        copy = sqlite3.connect(tmp_path / f"copy-{name}.sqlite")
        assert copy.execute("SELECT sum(count) FROM block").fetchone() == (1,)
        copy.close()
    assert buffer.state("links/cs/").get("next") == 7


async def test_a_settled_block_is_deleted_and_its_numbers_are_never_used_again(tmp_path: Path) -> None:
    buffer = await opened(tmp_path)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(buffer.run())
        await buffer.emit([power(1), power(2), power(3)])
        lane = buffer.lanes[Lane.TELEMETRY]
        await lane.news(3)
        lane.settle("city", Receipt(lane.epoch, ((1, 3),)))
        assert lane.settled("city") == Ranges([(1, 3)])
        running.cancel()
    await buffer.close()
    again = await opened(tmp_path)
    lane = again.lanes[Lane.TELEMETRY]
    assert lane.head == 4
    assert await lane.read(1, 100, 10**6) == []
    assert lane.settled("city").covers(1, 3)
    await again.close()


async def test_a_block_is_kept_until_every_uplink_has_settled_all_of_it(tmp_path: Path) -> None:
    buffer = await opened(tmp_path, uplinks={"city": "oldest", "utility": "oldest"})
    lane = buffer.lanes[Lane.TELEMETRY]
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(buffer.run())
        await buffer.emit([power(1), power(2)])
        await lane.news(2)
        lane.settle("city", Receipt(lane.epoch, ((1, 2),)))
        lane.settle("utility", Receipt(lane.epoch, ((1, 1),)))
        await buffer.emit([power(3)])
        await lane.news(3)
        assert [block.first for block in await lane.read(1, 9, 10**6)] == [1, 3]
        lane.settle("utility", Receipt(lane.epoch, (), ((2, "unknown_device", False),)))
        await buffer.emit([power(4)])
        await lane.news(4)
        assert [block.first for block in await lane.read(1, 9, 10**6)] == [3, 4]
        running.cancel()
    await buffer.close()


async def test_a_receipt_of_another_epoch_settles_nothing(buffer: Buffer) -> None:
    lane = buffer.lanes[Lane.TELEMETRY]
    await buffer.emit([power(1)])
    await lane.news(1)
    lane.settle("city", Receipt("deadbeef", ((1, 1),)))
    await buffer.emit([power(2)])
    await lane.news(2)
    assert len(await rows(buffer)) == 2
    assert not lane.settled("city").covers(1, 1)


async def test_an_uplink_that_is_gone_stops_holding_rows(tmp_path: Path) -> None:
    buffer = await opened(tmp_path, uplinks={"city": "oldest", "old": "oldest"})
    lane = buffer.lanes[Lane.TELEMETRY]
    await buffer.emit([power(1)])
    await buffer.close()
    buffer = await opened(tmp_path, uplinks={"city": "oldest", "old": "oldest"})
    lane = buffer.lanes[Lane.TELEMETRY]
    lane.settle("city", Receipt(lane.epoch, ((1, 1),)))
    await buffer.close()
    buffer = await opened(tmp_path, uplinks={"city": "oldest"})
    assert await rows(buffer) == []
    assert buffer.lanes[Lane.TELEMETRY].head == 2
    await buffer.close()


async def test_a_new_uplink_starts_at_the_oldest_or_now(tmp_path: Path) -> None:
    buffer = await opened(tmp_path, uplinks={})
    await buffer.emit([power(1), power(2)])
    await buffer.close()
    buffer = await opened(tmp_path, uplinks={"all": "oldest", "fresh": "now"})
    lane = buffer.lanes[Lane.TELEMETRY]
    assert lane.settled("all").first_missing(1) == 1
    assert lane.settled("fresh").first_missing(1) == 3
    await buffer.close()


async def test_state_is_committed_with_its_records_and_belongs_to_one_lane(buffer: Buffer, tmp_path: Path) -> None:
    state = buffer.state("links/cs/")
    await state.emit([power(1)], lane=Lane.BILLING, state={"next": 5, "open": {"17": "TAG"}})
    assert state.get("next") == 5
    assert sorted(state.keys()) == ["next", "open"]
    with pytest.raises(ValueError, match="belongs to the billing lane"):
        await state.emit([power(1)], lane=Lane.EVENT, state={"next": 6})
    await state.emit([], lane=Lane.BILLING, state={"next": None})
    assert state.get("next") is None


async def test_an_empty_emit_returns(buffer: Buffer) -> None:
    async with asyncio.timeout(2):
        await buffer.emit([], lane=Lane.BILLING)


async def test_two_processes_never_share_a_folder(buffer: Buffer, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Another lampione runs on"):
        await Buffer(tmp_path, "cab-017", LoopClock()).open()


async def test_not_a_number_becomes_no_value_with_its_reason(buffer: Buffer) -> None:
    await buffer.emit([power(float("nan")), power(float("inf"))])
    await buffer.lanes[Lane.TELEMETRY].news(2)
    assert [row[2:] for row in await rows(buffer)] == [[None, "bad", "not_a_number"]] * 2


async def test_a_record_that_cannot_be_written_hurts_only_who_gave_it(buffer: Buffer) -> None:
    with pytest.raises(TypeError):
        await buffer.emit([Reading(POWER.id, object(), 60_000)])  # type: ignore[arg-type]
    with pytest.raises(KeyError):
        await buffer.emit([Reading("here/feeder/unheard_of", 1, 60_000)])
    await buffer.emit([Reply("c1", CommandState.SUCCEEDED, 60_000, now={"amps": 16})], lane=Lane.EVENT)
    assert (await rows(buffer, Lane.EVENT))[0][2] == {"cmd": "c1", "state": "succeeded", "now": {"amps": 16}}


async def test_a_thousand_producers_share_commits(buffer: Buffer) -> None:
    async with asyncio.timeout(10), asyncio.TaskGroup() as producers:
        for number in range(1000):
            producers.create_task(buffer.emit([power(number)], lane=Lane.BILLING))
    assert buffer.lanes[Lane.BILLING].head == 1001
    blocks = await buffer.lanes[Lane.BILLING].read(1, 10**9, 10**9)
    assert len(blocks) < 100
    assert sorted(row[2] for block in blocks for row in block.rows or []) == list(range(1000))


async def test_a_flipped_bit_is_noticed_and_costs_only_its_block(tmp_path: Path) -> None:
    buffer = await opened(tmp_path)
    lane = buffer.lanes[Lane.EVENT]
    writer = asyncio.create_task(buffer.run())
    await buffer.emit([Event("link_down", "line", 60_000, "a sentence to be damaged")], lane=Lane.EVENT)
    await buffer.emit([Event("link_up", "line", 60_000)], lane=Lane.EVENT)
    writer.cancel()
    await asyncio.wait([writer])
    await buffer.close()
    file = tmp_path / "event.sqlite"
    raw = file.read_bytes()
    assert raw.count(b"to be damaged") == 1
    file.write_bytes(raw.replace(b"to be damaged", b"to be dam\x00ged"))
    again = await opened(tmp_path)
    lane = again.lanes[Lane.EVENT]
    assert [block.rows is None for block in await lane.read(1, 9, 10**6)] == [True, False]
    await again.close()


@pytest.mark.fault
async def test_a_damaged_file_is_moved_aside_and_the_lane_starts_anew(tmp_path: Path) -> None:
    buffer = await opened(tmp_path)
    epoch = buffer.lanes[Lane.EVENT].epoch
    await buffer.close()
    (tmp_path / "event.sqlite").write_bytes(b"garbage" * 1000)
    again = await opened(tmp_path)
    lane = again.lanes[Lane.EVENT]
    assert lane.epoch != epoch
    assert lane.quarantined
    assert (lane.quarantined / "event.sqlite").read_bytes().startswith(b"garbage")
    writer = asyncio.create_task(again.run())
    await again.tell_damage()
    assert (await rows(again, Lane.EVENT))[0][2]["event"] == "gap"
    writer.cancel()
    await asyncio.wait([writer])
    await again.close()


@pytest.mark.fault
async def test_a_full_lane_refuses_durable_records_and_recovers_when_rows_are_settled(tmp_path: Path) -> None:
    buffer = Buffer(tmp_path, "cab-017", LoopClock(), bounds=dict.fromkeys(Lane, 512 * 1024))
    await buffer.open()
    buffer.know([POWER])
    lane = buffer.lanes[Lane.BILLING]
    await lane.enrol({"city": "oldest"})
    writer = asyncio.create_task(buffer.run())
    emitted: list[Event] = []
    with pytest.raises(StorageError, match="full"):  # noqa: PT012 - which of them is refused first depends on page sizes
        while len(emitted) < 1000:
            emitted.append(Event("note", "line", 60_000, secrets.token_hex(2000)))
            await buffer.emit(emitted[-1:], lane=Lane.BILLING)
    held = lane.head - 1
    assert held == len(emitted) - 1
    assert 10 < held < 1000
    lane.settle("city", Receipt(lane.epoch, ((1, held),)))
    async with asyncio.timeout(10):
        while True:
            try:
                await buffer.emit([power(1.0)], lane=Lane.BILLING)
                break
            except StorageError:
                continue
    assert lane.head == held + 2, "a refused record leaves no hole"
    writer.cancel()
    await asyncio.wait([writer])
    await buffer.close()
