"""Nothing is said of a meter that is not what its profile says, and what is said is read as the meter is set."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from drivers import modbus
from drivers.modbus.identity import EVERY
from gateway import profile
from gateway.errors import DeviceError

from .conftest import PROFILES, Street, make_device, order, running

MWH = (0x3F80, 0x0000)
"""1.0: Eastron's holding register 0x001E counts energy in MWh."""
EM24 = profile.load(PROFILES / "carlo-gavazzi-em24.yaml", lambda _: modbus.Profile)
ANOTHER = "it answers as another meter than carlo-gavazzi-em24"
OTHERWISE = "otherwise than profile eastron-sdm630 is written"
EXACT = {"power": 7200, "frequency": 50, "energy_import": 123456, "voltage_l1": 230.2}


def hold(street: Street) -> None:
    for slug, value in EXACT.items():
        street.emulator.set("a/m", slug, value)


def values(street: Street, start: int = 0) -> dict[str, set[Any]]:
    """All that was said of the points that are held."""
    said: dict[str, set[Any]] = {slug: set() for slug in EXACT}
    for reading in street.recorder.readings[start:]:
        slug = reading.point.rpartition("/")[2]
        if slug in said:
            said[slug].add(reading.value)
    return said


async def test_a_meter_that_is_turned_is_read_as_it_is_turned_and_says_so_once() -> None:
    async with running(make_device("a/m", 1)) as street:
        hold(street)
        street.emulator.turn("a/m")
        await street.seen(80, "a/m")
        assert values(street) == {slug: {value} for slug, value in EXACT.items()}
        assert [(e.kind, e.say) for e in street.recorder.events] == [
            ("nonconforming", f"a/m is set to send the low word first, {OTHERWISE}; it is read so.")
        ]


async def test_no_value_is_wrong_when_somebody_turns_it_while_it_is_polled() -> None:
    async with running(make_device("a/m", 1)) as street:
        hold(street)
        await street.seen(40, "a/m")
        for _ in range(3):
            street.emulator.turn("a/m")
            await street.seen(60, "a/m")
        assert values(street) == {slug: {value} for slug, value in EXACT.items()}
        assert [e.say.split()[1:4] for e in street.recorder.events] == [
            ["is", "set", "to"], ["sends", "its", "words"], ["is", "set", "to"],
        ]  # fmt: skip


@pytest.mark.parametrize("slugs", [["voltage_l1"], ["power"], ["energy_import"], ["demand_period"]])
async def test_one_odd_value_is_enough_to_ask_again_before_anything_is_said(slugs: list[str]) -> None:
    """Only one point of the meter is polled: the others cannot tell that it was turned."""
    meter = make_device("a/m", 1)
    settings = modbus.DeviceSettings.model_validate(
        {"link": "line", "address": 1, "every": "1s"}
        | {"points": {slug: {"every": "1s" if slug in slugs else "1h"} for slug in meter.points}}
    )
    object.__setattr__(meter, "settings", settings)
    async with running(meter) as street:
        hold(street)
        await street.seen(5, "a/m")
        street.emulator.turn("a/m")
        await street.seen(len(slugs) * 20, "a/m")
        wanted = EXACT | {"demand_period": 60}
        said = {(r.point.rpartition("/")[2], r.value) for r in street.recorder.readings if r.quality == "good"}
        assert {pair for pair in said if pair[0] in wanted} <= set(wanted.items())
        assert len(street.recorder.events) == 1


async def test_a_meter_that_counts_in_mwh_says_nothing_until_it_counts_in_kwh() -> None:
    async with running(make_device("a/m", 1)) as street:
        hold(street)
        street.emulator.tell("a/m", 3, 0x1E, MWH)
        await street.until(lambda seen: len(seen.readings) >= len(street.devices[0].points))
        assert {(r.value, r.reason) for r in street.recorder.readings} == {(None, "config_error")}
        await street.until(lambda seen: bool(seen.events))
        [event] = street.recorder.events
        assert (event.kind, event.say) == (
            "device_fault",
            "a/m (unit 1): the meter counts in MWh; set its energy unit (holding register 0x001E) to kWh.",
        )
        with pytest.raises(DeviceError, match=r"counts in MWh.* Nothing was written"):
            await street.driver.execute(order("a/m/demand_period", 15))
        street.emulator.tell("a/m", 3, 0x1E, (0, 0))
        await street.until(lambda seen: seen.events[-1].kind == "device_up")
        assert values(street) == {slug: {None, value} for slug, value in EXACT.items()}


async def test_what_is_set_wrong_for_a_while_is_not_said_to_be_turned_back() -> None:
    async with running(make_device("a/m", 1)) as street:
        hold(street)
        street.emulator.turn("a/m")
        await street.seen(40, "a/m")
        street.emulator.tell("a/m", 3, 0x1E, MWH[::-1])
        street.emulator.set("a/m", "frequency", 500)
        await street.until(lambda seen: seen.events[-1].kind == "device_fault")
        street.emulator.set("a/m", "frequency", 50)
        street.emulator.tell("a/m", 3, 0x1E, (0, 0))
        await street.until(lambda seen: seen.events[-1].kind == "device_up")
        assert [event.kind for event in street.recorder.events] == ["nonconforming", "device_fault", "device_up"]
        assert values(street) == {slug: {None, value} for slug, value in EXACT.items()}


async def test_it_may_be_turned_between_its_answer_and_its_values() -> None:
    async with running(make_device("a/m", 1)) as street:
        hold(street)
        unit = street.emulator._by_id["a/m"]
        read = unit.read

        def turning(request: Any, now: float) -> Any:
            if request.function == 4 and unit.read is turning:
                unit.read = read  # type: ignore[method-assign]
                unit.turn()
            return read(request, now)

        unit.read = turning  # type: ignore[method-assign]
        await street.seen(60, "a/m")
        assert unit.read is not turning
        assert values(street) == {slug: {value} for slug, value in EXACT.items()}


async def test_a_setting_is_asked_for_every_hour() -> None:
    async with running(make_device("a/m", 1, every="1min")) as street:
        await street.seen(40, "a/m")
        street.emulator.tell("a/m", 3, 0x28, (0x4505, 0x4505))
        await asyncio.sleep(EVERY + 60)
        last = {r.point: (r.value, r.reason) for r in street.recorder.readings}
        assert set(last.values()) == {(None, "config_error")}


async def test_what_comes_back_is_asked_anew() -> None:
    async with running(make_device("a/m", 1), timeout="200ms") as street:
        hold(street)
        await street.seen(40, "a/m")
        street.emulator.fault("a/m", "silent")
        await street.until(lambda seen: any(e.kind == "device_down" for e in seen.events))
        street.emulator.turn("a/m")
        street.emulator.fault("a/m", None)
        start = len(street.recorder.readings)
        await street.seen(60, "a/m")
        assert values(street, start) == {slug: {value} for slug, value in EXACT.items()}


async def test_a_setting_that_cannot_be_read_is_no_right_setting() -> None:
    async with running(make_device("a/m", 1)) as street:
        street.emulator.tell("a/m", 3, 0x28, ())
        street.emulator.tell("a/m", 3, 0x29, ())
        await street.until(lambda seen: bool(seen.events))
        assert street.good("a/m") == 0
        assert "register 0x0028, which says how it is set, cannot be read" in street.recorder.events[0].say


@pytest.mark.parametrize(
    ("code", "why"),
    [
        (341, "it answers as carlo-gavazzi-em300, not carlo-gavazzi-em24. Choose profile carlo-gavazzi-em300."),
        (340, f"{ANOTHER}: its code at 0x000b is 340. Choose the profile of the meter that is there."),
    ],
)
async def test_another_meter_than_the_profile_says_is_no_meter(code: int, why: str) -> None:
    async with running(make_device("a/m", 1, EM24)) as street:
        street.emulator.tell("a/m", 4, 0x0B, (code,))
        await street.until(lambda seen: bool(seen.events))
        assert street.good("a/m") == 0
        assert street.recorder.events[0].say == f"a/m (unit 1): {why}"


async def test_an_older_type_without_a_code_is_believed() -> None:
    async with running(make_device("a/m", 1, EM24)) as street:
        street.emulator.tell("a/m", 4, 0x0B, ())
        await street.seen(20, "a/m")


async def test_a_meter_that_is_busy_when_it_is_asked_is_not_called_wrong() -> None:
    async with running(make_device("a/m", 1)) as street:
        street.emulator.fault("a/m", "exception_6")
        await street.until(lambda seen: bool(seen.readings))
        assert {r.reason for r in street.recorder.readings} == {"device_failure"}
        street.emulator.fault("a/m", None)
        await street.seen(40, "a/m")


async def test_a_setting_is_written_in_the_word_order_that_the_meter_has() -> None:
    async with running(make_device("a/m", 1)) as street:
        await street.seen(40, "a/m")
        street.emulator.turn("a/m")
        reply = await street.driver.execute(order("a/m/demand_period", 15))
        assert reply.now == {"value": 15}
        assert street.emulator._by_id["a/m"].stored["demand_period"] == (0x0000, 0x4170)


async def test_a_neighbour_is_not_held_up_by_a_meter_that_is_set_wrong() -> None:
    async with running(make_device("a/m", 1), make_device("b/m", 2)) as street:
        street.emulator.tell("a/m", 3, 0x1E, MWH)
        await street.seen(200, "b/m")
        assert street.good("a/m") == 0
