"""Registers say their own address and unit: whatever goes wrong on the wire, no value of another one is published.

Every fault on every wire, orders and restarts in the middle of questions; answers later than anything was waited for.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.modbus import emulator
from drivers.modbus.line import Line
from tests.ptys import PtyLoop

from .conftest import EQUALS, ISOLATED, SELF_IDENTIFYING, WIRES, Street, make_device, order, running

if TYPE_CHECKING:
    from drivers.modbus.emulator import Fault

FAULTS: list[Any] = sorted({one for group in get_args(emulator.Fault) for one in get_args(group)})


async def stop(task: asyncio.Task[Any]) -> None:
    task.cancel()
    await asyncio.wait({task})


async def live_through(wire: str, steps: list[tuple[str, Any]]) -> None:
    """Two devices on one wire, and what happens to them, each step after a while; then all is well again.

    Answers of the first are told apart by their length, those of the second only by what is asked between them.
    """
    street = Street([make_device("a/m", 1, EQUALS, None), make_device("b/m", 2, ISOLATED, None)], wire=wire)
    await street.start()
    loop = asyncio.get_running_loop()
    task = loop.create_task(street.driver.run(street.recorder))
    orders: set[asyncio.Task[Any]] = set()
    try:
        for what, how in steps:
            match what:
                case "a" | "b":
                    # One old answer, and in step again with the next: see docs/modbus.md.
                    street.emulator.fault(f"{what}/m", None if (what, how) == ("b", "previous") else how)
                case "wait":
                    await asyncio.sleep(how)
                case "restart":
                    await stop(task)
                    task = loop.create_task(street.driver.run(street.recorder))
                case "order":
                    orders.add(loop.create_task(street.driver.execute(order("a/m/target", how))))
                case "cancel":
                    for one in orders:
                        one.cancel()
            if task.done():
                await stop(task)
                task = loop.create_task(street.driver.run(street.recorder))
        for each in "ab":
            street.emulator.fault(f"{each}/m", None)
        before = {each: street.good(f"{each}/m") for each in "ab"}
        async with asyncio.timeout(900):
            while any(street.good(f"{each}/m") < before[each] + 24 for each in "ab"):
                if task.done():
                    task = loop.create_task(street.driver.run(street.recorder))
                await asyncio.sleep(1)
        assert street.wrong() == []
    finally:
        for one in orders:
            one.cancel()
        if orders:
            await asyncio.wait(orders)
        await stop(task)
        await street.emulator.stop()


pauses = st.sampled_from([0.0, 0.003, 0.02, 0.3, 1.1, 2.5, 7.0])
steps = st.one_of(
    st.tuples(st.sampled_from(["a", "b"]), st.sampled_from([None, *FAULTS])),
    st.tuples(st.just("wait"), pauses),
    st.tuples(st.just("restart"), st.none()),
    st.tuples(st.just("order"), st.integers(0, 100)),
    st.tuples(st.just("cancel"), st.none()),
)


@pytest.mark.parametrize("wire", WIRES)
def test_nothing_that_happens_makes_a_wrong_value(wire: str) -> None:
    @settings(max_examples=15, deadline=None)
    @given(st.lists(steps, min_size=4, max_size=20))
    def live(some: list[tuple[str, Any]]) -> None:
        with asyncio.Runner(loop_factory=PtyLoop) as runner:
            runner.run(live_through(wire, some))

    live()


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("fault", FAULTS)
async def test_no_fault_makes_a_wrong_value_even_where_the_driver_is_stopped_in_the_middle(
    wire: str, fault: Fault
) -> None:
    restarts = [("wait", 2.0), ("restart", None), ("wait", 0.01), ("restart", None), ("order", 5), ("cancel", None)]
    await live_through(wire, [("wait", 3.0), ("a", fault), ("b", fault), *restarts, ("wait", 5.0)])


@pytest.mark.parametrize("wire", ["tcp", "rtu-over-tcp"])
async def test_an_answer_that_comes_after_all_patience_fits_no_other_question(wire: str) -> None:
    """Beyond the time that the site grants, only its length tells: no two questions in a row share one."""
    async with running(make_device("a/m", 1, EQUALS, None), wire=wire) as street:
        await street.seen(24, "a/m")
        for _ in range(8):
            street.emulator.fault("a/m", "overdue")
            await asyncio.sleep(1.1)
            street.emulator.fault("a/m", None)
            await street.seen(24, "a/m")
        assert street.wrong() == []


async def test_a_question_is_never_asked_while_the_last_may_still_be_answered() -> None:
    """Proof of the quarantine: whenever a question is given up, it and the slowest device's time have passed."""
    street = Street([make_device("a/m", 1, SELF_IDENTIFYING)], wire="rtu-over-tcp")
    await street.start()
    line, loop = Line("line", street.settings, {}), asyncio.get_running_loop()
    assert street.emulator.bus
    asked: asyncio.Queue[float] = asyncio.Queue()
    hear = street.emulator.bus.hear

    def heard(data: bytes) -> None:
        asked.put_nowait(loop.time())
        hear(data)

    street.emulator.bus.hear = heard  # type: ignore[method-assign]
    try:
        street.emulator.fault("a/m", "silent")
        for given_up in (0.0, 0.001, 0.1, 0.9, 5.0):
            task = loop.create_task(line.read(1, 4, 0, 4))
            first = await asked.get()
            await asyncio.wait({task}, timeout=given_up)
            await stop(task)
            task = loop.create_task(line.read(1, 4, 40, 4))
            second = await asked.get()
            await stop(task)
            assert second - first >= 2 * street.settings.timeout
    finally:
        line.close()
        await street.emulator.stop()
