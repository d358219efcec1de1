"""One flipped bit in a lane's file: the gateway starts, says so where it matters, and never reads a wrong value."""

import asyncio
import random
import shutil
from collections import Counter
from pathlib import Path

import pytest

from gateway.model import Lane
from tests.crash import recovery
from tests.crash.recovery import expected
from tests.crash.writer import make, opened

FLIPS, RECORDS = 400, 1500


async def written(folder: Path) -> Path:
    """The billing lane of a buffer that was closed in order, with as many blocks as records."""
    buffer = await opened(folder)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(buffer.run())
        for seq in range(1, RECORDS + 1):
            await buffer.emit([make(Lane.BILLING, seq)], lane=Lane.BILLING)
        running.cancel()
    await buffer.close()
    return folder / "billing.sqlite"


@pytest.mark.fault
@pytest.mark.xfail(strict=False, reason="a flipped bit in a text column stops every read of the lane")
async def test_a_flipped_bit_is_never_a_wrong_value(fast_folder: Path) -> None:
    source = await written(fast_folder / "source")
    whole = source.read_bytes()
    dice = random.Random(1)
    outcomes = Counter[str]()
    for number in range(FLIPS):
        folder = fast_folder / f"flip-{number}"
        folder.mkdir()
        flipped = bytearray(whole)
        bit = dice.randrange(len(whole) * 8)
        flipped[bit // 8] ^= 1 << bit % 8
        (folder / source.name).write_bytes(flipped)
        buffer = await opened(folder)
        lane = buffer.lanes[Lane.BILLING]
        held = dict(await recovery.rows(lane))
        for seq, row in held.items():
            assert row is None or row == expected(Lane.BILLING, seq), f"bit {bit}: {seq} {row}"
        lost = [seq for seq in range(1, RECORDS + 1) if held.get(seq) is None]
        told = bool(lane.quarantined) or None in held.values()
        outcomes["nothing lost" if not lost else "lost and told" if told else "lost in silence"] += 1
        await buffer.close()
        shutil.rmtree(folder)
    assert outcomes["lost in silence"] == 0, outcomes
    assert outcomes["lost and told"] >= FLIPS // 4, outcomes
