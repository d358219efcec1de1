"""SunSpec devices are walked, not addressed: whatever lies before their models, and wherever they begin."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers import modbus
from drivers.modbus import sunspec
from drivers.modbus.codec import decode
from gateway import document, profile
from gateway.diagnostic import Mistake

from .conftest import PROFILES, Street, make_device, running

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

METER: Any = profile.load(PROFILES / "sunspec-meter.yaml", lambda _: modbus.Profile)
INVERTER: Any = profile.load(PROFILES / "sunspec-inverter.yaml", lambda _: modbus.Profile)
SUNS = [0x5375, 0x6E53]
METERS = (203, 201, 202, 204)
COMMON_WRITTEN, *WHOLE = document.read(Path(__file__).with_name("sunspec.yaml")).tree


def walked(registers: Mapping[int, int], models: Sequence[int] = METERS) -> tuple[sunspec.Place, list[Any]]:
    """Where a device with these registers has its model, and what it was asked."""
    steps, asked = sunspec.walk(models), []
    try:
        question = next(steps)
        while True:
            asked.append(question)
            _, addr, count = question
            words = [registers.get(at) for at in range(addr, addr + count)]
            question = steps.send(None if None in words else [word or 0 for word in words])
    except StopIteration as done:
        return done.value, asked


def laid(base: int, *models: Sequence[int]) -> dict[int, int]:
    """`SunS` at `base`, and the models, each from its id on."""
    return dict(enumerate([*SUNS, *(word for model in models for word in model)], base))


def blank(model: int) -> list[int]:
    layout = sunspec.layout([model])
    return [model, layout.length, *layout.rest()]


COMMON = sunspec.common({"Mn": "Acme", "SN": "SN-4711"})
END = [0xFFFF, 0]


def test_the_layouts_are_whole() -> None:
    """Each point follows the one before, and together they are as long as the model says."""
    assert {model for layout in sunspec.layouts() for model in layout.models} == {1, 101, 102, 103, 201, 202, 203, 204}
    for layout in sunspec.layouts():
        at = 0
        for point in layout.points.values():
            assert int(point["offset"]) == at
            at += len(sunspec._REST[point["type"]])
            if "scale" in point:
                assert layout.points[point["scale"]]["type"] == "sunssf"
        assert at == layout.length == len(layout.rest())


@pytest.mark.parametrize("whole", WHOLE, ids=lambda one: one["model"])
def test_what_the_alliance_s_own_library_writes_is_read(whole: Any) -> None:
    """Of each model: every point that the library was given, and nothing that it was not."""
    model, given = int(whole["model"]), {name: float(value) for name, value in whole["says"].items()}
    words = [int(word, 16) for word in whole["registers"]]
    place, _ = walked(laid(40000, COMMON, words, END), [model])
    assert (place.model, place.length, place.serial) == (model, len(words) - 2, "SN-4711")
    name = "sunspec-meter" if model in METERS else "sunspec-inverter"
    written = document.read(PROFILES / f"{name}.yaml").tree["points"]
    for slug, field in (METER if model in METERS else INVERTER).fields():
        point, sign = written[slug]["sunspec"], -1 if "sign" in written[slug] else 1
        value, reason = decode(sunspec.located(field, 0, model, place.length), words[: field.width])
        if point not in given:
            assert (value, reason) == (None, "absent"), slug
        elif point == "St":
            assert value == "mppt"
        else:
            assert value == pytest.approx(sign * given[point] / (100 if point == "PF" else 1)), slug


def test_the_common_model_is_as_the_alliance_s_own_library_writes_it() -> None:
    texts = {name: str(text) for name, text in COMMON_WRITTEN["says"].items()}
    written = [int(word, 16) for word in COMMON_WRITTEN["registers"]]
    assert sunspec.common(texts)[:-1] == written[:-1]  # but for the pad, of which nothing is said


def test_phases_have_one_name_in_201_and_another_in_its_siblings() -> None:
    assert "PPVphAB" in sunspec.layout([201]).points
    assert "PhVphAB" in sunspec.layout([202, 203, 204]).points
    assert not {"PPVphAB", "PhVphAB"} & set(sunspec.layout([201, 203]).points)
    assert sunspec.layout([201, 203]).points["PPV"] == sunspec.layout([203]).points["PPV"]


@pytest.mark.parametrize("base", [40000, 50000, 0])
def test_it_is_found_where_sunspec_devices_begin(base: int) -> None:
    place, asked = walked(laid(base, COMMON, blank(203), END))
    assert place == sunspec.Place(base + 2 + 68, 203, 105, "SN-4711")
    assert [question for question in asked if question[1] in sunspec.BASES][-1] == (3, base, 4)


def test_a_common_model_without_its_pad_is_walked_over() -> None:
    short = [1, 65, *COMMON[2:67]]
    assert walked(laid(40000, short, blank(103), END), [103])[0] == sunspec.Place(40069, 103, 50, "SN-4711")


def test_what_nobody_knows_is_skipped_by_its_length() -> None:
    strange = [64001, 7, *([0x5555] * 7)]
    empty = [64002, 0]
    place, asked = walked(laid(40000, COMMON, strange, blank(101), empty, blank(201), END))
    assert (place.address, place.model) == (40002 + 68 + 9 + 52 + 2, 201)
    assert len(asked) == 6


@pytest.mark.parametrize(
    ("registers", "why"),
    [
        ({}, "does not say `SunS`"),
        (dict.fromkeys(range(40000, 40010), 0), "does not say `SunS`"),
        (laid(40000, COMMON, blank(103), END), "none of the SunSpec models 203, 201, 202, 204, but 1, 103"),
        (laid(40000, END), "but no model"),
        (laid(40000, COMMON), "but 1"),
        (laid(40000, [1, 0xFFFF]), "but 1"),
        (laid(40000, COMMON, [203, 50, *([0] * 50)], END), "its model 203 has 50 registers, and should have 105"),
        (laid(40000, *([[7, 0]] * 200)), "but 7, 7"),
    ],
)
def test_what_is_no_such_device_says_why(registers: dict[int, int], why: str) -> None:
    place, asked = walked(registers)
    assert why in place.why_none
    assert len(asked) <= sunspec.MOST + 4


@given(st.lists(st.tuples(st.integers(300, 60000), st.integers(0, 120)), max_size=12), st.sampled_from(METERS))
def test_it_is_found_behind_any_models(before: list[tuple[int, int]], model: int) -> None:
    skipped = [[one, length, *([0x53] * length)] for one, length in before]
    place, _ = walked(laid(40000, COMMON, *skipped, blank(model), END))
    assert (place.model, place.address) == (model, 40002 + 68 + sum(2 + length for _, length in before))


@given(st.dictionaries(st.integers(40000, 40200), st.integers(0, 0xFFFF)))
def test_any_registers_are_walked_to_an_end(registers: dict[int, int]) -> None:
    place, _ = walked({**dict.fromkeys(range(40000, 40201), 0), **registers, 40000: SUNS[0], 40001: SUNS[1]})
    assert place.why_none or place.model in METERS


@pytest.mark.parametrize(
    ("points", "code", "why"),
    [
        ({"power": {"sunspec": "Wt", "quantity": "power_active"}}, "unknown_key", "SunSpec point `Wt` is unknown"),
        ({"power": {"sunspec": "W_SF", "quantity": "power_active"}}, "unknown_key", "`W_SF` is unknown"),
        ({"power": {"quantity": "power_active"}}, "missing_key", "`power` does not say which SunSpec point it is"),
    ],
)
def test_a_point_that_the_model_does_not_have_is_a_mistake(points: dict[str, Any], code: str, why: str) -> None:
    tree = METER.model_dump(by_alias=True, include={"profile", "driver", "kind", "source"})
    tree |= {"sunspec": ["203"], "points": points, "examples": []}
    with pytest.raises(Mistake, match=why) as wrong:
        modbus.Profile._of_sunspec(tree)
    assert wrong.value.code == code
    assert wrong.value.at[:2] == ("points", "power")


def test_models_of_two_layouts_are_a_mistake() -> None:
    with pytest.raises(Mistake, match="have no common layout"):
        sunspec.layout([103, 203])
    with pytest.raises(Mistake, match="have no common layout"):
        sunspec.layout([999])


def test_nobody_is_told_an_address_that_only_the_device_knows() -> None:
    assert dict(METER.frames())["power"] == "03 ?? ?? 00 17"


def test_a_value_under_another_id_is_no_value() -> None:
    field = dict(METER.fields())["power"]
    words = [*blank(203)]
    words[2 + 16], words[2 + 20] = 725, 1
    assert decode(field, words[: field.width]) == (7250, None)
    for head in ([202, 105], [203, 104], [0, 0]):
        assert decode(field, [*head, *words[2 : field.width]]) == (None, "config_error")


@pytest.mark.parametrize(
    ("exponent", "said"), [(0x8000, (None, "absent")), (11, (None, "config_error")), (0xFFFF, (72.5, None))]
)
def test_the_scale_comes_with_the_value(exponent: int, said: tuple[Any, Any]) -> None:
    field = dict(METER.fields())["power"]
    words = blank(203)
    words[2 + 16], words[2 + 20] = 725, exponent
    assert decode(field, words[: field.width]) == said


def powers(street: Street, start: int = 0) -> set[Any]:
    return {r.value for r in street.recorder.readings[start:] if r.point == "a/m/power" and r.value is not None}


@pytest.mark.parametrize("address", [40000, 50000, 0])
async def test_a_device_is_read_wherever_it_begins(address: int) -> None:
    async with running(make_device("a/m", 1, METER)) as street:
        street.emulator.move("a/m", address, [(64001, 7), (160, 48)])
        street.emulator.set("a/m", "power", 7250)
        await street.seen(40, "a/m")
        assert powers(street) == {7250}
        assert not street.recorder.events
        assert street.recorder.committed["a/m"]["serial"] == street.emulator._by_id["a/m"].number


async def test_a_model_that_moves_is_found_again_and_says_nothing_meanwhile() -> None:
    """The registers that it leaves hold other values, which must not become its own."""
    async with running(make_device("a/m", 1, METER)) as street:
        street.emulator.set("a/m", "power", 7250)
        await street.seen(20, "a/m")
        for before in ([(64001, 1)], [(64001, 90)], []):
            street.emulator.move("a/m", 40000, before)
            start = len(street.recorder.readings)
            street.emulator.set("a/m", "power", 7250 + len(before))
            await street.until(lambda _: powers(street, start) == {7250 + len(before)})  # noqa: B023
        assert powers(street) == {7250, 7251}


async def test_what_is_no_sunspec_device_says_nothing() -> None:
    async with running(make_device("a/m", 1, METER)) as street:
        street.emulator.tell("a/m", 3, 40000, (0, 0))
        await street.until(lambda seen: bool(seen.events))
        assert street.good("a/m") == 0
        say = street.recorder.events[0].say
        assert say.startswith("a/m (unit 1): it does not say `SunS` at 40000, 50000 or 0: it is no SunSpec device")
        assert say.endswith(". Check that its profile fits.")


async def test_an_inverter_delivers() -> None:
    async with running(make_device("a/m", 1, INVERTER)) as street:
        street.emulator.set("a/m", "power", -7250)
        await street.seen(26, "a/m")
        assert powers(street) == {-7250}
        raw = street.emulator._by_id["a/m"]
        field = raw.fields["power"]
        assert raw._registers("power", field)[field.addr + 14] == 7250
