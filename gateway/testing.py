"""What tests are made of: a loop whose time jumps, a clock on that loop, an emit that remembers, a link to drive.

Part of the package so that a driver kept elsewhere is tested with the same pieces as ours.
"""

import asyncio
import heapq
import socket
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import Executor, Future
from typing import Any, TypeVar

from gateway.batch import Batch, decode, encode
from gateway.errors import StorageError, UplinkError
from gateway.model import ClockState, Device, Event, Json, Lane, Reading, Receipt, Record
from gateway.ports import Link, Receive
from gateway.ranges import Ranges

T = TypeVar("T")
_EPOCH = 2_531_779_200_000


class JumpingLoop(asyncio.SelectorEventLoop):
    """An event loop that jumps to its next deadline when nothing is ready: days pass in seconds.

    Time never jumps while a thread job is pending, nor while bytes may be under way, so that no time-out overtakes
    them. Between two connected sockets of this loop they are counted; whatever else is watched (a pty, another
    process, a connection that opens or closes) is given `grace` real seconds.
    """

    def __init__(self, grace: float = 0.005) -> None:
        super().__init__()
        self._ahead = 0.0
        self.began = self.time()
        self._jobs = 0
        self._grace = grace
        self._counted: dict[_Ends, _Counted] = {}
        self._listening: set[int] = set()

    def time(self) -> float:
        return super().time() + self._ahead

    def run_in_executor(self, executor: Executor | None, func: Callable[..., T], *args: Any) -> "asyncio.Future[T]":  # type: ignore[override]
        self._jobs += 1
        future = super().run_in_executor(executor, func, *args)
        future.add_done_callback(self._job_done)
        return future

    def _job_done(self, _: "Future[Any] | asyncio.Future[Any]") -> None:
        self._jobs -= 1

    def _make_socket_transport(self, sock: socket.socket, *args: Any, **extra: Any) -> asyncio.Transport:
        return super()._make_socket_transport(_Counted(sock, self._counted), *args, **extra)  # type: ignore[misc, no-any-return]

    def _start_serving(self, factory: Any, sock: socket.socket, *args: Any, **extra: Any) -> None:
        self._listening.add(sock.fileno())
        super()._start_serving(factory, sock, *args, **extra)  # type: ignore[misc]

    def _stop_serving(self, sock: socket.socket) -> None:
        self._listening.discard(sock.fileno())
        super()._stop_serving(sock)  # type: ignore[misc]

    def _patience(self) -> float:
        """Real seconds that bytes may still need; none where all that could be under way is known to have come."""
        quiet = {wire.fileno() for wire in self._counted.values() if wire.is_quiet()}
        quiet |= {self._ssock.fileno(), *self._listening}  # type: ignore[attr-defined]
        for watched in self._selector.get_map():  # type: ignore[attr-defined]
            if watched not in quiet and not self._is_quiet(watched):
                return self._grace
        return 0.0

    def _is_quiet(self, watched: int) -> bool:  # noqa: ARG002 - who counts more than sockets knows
        return False

    def _run_once(self) -> None:
        if not self._ready and self._scheduled and not self._jobs:  # type: ignore[attr-defined]
            while self._scheduled and self._scheduled[0]._cancelled:  # type: ignore[attr-defined]
                self._timer_cancelled_count -= 1  # type: ignore[attr-defined]
                heapq.heappop(self._scheduled)._scheduled = False  # type: ignore[attr-defined]
            if self._scheduled:  # type: ignore[attr-defined]
                wait = self._scheduled[0]._when - self.time()  # type: ignore[attr-defined]
                if wait > 0:
                    events = self._selector.select(min(self._patience(), wait))  # type: ignore[attr-defined]
                    if events:
                        self._process_events(events)  # type: ignore[attr-defined]
                    elif not self._ready:  # type: ignore[attr-defined]
                        self._ahead += max(0.0, self._scheduled[0]._when - self.time())  # type: ignore[attr-defined]
        super()._run_once()  # type: ignore[misc]


_Ends = tuple[object, object]


class _Counted(socket.socket):
    """A connected socket that knows its other end, where that is on this loop, and whether it has all been read."""

    def __init__(self, sock: socket.socket, all_of_them: "dict[_Ends, _Counted]") -> None:
        super().__init__(sock.family, sock.type, sock.proto, fileno=sock.detach())
        self.settimeout(0)
        self.sent = self.received = 0
        self._all = all_of_them
        try:
            self._ends: _Ends = (self.getsockname(), self.getpeername())
        except OSError:
            self._ends = (self.fileno(), None)  # it is gone already
        self._all[self._ends] = self

    def is_quiet(self) -> bool:
        other = self._all.get(self._ends[::-1])
        return other is not None and other.sent == self.received

    def send(self, *args: Any) -> int:
        count = super().send(*args)
        self.sent += count
        return count

    def recv(self, *args: Any) -> bytes:
        received = super().recv(*args)
        self.received += len(received)
        return received

    def recv_into(self, *args: Any) -> int:
        count = super().recv_into(*args)
        self.received += count
        return count

    def close(self) -> None:
        self._all.pop(self._ends, None)
        super().close()


class LoopClock:
    """A `Clock` that follows the running loop's time, however it jumps. Starts at 2026-11-22 00:00 UTC."""

    def __init__(self, state: ClockState = ClockState.SYNCED, start: int = 1_795_305_600_000) -> None:
        self.boot_id = "b007b007"
        self.start = start
        self.quality = state
        self._origin: float | None = None

    def boot(self) -> int:
        now = asyncio.get_running_loop().time()
        if self._origin is None:
            self._origin = now
        return 60_000 + round((now - self._origin) * 1000)

    def wall(self) -> int:
        return self.start + self.boot()

    def state(self) -> ClockState:
        return self.quality

    def since(self) -> int:
        return 0

    def error(self) -> int | None:
        return 0 if self.quality is ClockState.SYNCED else None


class LoopMachine:
    """A `clock.Machine` on the running loop, for `SystemClock`: one boot of it, from when it is made.

    UTC is truly `true()`; its own wall clock is `ahead` milliseconds before that, and its boot clock runs `drift` ppm
    fast, until timesyncd sets it: `synchronise()`. The jumping loop begins on Friday, 25 March 2050, 00:00 UTC:
    two days before clocks in Europe are put forward.
    """

    def __init__(self, boot_id: str = "b007b007", *, ahead: int = 0, drift: float = 0.0) -> None:
        self.boot_id = boot_id
        self._begun = _elapsed()
        self._ahead, self._drift = ahead, drift
        self._touched: int | None = None

    @staticmethod
    def true() -> int:
        """UTC, milliseconds."""
        return _EPOCH + round(_elapsed() * 1000)

    def boot(self) -> int:
        return 60_000 + round((_elapsed() - self._begun) * 1000 * (1 + self._drift / 1e6))

    def true_at(self, boot: int) -> int:
        """UTC at a moment of its boot clock."""
        return _EPOCH + round(self._begun * 1000 + (boot - 60_000) / (1 + self._drift / 1e6))

    def wall(self) -> int:
        return _EPOCH + round(self._begun * 1000) - 60_000 + self.boot() + self._ahead

    def touched(self) -> int | None:
        return self._touched

    def bound(self) -> int | None:
        return None

    def synchronise(self) -> None:
        self.step(self.true() - self.wall())
        self._touched = self.wall()

    def step(self, by: int) -> None:
        """Somebody sets the wall clock."""
        self._ahead += by


def _elapsed() -> float:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, JumpingLoop)
    return loop.time() - loop.began


class Recorder:
    """An `Emit` that remembers: `records` in order, `calls` as (lane, records, state), `state` as committed.

    `hold()` makes it wait, like a disk that does not answer, until `release()`; `fail` makes it raise.
    """

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.calls: list[tuple[Lane, tuple[Record, ...], dict[str, Json]]] = []
        self.committed: dict[str, Json] = {}
        self.fail: StorageError | None = None
        self._open = asyncio.Event()
        self._open.set()
        self._news = asyncio.Condition()

    async def __call__(
        self, records: Sequence[Record], *, lane: Lane = Lane.TELEMETRY, state: Mapping[str, Json] | None = None
    ) -> None:
        await self._open.wait()
        if self.fail:
            raise self.fail
        self.records.extend(records)
        self.calls.append((lane, tuple(records), dict(state or {})))
        for key, value in (state or {}).items():
            if value is None:
                self.committed.pop(key, None)
            else:
                self.committed[key] = value
        async with self._news:
            self._news.notify_all()

    def hold(self) -> None:
        self._open.clear()

    def release(self) -> None:
        self._open.set()

    def get(self, key: str) -> Json:
        return self.committed.get(key)

    def keys(self) -> Sequence[str]:
        return list(self.committed)

    @property
    def readings(self) -> list[Reading]:
        return [record for record in self.records if isinstance(record, Reading)]

    @property
    def events(self) -> list[Event]:
        return [record for record in self.records if isinstance(record, Event)]

    async def until(self, holds: Callable[["Recorder"], bool], within: float = 10.0) -> None:
        """Wait until `holds(self)`; TimeoutError after `within` seconds."""
        async with asyncio.timeout(within), self._news:
            await self._news.wait_for(lambda: holds(self))


def make_link(
    settings: Any, devices: Sequence[Device], recorder: Recorder, *, secrets: Mapping[str, str] | None = None
) -> Link:
    """A link for a driver under test. What the driver says of its address is in `link.bound.__self__`."""
    bound: list[str] = []
    return Link(
        name="line",
        settings=settings,
        devices=devices,
        clock=LoopClock(),
        state=recorder,
        alive=lambda _within: None,
        bound=bound.append,
        secret=lambda place: (secrets or {})[place],
    )


def jumped(main: Coroutine[Any, Any, T], grace: float = 0.0) -> T:
    """Run `main` on a jumping loop of its own; with sockets in it, `grace` is the real time they are given."""
    with asyncio.Runner(loop_factory=lambda: JumpingLoop(grace)) as runner:
        return runner.run(main)


class MemoryPlatform:
    """An `Uplink` and the platform behind it: stores by identity, answers after that, can be cut off.

    `arrivals` keeps every batch in the order of its arrival, `records` what is stored by (lane, epoch, seq),
    `twice` what came again. Batches go through the wire's own encoding.
    """

    def __init__(self, delay: float = 0.02, window: int = 8) -> None:
        self.window = window
        self.arrivals: list[Batch] = []
        self.records: dict[tuple[Lane, str, int], Any] = {}
        self.skipped: dict[tuple[Lane, str], Ranges] = {}
        self.twice = 0
        self.answers = True
        """False: it stores, but its answers are lost on the way."""
        self.refuse: Callable[[int], str | None] = lambda _seq: None
        """seq -> reason for a record that the platform will never take."""
        self.look: Callable[[Batch], None] = lambda _batch: None
        """Raises the UplinkError that a batch is refused with."""
        self._up = asyncio.Event()
        self._up.set()
        self._cut = asyncio.Event()
        self.delay = delay
        self._news = asyncio.Event()

    def cut(self) -> None:
        """The connection is gone until `mend`: what is under way is neither stored nor answered."""
        self._up.clear()
        self._cut.set()

    def mend(self) -> None:
        self._cut.clear()
        self._up.set()

    async def run(self, receive: Receive) -> None:  # noqa: ARG002 - it has no commands
        await asyncio.Event().wait()

    async def ready(self) -> None:
        await self._up.wait()

    async def send(self, batch: Batch) -> Receipt:
        batch = decode(encode(batch))
        try:
            async with asyncio.timeout(self.delay):
                await self._cut.wait()
            raise UplinkError("The platform is cut off.")
        except TimeoutError:
            pass
        self.look(batch)
        accepted = self._store(batch)
        if not self.answers:
            raise UplinkError("The platform's answer was lost.")
        return Receipt(batch.epoch, tuple(accepted), tuple(self._refused(batch)))

    def _store(self, batch: Batch) -> Ranges:
        self.arrivals.append(batch)
        accepted = Ranges([batch.span])
        refused = {seq for seq, _, _ in self._refused(batch)}
        for row in [*batch.readings, *batch.events]:
            key = (batch.lane, batch.epoch, row[0])
            if row[0] in refused:
                continue
            self.twice += key in self.records
            self.records[key] = row
        for first, last, _ in batch.skip:
            self.skipped.setdefault((batch.lane, batch.epoch), Ranges()).add(first, last)
        self._news.set()
        self._news = asyncio.Event()
        if not refused:
            return accepted
        return Ranges([(seq, seq) for seq in range(batch.span[0], batch.span[1] + 1) if seq not in refused])

    def _refused(self, batch: Batch) -> list[tuple[int, str, bool]]:
        rows = [row[0] for row in [*batch.readings, *batch.events]]
        return [(seq, why, False) for seq in sorted(rows) if (why := self.refuse(seq)) is not None]

    async def until(self, holds: Callable[["MemoryPlatform"], bool], within: float = 30.0) -> None:
        """Wait until `holds(self)`; TimeoutError after `within` seconds of the loop."""
        async with asyncio.timeout(within):
            while not holds(self):
                await self._news.wait()
