"""What a device refuses: only that is bad, it is said with an action, and what the profile does not tell is learnt."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from drivers.modbus.frames import Request
from gateway.model import Quality

from .conftest import SELF_IDENTIFYING, TRUSTED, Street, make_device, running

if TYPE_CHECKING:
    from collections.abc import Callable

    from drivers.modbus.emulator import Fault


@pytest.mark.parametrize(
    ("fault", "name"), [("exception_2", "illegal data address"), ("exception_3", "illegal data value")]
)
async def test_an_exception_answer_is_said_once_with_its_name_and_an_action(fault: Fault, name: str) -> None:
    async with running(make_device("a/m", 1), make_device("b/m", 2)) as street:
        await street.seen(20, "a/m")
        street.emulator.fault("a/m", fault)
        await street.until(lambda r: bool(r.events))
        event = street.recorder.events[0]
        assert (event.kind, event.on) == ("device_down", "a/m")
        assert f"exception {fault[-1]}, {name}" in event.say
        assert event.say.endswith("Check that profile eastron-sdm630/1 fits this device.")
        await street.seen(100, "b/m")
        bad = [r for r in street.recorder.readings if r.quality is Quality.BAD]
        polled = set(street.devices[0].points) - {"demand_period"}
        assert sorted(r.point for r in bad) == sorted(f"a/m/{slug}" for slug in polled)
        assert all(r.value is None and r.reason == "config_error" for r in bad)
        street.emulator.fault("a/m", None)
        await street.until(lambda r: len(r.events) == 2)
        assert [(e.kind, e.say) for e in street.recorder.events[1:]] == [("device_up", "a/m answers again.")]


def without(*addrs: int) -> Callable[[Street], None]:
    """The emulated device does not have these registers: a request that holds one is refused."""

    def lose(street: Street) -> None:
        unit = street.emulator._by_id["a/m"]
        read = unit.read

        def refuse(request: Request, now: float) -> tuple[int, ...] | int:
            lacks = any(request.addr <= addr < request.addr + request.count for addr in addrs)
            return 2 if lacks else read(request, now)

        unit.read = refuse  # type: ignore[method-assign]

    return lose


async def test_only_what_is_refused_is_bad() -> None:
    """One register that the device does not have costs its own point only, and is said; what is left is one request."""
    async with running(make_device("a/m", 1, SELF_IDENTIFYING)) as street:
        without(3)(street)
        await street.until(lambda r: bool(r.events))
        event = street.recorder.events[0]
        assert event.kind == "device_fault"
        assert "refuses input registers 0x0003 to 0x0003: exception 2, illegal data address. Check that" in event.say
        await street.seen(50, "a/m")
        bad = [r.point for r in street.recorder.readings if r.quality is Quality.BAD]
        assert bad == ["a/m/r3"]
        before = street.emulator.requests
        await street.seen(110, "a/m")
        assert street.emulator.requests - before <= 3 * 11
        await asyncio.sleep(400)
        assert [r.point for r in street.recorder.readings if r.quality is Quality.BAD] == ["a/m/r3"] * 2
        assert len(street.recorder.events) == 1
        assert street.wrong() == []


async def test_a_device_that_gives_fewer_registers_than_its_profile_says_is_learnt() -> None:
    """Some SDMs fail above 50 of the maker's 80 (openWB PR #2890)."""
    sick = SELF_IDENTIFYING.model_copy(update={"line": SELF_IDENTIFYING.line.model_copy(update={"max_regs": 6})})
    async with running(make_device("a/m", 1, SELF_IDENTIFYING)) as street:
        street.emulator._by_id["a/m"].profile = sick
        await street.seen(50, "a/m")
        assert not street.recorder.events
        assert all(r.quality is Quality.GOOD for r in street.recorder.readings)
        before = street.emulator.requests
        await street.seen(120, "a/m")
        assert street.emulator.requests - before <= (3 + 1) * 11  # three of one length, and one that proves them


async def test_a_hole_that_cannot_be_read_over_is_learnt() -> None:
    """0x40 is nobody's, but lies between two points of the profile."""
    async with running(make_device("a/m", 1)) as street:
        without(0x40)(street)
        await street.seen(60, "a/m")
        assert not street.recorder.events
        assert all(r.quality is Quality.GOOD for r in street.recorder.readings)
        before = street.emulator.requests
        await street.seen(200, "a/m")
        assert street.emulator.requests - before <= 3 * 11


async def test_a_profile_that_fits_nothing_is_not_searched_for_long() -> None:
    """Its neighbours on the line want to be asked, too."""
    async with running(make_device("a/m", 1), make_device("b/m", 2)) as street:
        await street.seen(20, "a/m")
        street.emulator.fault("a/m", "exception_2")
        await street.until(lambda r: bool(r.events))
        before = street.emulator.requests
        await street.seen(20 * 20, "b/m")
        assert street.emulator.requests - before < 3 * 20 + 30


async def test_a_bad_point_says_so_again_at_a_slow_pace() -> None:
    async with running(make_device("a/m", 1, TRUSTED, every="10s")) as street:
        street.emulator.fault("a/m", "exception_2")
        await asyncio.sleep(700)
        assert {len([r for r in street.recorder.readings if r.point == "a/m/power"])} == {3}
        assert [event.kind for event in street.recorder.events] == ["device_down"]
