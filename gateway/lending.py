"""Wires that a technician's tool may borrow from the running gateway: one owner at a time, and always given back."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from gateway.errors import CommandError
from gateway.model import Json
from gateway.ports import Driver, Emit

LET_GO_WITHIN = 5.0
"""Seconds for which a driver may finish what is under way; then it is cancelled."""
QUIETLY = 10.0
"""Seconds for which a wire may be away without its devices being called down."""
_ALIVE = 30.0


@runtime_checkable
class Lendable(Protocol):
    """A driver whose wire can be borrowed."""

    def let_go(self) -> None:
        """Finish what is on the wire, leave it clean, and return from `run`; a later `run` takes it up again."""


def not_a_line(link: str) -> str:
    """Of a driver that is not Lendable."""
    return f"{link} is no line that can be borrowed. Its values: lampione status --json, or the page."


class Wire:
    """A link's wire: its driver has it, but for the time that it is lent."""

    def __init__(self, link: str, settings: Any, driver: Driver, alive: Callable[[float], None]) -> None:
        self.settings = settings
        self._link, self._driver, self._alive = link, driver, alive
        self._home = asyncio.Event()
        self._home.set()
        self._free = asyncio.Event()
        self._free.set()
        self._limit = asyncio.timeout(None)
        self._borrower = ""
        self._told_to_go = False

    async def run(self, emit: Emit, away: Callable[[str], Awaitable[None]]) -> None:
        """The driver's `run`, whenever the wire is here; `away` is told where it stays away for long."""
        while True:
            await self._until_home(away)
            self._told_to_go = False
            self._free.clear()
            try:
                async with asyncio.timeout(None) as self._limit:
                    await self._driver.run(emit)
            except TimeoutError:
                if not self._limit.expired():
                    raise
            finally:
                self._free.set()
            if not self._told_to_go:
                return

    @asynccontextmanager
    async def lent(self, to: str) -> AsyncIterator[None]:
        """Nobody uses the wire while the block runs. CommandError: it cannot be had."""
        if not isinstance(self._driver, Lendable):
            raise CommandError("not_lendable", not_a_line(self._link))
        if not self._home.is_set():
            raise CommandError("busy", f"{self._link} is in use by {self._borrower}. Wait until it is done.")
        self._borrower = to
        self._home.clear()
        try:
            if not self._free.is_set():
                self._told_to_go = True
                self._driver.let_go()
                self._limit.reschedule(asyncio.get_running_loop().time() + LET_GO_WITHIN)
                await self._free.wait()
            yield
        finally:
            self._home.set()

    async def _until_home(self, away: Callable[[str], Awaitable[None]]) -> None:
        within = QUIETLY
        while not self._home.is_set():
            self._alive(within + _ALIVE)
            with suppress(TimeoutError):
                async with asyncio.timeout(within):
                    await self._home.wait()
                    return
            if within == QUIETLY:
                await away(f"{self._link} is lent to {self._borrower}.")
            within = _ALIVE


class Lending:
    """All wires of a gateway, by link: what the control socket's `lend` asks."""

    def __init__(self, wires: Mapping[str, Wire]) -> None:
        self._wires = wires

    @asynccontextmanager
    async def lend(self, args: Mapping[str, Json]) -> AsyncIterator[Json]:
        """`wire`: a link's name, or where it ends (a device, tcp://host:port, host:port); `to`: who asks. Held: the
        link and its settings, or no link where none uses that wire.
        """
        wanted, to = str(args.get("wire")), str(args.get("to", "a tool"))
        link = wanted if wanted in self._wires else self._using(wanted)
        if link is None:
            yield {"link": None}
            return
        wire = self._wires[link]
        async with wire.lent(to):
            yield {"link": link, "settings": wire.settings.model_dump(mode="json", exclude_unset=True)}

    def _using(self, port: str) -> str | None:
        same = [link for link, wire in self._wires.items() if _end(wire.settings) == _resolved(port)]
        return same[0] if same else None


def _end(settings: Any) -> str:
    """Where a link's wire ends: a device, a serial server, or host:port."""
    host, port = getattr(settings, "host", None), getattr(settings, "port", "")
    return f"{host}:{port}" if host else _resolved(str(port))


def _resolved(port: str) -> str:
    """A device has several names: /dev/serial/by-id/… leads to /dev/ttyUSB0."""
    return str(Path(port).resolve()) if port.startswith("/") else port
