"""Each shipped meter is found by what it answers, in few questions, alone and on a shared line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from drivers.modbus.emulator import Emulator
from drivers.modbus.frames import Refused
from drivers.modbus.identify import SURE
from drivers.modbus.line import Line
from drivers.modbus.pace import Pace
from drivers.modbus.search import MOST, Search, identify
from drivers.modbus.tcp import Tcp

from .conftest import make_device, make_settings
from .test_meters import METERS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from drivers.modbus.search import Ask

FEW = 8
"""What a meter may cost whose line is set as it leaves the factory."""


def names(search: Search) -> set[str]:
    """The best, and those that say the very same of the registers that were asked for."""
    best = [match for match in search.found if match.confidence == search.found[0].confidence]
    checks = [[check.model_dump() for check in one.profile.match] for one in best]
    return {one.profile.profile.partition("/")[0] for one, same in zip(best, checks, strict=True) if same == checks[0]}


def asking(wire: Any, unit: int) -> Ask:
    async def ask(fc: int, addr: int, count: int) -> Sequence[int]:
        return await wire.read(unit, fc, addr, count)  # type: ignore[no-any-return]

    return ask


async def test_a_meter_as_it_leaves_the_factory_takes_eight_questions() -> None:
    devices = [make_device(f"a/{name}", unit, meter) for unit, (name, meter) in enumerate(METERS.items(), 1)]
    emulator = Emulator(make_settings({"host": "127.0.0.1"}), devices)
    where = await emulator.start()
    wire = Tcp("127.0.0.1", int(where["port"]), 1.0)
    try:
        for unit, (name, meter) in enumerate(METERS.items(), 1):
            before = emulator.requests
            search = await identify(METERS.values(), asking(wire, unit), serial=meter.line.serial or "")
            assert name in names(search), (name, search.asked)
            assert emulator.requests - before == len(search.asked) <= FEW, name
            exact = any(check.exact for check in meter.match)
            assert (search.found[0].confidence >= SURE) == exact, name
    finally:
        wire.close()
        await emulator.stop()


async def test_all_meters_on_one_line_are_told_apart() -> None:
    """Most of them are set otherwise than they left the factory."""
    devices = [make_device(f"a/{name}", unit, meter) for unit, (name, meter) in enumerate(METERS.items(), 1)]
    settings = make_settings({"port": "tcp://127.0.0.1:1", "baud": "19200"})
    emulator = Emulator(settings, devices)
    settings = make_settings({"baud": "19200", **await emulator.start()})
    line = Line("line", settings, {unit: Pace(1.0) for unit in range(1, len(METERS) + 1)})
    try:
        for unit, name in enumerate(METERS, 1):
            search = await identify(METERS.values(), asking(line, unit), serial="19200 8N1")
            assert name in names(search), (name, search.asked)
            assert len(search.asked) <= MOST
    finally:
        line.close()
        await emulator.stop()


async def test_a_meter_that_is_set_to_the_other_word_order_is_found() -> None:
    emulator = Emulator(make_settings({"host": "127.0.0.1"}), [make_device("a/m", 1)])
    where = await emulator.start()
    emulator.turn("a/m")
    wire = Tcp("127.0.0.1", int(where["port"]), 1.0)
    try:
        search = await identify(METERS.values(), asking(wire, 1), serial="9600 8N1")
        assert search.found[0].profile.profile == "eastron-sdm630/1"
    finally:
        wire.close()
        await emulator.stop()


async def test_what_refuses_everything_is_nothing_and_soon_done() -> None:
    asked = []

    async def ask(*question: int) -> Sequence[int]:
        asked.append(question)
        raise Refused(2)

    search = await identify(METERS.values(), ask)
    assert search.found == []
    assert search.asked == asked
    assert len(asked) == len(set(asked)) <= MOST


@pytest.mark.parametrize("word", [0x0000, 0xFFFF, 0x7FFF])
async def test_what_answers_the_same_everywhere_is_no_meter(word: int) -> None:
    async def ask(_fc: int, _addr: int, count: int) -> Sequence[int]:
        return [word] * count

    search = await identify(METERS.values(), ask)
    assert search.found == []


async def test_the_number_of_questions_is_kept() -> None:
    async def ask(*_question: int) -> Sequence[int]:
        raise Refused(2)

    assert len((await identify(METERS.values(), ask, most=3)).asked) == 3
