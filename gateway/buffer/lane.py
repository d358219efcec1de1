"""One lane as the rest of the gateway sees it: append with a promise, read, settle; the disk is never waited for here.

Producers hand records over in the event loop; one thread of the lane's own commits whatever has gathered,
so a slow card makes larger groups, not a queue of small ones.

A disk that takes no writes: the lane goes on in memory, 2 MB under an epoch of its own, and tries the disk
every 30 s. Telemetry is then forwarded from there; billing and events refuse, for they cannot keep their promise.
"""

import asyncio
import secrets
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TypeVar

from gateway.buffer.ballast import Ballast
from gateway.buffer.block import Anchor, Block, rows_of
from gateway.buffer.epoch import EPOCH_BITS, epoch_at
from gateway.buffer.fault import Damaged, Full
from gateway.buffer.group import Group
from gateway.buffer.lanefile import LaneFile
from gateway.buffer.points import Points
from gateway.buffer.resend import resend
from gateway.buffer.resume import Past, Remains
from gateway.buffer.salvage import Salvaged
from gateway.buffer.sweep import Bounds, Sweep
from gateway.errors import StorageError
from gateway.model import Json, Lane, Point, Receipt, Record
from gateway.ports import Clock
from gateway.ranges import Ranges

T = TypeVar("T")

HIGH_WATER = 2 * 1024 * 1024
"""Uncommitted bytes at which telemetry producers wait."""
RING = 2 * 1024 * 1024
"""Bytes in memory while the disk takes none."""
REOPEN_EVERY = 30.0
_SETTLE_WITHIN = 1.0
_RETRY_AFTER = 2.0
_SWEEP_EVERY = 30.0
_CHECKED_AT_ONCE = 256 * 1024


class LaneBuffer:
    """Telemetry (`commit_every` > 0) is committed by the clock; billing and events at once."""

    def __init__(
        self,
        lane: Lane,
        folder: Path,
        clock: Clock,
        *,
        commit_every: float,
        bounds: Bounds,
        grow: int = 256 * 1024,
        machine: str = "",
        ballast: Ballast,
    ) -> None:
        self.lane = lane
        self.error: str | None = None
        """Why the last commit failed, or None."""
        self.alive: Callable[[float], None] = lambda _within: None
        self.quarantined: Path | None = None
        self.salvaged = Salvaged()
        self.is_volatile = False
        """Whether the disk takes no writes, so that records are in memory only."""
        self.damaged = 0
        """Blocks that the check of the whole file has found bad; they go out as skipped."""
        self._clock, self._bounds, self._ballast = clock, bounds, ballast
        self._commit_every = commit_every
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"buffer-{lane}")
        make = partial(LaneFile, grow=grow, machine=machine)
        self._disk = partial(
            make, folder / f"{lane}.sqlite", max_bytes=bounds.max_bytes, keep_settled=bounds.keep_after_ack > 0
        )
        self._memory = partial(make, None, max_bytes=RING)
        self._durable_head: int | None = None
        self._stumbled: StorageError | None = None
        self._group = Group()
        self._promises: list[asyncio.Future[None]] = []
        self._points = Points()
        self._due: float | None = None
        self._wake = asyncio.Event()
        self._committed = asyncio.Event()
        self._uplinks: Mapping[str, str] | None = None
        self._settled: dict[str, Ranges] = {}
        self._sent = Ranges()
        self._checked: int | None = 0
        self._sweep_at = self._reopen_at = 0.0
        self.head = 1
        """The position that the next record will get."""
        self.state: dict[str, Json] = {}

    async def open(self) -> None:
        """Open or create the file; where the disk refuses, the lane starts in memory. A damaged file is salvaged."""
        try:
            file = await self._in_thread(self._open_disk)
        except StorageError as failure:
            # The file's epochs are not known: one far above them, so that memory can move there later.
            self.head = (2**20 + secrets.randbelow(2**20)) << EPOCH_BITS
            await self._go_volatile(failure)
        else:
            self._take(file)

    async def enrol(self, uplinks: Mapping[str, str]) -> None:
        """Say which uplinks take this lane, and from where ('oldest' | 'now') those that are new start."""
        self._uplinks = dict(uplinks)
        try:
            await self._in_thread(partial(self._file.uplinks, uplinks))
        except StorageError as failure:
            await self._renew(failure)
        else:
            self._take(self._file)

    def know(self, points: Sequence[Point]) -> None:
        """Register the points whose readings may come; a changed meaning gets a number of its own."""
        self._points.know(points)

    async def append(self, records: Sequence[Record], state: Mapping[str, Json] | None = None) -> None:
        """Take the records; returns when the lane's promise holds. StorageError when it cannot be kept."""
        loop = asyncio.get_running_loop()
        if self._commit_every and self._group.size >= HIGH_WATER:
            await self.flush()
        if self._group.anchor is None:
            self._group.anchor = Anchor.now(self._clock)
        self._group.rows += rows_of(records, self._points, self._group.points, self._group.anchor.boot)
        self._group.state.update(state or {})
        if self._commit_every:
            self._schedule(loop.time() + (self._commit_every if self._group.size < HIGH_WATER // 2 else 0))
            return
        await self.flush()

    def settle(self, uplink: str, receipt: Receipt) -> None:
        """Note what an uplink's platform has said; it is written with the next commit, within a second.

        A crash before that only sends the same records again, and the receiver knows them.
        """
        self._group.receipts.append((uplink, receipt))
        spans, base = self._settled.get(uplink), self.base(receipt.epoch)
        if spans is not None and base is not None:
            for first, last in receipt.accepted:
                spans.add(base + first, min(base + last, self.head - 1))
            for seq, _, retryable in receipt.rejected:
                if not retryable:
                    spans.add(base + seq, base + seq)
        self._schedule(asyncio.get_running_loop().time() + _SETTLE_WITHIN)

    def settled(self, uplink: str) -> Ranges:
        """The positions that this uplink has settled; KeyError where it does not take this lane."""
        return self._settled[uplink]

    def skipped(self, uplink: str, first: int, last: int) -> list[tuple[int, int, str]]:
        """Positions of first..last that are not to come for this uplink, with their reasons; disjoint, ascending."""
        return self._file.skipped(uplink, first, last)

    @property
    def epoch(self) -> str:
        """The epoch of new records."""
        return self._file.epoch

    def epoch_at(self, position: int) -> tuple[str, int]:
        """(epoch, what its positions have beyond their seqs) of a position."""
        epoch = epoch_at(self._file.epochs, position)
        return epoch.id, epoch.base

    def base(self, epoch: str) -> int | None:
        """What the positions of an epoch have beyond their seqs; None where it is not one of this lane's."""
        return next((known.base for known in self._file.epochs if known.id == epoch), None)

    @property
    def committed(self) -> int:
        """Records of the epoch that grows."""
        return self.head - 1 - self.epoch_at(self.head)[1]

    async def read(self, first: int, last: int, max_bytes: int) -> list[Block]:
        """For sending: what was read once counts as sent, and is never thinned."""
        try:
            blocks = await self._in_thread(partial(self._file.read, first, last, max_bytes))
        except Damaged as failure:
            self._stumbled, self._sweep_at = failure, 0.0
            self._wake.set()
            raise
        for block in blocks:
            self._sent.add(block.first, block.last)
        return blocks

    async def depth(self) -> tuple[int, int, int | None]:
        """(records that wait, bytes on disk, UTC ms of the oldest or None)."""
        return await self._in_thread(self._file.depth)

    async def ask(self, question: Callable[[LaneFile], T]) -> T:
        return await self._in_thread(lambda: question(self._file))

    async def resend(self, uplink: str, epoch: str, first: int, last: int) -> int:
        """Send seqs first..last of an epoch again, as far as they are here: how many. StorageError: no such stream."""
        found = await self.ask(lambda file: resend(file, uplink, epoch, first, last))
        for span in found:
            self._settled[uplink].remove(*span)
        return found.total()

    def entry(self, number: int) -> Sequence[Json] | None:
        """The batch's `p` entry of a point number in a block; None where damage has taken its meaning."""
        return self._points.entry(number)

    async def news(self, seen: int) -> None:
        """Wait until a record with position >= `seen` is committed."""
        while self.head <= seen:
            await self._committed.wait()

    async def run(self) -> None:
        """Commit what gathers and keep within the bounds, until cancelled; `close` commits the rest."""
        loop = asyncio.get_running_loop()
        while True:
            self.alive(_RETRY_AFTER + self._commit_every + 60)
            if loop.time() >= self._sweep_at:
                await self._tend()
            if self._promises or (self._due is not None and self._due <= loop.time()):
                await self._commit()
                continue
            self._wake.clear()
            due = self._sweep_at if self._due is None else min(self._sweep_at, self._due)
            alarm = loop.call_at(due, self._wake.set)
            try:
                await self._wake.wait()
            finally:
                alarm.cancel()

    async def close(self) -> None:
        """Commit what has gathered and close the file."""
        await self._commit()
        await self._in_thread(self._file.close)
        self._thread.shutdown(wait=False)

    async def _commit(self) -> None:
        group, promises = self._group, self._promises
        if not group and not promises:
            self._due = None  # what a refusing disk left to be tried again is gone: nothing is due
            return
        self._group, self._promises, self._due = Group(), [], None
        try:
            head = await self._in_thread(partial(self._write, group, self._clock.boot()))
        except StorageError as failure:
            self.error = str(failure)
            self._group = group.failed(self._group, durable=not self._commit_every)
            self._schedule(asyncio.get_running_loop().time() + _RETRY_AFTER)
            for promise in promises:
                if not promise.done():
                    promise.set_exception(failure)
            if not self.is_volatile and (self._bounds.drops or not isinstance(failure, Full)):
                await self._renew(failure)
            return
        self.head = head
        if not self.is_volatile:
            self.error, self._durable_head = None, head
        group.tell_state(self.state)
        for promise in promises:
            if not promise.done():
                promise.set_result(None)
        self._tell_commit()

    def _write(self, group: Group, boot: int) -> int:
        """Commit; where there is no room give up the reserve, then what may yield, and try once more."""
        if self.is_volatile and not self._commit_every:
            raise StorageError(self.error or "the disk takes no writes")
        try:
            return self._file.commit(group)
        except Full:
            self._ballast.release()
            with suppress(Full):
                self._file.release_reserve()
            with suppress(Full):
                self._sweep.run(self._clock.boot_id, boot, self._sent)
            return self._file.commit(group)

    async def _tend(self) -> None:
        """Sweep, check a slice of what was there at the start, and try the disk again."""
        loop = asyncio.get_running_loop()
        stumbled, self._stumbled = self._stumbled, None
        try:
            if stumbled:
                raise stumbled
            if self.is_volatile and loop.time() >= self._reopen_at:
                await self._return_to_disk()
            job = partial(self._sweep.run, self._clock.boot_id, self._clock.boot(), self._sent)
            has_more = await self._in_thread(job)
            if self._checked is not None:
                self._checked, bad = await self._in_thread(partial(self._file.check, self._checked, _CHECKED_AT_ONCE))
                self.damaged += bad
                has_more = True
            self._sent.forget(min((spans.first_missing(1) for spans in self._settled.values()), default=1))
        except Full:
            has_more = False
        except StorageError as failure:
            self.error, has_more = str(failure), False
            if not self.is_volatile:
                await self._renew(failure)
        if self._file.next > self.head:
            self.head = self._file.next
            if not self.is_volatile:
                self._durable_head = self.head
            self._tell_commit()
        self._sweep_at = loop.time() + (0.1 if has_more else _SWEEP_EVERY)

    async def _renew(self, failure: StorageError) -> None:
        """The file is damaged or the disk fails: never use this connection again. Open anew, else go on in memory."""
        await self._in_thread(self._file.abandon)
        try:
            file = await self._in_thread(partial(self._open_disk, self._past()))
        except StorageError:
            await self._go_volatile(failure)
        else:
            self._take(file)

    async def _go_volatile(self, failure: StorageError) -> None:
        self.error, self.is_volatile = str(failure), True
        self._reopen_at = asyncio.get_running_loop().time() + REOPEN_EVERY
        file = await self._in_thread(partial(self._memory, past=self._past(self.head)))
        await self._in_thread(partial(file.uplinks, dict.fromkeys(self._uplinks or (), "now")))
        self._take(file)

    async def _return_to_disk(self) -> None:
        """Open the file again, with what memory has gathered and not yet delivered."""
        self._reopen_at = asyncio.get_running_loop().time() + REOPEN_EVERY
        try:
            file = await self._in_thread(self._reopen)
        except StorageError as failure:
            self.error = str(failure)
            return
        self.error, self.is_volatile = None, False
        self._take(file)

    def _past(self, head: int | None = None, memory: Remains | None = None) -> Past:
        return Past(self._durable_head if head is None else head, self._points.entries, self.state, memory)

    def _open_disk(self, past: Past | None = None) -> LaneFile:
        try:
            file = self._disk(past=past)
        except Full:
            self._ballast.release()
            file = self._disk(past=past)
        if self._uplinks is not None:
            try:
                file.uplinks(self._uplinks)
            except StorageError:
                file.abandon()
                raise
        return file

    def _reopen(self) -> LaneFile:
        file = self._open_disk(self._past(memory=self._file.remains()))
        self._file.close()
        return file

    def _take(self, file: LaneFile) -> None:
        self._file = file
        bounds = self._bounds if not self.is_volatile else Bounds(RING, drops=True)
        self._sweep = Sweep(file, bounds, self.entry, self._ballast)
        self.quarantined = file.quarantined or self.quarantined
        self.salvaged = file.salvaged if file.quarantined else self.salvaged
        self._checked = 0 if file.path else None
        self.state = dict(file.state)
        if file.path:
            self._durable_head = file.next
        self.head = file.next
        self._points.adopt(file.points)
        self._settled = {uplink: Ranges(spans) for uplink, spans in self._file.settled.items()}

    def _schedule(self, due: float) -> None:
        if self._due is None or due < self._due:
            self._due = due
            self._wake.set()

    def _tell_commit(self) -> None:
        self._committed.set()
        self._committed = asyncio.Event()

    async def flush(self) -> None:
        """Commit what has gathered now. StorageError when the disk refuses."""
        promise = asyncio.get_running_loop().create_future()
        self._promises.append(promise)
        self._wake.set()
        await promise

    async def _in_thread(self, job: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, job)
