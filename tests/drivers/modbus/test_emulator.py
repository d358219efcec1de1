"""The emulated meter: plausible, consistent with itself, and as strict as the real one."""

from __future__ import annotations

import math

import pytest

from drivers.modbus import frames
from drivers.modbus.frames import Request
from drivers.modbus.scenario import DAY, Day
from drivers.modbus.tcp import Tcp

from .conftest import make_device, running


def test_a_day_is_consistent_with_itself() -> None:
    day = Day("lp-1/meter", 0)
    energy, lowest, highest = day.value("energy_active", None, "import"), math.inf, 0.0
    start, drawn = energy, 0.0
    for minute in range(1, 24 * 60 + 1):
        drawn += day.value("power_active", None, None) / 60
        day.advance(minute * 60)
        now = day.value("energy_active", None, "import")
        assert now >= energy
        energy = now
        power = day.value("power_active", None, None)
        lowest, highest = min(lowest, power), max(highest, power)
        assert 215 < day.value("voltage", "L2", None) < 245
        assert 49.5 < day.value("frequency", None, None) < 50.5
        current = day.value("current", "L1", None)
        assert current * day.value("voltage", "L1", None) == pytest.approx(day.value("power_apparent", "L1", None))
        phases = sum(day.value("power_active", phase, None) for phase in ("L1", "L2", "L3"))
        assert phases == pytest.approx(power)
        assert power / day.value("power_apparent", None, None) == day.value("power_factor", None, None)
        assert 0 <= day.value("current", "N", None) < 100
    assert energy - start == pytest.approx(drawn)
    assert highest > 2 * lowest
    assert DAY == 86400


def test_what_it_knows_nothing_of_wanders_or_rises() -> None:
    day = Day("x", 0)
    counts = [day.value("motion_count", None, None) for _ in range(20)]
    assert counts == sorted(counts)
    assert len({day.value("temperature", None, None) for _ in range(20)}) == 20


@pytest.mark.parametrize(
    ("addr", "count", "code"), [(1, 2, 2), (0, 3, 2), (0, 82, 3), (0x400, 2, 2), (0, 80, None), (0xC8, 26, None)]
)
async def test_it_is_as_strict_as_the_maker_says(addr: int, count: int, code: int | None) -> None:
    async with running(make_device("a/m", 1)) as street:
        wire = Tcp("127.0.0.1", street.port, 1.0)
        if code is None:
            assert len(await wire.read(1, 4, addr, count)) == count
        else:
            with pytest.raises(frames.Refused, match=f"exception {code},"):
                await wire.read(1, 4, addr, count)
        wire.close()


async def test_it_takes_only_what_can_be_written() -> None:
    async with running(make_device("a/m", 1)) as street:
        wire = Tcp("127.0.0.1", street.port, 1.0)
        for fc, addr, words, code in ((16, 0x16, (0x3F80, 0), 2), (6, 2, (0x4170,), 2), (16, 0x0002, (0x4170,), 2)):
            with pytest.raises(frames.Refused, match=f"exception {code},"):
                await wire.write(1, fc, addr, words)
        await wire.write(1, 16, 2, (0x4170, 0))
        assert await wire.read(1, 3, 2, 2) == [0x4170, 0]
        wire.close()


async def test_nobody_answers_for_a_unit_that_is_not_there() -> None:
    async with running(make_device("a/m", 1)) as street:
        wire = Tcp("127.0.0.1", street.port, 1.0)
        with pytest.raises(frames.NoAnswer, match="no answer within 1 s"):
            await wire.read(9, 4, 0, 2)
        assert await wire.read(1, 4, 0, 2)
        wire.close()


def test_one_register_is_written_with_function_6() -> None:
    request = Request(1, 1, 6, 7, 1, (5,))
    assert frames.find_answer(frames.ask(request), frames.answer(request)) == frames.ask(request)
