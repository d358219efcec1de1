"""What is stored of a point: what is new, a heartbeat, and every change of quality; the page sees all of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import site
from gateway.app import Gateway
from gateway.deadband import Deadband, Rule, rules, thinned
from gateway.diagnostic import DocumentError, Mistake
from gateway.model import Event, Lane, Point, Quality, Reading
from gateway.profile import DeviceKeys
from gateway.site import Credentials
from gateway.testing import Recorder

if TYPE_CHECKING:
    from pathlib import Path

POINTS = {
    "voltage_l1": Point("a/m/voltage_l1", "voltage", "V", "L1"),
    "energy": Point("a/m/energy", "energy_active", "Wh"),
    "state": Point("a/m/state", "x_state", "1"),
}


def keys(**written: object) -> DeviceKeys:
    return DeviceKeys.model_validate({"link": "line", **written})


def reading(value: float | str | None, at: int = 0, **rest: object) -> Reading:
    return Reading("a/m/voltage_l1", value, at, **rest)  # type: ignore[arg-type]


def stored(rule: Rule, *readings: Reading) -> list[bool]:
    """Which of them are."""
    band, found = Deadband({"a/m/voltage_l1": rule}), []
    for one in readings:
        new = band.new([one])
        band.stored(new)
        found.append(bool(new))
    return found


@pytest.mark.parametrize(
    ("values", "are_stored"),
    [
        ([230.0, 230.5, 230.9, 231.0, 231.5, 230.0], [1, 0, 0, 1, 0, 1]),
        ([230.2, 229.2, 228.2], [1, 1, 1]),
        ([0, 0, 1, 1, 0], [1, 0, 1, 0, 1]),
        (["idle", "idle", "busy"], [1, 0, 1]),
    ],
)
def test_what_changes_enough_is_stored(values: list[float | str], are_stored: list[int]) -> None:
    """From the last value that was stored, so that a slow drift is not lost."""
    assert stored(Rule(1.0, None), *(reading(value) for value in values)) == [bool(one) for one in are_stored]


def test_now_and_then_it_is_stored_anyway() -> None:
    every_minute = [reading(230.0, at * 60_000) for at in range(31)]
    assert [n for n, is_stored in enumerate(stored(Rule(1.0, 900_000), *every_minute)) if is_stored] == [0, 15, 30]


def test_without_a_change_any_change_counts() -> None:
    assert stored(Rule(0.0, None), reading(1.0), reading(1.0), reading(1.0001)) == [True, False, True]


def test_a_change_of_quality_always_goes() -> None:
    bad = reading(None, 1, quality=Quality.BAD, reason="comm_failure")
    worse = reading(None, 2, quality=Quality.BAD, reason="absent")
    doubtful = reading(230.0, 4, quality=Quality.UNCERTAIN, reason="out_of_range")
    some = [reading(230.0), bad, bad, worse, reading(230.0), doubtful, reading(230.0)]
    assert stored(Rule(1e9, None), *some) == [True, True, False, True, True, True, True]


def test_what_a_command_or_a_session_says_always_goes() -> None:
    some = [reading(230.0), reading(230.0, context="command"), reading(230.0, transaction="t1")]
    assert stored(Rule(1e9, None), *some) == [True, True, True]


def test_what_was_not_stored_is_still_new() -> None:
    band = Deadband({"a/m/voltage_l1": Rule(1.0, None)})
    assert band.new([reading(230.0)])
    assert band.new([reading(230.0)])


def test_what_has_no_rule_and_events_go_as_they_are() -> None:
    others = [Reading("a/m/energy", 5, 0), Event("device_up", "a/m", 0)]
    band = Deadband({"a/m/voltage_l1": Rule(1.0, None)})
    for _ in range(2):
        assert band.new(others) == others
        band.stored(others)


@given(st.lists(st.floats(-1e6, 1e6) | st.none(), min_size=1), st.floats(0.001, 1e3))
def test_the_stored_values_are_never_further_off_than_the_change(values: list[float | None], change: float) -> None:
    band, last = Deadband({"a/m/voltage_l1": Rule(change, None)}), None
    for value in values:
        one = reading(value, quality=Quality.GOOD if value is not None else Quality.BAD)
        new = band.new([one])
        band.stored(new)
        last = one if new else last
        assert last is not None
        assert (last.value is None) == (value is None)
        if value is not None and isinstance(last.value, float):
            assert abs(last.value - value) < change


def test_the_point_wins_over_the_quantity_and_that_over_the_device() -> None:
    found = rules(
        keys(
            send={"at_least": "1h"},
            quantities={"energy_active": {"send": {"change": "0.1 kWh"}}, "voltage": {"send": {"change": "5 V"}}},
            points={"voltage_l1": {"send": {"change": "1000 mV", "at_least": "15min"}}},
        ),
        POINTS,
    )
    assert found == {
        "a/m/voltage_l1": Rule(1.0, 900_000),
        "a/m/energy": Rule(100.0, None),
        "a/m/state": Rule(0.0, 3_600_000),
    }
    assert rules(keys(), POINTS) == {}


@pytest.mark.parametrize(
    ("written", "code", "at"),
    [
        ({"points": {"voltage_l2": {}}}, "unknown_point", ("points", "voltage_l2")),
        ({"quantities": {"voltge": {}}}, "unknown_quantity", ("quantities", "voltge")),
        (
            {"quantities": {"voltage": {"send": {"change": "1 W"}}}},
            "bad_unit",
            ("quantities", "voltage", "send", "change"),
        ),
    ],
)
def test_mistakes_are_said_at_their_place(written: dict[str, object], code: str, at: tuple[str, ...]) -> None:
    with pytest.raises(Mistake) as caught:
        rules(keys(**written), POINTS)
    assert (caught.value.code, caught.value.at) == (code, at)


SITE = """\
version: 1
gateway: {id: cab-017, tenant: milan}
links: {line: {driver: modbus, host: 127.0.0.1}}
assets:
  here:
    devices:
      feeder:
        link: line
        profile: eastron-sdm630
        address: 1
        quantities: {voltage: {every: 5s, send: {change: CHANGE, at_least: 15min}}}
        points: {frequency: {every: 1min}}
"""


def test_a_mistake_in_a_site_file_is_said_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "site.yaml"
    path.write_text(SITE.replace("CHANGE", "1 W"))
    with pytest.raises(DocumentError) as caught:
        site.load(path)
    (found,) = caught.value.diagnostics
    assert (found.code, found.line) == ("bad_unit", 11)


async def test_the_page_sees_what_is_not_stored(tmp_path: Path) -> None:
    path = tmp_path / "site.yaml"
    path.write_text(SITE.replace("CHANGE", "1 V"))
    gateway = Gateway(site.load(path), tmp_path / "state", Credentials.beside(path, None))
    recorder, point = Recorder(), "cab-017/feeder/voltage_l1"
    (link,) = gateway.site.links.values()
    emit = thinned(recorder, link.devices, gateway.status.note)
    for value in (230.0, 230.4, 231.5):
        await emit([Reading(point, value, 0)], lane=Lane.TELEMETRY)
        last = gateway.status.last(point)
        assert last is not None
        assert last.value == value
    assert [one.value for one in recorder.readings] == [230.0, 231.5]
