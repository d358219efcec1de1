"""A gateway that dies in the middle: its tasks stop for ever at one await, and the disk is as it was at that moment.

Every task that the gateway creates is stepped through a counter. At step `n` nothing of the gateway runs any more; what
the buffer's threads had been given is let finish, for they are the disk's side, and the folder is copied. What had not
been handed over is lost, as with a power cut.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Coroutine
from contextvars import ContextVar
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from drivers.ocpp.driver import Driver
from gateway.buffer import EVENT, Buffer
from gateway.model import Lane
from gateway.testing import LoopClock, Recorder, make_link
from tests.drivers.ocpp.chargers import SECRETS, make_device, make_settings

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

_ours: ContextVar[Fuse | None] = ContextVar("fuse", default=None)


class Fuse:
    """Counts the steps of a gateway's tasks; at `blows` they all stand still, and `blown` is set. `let_go` lets them
    run on, so that they can be ended in good order when nobody looks at their disk any more.
    """

    def __init__(self, blows: int | None) -> None:
        self.blows, self.steps = blows, 0
        self.blown = asyncio.Event()
        self.is_over = False
        self._asleep: list[asyncio.Future[None]] = []

    def sleep(self) -> Any:
        """What a task is given to wait for."""
        asleep = asyncio.get_running_loop().create_future()
        self._asleep.append(asleep)
        return asleep.__await__().send(None)

    def let_go(self) -> None:
        self.is_over = True
        for asleep in self._asleep:
            if not asleep.done():
                asleep.set_result(None)


class _Stepped(Coroutine[Any, Any, Any]):
    """A coroutine that asks its fuse before each step."""

    def __init__(self, inner: Coroutine[Any, Any, Any], fuse: Fuse) -> None:
        self._inner, self._fuse = inner, fuse
        self._error: tuple[Any, ...] = ()

    def send(self, value: Any) -> Any:
        fuse = self._fuse
        if not fuse.is_over:
            fuse.steps += 1
            if fuse.blows is not None and fuse.steps >= fuse.blows:
                fuse.blown.set()
                return fuse.sleep()
        if self._error:
            error, self._error = self._error, ()
            return self._inner.throw(*error)
        return self._inner.send(value)

    def throw(self, *error: Any) -> Any:
        if self._fuse.blown.is_set() and not self._fuse.is_over:
            self._error = error
            return self._fuse.sleep()
        return self._inner.throw(*error)

    def close(self) -> None:
        self._inner.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        raise NotImplementedError


def stepped_tasks(loop: asyncio.AbstractEventLoop, coro: Any, **rest: Any) -> asyncio.Task[Any]:
    """A task factory."""
    fuse = _ours.get()
    return asyncio.Task(coro if fuse is None else _Stepped(coro, fuse), loop=loop, **rest)


class Mortal:
    """A gateway on `folder` that dies at step `blows`."""

    def __init__(self, folder: Path, blows: int | None = None) -> None:
        self.folder, self.fuse = folder, Fuse(blows)
        self.address = ""
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        self.buffer = Buffer(self.folder, "cab-1", LoopClock())
        await self.buffer.open()
        for lane in self.buffer.lanes.values():
            await lane.enrol({"city": "oldest"})  # what nobody waits for is swept away
        state, device = self.buffer.state("link/cs/"), make_device()
        self.buffer.know(list(device.points.values()))
        self._bound = bound = asyncio.get_running_loop().create_future()
        link = replace(
            make_link(make_settings(), [device], Recorder(), secrets=SECRETS), state=state, bound=bound.set_result
        )
        driver = Driver(link)
        mark = _ours.set(self.fuse)
        try:
            self._tasks = [asyncio.create_task(driver.run(state.emit)), asyncio.create_task(self.buffer.run())]
        finally:
            _ours.reset(mark)
        dying = asyncio.create_task(self.fuse.blown.wait())
        await asyncio.wait([bound, dying], return_when=asyncio.FIRST_COMPLETED)
        dying.cancel()
        self.address = bound.result() if bound.done() else ""

    async def image(self, folder: Path) -> None:
        """Copy what is on disk now. What the threads were given is finished first."""
        for lane in self.buffer.lanes.values():
            await asyncio.get_running_loop().run_in_executor(lane._thread, lambda: None)
        shutil.copytree(self.folder, folder)

    async def bury(self) -> None:
        """End what is left of it in this process. Its folder is not to be used again."""
        self.fuse.let_go()
        async with asyncio.timeout(5):
            await asyncio.wait([self._bound])
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)
        await self.buffer.close()

    async def billed(self) -> list[dict[str, Any]]:
        """Readings and events of the billing lane, in order: `{"event": …}` or `{"value", "transaction", "time"}`."""
        lane = self.buffer.lanes[Lane.BILLING]
        rows = [row for block in await lane.read(1, lane.head - 1, 10**7) for row in block.rows or ()]
        return [row[2] if row[0] == EVENT else {"value": row[2], **row[5]} for row in rows]
