"""One charger's WebSocket: frames in, answers out, one call of ours in flight, and whether it is still there.

A reader takes frames as fast as the charger's share allows and puts its calls into a bounded queue; a responder
answers them in order; a watch pings who is silent and gives up who stays so, thus the reader needs no time-out of its
own. A charger that floods fills its own queue and its own socket, nobody else's.
"""

import asyncio
import itertools
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Protocol

from aiohttp import WSCloseCode, WSMsgType, web

from drivers.ocpp import rpc
from drivers.ocpp.trace import Frame, Trace

PING_EVERY = 30.0
MISSED_PINGS = 3
SEND_WITHIN = 20.0
ANSWER_WITHIN = 20.0
CLOSE_WITHIN = 3.0
QUEUED = 32
PER_SECOND, BURST = 50.0, 100.0
"""A charger's share: the replay of a night's queue goes at that pace."""


class Peer(Protocol):
    """Who is at this end: the charger's side of the gateway."""

    async def answer(self, call: rpc.Call) -> str | None:
        """The frame that answers a call; None: what it stands for could not be kept, so it must come again."""

    async def malformed(self, why: str) -> None:
        """A frame came that is none."""


_numbers = itertools.count(1)


class RefusedError(Exception):
    """The charger answered our call with a CALLERROR."""

    def __init__(self, code: str, description: str) -> None:
        super().__init__(f"{code}: {description}" if description else code)
        self.code = code


class GoneError(Exception):
    """The connection ended, or the charger did not answer in time."""


class Inbox:
    """Calls that wait for their answer, in order, between one who puts and one who takes. An asyncio.Queue takes 3 KB
    where this takes 0.3, for each charger that is only there.
    """

    def __init__(self) -> None:
        self._calls: list[rpc.Call] = []
        self._news: asyncio.Future[None] | None = None
        self._room: asyncio.Future[None] | None = None
        self._is_over = False

    @property
    def is_full(self) -> bool:
        return len(self._calls) >= QUEUED

    async def put(self, call: rpc.Call) -> None:
        """Waits while it is full. Nothing is taken any more when it is over."""
        while self.is_full and not self._is_over:
            self._room = asyncio.get_running_loop().create_future()
            await self._room
        self._calls.append(call)
        _wake(self._news)

    async def take(self) -> rpc.Call | None:
        """The oldest; None when it is over."""
        while not (self._calls or self._is_over):
            self._news = asyncio.get_running_loop().create_future()
            await self._news
        if self._is_over:
            return None
        _wake(self._room)
        return self._calls.pop(0)

    def end(self) -> None:
        """Nobody takes what is left."""
        self._is_over = True
        _wake(self._news)
        _wake(self._room)


def _wake(waiting: asyncio.Future[None] | None) -> None:
    if waiting and not waiting.done():
        waiting.set_result(None)


class Connection:
    """A WebSocket that is already accepted. `run` until it is gone; `why` then says what ended it.

    `abort` drops it at once: one whose far end takes nothing cannot be closed in order.
    """

    def __init__(self, socket: web.WebSocketResponse, peer: Peer, abort: Callable[[], None]) -> None:
        self._socket, self._peer, self._abort = socket, peer, abort
        self._calls = Inbox()
        # A prefix of its own per connection: a late answer from before a reconnect is not taken for a new one's.
        self._outbound = rpc.Outbound(f"{next(_numbers)}-")
        self._pending: asyncio.Future[rpc.CallResult | rpc.CallError] | None = None
        self._one_call = asyncio.Lock()
        self._loop = asyncio.get_running_loop()
        self._allowance, self._heard = BURST, self._loop.time()
        self._stuck_since: float | None = None
        """Since when an answer is not taken."""
        self.trace = Trace()
        self.why = "has closed its connection"

    @property
    def unsolicited(self) -> int:
        return self._outbound.unsolicited

    async def run(self, beside: Coroutine[Any, Any, None]) -> None:
        """Until it is gone, and `beside` for as long."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._respond())
            others = [group.create_task(beside), group.create_task(self._watch())]
            try:
                await self._read()
            finally:
                if self._pending and not self._pending.done():
                    self._pending.set_exception(GoneError("its connection ended"))
                # What is queued comes again from the charger; what is being answered is finished, not torn.
                self._calls.end()
                for task in others:
                    task.cancel()
        await self.close()

    async def call(self, action: str, payload: Mapping[str, Any]) -> Mapping[str, Any]:
        """The charger's answer. RefusedError: a CALLERROR. GoneError: none within 20 s, or the socket ended."""
        async with self._one_call:
            if self._socket.closed:
                raise GoneError("its connection ended")
            self._pending = asyncio.get_running_loop().create_future()
            try:
                async with asyncio.timeout(ANSWER_WITHIN):
                    await self._send(self._outbound.begin(action, payload))
                    answer = await self._pending
            except TimeoutError:
                raise GoneError(f"it did not answer {action} within {ANSWER_WITHIN:.0f} s") from None
            finally:
                self._outbound.give_up()
                self._pending = None
        if isinstance(answer, rpc.CallError):
            raise RefusedError(answer.code, answer.description)
        return answer.payload

    async def close(self, why: str = "", code: int = WSCloseCode.OK) -> None:
        """End it; `run` returns soon after."""
        self.why = why or self.why
        try:
            async with asyncio.timeout(CLOSE_WITHIN):
                await self._socket.close(code=code)
        except TimeoutError:
            self._abort()

    async def _read(self) -> None:
        while True:
            message = await self._socket.receive()
            before, self._heard = self._heard, self._loop.time()
            if (pause := self._share(self._heard - before)) > 0:
                await asyncio.sleep(pause)
            match message.type:
                case WSMsgType.TEXT | WSMsgType.BINARY:
                    await self._take(message.data)
                case WSMsgType.PING:
                    await self._control(self._socket.pong(message.data))
                case WSMsgType.PONG:
                    pass
                case WSMsgType.ERROR:
                    self.why = f"sent what is no WebSocket frame ({message.data})"
                    return
                case _:
                    return

    async def _watch(self) -> None:
        """Any frame is life; who sends none is pinged, and given up when MISSED_PINGS stay unanswered, or when it does
        not take its answers.
        """
        loop = self._loop
        while (silent := loop.time() - self._heard) < PING_EVERY * (MISSED_PINGS + 1):
            if self._stuck_since is not None and loop.time() - self._stuck_since >= SEND_WITHIN:
                self.why = "takes no answers"
                self._abort()
                return
            if self._calls.is_full:
                self._heard = loop.time()  # it is we who do not listen
            elif silent >= PING_EVERY:
                await self._control(self._socket.ping())
            await asyncio.sleep(PING_EVERY - silent % PING_EVERY)
        await self.close(f"has been silent for {silent:.0f} s")

    async def _take(self, frame: str | bytes) -> None:
        self.trace.note(Frame(self._heard, is_ours=False, content=frame))
        match rpc.parse(frame):
            case rpc.Call() as call:
                await self._calls.put(call)
            case rpc.Malformed(why, answer):
                await self._peer.malformed(why)
                if answer is not None:
                    await self._answer(answer)
            case rpc.CallResult() | rpc.CallError() as answer:
                if self._outbound.settles(answer) and self._pending and not self._pending.done():
                    self._pending.set_result(answer)
            case rpc.CallResultError(code=code, description=description):
                await self._peer.malformed(f"that our answer does not read: {code} {description}"[:200])
            case rpc.Send(action=action):
                await self._peer.malformed(f"{action[:40]} without asking for an answer, which OCPP 1.6 does not have")

    async def _respond(self) -> None:
        try:
            while call := await self._calls.take():
                if self._socket.closed:
                    continue
                frame = await self._peer.answer(call)
                if frame is None:
                    await self.close("was sent away: what it told could not be kept", WSCloseCode.TRY_AGAIN_LATER)
                else:
                    await self._answer(frame)
        finally:
            # aiohttp's writers share one wait for room: when a closing gives up, an answer that waits is cancelled too.
            self._calls.end()

    async def _answer(self, frame: str) -> None:
        """The watch ends a connection that does not take it."""
        is_first = self._stuck_since is None
        if is_first:
            self._stuck_since = self._loop.time()
        try:
            await self._send(frame)
        except GoneError:
            pass
        finally:
            if is_first:
                self._stuck_since = None

    async def _send(self, frame: str) -> None:
        self.trace.note(Frame(self._loop.time(), is_ours=True, content=frame))
        try:
            await self._socket.send_str(frame)
        except ConnectionError:
            raise GoneError("its connection ended") from None

    async def _control(self, sending: Coroutine[Any, Any, None]) -> None:
        try:
            async with asyncio.timeout(SEND_WITHIN):
                await sending
        except (ConnectionError, TimeoutError):
            await self.close()

    def _share(self, later: float) -> float:
        """Seconds until this charger, `later` seconds after its last frame, may be listened to again."""
        self._allowance = min(BURST, self._allowance + later * PER_SECOND) - 1
        return -self._allowance / PER_SECOND
