"""What a buffer must still hold after a cut, and how one that was opened again keeps it."""

import asyncio
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from gateway.buffer import EVENT, Buffer, LaneBuffer
from gateway.errors import LampioneError
from gateway.model import Lane, Reading
from tests.crash.writer import make, opened

LOST, START, WRONG, AGAIN = "lost", "start", "wrong", "again"


@dataclass(slots=True)
class Promise:
    """Of one lane. What is `sent` may be gone; what is above it and `safe` must be there; no seq up to `safe` may ever
    be given to another record."""

    epoch: str = ""
    safe: int = 0
    sent: int = 0


def promises(lines: Iterable[str]) -> dict[Lane, Promise]:
    """What the writer's lines add up to."""
    given = {lane: Promise() for lane in Lane}
    for line in lines:
        match line.split():
            case ["open", lane, epoch, _]:
                given[Lane(lane)].epoch = epoch
            case ["safe", lane, seq]:
                given[Lane(lane)].safe = max(given[Lane(lane)].safe, int(seq))
            case ["sent", lane, seq]:
                given[Lane(lane)].sent = max(given[Lane(lane)].sent, int(seq))
    return given


@dataclass(frozen=True, slots=True)
class Fault:
    kind: str
    say: str


async def judge(folder: Path, given: dict[Lane, Promise]) -> list[Fault]:
    """Start a gateway's buffer on `folder`, use it, and hold what it has against what was promised."""
    try:
        buffer = await opened(folder)
    except (LampioneError, sqlite3.Error, OSError, ValueError, KeyError, TypeError) as error:
        return [Fault(START, repr(error))]
    found = [fault for lane in Lane for fault in await _lane(buffer, lane, given[lane])]
    heads = {lane.lane: lane.head for lane in buffer.lanes.values()}
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(buffer.run())
        async with asyncio.timeout(30), asyncio.TaskGroup() as emits:
            for lane, head in heads.items():
                emits.create_task(_go_on(buffer, lane, head))
        running.cancel()
    for lane, head in heads.items():
        blocks = await buffer.lanes[lane].read(head, head, 1)
        if [(block.first, block.count, block.rows is not None) for block in blocks] != [(head, 1, True)]:
            found.append(Fault(AGAIN, f"{lane}: the record after the cut is not seq {head}: {blocks}"))
    await buffer.close()
    return found


async def _go_on(buffer: Buffer, lane: Lane, head: int) -> None:
    await buffer.state("writer/").emit([make(lane, head)], lane=lane, state={f"{lane}/last": head})
    await buffer.lanes[lane].news(head)


async def _lane(buffer: Buffer, name: Lane, promise: Promise) -> list[Fault]:
    lane = buffer.lanes[name]
    found: list[Fault] = []
    if lane.quarantined:
        found.append(Fault(START, f"{name}: moved aside to {lane.quarantined}"))
    if promise.epoch and lane.epoch != promise.epoch:
        # A lane may only begin anew where nothing was promised yet.
        return [*found, Fault(LOST, f"{name}: epoch {promise.epoch} is gone")] if promise.safe else found
    if lane.head <= promise.safe:
        found.append(Fault(AGAIN, f"{name}: seq {lane.head} will be given again, {promise.safe} was safe"))
    held: set[int] = set()
    for seq, row in await rows(lane):
        held.add(seq)
        if row != expected(name, seq):
            found.append(Fault(WRONG, f"{name} {seq}: {row} instead of {expected(name, seq)}"))
    missing = set(range(promise.sent + 1, promise.safe + 1)) - held
    if missing:
        found.append(Fault(LOST, f"{name}: {sorted(missing)[:5]} of {promise}"))
    state = buffer.state("writer/").get(f"{name}/last") or 0
    # A lane that was moved aside, a fault of its own, begins at a far number and without a state.
    if state != lane.head - 1 and not lane.quarantined:
        found.append(Fault(WRONG, f"{name}: the state says {state}, the records end at {lane.head - 1}"))
    return found


def expected(lane: Lane, seq: int) -> tuple[object, ...]:
    record = make(lane, seq)
    if isinstance(record, Reading):
        return (record.point, record.value, record.at, None)
    return (record.kind, record.on, record.at, record.say, record.more["n"])


async def rows(lane: LaneBuffer) -> Iterator[tuple[int, tuple[object, ...] | None]]:
    """(seq, what it says) of every record that is held; None where the lane itself says that it is damaged."""
    blocks = await lane.read(1, 10**12, 10**12)
    said: list[tuple[int, tuple[object, ...] | None]] = []
    for block in blocks:
        if block.rows is None:
            said += [(seq, None) for seq in range(block.first, block.last + 1)]
            continue
        for seq, row in enumerate(block.rows, block.first):
            at = block.anchor.boot + row[1]
            if row[0] != EVENT and lane.entry(row[0]) is None:
                said.append((seq, None))
            elif row[0] == EVENT:
                more = row[2]
                said.append((seq, (more["event"], more["on"], at, more.get("say"), more["more"]["n"])))
            else:
                reason = row[4] if len(row) > 4 else None
                point = (lane.entry(row[0]) or [None])[0]
                said.append((seq, (point, row[2], at, reason)))
    return iter(said)
