"""Which meter it is, and whether it is set as its profile needs: from registers alone."""

from __future__ import annotations

from typing import Any

import pytest

from drivers import modbus
from drivers.modbus.identify import PLAUSIBLE, SURE, Setting, bank, matches, requests, verdict

from .conftest import SDM630

WORDS_2141 = [0x4505, 0xD000]
"""2141.0 as IEEE 754 writes it; Eastron's holding register 0x0028 shows it in the word order that is set."""


def make(**more: Any) -> modbus.Profile:
    tree = {
        "profile": "acme-m1/1",
        "driver": "modbus",
        "kind": "meter",
        "source": "made up",
        "points": {"power": {"addr": 0, "quantity": "power_active"}},
        "examples": [{"regs": {4: {0: [0, 0]}}, "expect": {"power": "0 W"}}],
    }
    return modbus.Profile.model_validate(tree | more)


@pytest.mark.parametrize(
    ("registers", "setting"),
    [
        ({0x28: WORDS_2141, 0x1E: [0, 0]}, Setting.AS_WRITTEN),
        ({0x28: WORDS_2141[::-1], 0x1E: [0, 0]}, Setting.TURNED),
        ({0x28: [0x4505, 0x4505], 0x1E: [0, 0]}, Setting.WRONG),
        ({0x28: WORDS_2141, 0x1E: [0x3F80, 0]}, Setting.WRONG),
        ({0x28: WORDS_2141}, Setting.UNKNOWN),
        ({}, Setting.UNKNOWN),
    ],
)
def test_a_register_tells_the_word_order_and_what_is_not_known_is_not_right(
    registers: dict[int, list[int]], setting: Setting
) -> None:
    said = verdict(SDM630, bank({3: registers}))
    assert said.setting is setting
    assert bool(said.say) == (setting in (Setting.WRONG, Setting.UNKNOWN))


def test_what_is_wrong_is_said_as_the_profile_says_it() -> None:
    said = verdict(SDM630, bank({3: {0x28: WORDS_2141, 0x1E: [0x3F80, 0]}}))
    assert said.say.startswith("the meter counts in MWh")


@pytest.mark.parametrize(
    ("check", "words", "holds"),
    [
        ({"equals": "0x0089"}, [0x89], True),
        ({"equals": "0x0089"}, [0x8A], False),
        ({"one_of": ["71", "72"]}, [72], True),
        ({"type": "str", "words": 2, "equals": "B23"}, [0x4232, 0x3320], True),
        ({"type": "str", "words": 3, "starts": ["B23", "B24"]}, [0x4232, 0x3420, 0x3131], True),
        ({"type": "str", "words": 3, "starts": ["B23", "B24"]}, [0x4232, 0x3120, 0x3131], False),
        ({"type": "f32", "range": ["45", "65"]}, [0x4248, 0], True),
        ({"type": "f32", "range": ["45", "65"]}, [0x7FC0, 0], False),
        ({"type": "f32", "word_order": "little", "range": ["45", "65"]}, [0, 0x4248], True),
        ({"type": "u32", "not": ["0", "0xFFFFFFFF"]}, [0xFFFF, 0xFFFF], False),
        ({"type": "u32", "not": ["0", "0xFFFFFFFF"]}, [0, 7], True),
    ],
)
def test_a_check_holds_or_not(check: dict[str, Any], words: list[int], holds: bool) -> None:
    profile = make(match=[{"fc": 3, "addr": 11, **check}])
    found = matches([profile], bank({3: {11: words}}))
    assert bool(found) == holds
    assert matches([profile], bank({3: {11: words[:-1]}})) == []
    assert matches([profile], bank({4: {11: words}})) == []
    if found:
        assert found[0].confidence == (SURE if profile.match[0].exact else PLAUSIBLE)


def test_a_code_of_the_maker_goes_before_what_is_merely_possible() -> None:
    plausible = make(match=[{"fc": 3, "addr": n, "range": [0, 9]} for n in (1, 2, 3)])
    sure = make(profile="acme-m2/1", match=[{"fc": 3, "addr": 1, "equals": 5}])
    found = matches([plausible, make(profile="acme-m3/1"), sure], bank({3: {1: [5, 5, 5]}}))
    assert [one.profile.profile for one in found] == ["acme-m2/1", "acme-m1/1"]


def test_requests_are_asked_once_at_their_wire_address() -> None:
    profile = make(
        address_base="modicom",
        points={"power": {"addr": 30001, "quantity": "power_active"}},
        match=[{"fc": 3, "addr": 40012, "equals": 5}, {"fc": 4, "addr": 30071, "type": "f32", "range": [45, 65]}],
        verify=[{"fc": 3, "addr": 40012, "equals": 5}],
    )
    assert requests(profile, (*profile.match, *profile.verify)) == [(3, 11, 1), (4, 70, 2)]


def test_a_profile_with_match_shows_what_it_finds() -> None:
    profile = make(match=[{"fc": 3, "addr": 11, "equals": 5}])
    assert modbus.self_test(profile) == [
        (("match",), "no example shows registers that `match` finds; mark one with `identifies: true`")
    ]
    examples = [{"regs": {3: {11: [6]}}, "identifies": True}]
    profile = make(match=[{"fc": 3, "addr": 11, "equals": 5}], examples=examples)
    assert modbus.self_test(profile) == [
        (("examples", 0, "identifies"), "these registers are not what `match` looks for")
    ]
