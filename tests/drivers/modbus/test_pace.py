"""How long is waited for an answer: what was measured, within what is allowed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers import modbus
from drivers.modbus.driver import Driver
from drivers.modbus.pace import PATIENCE, SHORTEST, Pace
from gateway.testing import Recorder, make_link

from .conftest import SELF_IDENTIFYING, make_device


def test_a_unit_that_was_never_heard_has_all_its_time() -> None:
    assert Pace(1.0).within == 1.0
    assert Pace(1.0).turnaround is None


@pytest.mark.parametrize(("takes", "within"), [(0.005, SHORTEST), (0.1, PATIENCE * 0.1), (0.9, 1.0)])
def test_it_is_waited_for_as_long_as_it_takes_to_answer_times_four(takes: float, within: float) -> None:
    pace = Pace(1.0)
    pace.took(takes)
    assert pace.within == pytest.approx(within)
    assert pace.turnaround == takes


def test_the_makers_word_is_the_least_and_the_sites_the_most() -> None:
    pace = Pace(0.5, least=0.4)
    pace.took(0.001)
    assert pace.within == 0.4
    assert Pace(0.1, least=0.4).within == 0.1


def test_one_slow_answer_is_remembered_for_a_while() -> None:
    pace = Pace(2.0)
    for seconds in (0.05, 0.3):
        pace.took(seconds)
    assert pace.within == pytest.approx(1.2)
    for _ in range(60):
        pace.took(0.05)
    assert pace.within == pytest.approx(SHORTEST, abs=0.01)
    assert pace.turnaround == 0.05


def test_after_silence_it_has_all_its_time_again() -> None:
    pace = Pace(2.0)
    pace.took(0.05)
    pace.missed()
    assert pace.within == 2.0


@given(st.lists(st.floats(0, 1.9) | st.none()))
def test_it_is_never_more_than_is_allowed_nor_less_than_the_least(answers: list[float | None]) -> None:
    pace = Pace(2.0, least=0.1)
    for seconds in answers:
        pace.missed() if seconds is None else pace.took(seconds)
        assert SHORTEST <= pace.within <= 2.0


@pytest.mark.parametrize(
    ("timeout", "answer", "first", "then"),
    [
        (None, None, 1.0, SHORTEST),
        (None, (0.04, 0.5), 0.5, 0.5),
        ("2s", (0.04, 0.5), 2.0, 0.5),
        ("300ms", (0.04, 0.5), 0.3, 0.3),
        ("2s", None, 2.0, SHORTEST),
    ],
)
def test_the_bounds_are_the_sites_and_the_makers(
    timeout: str | None, answer: tuple[float, float] | None, first: float, then: float
) -> None:
    line = SELF_IDENTIFYING.line.model_copy(update={"answer": answer})
    profile = SELF_IDENTIFYING.model_copy(update={"line": line})
    written = {"driver": "modbus", "host": "h"} | ({"timeout": timeout} if timeout else {})
    link = make_link(modbus.Settings.model_validate(written), [make_device("a/m", 1, profile)], Recorder())
    pace = Driver(link)._wire._paces[1]
    assert pace.within == first
    for _ in range(100):
        pace.took(0.01)
    assert pace.within == then
