"""Real file systems that lose their power, fill up, or turn read-only under a buffer. For root only."""

import asyncio
import random
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.buffer import Buffer
from gateway.cli import street
from gateway.cli.stage import Stage
from gateway.errors import StorageError
from gateway.model import Lane, Receipt
from tests.crash.recovery import LOST, START, Fault, judge, promises
from tests.crash.writer import UPLINK, make, opened
from tests.volumes import Volume, volume

BOTH = {"cab-017/meter-1", "lp-0001/pm"}

MB = 1024 * 1024
pytestmark = [pytest.mark.fault, pytest.mark.needs("mkfs.ext4")]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Volume]:
    with volume(tmp_path, 64) as disk:
        yield disk


async def work_until_cut(disk: Volume, said: Path, after: float, *words: str) -> None:
    """A writer at work on the disk, whose power goes `after` seconds from its first promise."""
    before = _promised(said)
    with said.open("ab") as out:
        command = [sys.executable, "-m", "tests.crash.writer", disk.top / "buffer", *words]
        writer = await asyncio.create_subprocess_exec(*command, stdout=out)
    async with asyncio.timeout(30):
        while _promised(said) == before:  # noqa: ASYNC110 - it is another process's event
            await asyncio.sleep(0.01)
    await asyncio.sleep(after)
    disk.cut_power()
    async with asyncio.timeout(30):
        assert await writer.wait() == 1, "the disk refused, and the writer ended"
    disk.restart()


def _promised(said: Path) -> int:
    return said.read_text().count("safe billing")


async def cycles(disk: Volume, folder: Path, count: int, *words: str) -> tuple[list[Fault], int]:
    """Cut the power `count` times, on one buffer that lives on. Returns what is wrong, and how much was promised."""
    dice = random.Random(count)
    said = folder / "said"
    said.touch()
    found: list[Fault] = []
    for _ in range(count):
        await work_until_cut(disk, said, dice.uniform(0.0, 0.5), *words)
        found += await judge(disk.top / "buffer", promises(said.read_text().splitlines()))
    return found, sum(promise.safe for promise in promises(said.read_text().splitlines()).values())


async def test_power_cuts_lose_nothing_that_was_promised(disk: Volume, tmp_path: Path) -> None:
    found, safe = await cycles(disk, tmp_path, 3)
    assert found == []
    assert safe > 100


@pytest.mark.slow
async def test_nor_do_thirty(disk: Volume, tmp_path: Path) -> None:
    found, safe = await cycles(disk, tmp_path, 30)
    assert found == []
    assert safe > 1000


async def test_a_power_cut_is_one(disk: Volume, tmp_path: Path) -> None:
    """The positive control: commits that nobody flushes are lost."""
    found, _ = await cycles(disk, tmp_path, 1, "--synchronous", "OFF")
    assert {LOST, START} & {fault.kind for fault in found}, found


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[Buffer]:
    buffer = await opened(folder)
    async with asyncio.TaskGroup() as tasks:
        run = tasks.create_task(buffer.run())
        yield buffer
        run.cancel()
    await buffer.close()


async def emitted(buffer: Buffer, lane: Lane, count: int) -> int:
    """How many of `count` records, one by one, were promised before the disk refused."""
    for done in range(count):
        head = buffer.lanes[lane].head
        try:
            async with asyncio.timeout(10):
                await buffer.state("writer/").emit([make(lane, head)], lane=lane, state={f"{lane}/last": head})
        except StorageError:
            return done
    return count


async def said_so_far(buffer: Buffer) -> list[str]:
    """The lines that the writer would have said."""
    lanes = buffer.lanes.values()
    return [
        line for lane in lanes for line in (f"open {lane.lane} {lane.epoch} 1", f"safe {lane.lane} {lane.head - 1}")
    ]


async def test_a_full_disk_is_no_dead_end(disk: Volume) -> None:
    """Records are kept or refused loudly, what is settled makes room, and a gateway starts on it."""
    folder = disk.top / "buffer"
    async with running(folder) as buffer:
        assert await emitted(buffer, Lane.BILLING, 50) == 50
        stranger = disk.fill()
        kept = await emitted(buffer, Lane.BILLING, 1000)
        lane = buffer.lanes[Lane.BILLING]
        safe = lane.head - 1
        assert safe == 50 + kept
        lane.settle(UPLINK, Receipt(lane.epoch, ((1, safe - 10),)))
        async with asyncio.timeout(20):
            while await emitted(buffer, Lane.BILLING, 20) < 20:  # noqa: ASYNC110 - it waits for the disk
                await asyncio.sleep(0.5)
        said = await said_so_far(buffer)
    again = await judge(folder, promises([*said, f"sent billing {safe - 10}"]))
    assert again == [], "it starts on a full disk, with all that it had, and takes records"
    stranger.unlink()
    async with running(folder) as buffer:
        assert await emitted(buffer, Lane.BILLING, 1000) == 1000


async def test_nor_is_one_that_was_full_before_the_first_start(disk: Volume) -> None:
    """Too full for a ballast that is worth it: what the lanes have reserved for themselves is room to delete in."""
    stranger = disk.fill()
    disk.leave(stranger, 3 * MB // 2)
    folder = disk.top / "buffer"
    async with running(folder) as buffer:
        lane = buffer.lanes[Lane.BILLING]
        kept = await emitted(buffer, Lane.BILLING, 5000)
        assert 20 < kept < 5000, "it is refused loudly in the end"
        lane.settle(UPLINK, Receipt(lane.epoch, ((1, kept - 10),)))
        async with asyncio.timeout(20):
            while await emitted(buffer, Lane.BILLING, 20) < 20:  # noqa: ASYNC110 - it waits for the disk
                await asyncio.sleep(0.5)
        assert not lane.is_volatile
        said = await said_so_far(buffer)
    assert await judge(folder, promises([*said, f"sent billing {kept - 10}"])) == []


@pytest.mark.slow
async def test_on_a_full_disk_telemetry_goes_on_at_the_cost_of_its_past(disk: Volume) -> None:
    folder = disk.top / "buffer"
    async with running(folder) as buffer:
        lane = buffer.lanes[Lane.TELEMETRY]

        async def read(count: int) -> None:
            """So many readings, a hundred a commit."""
            for _ in range(count // 100):
                now = lane.head
                await buffer.emit([make(Lane.TELEMETRY, now + n) for n in range(100)])
                await lane.news(now + 99)

        await read(1000)
        stranger = disk.fill()
        async with asyncio.timeout(60):
            while not lane.skipped(UPLINK, 1, lane.head):
                await read(10_000)
        assert not lane.is_volatile
        assert not lane.error
        assert {why for _, _, why in lane.skipped(UPLINK, 1, lane.head)} <= {"expired", "thinned"}
        assert (await lane.read(lane.head - 1, lane.head, 1))[0].rows, "the newest is kept"
        size = (folder / "telemetry.sqlite").stat().st_size
        assert await emitted(buffer, Lane.BILLING, 50) == 50, "what is left of the disk is billing's"
        stranger.unlink()
        async with asyncio.timeout(60):
            while (folder / "telemetry.sqlite").stat().st_size < 2 * size:
                await read(10_000)
        assert (folder / "ballast").exists()


async def test_a_disk_that_turns_read_only_is_said_and_loses_nothing(disk: Volume) -> None:
    folder = disk.top / "buffer"
    async with running(folder) as buffer:
        assert await emitted(buffer, Lane.BILLING, 50) == 50
        said = await said_so_far(buffer)
        disk.fail()
        assert await emitted(buffer, Lane.BILLING, 1) == 0
        assert buffer.lanes[Lane.BILLING].error
        async with asyncio.timeout(1):
            await buffer.emit([make(Lane.TELEMETRY, 1)])
    disk.restart()
    assert await judge(folder, promises(said)) == []


async def test_a_disk_that_is_read_only_at_the_start_is_no_reason_not_to_start(disk: Volume) -> None:
    folder = disk.top / "buffer"
    async with running(folder) as buffer:
        assert await emitted(buffer, Lane.BILLING, 50) == 50
    disk.remount("ro")
    async with running(folder) as buffer:
        assert await emitted(buffer, Lane.BILLING, 1) == 0
        disk.remount("rw")
        async with asyncio.timeout(45):
            while not await emitted(buffer, Lane.BILLING, 1):  # noqa: ASYNC110 - it waits for the disk
                await asyncio.sleep(0.5)
    async with running(folder) as buffer:
        blocks = await buffer.lanes[Lane.BILLING].read(1, 50, 1_000_000)
        assert sum(block.count for block in blocks if block.rows) == 50, "what was promised before is there"
        assert await emitted(buffer, Lane.BILLING, 1) == 1


async def test_a_street_starts_on_a_read_only_disk_and_what_it_reads_goes_out(disk: Volume, tmp_path: Path) -> None:
    (disk.top / "state").mkdir()
    disk.remount("ro")
    async with Stage(tmp_path, state=disk.top / "state") as stage:
        street.write(tmp_path, url=stage.url, password=stage.password, posts=1, meters=1, chargers=0)
        await stage.simulate()
        await stage.run(page=False)
        await stage.until(lambda: {row.device for row in stage.platform.per_device() if row.delivered > 1} >= BOTH)
        assert await stage.end("gateway") == 0
