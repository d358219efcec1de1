"""One flipped bit in a lane's file: the gateway starts, says so where it matters, and never reads a wrong value."""

import asyncio
import random
import shutil
import sqlite3
from collections import Counter
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

import pytest

from gateway.buffer import BOUNDS, LaneBuffer, this_machine
from gateway.buffer.ballast import Ballast
from gateway.buffer.sweep import Bounds
from gateway.clock import SystemClock
from gateway.errors import LampioneError
from gateway.model import Lane, Receipt
from tests.crash import recovery
from tests.crash.recovery import expected
from tests.crash.writer import POINTS, UPLINK, make, opened

pytestmark = pytest.mark.fault

LANE, STATE = Lane.BILLING, "billing/last"
SENT = 20
FILE = f"{LANE}.sqlite"


async def written(folder: Path, records: int) -> str:
    """The billing lane of a buffer that was closed in order, a block for each record, SENT of them settled; and as it
    was before it was closed, in `cut`, with all that is newest in SQLite's log. Returns its epoch.
    """
    buffer = await opened(folder)
    lane = buffer.lanes[LANE]
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(buffer.run())
        for seq in range(1, records + 1):
            if seq == records:
                lane.settle(UPLINK, Receipt(lane.epoch, ((1, SENT),)))
            await buffer.state("writer/").emit([make(LANE, seq)], lane=LANE, state={STATE: seq})
        running.cancel()
    shutil.copytree(folder, folder.with_name("cut"))
    await buffer.close()
    return lane.epoch


async def outcome(folder: Path, epoch: str, records: int) -> str:
    """What a gateway makes of the damaged file in `folder`. A word in capitals is a promise broken."""
    bounds = Bounds(BOUNDS[LANE], drops=False)
    lane = LaneBuffer(
        LANE,
        folder,
        SystemClock(trusted=True),
        commit_every=0,
        bounds=bounds,
        machine=this_machine(),
        ballast=Ballast(folder),
    )
    try:
        await lane.open()
        lane.know(POINTS)
        await lane.enrol({UPLINK: "oldest"})
    except (LampioneError, sqlite3.Error, OSError, ValueError, KeyError, TypeError) as error:
        return f"NO START {type(error).__name__}"
    try:
        return await _found(lane, epoch, records)
    except (LampioneError, ValueError, KeyError, TypeError) as error:
        return f"NO READ {type(error).__name__}"
    finally:
        await lane.close()


async def _found(lane: LaneBuffer, epoch: str, records: int) -> str:
    held = dict(await recovery.rows(lane))
    if any(row is not None and row != expected(LANE, seq) for seq, row in held.items()):
        return "WRONG VALUE"
    missing = [seq for seq in range(SENT + 1, records + 1) if held.get(seq) is None]
    if lane.quarantined:
        return "moved aside"
    if lane.epoch != epoch:
        return "OTHER EPOCH"
    if lane.head <= records:
        return "NUMBERS AGAIN"
    if lane.settled(UPLINK).covers(1, records) or lane.settled(UPLINK).total() > SENT:
        return "SETTLED UNSENT"
    if lane.state.get(f"writer/{STATE}") != records:
        return "WRONG STATE"
    if any(seq not in held for seq in missing):
        return "LOST IN SILENCE"
    return "lost and told" if missing else "nothing lost"


async def flipped(source: Path, name: str, bits: Iterable[int], epoch: str, records: int) -> Counter[str]:
    """Try each bit of the file `name` of the lane in `source`."""
    outcomes = Counter[str]()
    here = source.with_name("here")
    for bit in bits:
        here.mkdir()
        for part in (FILE, f"{FILE}-wal"):
            if (source / part).exists():
                shutil.copy(source / part, here)
        damaged = bytearray((source / name).read_bytes())
        damaged[bit // 8] ^= 1 << bit % 8
        (here / name).write_bytes(damaged)
        outcomes[await outcome(here, epoch, records)] += 1
        shutil.rmtree(here)
    return outcomes


def broken(outcomes: Counter[str]) -> list[str]:
    return [word for word in outcomes if word[:2].isupper()]


async def test_a_flipped_bit_is_never_a_wrong_value(fast_folder: Path) -> None:
    records, dice, source = 1500, random.Random(1), fast_folder / "source"
    epoch = await written(source, records)
    size = (source / FILE).stat().st_size
    bits = [dice.randrange(size * 8) for _ in range(400)]
    outcomes = await flipped(source, FILE, bits, epoch, records)
    assert broken(outcomes) == [], outcomes
    assert outcomes["lost and told"] + outcomes["moved aside"] >= 80, outcomes


async def test_nor_in_what_the_blocks_are_read_by(fast_folder: Path) -> None:
    """Bits of every text of every small table: points, settlements, state, epoch. Damage there reaches all records."""
    records, dice, source = 60, random.Random(1), fast_folder / "source"
    epoch = await written(source, records)
    whole = (source / FILE).read_bytes()
    with closing(sqlite3.connect(f"file:{source / FILE}?mode=ro", uri=True)) as db:
        cells = [cell for row in db.execute("SELECT kind, key, value FROM fact") for cell in row if cell]
    texts = [cell.encode() if isinstance(cell, str) else cell for cell in cells]
    assert any(b"here/feeder" in text for text in texts)
    places = [range(at * 8, (at + len(text)) * 8) for text in texts if (at := whole.find(text)) >= 0]
    bits = [bit for place in places for bit in dice.sample(place, min(16, len(place)))]
    assert len(bits) >= 150
    outcomes = await flipped(source, FILE, bits, epoch, records)
    assert broken(outcomes) == [], outcomes


async def test_nor_in_what_sqlite_reads_the_tables_by(fast_folder: Path) -> None:
    """The first page: the file's header and what the tables are called. No record is lost for it."""
    records, dice, source = 60, random.Random(1), fast_folder / "source"
    epoch = await written(source, records)
    bits = [*dice.sample(range(100 * 8), 200), *dice.sample(range(800, 8192), 100)]
    outcomes = await flipped(source, FILE, bits, epoch, records)
    assert broken(outcomes) == [], outcomes


async def test_a_flipped_bit_in_the_log_is_put_right(fast_folder: Path) -> None:
    """Most of them; for a few the checksum has two answers, and the page or the file is damaged as any other."""
    records, dice, source = 60, random.Random(1), fast_folder / "cut"
    epoch = await written(fast_folder / "source", records)
    log = source / f"{FILE}-wal"
    committed = log.read_bytes().rstrip(b"\0")
    bits = [*dice.sample(range((32 + 24) * 8), 100), *(dice.randrange(len(committed) * 8) for _ in range(200))]
    outcomes = await flipped(source, log.name, bits, epoch, records)
    assert broken(outcomes) == [], outcomes
    assert outcomes["nothing lost"] >= 0.9 * len(bits), outcomes
