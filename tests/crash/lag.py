"""Three busy lanes on a disk whose flushes take long: how late is the event loop at worst?

`LD_PRELOAD=slow_flush.so python -m tests.crash.lag FOLDER [--in-loop]` prints one line of JSON. `--in-loop` is the
positive control: the same work done by the event loop itself.
"""

import asyncio
import ctypes
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gateway.model import Lane
from tests.crash.writer import make, opened, say

DELAY_MS, SECONDS = 200, 2.5
_TICK = 0.002


async def lateness() -> float:
    """Seconds by which the loop woke us too late, at worst, within SECONDS."""
    loop = asyncio.get_running_loop()
    ends, worst = loop.time() + SECONDS, 0.0
    while (began := loop.time()) < ends:
        await asyncio.sleep(_TICK)
        worst = max(worst, loop.time() - began - _TICK)
    return worst


def work_in_loop() -> None:
    loop = asyncio.get_running_loop()

    def run(_executor: object, job: Callable[..., Any], *args: object) -> asyncio.Future[Any]:
        done = loop.create_future()
        done.set_result(job(*args))
        return done

    loop.run_in_executor = run  # type: ignore[assignment,method-assign]


async def main(folder: Path, *, in_loop: bool) -> None:
    preloaded = ctypes.CDLL(None)
    delay, flushes = (ctypes.c_int.in_dll(preloaded, name) for name in ("flush_delay_ms", "flushes"))
    buffer = await opened(folder)
    if in_loop:
        work_in_loop()

    async def produce(lane: Lane) -> None:
        seq = 0
        while True:
            seq += 1
            await buffer.emit([make(lane, seq)], lane=lane)
            await asyncio.sleep(0.001 if lane is Lane.TELEMETRY else 0)

    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(buffer.run())]
        running += [
            tasks.create_task(produce(lane)) for lane in Lane for _ in range(1 if lane is Lane.TELEMETRY else 5)
        ]
        delay.value, before = DELAY_MS, flushes.value
        worst = await lateness()
        delay.value, slow = 0, flushes.value - before
        for task in running:
            task.cancel()
    committed = {lane.lane: lane.head - 1 for lane in buffer.lanes.values()}
    await buffer.close()
    say(json.dumps({"lag_ms": worst * 1000, "slow_flushes": slow, "committed": committed}))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), in_loop="--in-loop" in sys.argv))
