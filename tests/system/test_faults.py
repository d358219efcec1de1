"""A running street behind a bad network, a broker that dies, a gateway that is killed: nothing lost, nothing twice."""

import asyncio
import faulthandler
import random
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.cli import street
from gateway.cli.stage import Stage
from tests.faults import Fault, FaultProxy

pytestmark = pytest.mark.fault

KEEPALIVE = 4.0
_TIMES = f"    password: secret\n    keepalive: {KEEPALIVE:.0f}s\n    ack_timeout: 3s\n"


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    async with Stage(tmp_path) as stage:
        yield stage


@pytest.fixture
async def proxy(stage: Stage) -> AsyncIterator[FaultProxy]:
    """Between gateway and broker, with the site file written so."""
    async with FaultProxy.before(stage.broker.url) as proxy:
        site = street.write(stage.folder, url=proxy.url, password=stage.password, posts=1, meters=1, chargers=1)
        site.write_text(site.read_text().replace("    password: secret\n", _TIMES))
        yield proxy
        # The gateway leaves before its network does.
        await stage.end("gateway")


def received(stage: Stage) -> int:
    return sum(row.received for row in stage.platform.report())


async def delivered(stage: Stage, more: int) -> None:
    goal = received(stage) + more
    await stage.until(lambda: received(stage) >= goal, within=90)


async def noticed(stage: Stage, within: float) -> None:
    """The gateway says that its platform is away."""
    async with asyncio.timeout(within):
        while (await stage.snapshot())["uplinks"][0]["connected"]:  # noqa: ASYNC110 - it is another process's event
            await asyncio.sleep(0.1)


async def settled(stage: Stage) -> str:
    """Stop what produces and let the rest arrive. Returns what is not as it should be, or '': each seq that the gateway
    has used is at the platform exactly once, as a record or as a skip that says why, under one epoch for each lane."""
    await stage.end("simulation")
    stage.simulation = None
    committed = await stage.drained(within=120)
    rows = stage.platform.report()
    held = dict.fromkeys(committed, 0)
    for row in rows:
        held[row.lane] += row.received + sum(row.skipped.values())
    holes = [row for row in rows if row.missing or row.to_come or row.rejected]
    if held == committed and not holes and len(rows) == len({row.lane for row in rows}):
        return ""
    return f"committed {committed}, at the platform {held}\n{rows}\n{stage.logs()}"


async def test_a_bad_network_loses_nothing(stage: Stage, proxy: FaultProxy) -> None:
    await stage.perform()
    await delivered(stage, 20)
    for fault in (Fault.DELAY, Fault.TRICKLE):
        await proxy.have(fault)
        await delivered(stage, 15)
    assert proxy.connections == 1, "delay and trickle are no outage"
    for fault in (Fault.SWALLOW_PUBACK, Fault.HALF_CLOSE, Fault.RESET, Fault.REFUSE):
        await proxy.have(fault)
        await noticed(stage, within=30)
        await proxy.have(Fault.NONE)
        await delivered(stage, 15)
    assert proxy.swallowed > 0
    assert await settled(stage) == ""


async def test_a_half_open_connection_is_noticed(stage: Stage, proxy: FaultProxy) -> None:
    # By the connection itself, not by a batch that waits for its answer.
    stage.site.write_text(stage.site.read_text().replace("ack_timeout: 3s", "ack_timeout: 60s"))
    await stage.perform()
    await delivered(stage, 20)
    await proxy.have(Fault.BLACK_HOLE)
    await noticed(stage, within=1.5 * KEEPALIVE + 1)
    await proxy.have(Fault.NONE)
    await delivered(stage, 20)
    assert await settled(stage) == ""


async def storm(stage: Stage, proxy: FaultProxy, seconds: float, seed: int) -> dict[str, int]:
    """Broker kills, gateway kills and every fault of the network, one after another and into each other."""
    dice = random.Random(seed)
    loop = asyncio.get_running_loop()
    ends = loop.time() + seconds
    done = {"broker": 0, "gateway": 0, "network": 0}
    while loop.time() < ends:
        what = dice.choice(["broker", "broker", "gateway", "network"])
        done[what] += 1
        match what:
            case "broker":
                await asyncio.to_thread(stage.broker.kill)
                await asyncio.sleep(dice.uniform(0.1, 2.0))
                await asyncio.to_thread(stage.broker.start)
            case "gateway":
                await stage.kill()
                await stage.run()
            case "network":
                await proxy.have(dice.choice(list(Fault)))
        await asyncio.sleep(dice.uniform(0.2, 3.0))
    await proxy.have(Fault.NONE)
    return done


@pytest.mark.parametrize("seconds", [30, pytest.param(300, marks=pytest.mark.slow)])
async def test_broker_kills_and_gateway_kills_lose_nothing(stage: Stage, proxy: FaultProxy, seconds: float) -> None:
    # Instead of pytest's own limit for tests that hang, which is as long as the longest storm.
    faulthandler.dump_traceback_later(seconds + 270, exit=True, file=sys.__stderr__)
    await stage.perform()
    await delivered(stage, 20)
    before = received(stage)
    done = await storm(stage, proxy, seconds, seed=round(seconds))
    await delivered(stage, 30)
    assert await settled(stage) == "", done
    assert min(done.values()) >= 2, done
    assert received(stage) > before + seconds, "the street went on"
