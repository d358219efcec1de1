"""Between what arrives and the disk: whatever has come meanwhile becomes one transaction, then its receipts go out."""

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import structlog

from gateway.errors import StorageError
from gateway.model import Receipt
from gateway.ports import Clock
from gateway.receiver.store import Arrival, Counts, Store

MOST = 500
"""Batches in one transaction."""

T = TypeVar("T")
log = structlog.get_logger()


class Inbox:
    """The only way to the store, whose work is done in a thread of its own."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self.clock = clock
        self._path = path
        self._store: Store | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store")
        self._waiting: list[tuple[Arrival, asyncio.Future[Receipt]]] = []
        self._news = asyncio.Event()

    @property
    def counts(self) -> Counts:
        return self._store.counts if self._store else Counts()

    def put(self, arrival: Arrival) -> "asyncio.Future[Receipt]":
        """The receipt to be: done once the batch is on the disk, StorageError where it could not be."""
        future: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
        self._waiting.append((arrival, future))
        self._news.set()
        return future

    async def ask(self, work: Callable[[Store], T]) -> T:
        """Have `work` done on the store. StorageError where the disk refuses."""
        assert self._store, "the inbox is not open"
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work, self._store)
        except sqlite3.Error as error:
            raise StorageError(f"The receiver's database {self._path} fails: {error}.") from None

    async def open(self) -> None:
        """StorageError where the database cannot be opened."""
        try:
            self._store = await asyncio.get_running_loop().run_in_executor(self._thread, Store, self._path)
        except sqlite3.Error as error:
            raise StorageError(f"{self._path} cannot be opened: {error}. Choose another file.") from None

    def close(self) -> None:
        """Wait for the transaction under way, then close the database."""
        self._thread.shutdown(wait=True)
        if self._store:
            self._store.close()

    async def run(self) -> None:
        """Commit what arrives, until cancelled."""
        while True:
            await self._news.wait()
            taken, self._waiting = self._waiting[:MOST], self._waiting[MOST:]
            if not self._waiting:
                self._news.clear()
            arrivals = [arrival for arrival, _ in taken]
            now = self.clock.wall()
            try:
                receipts = await self.ask(lambda store: store.commit(arrivals, now))  # noqa: B023 - awaited here
            except StorageError as error:
                log.error("batches_not_stored", count=len(arrivals), why=str(error))
                for _, future in taken:
                    if not future.done():
                        future.set_exception(error)
                continue
            for (_, future), receipt in zip(taken, receipts, strict=True):
                if not future.done():
                    future.set_result(receipt)
