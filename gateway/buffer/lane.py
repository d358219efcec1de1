"""One lane as the rest of the gateway sees it: append with a promise, read, settle; the disk is never waited for here.

Producers hand records over in the event loop; one thread of the lane's own commits whatever has gathered,
so a slow card makes larger groups, not a queue of small ones.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

import orjson

from gateway.batch import point_entry
from gateway.buffer.block import Anchor, Block, event_row, reading_row
from gateway.buffer.lanefile import Group, LaneFile
from gateway.errors import StorageError
from gateway.model import Event, Json, Lane, Point, PointId, Reading, Receipt, Record
from gateway.ports import Clock
from gateway.ranges import Ranges

T = TypeVar("T")

HIGH_WATER = 2 * 1024 * 1024
"""Uncommitted bytes at which telemetry producers wait."""
_ROW_COST = 60
_SETTLE_WITHIN = 1.0
_RETRY_AFTER = 2.0


class LaneBuffer:
    """Telemetry (`commit_every` > 0) is committed by the clock; billing and events at once."""

    def __init__(
        self, lane: Lane, folder: Path, clock: Clock, *, commit_every: float, max_bytes: int, grow: int = 256 * 1024
    ) -> None:
        self.lane = lane
        self.error: str | None = None
        """Why the last commit failed, or None."""
        self.alive: Callable[[float], None] = lambda _within: None
        self._clock = clock
        self._commit_every = commit_every
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"buffer-{lane}")
        self._open = partial(LaneFile, folder / f"{lane}.sqlite", grow=grow, max_bytes=max_bytes)
        self._group = Group()
        self._gathered = 0
        self._promises: list[asyncio.Future[None]] = []
        self._points: dict[PointId, Point] = {}
        self._numbers: dict[PointId, int] = {}
        self._due: float | None = None
        self._wake = asyncio.Event()
        self._committed = asyncio.Event()
        self._settled: dict[str, Ranges] = {}
        self._by_number: dict[int, Sequence[Json]] = {}

    async def open(self) -> None:
        """Open or create the file. StorageError where the disk refuses; a damaged file is moved aside."""
        self._file: LaneFile = await self._in_thread(self._open)
        self.epoch = self._file.epoch
        self.quarantined = self._file.quarantined
        self.head = self._file.next
        """The seq that the next record will get."""
        self.state: dict[str, Json] = dict(self._file.state)
        self._entries: dict[str, int] = dict(self._file.points)

    async def enrol(self, uplinks: Mapping[str, str]) -> None:
        """Say which uplinks take this lane, and from where ('oldest' | 'now') those that are new start."""
        self._settled = await self._in_thread(partial(self._file.uplinks, uplinks))

    def know(self, points: Sequence[Point]) -> None:
        """Register the points whose readings may come; a changed meaning gets a number of its own."""
        for point in points:
            if self._points.get(point.id) != point:
                self._points[point.id] = point
                self._numbers.pop(point.id, None)

    async def append(self, records: Sequence[Record], state: Mapping[str, Json] | None = None) -> None:
        """Take the records; returns when the lane's promise holds. StorageError when it cannot be kept."""
        loop = asyncio.get_running_loop()
        if self._commit_every and self._gathered >= HIGH_WATER:
            await self._promise()
        if self._group.anchor is None:
            self._group.anchor = Anchor(
                self._clock.boot_id, self._clock.boot(), self._clock.wall(), self._clock.state()
            )
        rows = [self._row(record, self._group.anchor.boot) for record in records]
        self._group.rows += rows
        self._group.state.update(state or {})
        self._gathered += _ROW_COST * len(rows)
        if self._commit_every:
            self._schedule(loop.time() + (self._commit_every if self._gathered < HIGH_WATER // 2 else 0))
            return
        await self._promise()

    def settle(self, uplink: str, receipt: Receipt) -> None:
        """Note what an uplink's platform has said; it is written with the next commit, within a second.

        A crash before that only sends the same records again, and the receiver knows them.
        """
        self._group.receipts.append((uplink, receipt))
        spans = self._settled.get(uplink)
        if spans is not None and receipt.epoch == self.epoch:
            for first, last in receipt.accepted:
                spans.add(first, min(last, self.head - 1))
            for seq, _, retryable in receipt.rejected:
                if not retryable:
                    spans.add(seq, seq)
        self._schedule(asyncio.get_running_loop().time() + _SETTLE_WITHIN)

    def settled(self, uplink: str) -> Ranges:
        """What this uplink has settled; KeyError where it does not take this lane."""
        return self._settled[uplink]

    async def read(self, first: int, last: int, max_bytes: int) -> list[Block]:
        return await self._in_thread(partial(self._file.read, first, last, max_bytes))

    async def depth(self) -> tuple[int, int, int | None]:
        """(records held, bytes on disk, UTC ms of the oldest or None)."""
        return await self._in_thread(self._file.depth)

    def entry(self, number: int) -> Sequence[Json]:
        """The batch's `p` entry of a point number in a block."""
        if number not in self._by_number:
            self._by_number = {n: orjson.loads(text) for text, n in self._entries.items()}
        return self._by_number[number]

    async def news(self, seen: int) -> None:
        """Wait until a record with seq >= `seen` is committed."""
        while self.head <= seen:
            await self._committed.wait()

    async def run(self) -> None:
        """Commit what gathers, until cancelled; `close` commits the rest."""
        loop = asyncio.get_running_loop()
        while True:
            self.alive(_RETRY_AFTER + self._commit_every + 30)
            try:
                async with asyncio.timeout(10):
                    await self._wake.wait()
            except TimeoutError:
                continue
            wait = 0.0 if self._promises or self._due is None else self._due - loop.time()
            if wait > 0:
                self._wake.clear()
                try:
                    async with asyncio.timeout(wait):
                        await self._wake.wait()
                    continue
                except TimeoutError:
                    pass
            self._wake.clear()
            await self._commit()

    async def flush(self) -> None:
        """Commit what has gathered now. StorageError when the disk refuses."""
        await self._promise()

    async def close(self) -> None:
        """Commit what has gathered and close the file."""
        await self._commit()
        await self._in_thread(self._file.close)
        self._thread.shutdown(wait=False)

    async def _commit(self) -> None:
        group, promises = self._group, self._promises
        if not group and not promises:
            return
        self._group, self._promises, self._due, gathered = Group(), [], None, self._gathered
        self._gathered = 0
        try:
            head = await self._in_thread(partial(self._file.commit, group))
        except StorageError as failure:
            self.error = str(failure)
            self._keep_for_retry(group, gathered, durable=not self._commit_every)
            for promise in promises:
                if not promise.done():
                    promise.set_exception(failure)
            return
        self.error = None
        self.head = head
        for key, value in group.state.items():
            if value is None:
                self.state.pop(key, None)
            else:
                self.state[key] = value
        for promise in promises:
            if not promise.done():
                promise.set_result(None)
        self._committed.set()
        self._committed = asyncio.Event()

    def _keep_for_retry(self, group: Group, gathered: int, *, durable: bool) -> None:
        """Telemetry and settlements stay for the next try; who waits for a durable record was told that it failed."""
        later, self._group = self._group, group
        if durable:
            group.rows.clear()
            group.state.clear()
            group.anchor = later.anchor
            gathered = 0
        elif later.anchor and group.anchor:
            shift = later.anchor.boot - group.anchor.boot
            for row in later.rows:
                row[1] += shift
        group.rows += later.rows
        group.state.update(later.state)
        group.points += later.points
        group.receipts += later.receipts
        self._gathered += gathered
        self._schedule(asyncio.get_running_loop().time() + _RETRY_AFTER)

    def _row(self, record: Record, boot: int) -> list[object]:
        if not isinstance(record, Reading):
            return event_row(record, boot)
        number = self._numbers.get(record.point)
        if number is None:
            number = self._number(record.point)
        return reading_row(record, number, boot)

    def _number(self, point: PointId) -> int:
        if point not in self._points:
            raise KeyError(f"{point} is not a point of this site")
        entry = orjson.dumps(point_entry(self._points[point])).decode()
        number = self._entries.get(entry)
        if number is None:
            number = self._entries[entry] = len(self._entries) + 1
            self._group.points.append((number, entry))
        self._numbers[point] = number
        return number

    def _schedule(self, due: float) -> None:
        if self._due is None or due < self._due:
            self._due = due
            self._wake.set()

    async def _promise(self) -> None:
        promise = asyncio.get_running_loop().create_future()
        self._promises.append(promise)
        self._wake.set()
        await promise

    async def _in_thread(self, job: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, job)


def gap(lane: Lane, clock: Clock, gateway: str, say: str) -> Event:
    """The event that tells the platform of records that are not to come."""
    return Event("gap", gateway, clock.boot(), say, {"lane": lane.value})
