"""A setpoint with a lease ends at its safe value, whatever happens meanwhile."""

import asyncio
from pathlib import Path

from gateway.errors import CommandError
from tests.desk import Desk, at_the_desk


def test_a_lease_ends_at_its_safe_value(tmp_path: Path) -> None:
    async def act(desk: Desk) -> None:
        loop = asyncio.get_running_loop()
        await desk.send(lease_s=900)
        done = await desk.until("succeeded")
        assert done["until"] == desk.clock.wall() + 900_000 or done["until"] > desk.clock.wall() + 890_000
        began = loop.time()
        await desk.until("expired")
        assert 890 <= loop.time() - began <= 910
        assert desk.charger.told == [{"do": "limit", "amps": 16}, {"do": "limit", "amps": 6.0}]

    at_the_desk(tmp_path, act)


def test_a_lease_ends_even_when_the_charger_does_not_answer_at_first(tmp_path: Path) -> None:
    async def act(desk: Desk) -> None:
        await desk.send(lease_s=60)
        await desk.until("succeeded")
        desk.charger.trouble = CommandError("not_connected", "cp-1 is not connected.")
        await asyncio.sleep(600)
        assert "expired" not in await desk.states()
        desk.charger.trouble = None
        await desk.until("expired")
        assert desk.charger.told[-1] == {"do": "limit", "amps": 6.0}

    at_the_desk(tmp_path, act)


def test_a_newer_setpoint_supersedes_a_lease(tmp_path: Path) -> None:
    async def act(desk: Desk) -> None:
        await desk.send("c1", lease_s=900)
        await desk.until("succeeded", "c1")
        await desk.send("c2", args={"amps": 20})
        await desk.until("succeeded", "c2")
        assert (await desk.states("c1"))[-1] == "superseded"
        await asyncio.sleep(2000)
        assert desk.charger.told[-1] == {"do": "limit", "amps": 20}, "the old lease no longer ends anything"

    at_the_desk(tmp_path, act)


def test_a_restart_ends_leases(tmp_path: Path) -> None:
    async def before(desk: Desk) -> None:
        await desk.send(lease_s=900)
        await desk.until("succeeded")

    async def after(desk: Desk) -> None:
        await desk.until("expired")
        assert desk.charger.told == [{"do": "limit", "amps": 6.0}]

    at_the_desk(tmp_path, before)
    at_the_desk(tmp_path, after)
