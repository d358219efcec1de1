"""A gateway's buffer under load, as a process that can be cut off; it says on stdout what it was promised.

`python -m tests.crash.writer FOLDER --lives 3 --records 60`. Each life is a process of its own on the same folder:
every second one closes the buffer, the others end in the middle of their work. Lines, each one write(2):

    open billing 1a2b3c4d 17    the lane is open under this epoch, the next record gets seq 17
    safe billing 21             records up to seq 21 are promised
    sent billing 19             the platform has settled records up to seq 19
    dead billing ...            the disk refused; nothing more is promised

Record n of a lane is known by heart (`reading`, `event`), so that whoever reads the lane can judge each value.
"""

import argparse
import asyncio
import os
import sqlite3
import sys
from pathlib import Path
from typing import Any

from gateway.buffer import Buffer, LaneBuffer
from gateway.clock import SystemClock
from gateway.errors import StorageError
from gateway.model import Event, Lane, Point, Reading, Receipt, Record

GATEWAY, UPLINK = "cab-017", "city"
POINTS = [Point(f"here/feeder/register_{n}", "energy_active", "Wh", direction="import") for n in range(3)]
COMMIT_EVERY = 0.01
_BURST = 12


def reading(seq: int) -> Reading:
    return Reading(POINTS[seq % len(POINTS)].id, seq * 1.25, seq * 7)


def event(seq: int) -> Event:
    return Event("proof", GATEWAY, seq * 7, f"record {seq}", {"n": seq})


def make(lane: Lane, seq: int) -> Record:
    return event(seq) if lane is Lane.EVENT else reading(seq)


def say(*words: object) -> None:
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


async def opened(folder: Path) -> Buffer:
    buffer = Buffer(folder, GATEWAY, SystemClock(trusted=True), commit_every=COMMIT_EVERY)
    await buffer.open()
    buffer.know(POINTS)
    for lane in buffer.lanes.values():
        await lane.enrol({UPLINK: "oldest"})
    return buffer


class Producer:
    """Everything that one lane is given."""

    def __init__(self, buffer: Buffer, lane: LaneBuffer, records: int) -> None:
        self._state = buffer.state("writer/")
        self._lane, self._name = lane, lane.lane
        self._next = lane.head
        self._end = lane.head + records * (_BURST if self._name is Lane.TELEMETRY else 1)

    async def produce(self, burst: int) -> None:
        while self._next < self._end:
            first, self._next = self._next, self._next + burst
            last = self._next - 1
            records = [make(self._name, seq) for seq in range(first, self._next)]
            await self._state.emit(records, lane=self._name, state={f"{self._name}/last": last})
            if self._name is Lane.TELEMETRY:
                await asyncio.sleep(COMMIT_EVERY / 5)
            else:
                say("safe", self._name, last)

    async def watch(self) -> None:
        """What is committed may be sent, so its numbers are used up; soon the platform settles most of it."""
        told = self._lane.head - 1
        while told < self._end - 1:
            await self._lane.news(told + 1)
            behind, told = told, self._lane.head - 1
            say("safe", self._name, told)
            if behind > 8:
                say("sent", self._name, behind - 8)
                self._lane.settle(UPLINK, Receipt(self._lane.epoch, ((1, behind - 8),)))


async def live(folder: Path, records: int, *, closes: bool) -> None:
    try:
        buffer = await opened(folder)
        for lane in buffer.lanes.values():
            say("open", lane.lane, lane.epoch, lane.head)
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(buffer.run())
            async with asyncio.TaskGroup() as work:
                for lane in buffer.lanes.values():
                    producer = Producer(buffer, lane, records)
                    work.create_task(producer.watch())
                    bursts = [_BURST] if lane.lane is Lane.TELEMETRY else [1, 1, 2]
                    for burst in bursts:
                        work.create_task(producer.produce(burst))
            if not closes:
                os._exit(0)
            running.cancel()
        await buffer.close()
    except* StorageError as group:
        say("dead", group.exceptions[0])
        os._exit(1)


def weaken(synchronous: str) -> None:
    """For the positive controls: what SQLite does when nobody asks for a flush at each commit."""

    class Weak(sqlite3.Connection):
        def execute(self, sql: str, *rest: Any) -> sqlite3.Cursor:
            return super().execute(sql.replace("synchronous=FULL", f"synchronous={synchronous}"), *rest)

        def executescript(self, sql: str) -> sqlite3.Cursor:
            return super().executescript(sql.replace("synchronous=FULL", f"synchronous={synchronous}"))

    real = sqlite3.connect
    sqlite3.connect = lambda *args, **options: real(*args, **options | {"factory": Weak})  # type: ignore[assignment]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--lives", type=int, default=1)
    parser.add_argument("--records", type=int, default=10**9)
    parser.add_argument("--synchronous", default="FULL", choices=["FULL", "NORMAL", "OFF"])
    asked = parser.parse_args()
    weaken(asked.synchronous)
    for life in range(asked.lives):
        child = os.fork()
        if not child:
            asyncio.run(live(asked.folder, asked.records, closes=life % 2 == 1))
            os._exit(0)
        if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
            sys.exit(1)


if __name__ == "__main__":
    main()
