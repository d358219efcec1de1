"""The durable local buffer: three lanes, each a file of its own, and the link's durable state beside the records."""

import asyncio
import fcntl
import hashlib
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

from gateway.buffer.ballast import Ballast
from gateway.buffer.block import EVENT, Block
from gateway.buffer.lane import LaneBuffer
from gateway.buffer.overview import Filling, Overview, letters, overview, records
from gateway.buffer.sweep import Bounds
from gateway.durable import make_folder
from gateway.errors import CommandError, ConfigError
from gateway.model import Event, Json, Lane, Point, Record
from gateway.ports import Clock

__all__ = ["EVENT", "Block", "Buffer", "LaneBuffer", "LinkState", "lock"]

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
        max_age: float = float("inf"),
        keep_after_ack: float = 0.0,
        quotas: Mapping[str, int] | None = None,
        machine: str | None = None,
    ) -> None:
        self.folder = folder
        self._gateway, self._clock = gateway, clock
        machine = this_machine() if machine is None else machine
        self._ballast = Ballast(folder)
        self.lanes = {
            lane: LaneBuffer(
                lane,
                folder,
                clock,
                commit_every=commit_every if lane is Lane.TELEMETRY else 0.0,
                bounds=Bounds(
                    bounds[lane],
                    max_age=max_age,
                    keep_after_ack=keep_after_ack,
                    thins=lane is Lane.TELEMETRY,
                    drops=lane is not Lane.BILLING,
                    quotas=quotas or {},
                ),
                grow=_GROW[lane],
                machine=machine,
                ballast=self._ballast,
            )
            for lane in Lane
        }
        self._filling = {lane: Filling() for lane in Lane}

    async def open(self) -> None:
        """Lock the folder and open every lane. ConfigError: another process has it.

        A disk that refuses is no reason not to start: its lanes begin in memory, and say so.
        """
        with suppress(OSError):
            make_folder(self.folder)
        self._lock = lock(self.folder / "lock")
        for lane in self.lanes.values():
            await lane.open()
        await asyncio.to_thread(self._ballast.hold)

    async def tell_damage(self) -> None:
        """Emit one gap event for each lane whose file was moved aside at the start."""
        for lane in self.lanes.values():
            if lane.quarantined:
                found = lane.salvaged
                say = (
                    f"The {lane.lane} buffer was damaged: {found.records:,} records are saved, at least {found.lost:,} "
                    f"are lost. The old file is kept in {lane.quarantined}."
                )
                gap = Event("gap", self._gateway, self._clock.boot(), say, {"lane": lane.lane.value})
                await self.emit([gap], lane=Lane.EVENT)

    def know(self, points: Sequence[Point]) -> None:
        for lane in self.lanes.values():
            lane.know(points)

    async def emit(
        self, records: Sequence[Record], *, lane: Lane = Lane.TELEMETRY, state: Mapping[str, Json] | None = None
    ) -> None:
        """`ports.Emit`. ValueError where a state key already belongs to another lane."""
        if state:
            for other in self.lanes.values():
                if other.lane is not lane and not other.state.keys().isdisjoint(state):
                    key = next(key for key in state if key in other.state)
                    raise ValueError(f"state {key!r} belongs to the {other.lane} lane, not to {lane}")
        await self.lanes[lane].append(records, state)

    def state(self, prefix: str) -> "LinkState":
        return LinkState(self, prefix)

    async def overview(self) -> list[Overview]:
        """What waits in each lane, and for how long there is room."""
        now = asyncio.get_running_loop().time()
        found = []
        for name, lane in self.lanes.items():
            seen = await lane.ask(partial(overview, name, folder=self.folder))
            full = self._filling[name].full_ms(now, seen.bytes, seen.room or 0)
            found.append(replace(seen, damaged=lane.damaged, committed=lane.committed, full_ms=full, error=lane.error))
        return found

    async def answer(self, asked: Mapping[str, Json]) -> Json:
        """What `lampione buffer` asks over the control socket. CommandError: it is not understood."""
        try:
            match asked:
                case {"action": "show"}:
                    return [asdict(row) for row in await self.overview()]
                case {"action": "dead"}:
                    return [row for name, lane in self.lanes.items() for row in await lane.ask(partial(letters, name))]
                case {"action": "export", "lane": str(name), "at": int(at)}:
                    some, after = await self.lanes[Lane(name)].ask(lambda file: records(Lane(name), file, at))
                    return {"records": some, "next": after}
                case {"action": "resend", "uplink": str(uplink), "lane": str(name), "epoch": str(epoch),
                      "first": int(first), "last": int(last)}:  # fmt: skip
                    return await self.lanes[Lane(name)].resend(uplink, epoch, first, last)
        except ValueError as error:
            raise CommandError("bad_request", str(error)) from None
        raise CommandError("bad_request", "The buffer is asked to show, dead, export or resend.")

    async def run(self) -> None:
        """Commit, until cancelled."""
        async with asyncio.TaskGroup() as lanes:
            for lane in self.lanes.values():
                lanes.create_task(lane.run(), name=f"buffer-{lane.lane}")

    async def close(self) -> None:
        """Commit what has gathered, close the files, release the folder."""
        for lane in self.lanes.values():
            await lane.close()
        if self._lock is not None:
            os.close(self._lock)


def lock(file: Path) -> int | None:
    """The descriptor that holds the lock; None on a disk that has no place for it. ConfigError: another has it."""
    for flags in (os.O_CREAT | os.O_RDWR, os.O_RDONLY):
        try:
            descriptor = os.open(file, flags | os.O_CLOEXEC, 0o600)
        except OSError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise ConfigError(
                f"Another lampione runs on {file.parent}. Stop it, or give this one another --state folder."
            ) from None
        return descriptor
    return None


def this_machine() -> str:
    """What tells this machine from one that its card was cloned to; '' where nothing does."""
    known = b""
    for file in ("/proc/device-tree/serial-number", "/etc/machine-id"):
        with suppress(OSError):
            known += Path(file).read_bytes()
    return hashlib.sha256(known).hexdigest()[:16] if known else ""


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
