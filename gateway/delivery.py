"""From the buffer to one platform: what is sent next, how much is under way, and what a receipt settles.

Billing before events before live telemetry before the backlog. When a connection opens, telemetry that
waits becomes the backlog, oldest first and marked so; what comes from then on is live and goes first.
Only a receipt settles anything: whatever it does not mention is sent again.

A batch that the platform refuses is halved until the one bad record stands alone. It is a dead letter when the
platform takes the same span without it, and only then: a platform that refuses everything costs no record.
"""

import asyncio
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from gateway.batch import BACKLOG, LIVE, Batch, encode
from gateway.buffer import Block, Buffer, LaneBuffer
from gateway.clock import Fix
from gateway.compose import Selection, compose, halves, seqs, without_records
from gateway.errors import TOO_LARGE, UplinkError
from gateway.model import Lane, Receipt
from gateway.ports import Uplink
from gateway.ranges import Ranges

MAX_BYTES = 40 * 1024
"""JSON of the blocks of one batch: some 64 KB as a batch, whose rows carry their seq."""
MAX_UNDER_WAY = 8 * MAX_BYTES
"""The same of all batches under way: a wide window is for small batches, memory is not."""
BACKLOG_SHARE = 0.75
"""Of the window and of these bytes, what the backlog may take: live telemetry never waits for a place."""
BACKLOG_RATE = 5000.0
"""Records a second of the backlog: a platform has other gateways that come back too."""
SHARE = 10
"""One batch of so many is telemetry's, however much billing and events there are."""
ENOUGH = 50
LINGER = 5.0
"""Live telemetry of fewer than ENOUGH records waits for company this long, unless the line was quiet."""
_REFUSED_PAUSE = 30.0
_LEAST = 512


@dataclass(slots=True)
class _Stream:
    """One lane on its way to one platform."""

    lane: LaneBuffer
    live_from: int
    under_way: dict[int, int] = field(default_factory=dict)
    """first -> last of each batch that is sent and not yet answered."""

    def taken(self, uplink: str) -> Ranges:
        spans = Ranges(self.lane.settled(uplink))
        for first, last in self.under_way.items():
            spans.add(first, last)
        return spans


@dataclass(frozen=True, slots=True)
class _Piece:
    """What to send next: the unsettled positions first..last of one lane."""

    stream: _Stream
    first: int
    last: int
    mode: str


@dataclass(slots=True)
class _Load:
    """What is under way."""

    batches: int = 0
    size: int = 0

    def add(self, batches: int, size: int) -> None:
        self.batches += batches
        self.size += size

    def fills(self, window: int, share: float = 1.0) -> bool:
        return self.batches >= max(1, int(window * share)) or self.size >= MAX_UNDER_WAY * share


class Delivery:
    """Drains the buffer into one uplink. `only` are globs over device ids; empty takes all."""

    def __init__(
        self,
        name: str,
        uplink: Uplink,
        buffer: Buffer,
        *,
        gateway: str,
        lanes: Sequence[Lane] = tuple(Lane),
        only: Sequence[str] = (),
        inventory: Callable[[], int] = lambda: 0,
        linger: float = LINGER,
        fixes: Mapping[str, Fix] = MappingProxyType({}),
        acknowledged: Callable[[], None] = lambda: None,
    ) -> None:
        self.name = name
        self._acknowledged = acknowledged
        self._uplink = uplink
        self._gateway, self._inventory, self._linger = gateway, inventory, linger
        self._fixes = fixes
        self._selection = Selection(tuple(only))
        self._streams = [_Stream(buffer.lanes[lane], 1) for lane in Lane if lane in lanes]
        self._sent_live = -1e9
        self._urgent = 0
        self._under_way, self._backlog = _Load(), _Load()
        self._backlog_due = -1e9
        self._too_large = sys.maxsize
        """Bytes of the smallest batch that the platform or the way there did not take for its size."""
        self._freed = asyncio.Event()

    async def run(self) -> None:
        """Until cancelled, or until a send fails: UplinkError; what was under way is then sent again."""
        await self._uplink.ready()
        self._urgent = 0
        self._under_way, self._backlog = _Load(), _Load()
        for stream in self._streams:
            stream.under_way.clear()
            stream.live_from = stream.lane.head
        failed: BaseException | None = None
        try:
            async with asyncio.TaskGroup() as sends:
                await self._pump(sends)
        except* UplinkError as group:
            # Raised in here, it would come out inside a group again.
            failed = group.exceptions[0]
        if failed is not None:
            raise failed

    async def drained(self) -> None:
        """Wait until everything that is committed now is settled; nothing lingers from now on."""
        self._linger = 0.0
        self._nudge()
        for stream in self._streams:
            goal = stream.lane.head - 1
            while goal >= 1 and not stream.lane.settled(self.name).covers(1, goal):
                await self._freed.wait()

    async def _pump(self, sends: asyncio.TaskGroup) -> None:
        loop = asyncio.get_running_loop()
        while True:
            if self._under_way.fills(self._uplink.window):
                await self._freed.wait()
                continue
            waits: list[float] = []
            for piece in self._pieces():
                wait = self._should_wait(piece, loop.time())
                if wait is None:
                    await self._launch(piece, sends)
                    break
                waits.append(wait)
            else:
                await self._news(min(waits, default=None))

    def _pieces(self) -> list[_Piece]:
        """What may be sent, most urgent first."""
        live: list[_Piece] = []
        late: list[_Piece] = []
        for stream in self._streams:
            head, taken = stream.lane.head, stream.taken(self.name)
            is_split = stream.lane.lane is Lane.TELEMETRY
            if is_split:
                first = taken.first_missing(stream.live_from)
                if first < head:
                    live.append(self._piece(stream, taken, first, head - 1, LIVE))
                head = min(head, stream.live_from)
            first = taken.first_missing(1)
            if first < head:
                mode = BACKLOG if is_split else LIVE
                (late if is_split else live).append(self._piece(stream, taken, first, head - 1, mode))
        pieces = live + late
        if self._urgent >= SHARE - 1:
            pieces.sort(key=lambda piece: piece.stream.lane.lane is not Lane.TELEMETRY)
        return pieces

    def _piece(self, stream: _Stream, taken: Ranges, first: int, last: int, mode: str) -> _Piece:
        return _Piece(stream, first, taken.missing(first, last)[0][1], mode)

    def _should_wait(self, piece: _Piece, now: float) -> float | None:
        """Loop time until which a small live batch waits for company; None sends it now."""
        if piece.mode is BACKLOG:
            is_crowded = self._backlog.fills(self._uplink.window, BACKLOG_SHARE)
            return math.inf if is_crowded else self._backlog_due if self._backlog_due > now else None
        if piece.stream.lane.lane is Lane.TELEMETRY and piece.last - piece.first + 1 < ENOUGH:
            due = self._sent_live + self._linger
            return due if due > now else None
        return None

    async def _news(self, until: float | None) -> None:
        """Wait for a commit, a freed place in the window, or `until`."""
        news = [self._freed.wait(), *(stream.lane.news(stream.lane.head) for stream in self._streams)]
        tasks = [asyncio.ensure_future(one) for one in news]
        timeout = None if until is None or until == math.inf else max(0.0, until - asyncio.get_running_loop().time())
        try:
            await asyncio.wait(tasks, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()

    async def _launch(self, piece: _Piece, sends: asyncio.TaskGroup) -> None:
        lane = piece.stream.lane
        room = max(_LEAST, min(MAX_BYTES, self._too_large // 2))
        _, base = lane.epoch_at(piece.first)
        gone = Ranges((a, b) for a, b, _ in lane.skipped(self.name, piece.first, piece.last))
        start = gone.first_missing(piece.first)
        blocks = await lane.read(start, piece.last, room) if start <= piece.last else []
        batch = compose(
            blocks,
            (piece.first, min(piece.last, _reach(blocks, start, room))),
            lane=lane,
            uplink=self.name,
            selection=self._selection,
            gateway=self._gateway,
            inventory=self._inventory(),
            mode=piece.mode,
            low=min(lane.settled(self.name).first_missing(base + 1), piece.first),
            fixes=self._fixes,
        )
        first, last = base + batch.span[0], base + batch.span[1]
        piece.stream.under_way[first] = last
        size = min(room, sum(block.size for block in blocks))
        for load in self._loads(piece):
            load.add(1, size)
        now = asyncio.get_running_loop().time()
        self._urgent = 0 if lane.lane is Lane.TELEMETRY else self._urgent + 1
        if piece.mode is BACKLOG:
            self._backlog_due = max(now, self._backlog_due) + (last - first + 1) / BACKLOG_RATE
        elif lane.lane is Lane.TELEMETRY:
            self._sent_live = now
        sends.create_task(self._send(piece, batch, first, size), name=f"{self.name}-{lane.lane}-{first}")

    async def _send(self, piece: _Piece, batch: Batch, first: int, size: int) -> None:
        try:
            await self._convey(piece.stream.lane, batch)
        finally:
            piece.stream.under_way.pop(first, None)
            for load in self._loads(piece):
                load.add(-1, -size)
            self._nudge()

    def _loads(self, piece: _Piece) -> tuple[_Load, ...]:
        return (self._under_way, self._backlog) if piece.mode is BACKLOG else (self._under_way,)

    async def _convey(self, lane: LaneBuffer, batch: Batch) -> None:
        """Send a batch; halve it while it is refused for its own sake, down to the record that is at fault."""
        if self._is_too_large(batch):
            await self._convey_halves(lane, batch)
            return
        try:
            receipt = await self._uplink.send(batch)
        except UplinkError as error:
            records = seqs(batch)
            if not error.code or not records:
                raise
            if len(records) > 1:
                if error.code == TOO_LARGE:
                    self._too_large = min(self._too_large, len(encode(batch)))
                await self._convey_halves(lane, batch)
                return
            receipt = await self._uplink.send(without_records(batch))
            receipt = replace(receipt, rejected=((records[0], str(error), False),))
        self._settle(lane, batch, receipt)
        if any(retryable for _, _, retryable in receipt.rejected):
            await asyncio.sleep(_REFUSED_PAUSE)

    async def _convey_halves(self, lane: LaneBuffer, batch: Batch) -> None:
        for half in halves(batch):
            await self._convey(lane, half)

    def _is_too_large(self, batch: Batch) -> bool:
        learnt = self._too_large < sys.maxsize
        return learnt and len(encode(batch)) >= self._too_large and len(seqs(batch)) > 1

    def _nudge(self) -> None:
        self._freed.set()
        self._freed = asyncio.Event()

    def _settle(self, lane: LaneBuffer, batch: Batch, receipt: Receipt) -> None:
        """Take from a receipt what lies within its batch: a platform cannot settle more than it was sent."""
        first, last = batch.span
        accepted = tuple((max(a, first), min(b, last)) for a, b in receipt.accepted if max(a, first) <= min(b, last))
        rejected = tuple(row for row in receipt.rejected if first <= row[0] <= last)
        if receipt.epoch != batch.epoch or not (accepted or rejected):
            raise UplinkError(f"{self.name} answered a batch without settling any of it. It is sent again.")
        lane.settle(self.name, Receipt(receipt.epoch, accepted, rejected))
        self._acknowledged()


def _reach(blocks: Sequence[Block], first: int, room: int) -> int:
    """The seq up to which these blocks make a batch of `room` bytes: a block alone can be larger."""
    for block in blocks:
        reach = max(block.first, first) + max(1, room * block.count // max(1, block.size)) - 1
        if reach < block.last:
            return reach
        room = max(0, room - block.size)
    return sys.maxsize
