"""The billing lane as the chargers of one link see it: what is kept, and whether another session can be."""

import asyncio
import contextlib
from collections.abc import Mapping, Sequence

from gateway.errors import StorageError
from gateway.model import Event, Json, Lane, Record
from gateway.ports import Emit, Link

PROBE = "billing/probe"
PROBE_EVERY = 10.0


class Billing:
    """Once a record could not be kept, no new session is let in until the lane takes records again."""

    def __init__(self, link: Link, emit: Emit) -> None:
        self._link, self._emit = link, emit
        self._probe_at: float | None = None

    async def keep(self, records: Sequence[Record], state: Mapping[str, Json]) -> None:
        """Returns when they are on disk. StorageError: they are not, and whoever told them must not be answered."""
        try:
            await self._emit(records, lane=Lane.BILLING, state=state)
        except StorageError as error:
            if self._probe_at is None:
                say = f"Sessions cannot be kept, so none is let in: {error}"
                await self._tell("sessions_refused", say)
            self._probe_at = asyncio.get_running_loop().time() + PROBE_EVERY
            raise
        if self._probe_at is not None:
            self._probe_at = None
            await self._tell("sessions_allowed", "Sessions can be kept again, and are let in.")

    async def takes_more(self) -> bool:
        """Whether a new session may be let in."""
        if self._probe_at is None:
            return True
        if asyncio.get_running_loop().time() < self._probe_at:
            return False
        with contextlib.suppress(StorageError):
            await self.keep([], {PROBE: self._link.clock.boot()})
        return self._probe_at is None

    async def _tell(self, kind: str, say: str) -> None:
        with contextlib.suppress(StorageError):  # the same disk
            await self._emit([Event(kind, self._link.name, self._link.clock.boot(), say)], lane=Lane.EVENT)
