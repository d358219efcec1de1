"""Pieces for tests of the page: a device, and the page on an ephemeral port."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from gateway.model import Device, Point
from gateway.status import Status
from gateway.web.server import Page

TOKEN = "a-token-of-the-tests-0123456789"


def device(name: str, **units: str) -> Device:
    return Device(name, {slug: Point(f"{name}/{slug}", "power_active", unit) for slug, unit in units.items()})


@asynccontextmanager
async def running(status: Status, listen: str = "127.0.0.1:0", **options: Any) -> AsyncIterator[str]:
    """The page, running; gives its host:port."""
    bound: asyncio.Queue[str] = asyncio.Queue()
    page = Page(status, options.pop("token", TOKEN), listen, bound=bound.put_nowait, **options)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(page.run())
        async with asyncio.timeout(10):
            address = await bound.get()
        try:
            yield address
        finally:
            task.cancel()
