"""The durable local buffer: three lanes, each a file of its own, and the link's durable state beside the records."""

import asyncio
import fcntl
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from gateway.buffer.block import EVENT, Block
from gateway.buffer.lane import LaneBuffer, gap
from gateway.errors import ConfigError
from gateway.model import Json, Lane, Point, Record
from gateway.ports import Clock

__all__ = ["EVENT", "Block", "Buffer", "LaneBuffer", "LinkState"]

MB = 1024 * 1024
BOUNDS = {Lane.BILLING: 256 * MB, Lane.EVENT: 128 * MB, Lane.TELEMETRY: 1024 * MB}
_GROW = {Lane.BILLING: 128 * 1024, Lane.EVENT: 128 * 1024, Lane.TELEMETRY: 512 * 1024}


class Buffer:
    """All lanes of one gateway, in `folder`. One process at a time: the folder is locked."""

    def __init__(
        self,
        folder: Path,
        gateway: str,
        clock: Clock,
        *,
        commit_every: float = 1.0,
        bounds: Mapping[Lane, int] = BOUNDS,
    ) -> None:
        self.folder = folder
        self._gateway, self._clock = gateway, clock
        self.lanes = {
            lane: LaneBuffer(
                lane,
                folder,
                clock,
                commit_every=commit_every if lane is Lane.TELEMETRY else 0.0,
                max_bytes=bounds[lane],
                grow=_GROW[lane],
            )
            for lane in Lane
        }

    async def open(self) -> None:
        """Lock the folder and open every lane. ConfigError: another process has it. StorageError: the disk refuses."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock = os.open(self.folder / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise ConfigError(
                f"Another lampione runs on {self.folder}. Stop it, or give this one another --state folder."
            ) from None
        for lane in self.lanes.values():
            await lane.open()

    async def tell_damage(self) -> None:
        """Emit one gap event for each lane whose file was moved aside at the start."""
        for lane in self.lanes.values():
            if lane.quarantined:
                say = f"The {lane.lane} buffer was damaged and starts anew; the old file is kept in {lane.quarantined}."
                await self.emit([gap(lane.lane, self._clock, self._gateway, say)], lane=Lane.EVENT)

    def know(self, points: Sequence[Point]) -> None:
        for lane in self.lanes.values():
            lane.know(points)

    async def emit(
        self, records: Sequence[Record], *, lane: Lane = Lane.TELEMETRY, state: Mapping[str, Json] | None = None
    ) -> None:
        """`ports.Emit`. ValueError where a state key already belongs to another lane."""
        for key in state or ():
            for other in self.lanes.values():
                if other.lane is not lane and key in other.state:
                    raise ValueError(f"state {key!r} belongs to the {other.lane} lane, not to {lane}")
        await self.lanes[lane].append(records, state)

    def state(self, prefix: str) -> "LinkState":
        return LinkState(self, prefix)

    async def run(self) -> None:
        """Commit, until cancelled."""
        async with asyncio.TaskGroup() as lanes:
            for lane in self.lanes.values():
                lanes.create_task(lane.run(), name=f"buffer-{lane.lane}")

    async def close(self) -> None:
        """Commit what has gathered, close the files, release the folder."""
        for lane in self.lanes.values():
            await lane.close()
        os.close(self._lock)


class LinkState:
    """`ports.State` of one owner: the keys under its prefix, whichever lane they are committed with."""

    def __init__(self, buffer: Buffer, prefix: str) -> None:
        self._buffer, self._prefix = buffer, prefix

    def get(self, key: str) -> Json:
        for lane in self._buffer.lanes.values():
            if (value := lane.state.get(self._prefix + key)) is not None:
                return value
        return None

    def keys(self) -> Sequence[str]:
        start = len(self._prefix)
        return [
            key[start:] for lane in self._buffer.lanes.values() for key in lane.state if key.startswith(self._prefix)
        ]

    async def emit(
        self, records: Sequence[Record], *, lane: Lane = Lane.TELEMETRY, state: Mapping[str, Json] | None = None
    ) -> None:
        """The buffer's emit with this owner's keys under its prefix."""
        prefixed = {self._prefix + key: value for key, value in state.items()} if state else None
        await self._buffer.emit(records, lane=lane, state=prefixed)
