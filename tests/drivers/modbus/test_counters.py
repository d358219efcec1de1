"""A counter's wrap, its reset and another meter are told apart; none of them becomes consumption."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from drivers import modbus
from drivers.modbus.counters import Counters
from drivers.modbus.driver import Driver
from gateway.errors import StorageError
from gateway.model import Reading
from gateway.testing import make_link

from .conftest import TRUSTED, Street, make_device, running

WRAPPING = modbus.Profile.model_validate(
    {
        "profile": "test-wrapping/1",
        "driver": "modbus",
        "kind": "meter",
        "source": "made up: one counter of a thousand kWh, and a serial number",
        "serial_number": {"fc": 3, "addr": 0xFC00, "type": "u32"},
        "points": {
            "energy_import": {
                "addr": 0x48, "quantity": "energy_active", "direction": "import", "unit": "kWh", "every": "1s",
                "counter": {"wraps_at": 1000},
            }
        },
        "examples": [{"regs": {4: {0x48: [0, 0]}}, "expect": {"energy_import": "0 kWh"}}],
    }
)  # fmt: skip
ENERGY = "a/m/energy_import"


def fresh(state: Any = None) -> Counters:
    return Counters.of("a/m", WRAPPING.points, state)


def tell(counters: Counters, *values: float) -> list[tuple[Any, str, str | None, list[str]]]:
    """Each value as it is told, with what has happened; all of it is kept."""
    found = []
    for value in values:
        told, events = counters.judge([Reading(ENERGY, value, 0)])
        found.append((told[0].value, told[0].quality.value, told[0].reason, [event.kind for event in events]))
        counters.kept()
    return found


def good(value: float, *kinds: str) -> tuple[float, str, None, list[str]]:
    return value, "good", None, list(kinds)


def test_a_counter_that_rises_or_stands_is_good() -> None:
    assert tell(fresh(), 0, 5, 5, 7.5) == [good(0), good(5), good(5), good(7.5)]


def test_a_wrap_is_good_and_said() -> None:
    assert tell(fresh(), 999_990, 5) == [good(999_990), good(5, "counter_wrapped")]


def test_a_reset_is_no_value_until_it_is_borne_out_and_then_uncertain_and_said() -> None:
    assert tell(fresh(), 400_000, 10, 12, 13) == [
        good(400_000),
        (None, "bad", "counter_reset", []),
        (12, "uncertain", "counter_reset", ["counter_reset"]),
        good(13),
    ]


def test_one_value_that_is_too_low_is_none() -> None:
    assert tell(fresh(), 400_000, 10, 400_001) == [
        good(400_000), (None, "bad", "counter_reset", []), good(400_001)
    ]  # fmt: skip


def test_what_falls_and_falls_is_never_borne_out() -> None:
    assert [one[0] for one in tell(fresh(), 400_000, 30, 20, 10)] == [400_000, None, None, None]


def test_another_meter_is_uncertain_once_even_where_it_counts_higher() -> None:
    counters = fresh()
    counters.meet(["1"], 0)
    tell(counters, 400_000)
    counters.meet(["2"], 0)
    told, [event] = counters.judge([Reading(ENERGY, 500_000, 0)])
    assert (told[0].value, told[0].quality, told[0].reason) == (500_000, "uncertain", "counter_reset")
    assert event.kind == "meter_exchanged"
    assert event.say == "a/m is another meter now: its number is 2, it was 1."
    assert event.more == {"from": "1", "to": "2", "stood": {"energy_import": 400_000}}
    counters.kept()
    assert tell(counters, 500_001) == [good(500_001)]


def test_the_same_number_in_the_other_word_order_is_the_same_meter() -> None:
    counters = fresh()
    counters.meet(["1234567", "3613065234"], 0)
    assert not counters.is_other(["3613065234", "1234567"])
    assert counters.is_other(["7", "458752"])
    assert not counters.is_other([])


def test_what_was_not_told_is_judged_again() -> None:
    counters = fresh()
    tell(counters, 999_990)
    for _ in range(3):
        assert [event.kind for event in counters.judge([Reading(ENERGY, 5, 0)])[1]] == ["counter_wrapped"]
    counters.kept()
    assert tell(counters, 6) == [good(6)]


def test_state_is_given_once_and_takes_up_where_it_was() -> None:
    counters = fresh()
    counters.meet(["1"], 0)
    counters.judge([Reading(ENERGY, 400_000, 0)])
    state = counters.keep()
    assert state == {"a/m": {"serial": "1", "last": {"energy_import": 400_000}, "new": []}}
    counters.kept()
    assert tell(counters, 400_000) == [good(400_000)]
    assert counters.keep() == {}
    after = fresh(state["a/m"])
    assert after.is_other(["2"])
    assert tell(after, 10)[0] == (None, "bad", "counter_reset", [])


@pytest.mark.parametrize(
    "state", [None, 7, [], {}, {"last": 3, "new": None, "serial": 1}, {"last": {"energy_import": "x"}}]
)
def test_a_state_that_is_not_ours_is_none(state: Any) -> None:
    assert tell(fresh(state), 5) == [good(5)]


def test_a_balance_may_fall_but_is_still_one_meters() -> None:
    places = dict(TRUSTED.points) | {"net": TRUSTED.points["energy_import"].model_copy(update={"direction": None})}
    counters = Counters.of("a/m", places, None)
    counters.meet(["1"], 0)
    told = []
    for value in (5, 3, 1):
        readings, events = counters.judge([Reading("a/m/net", value, 0)])
        assert not counters.has_fallen(readings)
        counters.kept()
        told += [(readings[0].value, readings[0].quality, events)]
    assert told == [(5, "good", []), (3, "good", []), (1, "good", [])]
    counters.meet(["2"], 0)
    readings, [event] = counters.judge([Reading("a/m/net", 7, 0)])
    assert (readings[0].quality, event.kind) == ("uncertain", "meter_exchanged")


def energies(street: Street, start: int = 0) -> list[tuple[Any, str, str | None]]:
    return [(r.value, r.quality.value, r.reason) for r in street.recorder.readings[start:] if r.point == ENERGY]


async def test_it_is_remembered_over_a_restart_that_the_meter_was_another_one() -> None:
    async with running(make_device("a/m", 1, WRAPPING)) as street:
        street.emulator.set("a/m", "energy_import", 400_000)
        await street.seen(3, "a/m")
        was = street.recorder.committed["a/m"]
        street.emulator.tell("a/m", 3, 0xFC00, (0, 7))
        street.emulator.set("a/m", "energy_import", 600_000)
        start = len(street.recorder.readings)
        again = Driver(make_link(street.settings, street.devices, street.recorder))
        task = asyncio.create_task(again.run(street.recorder))
        try:
            await street.until(lambda seen: any(event.kind == "meter_exchanged" for event in seen.events))
            await street.until(lambda _: (600_000, "good", None) in energies(street, start))
        finally:
            task.cancel()
            await asyncio.wait({task})
        assert isinstance(was, dict)
        assert was["last"] == {"energy_import": 400_000}
        assert (600_000, "uncertain", "counter_reset") in energies(street, start)


async def test_a_meter_that_comes_back_with_another_number_is_another_meter() -> None:
    async with running(make_device("a/m", 1, WRAPPING), timeout="200ms") as street:
        street.emulator.set("a/m", "energy_import", 400_000)
        await street.seen(3, "a/m")
        street.emulator.fault("a/m", "silent")
        await street.until(lambda seen: any(event.kind == "device_down" for event in seen.events))
        street.emulator.tell("a/m", 3, 0xFC00, (0, 7))
        street.emulator.set("a/m", "energy_import", 500_000)
        street.emulator.fault("a/m", None)
        start = len(street.recorder.readings)
        await street.seen(2, "a/m")
        assert energies(street, start)[:2] == [(500_000, "uncertain", "counter_reset"), (500_000, "good", None)]
        assert street.recorder.committed["a/m"] == {"serial": "7", "last": {"energy_import": 500_000}, "new": []}


async def test_a_number_that_is_not_said_twice_is_believed_of_nobody() -> None:
    async with running(make_device("a/m", 1, WRAPPING), timeout="200ms") as street:
        street.emulator.set("a/m", "energy_import", 400_000)
        await street.seen(3, "a/m")
        unit, number = street.emulator._by_id["a/m"], iter(range(1, 10_000))
        read = unit.read
        unit.read = lambda request, now: (0, next(number)) if request.addr == 0xFC00 else read(request, now)  # type: ignore[method-assign]
        street.emulator.set("a/m", "energy_import", 10)
        await street.until(lambda seen: any(event.kind == "device_down" for event in seen.events))
        assert "it names two serial numbers" in street.recorder.events[0].say
        assert all(value in (400_000, None) for value, _, _ in energies(street))


async def test_a_reset_at_the_meter_is_said_with_where_it_stood() -> None:
    async with running(make_device("a/m", 1, WRAPPING)) as street:
        street.emulator.set("a/m", "energy_import", 400_000)
        await street.seen(3, "a/m")
        street.emulator.set("a/m", "energy_import", 0)
        await street.until(lambda seen: bool(seen.events))
        [event] = street.recorder.events
        assert (event.kind, event.on) == ("counter_reset", "a/m")
        assert event.say == "a/m/energy_import was set back, from 400000 to 0 Wh."
        assert event.more == {"point": "energy_import", "from": 400_000, "to": 0}


async def test_a_meter_that_is_set_to_mwh_while_it_is_polled_makes_no_wrong_value() -> None:
    async with running(make_device("a/m", 1)) as street:
        street.emulator.set("a/m", "energy_import", 400_000_000)
        await street.seen(40, "a/m")
        street.emulator.tell("a/m", 3, 0x1E, (0x3F80, 0))
        street.emulator.set("a/m", "energy_import", 400_000)
        await street.until(lambda seen: bool(seen.events))
        assert "counts in MWh" in street.recorder.events[0].say
        street.emulator.tell("a/m", 3, 0x1E, (0, 0))
        street.emulator.set("a/m", "energy_import", 400_000_000)
        start = len(street.recorder.readings)
        await street.until(lambda _: (400_000_000, "good", None) in energies(street, start))
        assert {value for value, _, _ in energies(street)} == {400_000_000, None}
        assert [event.kind for event in street.recorder.events] == ["device_fault", "device_up"]


async def test_a_full_buffer_loses_no_reset() -> None:
    async with running(make_device("a/m", 1, WRAPPING)) as street:
        street.emulator.set("a/m", "energy_import", 999_000)
        await street.seen(3, "a/m")
        street.recorder.fail = StorageError("full")
        street.emulator.set("a/m", "energy_import", 5)
        await street.asked(5)
        street.recorder.fail = None
        await street.until(lambda seen: bool(seen.events))
        assert street.recorder.events[0].kind == "counter_wrapped"


async def test_a_meter_without_a_number_counts_all_the_same() -> None:
    async with running(make_device("a/m", 1, TRUSTED)) as street:
        street.emulator.set("a/m", "energy_import", 400_000)
        await street.until(lambda seen: "a/m" in seen.committed)
        assert street.recorder.committed["a/m"]["serial"] is None  # type: ignore[call-overload, index]
