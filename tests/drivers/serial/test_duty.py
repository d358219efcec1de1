"""Sensors that rest, and those that are silent by nature, over an emulated wire in jumped time."""

import asyncio
from collections.abc import Callable, Coroutine
from itertools import pairwise
from typing import Any

import pytest

from drivers.serial.played import Played
from gateway.model import Quality
from tests.drivers.serial.bus import Bus, true

Jumped = Callable[[Coroutine[Any, Any, None]], None]


@pytest.mark.parametrize(("name", "dust"), [("nova-sds011", "pm25"), ("sensirion-sps30", "pm25")])
def test_a_sensor_rests_and_tells_one_mean_each_time(name: str, dust: str, jumped: Jumped) -> None:
    # In jumped time a busy machine loses answers, which a second try brings.
    profile = true(name)
    profile = profile.model_copy(update={"cadence": 2.0, "dialogue": profile.dialogue.model_copy(update={"tries": 5})})
    assert profile.duty
    busy = profile.warm_up + profile.duty.measure
    bus = Bus(profile, None, every=f"{3 * busy:g}s")
    awake: list[bool] = []

    async def story() -> None:
        async with bus.running():
            for _ in range(30):
                await asyncio.sleep(3 * busy / 10)
                awake.append(not bus.emulator._first.asleep)

    jumped(story())
    told = [one for one in bus.recorder.readings if one.point.endswith(f"/{dust}")]
    assert len(told) == 3
    assert {one.quality for one in told} == {Quality.GOOD}
    assert all(5 < one.value < 60 for one in told)
    steps = [round((b.at - a.at) / 1000) for a, b in pairwise(told)]
    assert all(abs(step - 3 * busy) <= 10 for step in steps)
    assert sum(awake) <= 15, "it rests most of the time"
    assert bus.said("device_down") == []
    assert len(bus.said("device_up")) == 1


def test_a_start_that_is_missed_is_repeated(jumped: Jumped, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some SDS011 miss one start in twenty."""
    bus = Bus(true("nova-sds011"), None, every="10min")
    bus.emulator._first.asleep = True
    answers, deaf = Played.answers, [2]

    def hard_of_hearing(played: Played, name: str, *rest: Any) -> list[bytes]:
        if name == "wake" and deaf[0]:
            deaf[0] -= 1
            return []
        return answers(played, name, *rest)

    monkeypatch.setattr(Played, "answers", hard_of_hearing)

    async def story() -> None:
        async with bus.running():
            await asyncio.sleep(60)

    jumped(story())
    assert deaf == [0]
    assert len(bus.good("/pm25")) == 1


def test_a_radar_that_sees_nothing_is_asked_before_it_counts_as_lost(jumped: Jumped) -> None:
    bus = Bus(true("omnipresense-ops24x").model_copy(update={"cadence": 30.0}))
    asked: list[str] = []

    async def story() -> None:
        async with bus.running():
            await asyncio.sleep(12)  # until it has agreed to its unit
            bus.emulator.fault("silence")
            answers = bus.emulator._first.answers
            bus.emulator._first.answers = lambda name, *rest: asked.append(name) or answers(name, *rest)
            await asyncio.sleep(299)
            assert bus.said("device_down") == []
            await asyncio.sleep(302)
            assert asked == ["identify"]
            await bus.recorder.until(lambda recorder: bus.said("device_down") != [], 10)

    jumped(story())


def test_a_value_that_stands_still_for_half_an_hour_is_doubtful(jumped: Jumped) -> None:
    profile = true("nova-sds011")
    point = profile.points["pm25"]
    assert point.stuck == 1800
    quick = {**profile.points, "pm25": point.model_copy(update={"stuck": 180.0})}
    bus = Bus(profile.model_copy(update={"cadence": 5.0, "points": quick}))
    bus.emulator.fault("stuck")

    async def story() -> None:
        async with bus.running():
            await asyncio.sleep(170)
            bus.recorder.records.clear()
            await asyncio.sleep(40)

    jumped(story())
    told = [(one.quality, one.reason) for one in bus.recorder.readings if one.point.endswith("pm25")]
    assert told[0] == (Quality.GOOD, None)
    assert told[-1] == (Quality.UNCERTAIN, "stale")
