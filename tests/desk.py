"""A gateway's command side for tests: a charger that remembers what it was told, and a desk that commands it."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import orjson

from gateway.buffer import Buffer
from gateway.commands import Commands, Reach
from gateway.errors import CommandError, StorageError
from gateway.model import Argument, Command, CommandState, Device, Lane, Reply, Verb
from gateway.testing import LoopClock, jumped

ALLOWED = {"grid-desk": ["limit", "set", "reset"]}
LIMIT = Verb(
    "limit",
    {"amps": Argument("A", 6, 32)},
    leasable=True,
    release={"amps": 6.0},
    safe_when_lower="amps",
)
RESET = Verb("reset", {}, idempotent=False, destructive=True)
SET = Verb("set", {"value": Argument("min", 0, 60)})


class Charger:
    """A device that remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[Mapping[str, Any]] = []
        self.is_up = True
        self.trouble: CommandError | StorageError | None = None
        self.pause = 0.0
        self.device = Device("cp-1/evse", {}, {"limit": LIMIT, "reset": RESET, "set:period": SET})

    async def execute(self, command: Command) -> Reply:
        self.told.append({"do": command.do, **command.args})
        await asyncio.sleep(self.pause)
        if self.trouble:
            raise self.trouble
        return Reply(command.id, CommandState.SUCCEEDED, 0, now=command.args, proof="GetCompositeSchedule")


class Desk:
    """The gateway's command side over a real buffer, and a platform that reads the replies in it."""

    def __init__(self, folder: Path, charger: Charger) -> None:
        self.charger = charger
        self.clock = LoopClock()
        self.buffer = Buffer(folder, "cab-017", self.clock)

    async def open(self) -> None:
        await self.buffer.open()
        for lane in self.buffer.lanes.values():
            await lane.enrol({"city": "oldest"})
        reach = Reach(self.charger.device, lambda: self.charger.is_up, self.charger.execute)
        state = self.buffer.state("commands/")
        self.commands = Commands({"cp-1/evse": reach}, state.emit, state, self.clock)

    async def send(self, identity: str = "c1", *, retained: bool = False, **changes: Any) -> None:
        document = {
            "v": 1, "id": identity, "issuer": "grid-desk", "do": "limit", "on": "cp-1/evse", "args": {"amps": 16},
            "issued": self.clock.wall(), "expires": self.clock.wall() + 60_000, **changes,
        }  # fmt: skip
        await self.commands.receive(orjson.dumps(document), retained, ALLOWED)

    async def replies(self, identity: str | None = "c1") -> list[dict[str, Any]]:
        blocks = await self.buffer.lanes[Lane.EVENT].read(1, 10**9, 10**9)
        found = [row[2] for block in blocks for row in block.rows or [] if "cmd" in row[2]]
        return [reply for reply in found if identity is None or reply["cmd"] == identity]

    async def states(self, identity: str = "c1") -> list[str]:
        return [reply["state"] for reply in await self.replies(identity)]

    async def until(self, state: str, identity: str = "c1") -> dict[str, Any]:
        async with asyncio.timeout(3600 * 30):
            while state not in await self.states(identity):
                await self.buffer.lanes[Lane.EVENT].news(self.buffer.lanes[Lane.EVENT].head)
        return next(reply for reply in await self.replies(identity) if reply["state"] == state)


Act = Callable[[Desk], Awaitable[None]]


def at_the_desk(folder: Path, act: Act, charger: Charger | None = None) -> None:
    async def main() -> None:
        desk = Desk(folder, charger or Charger())
        await desk.open()
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(desk.buffer.run()), tasks.create_task(desk.commands.run())]
            await act(desk)
            for task in running:
                task.cancel()
        await desk.buffer.close()

    jumped(main())
