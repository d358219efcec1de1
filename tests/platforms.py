"""What uplink and receiver tests share: a platform handed to an uplink, batches to send, an uplink at work."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from gateway.app import Gateway
from gateway.batch import Batch
from gateway.clock import SystemClock
from gateway.errors import UplinkError
from gateway.inventory import Inventory
from gateway.model import ClockState, Lane
from gateway.ports import Platform
from gateway.site import load
from tests.brokers import GATEWAY, PASSWORDS, TENANT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping
    from pathlib import Path
    from types import ModuleType

    from gateway.ports import Receive, Uplink
    from gateway.site import Credentials

INVENTORY: dict[str, Any] = {
    "v": 1, "gw": GATEWAY, "tenant": TENANT, "version": 7,
    "assets": [{"id": "lp-0042", "devices": [{"id": "lp-0042/pm", "driver": "serial", "link": "air",
                                              "points": [["lp-0042/pm/pm25", "pm25", "ug/m3"]]}]}],
}  # fmt: skip


def platform(uplink: ModuleType, keys: Mapping[str, Any], *, secrets: Mapping[str, str] | None = None) -> Platform:
    """What the site would give to `uplink` with these keys. Secrets as in PASSWORDS unless said."""
    known = {"password": PASSWORDS[GATEWAY], "token": "t0ken"} | dict(secrets or {})
    name = uplink.__name__.rpartition(".")[2]
    settings = uplink.Settings.model_validate({"uplink": name, **keys})
    inventory = Inventory(INVENTORY, {"version": INVENTORY["version"] - 1}, {})
    return Platform(
        "city", settings, GATEWAY, TENANT, inventory, SystemClock(), lambda _: None, lambda place: known[place]
    )


def telemetry(first: int, count: int = 50, *, epoch: str = "9f2c", low: int = 1, mode: str = "live") -> Batch:
    """`count` readings of two points from seq `first` on."""
    return Batch(
        gateway=GATEWAY,
        lane=Lane.TELEMETRY,
        epoch=epoch,
        span=(first, first + count - 1),
        low=low,
        time=SystemClock().wall(),
        clock=ClockState.SYNCED,
        boot="5e1f",
        mode=mode,
        inventory=7,
        points=(("cab-017/feeder/p_l1", "power_active", "W", "L1"), ("lp-0042/pm/pm25", "pm25", "ug/m3")),
        readings=[[seq, seq % 2, seq - first, seq / 4] for seq in range(first, first + count)],
    )


async def nothing(payload: bytes, retained: bool) -> None:
    """A `Receive` for uplinks that should get no command."""
    raise AssertionError(f"an unexpected command: {payload!r}")


async def fails(uplink: Uplink) -> str:
    """The sentence that its `run` ends with."""
    with pytest.raises(UplinkError) as failure:
        async with asyncio.timeout(15):
            await uplink.run(nothing)
    return str(failure.value)


@asynccontextmanager
async def running(
    uplink: Uplink, receive: Receive = nothing, *, within: float = 10.0
) -> AsyncIterator[asyncio.Task[None]]:
    """`uplink` connected; the task of its `run`, which is cancelled in the end. What `run` raised before, it raises."""
    task = asyncio.create_task(uplink.run(receive))
    ready = asyncio.create_task(uplink.ready())
    try:
        done, _ = await asyncio.wait((task, ready), timeout=within, return_when=asyncio.FIRST_COMPLETED)
        if task in done:
            task.result()
        assert ready in done, "it was not ready in time"
        yield task
    finally:
        ready.cancel()
        task.cancel()
        await asyncio.wait((task, ready))


async def until(holds: Callable[[], Any], within: float = 10.0) -> None:
    """Wait until `holds()`; TimeoutError after `within` seconds."""
    async with asyncio.timeout(within):
        while not holds():  # noqa: ASYNC110 - what is waited for is a broker's, a file's, a peer's doing
            await asyncio.sleep(0.005)


@asynccontextmanager
async def working(site: Path, credentials: Credentials) -> AsyncIterator[Gateway]:
    """A gateway on this site file, with its state beside it."""
    gateway = Gateway(load(site), site.parent / "state", credentials)
    task = asyncio.create_task(gateway.run())
    try:
        yield gateway
    finally:
        gateway.stop()
        async with asyncio.timeout(30):
            await task
