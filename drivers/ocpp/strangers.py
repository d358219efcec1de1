"""Who calls and is not let in: the quarantine list for the technician, and how much of the gateway they may use.

A stranger costs a handshake. Connections that do not become a charger's in time are ended, and beyond a number of them
the newest is dropped at once, so that nobody on the network can use up the gateway's sockets.
"""

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from gateway.errors import StorageError
from gateway.model import ClockState, Event, Json, Lane
from gateway.ports import Emit, Link

QUARANTINE = "quarantine"
MOST = 50
"""Identities on the list; one more drops the one that has not called for longest."""
SAY_AGAIN_MS = 24 * 3600 * 1000
HANDSHAKE_WITHIN = 15.0
MOST_WAITING = 64
"""Connections that are no charger's yet, beyond one for each charger: after a power cut they all call at once."""


class Quarantine:
    """Chargers that called and are not in the site file: identity, address, first and last call, number of calls."""

    def __init__(self, link: Link, emit: Emit) -> None:
        self._link, self._emit = link, emit
        kept = link.state.get(QUARANTINE)
        self._listed: dict[str, dict[str, Json]] = (
            {name: dict(row) for name, row in kept.items() if isinstance(row, Mapping)}
            if isinstance(kept, Mapping)
            else {}
        )

    def listed(self) -> list[Json]:
        """The latest first."""
        shown = ("address", "protocols", "calls", "last")
        rows: list[Json] = [
            {"identity": name, **{key: row.get(key) for key in shown}} for name, row in self._listed.items()
        ]
        return rows[::-1]

    async def note(self, name: str, address: str, protocols: str) -> None:
        """Say it once a day, and keep it on the list."""
        if not name.isprintable():
            return
        shown, now = name[:48], self._link.clock.wall()
        row = self._listed.get(shown)
        is_new = row is None
        row = row or {"first": now, "calls": 0, "said": 0}
        calls, said = row["calls"], row["said"]
        assert isinstance(calls, int)
        assert isinstance(said, int)
        row |= {"address": address, "protocols": protocols[:60], "last": now, "calls": calls + 1}
        self._listed.pop(shown, None)
        self._listed[shown] = row  # the newest call last
        while len(self._listed) > MOST:
            del self._listed[next(iter(self._listed))]
        is_set = self._link.clock.state() is not ClockState.UNSYNCED
        if not is_new and not (is_set and now - said >= SAY_AGAIN_MS):
            return
        row["said"] = now
        say = (
            f"A charger that calls itself `{shown}` reached us from {address}. If it is yours, add it to the site file."
        )
        more: dict[str, Json] = {"identity": shown, **{key: row[key] for key in ("address", "protocols", "calls")}}
        event = Event("unknown_charger", self._link.name, self._link.clock.boot(), say, more)
        with contextlib.suppress(StorageError):  # the refusal stands without it
            await self._emit([event], lane=Lane.EVENT, state={QUARANTINE: {**self._listed}})


class Door(web.Server):
    """A web server that ends connections which have not become a charger's."""

    def __init__(self, serve: Any, expected: int) -> None:
        super().__init__(serve, access_log=None)
        self._most = expected + MOST_WAITING
        self._chargers: set[object] = set()
        self.dropped = 0

    def __call__(self) -> Any:
        made = super().__call__()
        asyncio.get_running_loop().call_later(HANDSHAKE_WITHIN, self._drop_late, made)
        return made

    def connection_made(self, handler: Any, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        if len(self.connections) - len(self._chargers) > self._most:
            self.dropped += 1
            asyncio.get_running_loop().call_soon(transport.abort)  # aiohttp has not yet begun with it

    def connection_lost(self, handler: Any, exc: BaseException | None = None) -> None:
        self._chargers.discard(handler)
        super().connection_lost(handler, exc)

    def admit(self, request: web.BaseRequest) -> None:
        """This connection has shown that it is a charger's."""
        self._chargers.add(request.protocol)

    def _drop_late(self, handler: Any) -> None:
        if handler not in self._chargers and handler in self.connections:
            self.dropped += 1
            handler.force_close()
