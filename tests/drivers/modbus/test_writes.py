"""Settings: within their bounds, proved by reading back, and never a success without a proof."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from gateway.errors import CommandError, DeviceError
from gateway.model import CommandState

from .conftest import SELF_IDENTIFYING, TRUSTED, make_device, order, running

if TYPE_CHECKING:
    from drivers.modbus.emulator import Fault


async def test_a_write_is_proved_by_reading_back() -> None:
    async with running(make_device("a/m", 1)) as street:
        await street.seen(20, "a/m")
        reply = await street.driver.execute(order("a/m/demand_period", 15))
        assert (reply.command, reply.state, reply.now, reply.proof) == (
            "c1", CommandState.SUCCEEDED, {"value": 15}, "readback",
        )  # fmt: skip
        assert street.emulator._by_id["a/m"].stored["demand_period"] == (0x4170, 0x0000)
        await street.until(lambda r: any(one.context == "command" for one in r.readings))
        assert [r.value for r in street.recorder.readings if r.point == "a/m/demand_period"] == [60, 15]


@pytest.mark.parametrize(
    ("on", "value", "code", "say"),
    [
        ("a/m/demand_period", 61, "above_bound", "a/m/demand_period takes 0 to 60 min; 61 min was asked."),
        ("a/m/demand_period", -1, "below_bound", "0 to 60 min"),
        ("a/m/demand_period", 7, "not_a_choice", "takes 0, 5, 8, 10, 15, 20, 30, 60 min"),
        ("a/m/demand_period", float("nan"), "bad_argument", "takes a number"),
        ("a/m/demand_period", "15", "bad_argument", "takes a number"),
        ("a/m/demand_period", True, "bad_argument", "takes a number"),
        ("a/m/power", 15, "unknown_verb", "takes no `set`"),
        ("z/m/demand_period", 15, "unknown_verb", "takes no `set`"),
    ],
)
async def test_what_must_not_be_written_is_not(on: str, value: Any, code: str, say: str) -> None:
    async with running(make_device("a/m", 1)) as street:
        await street.seen(20, "a/m")
        with pytest.raises(CommandError, match=say) as refused:
            await street.driver.execute(order(on, value))
        assert refused.value.code == code
        assert street.emulator._by_id["a/m"].stored["demand_period"] == (0x4270, 0x0000)


async def test_a_write_that_the_device_ignores_is_no_success() -> None:
    async with running(make_device("a/m", 1)) as street:
        await street.seen(20, "a/m")
        street.emulator._by_id["a/m"].write = lambda _request: 0  # type: ignore[method-assign]
        with pytest.raises(CommandError, match="was told 15 but says 60") as failed:
            await street.driver.execute(order("a/m/demand_period", 15))
        assert failed.value.code == "unconfirmed"


async def test_a_write_that_is_refused_says_so() -> None:
    async with running(make_device("a/m", 1, TRUSTED)) as street:
        await street.seen(20, "a/m")
        street.emulator.fault("a/m", "exception_3")
        with pytest.raises(DeviceError, match="exception 3, illegal data value"):
            await street.driver.execute(order("a/m/demand_period", 15))


@pytest.mark.parametrize("fault", ["silent", "truncated", "wrong_function", "close", "late"])
async def test_a_write_without_an_answer_is_never_a_success(fault: Fault) -> None:
    async with running(make_device("a/m", 1, TRUSTED)) as street:
        await street.seen(20, "a/m")
        street.emulator.fault("a/m", fault)
        with pytest.raises(CommandError, match="cannot be read back") as failed:
            await street.driver.execute(order("a/m/demand_period", 15))
        assert failed.value.code == "unconfirmed"


async def test_a_cancelled_command_leaves_the_wire_whole() -> None:
    async with running(make_device("a/m", 1, SELF_IDENTIFYING)) as street:
        await street.seen(12, "a/m")
        for value in range(20):
            task = asyncio.create_task(street.driver.execute(order("a/m/target", value)))
            for _ in range(value):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait({task})
        await street.seen(36, "a/m")
        assert street.emulator.connections == 1
        assert street.wrong() == []


async def test_stopping_in_the_middle_of_a_request_is_quick() -> None:
    async with running(make_device("a/m", 1), timeout="30s") as street:
        street.emulator.fault("a/m", "silent")
        await street.asked(1)
        task = asyncio.create_task(street.driver.execute(order("a/m/demand_period", 15)))
        await asyncio.sleep(0)
    with pytest.raises(CommandError, match="went down"):
        await task
