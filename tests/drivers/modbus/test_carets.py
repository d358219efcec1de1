"""What is wrong in a Modbus profile is said at its place in the file: the caret stands under the words in question."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gateway import document, load
from gateway.document import DocumentError

if TYPE_CHECKING:
    from pathlib import Path

PROFILE = """\
profile: acme-m1/1
driver: modbus
kind: meter
source: made up
defaults: {fc: 4, type: u16}
points:
  power: {addr: 1, quantity: power_active}
examples:
  - {regs: {4: {1: [5]}}, expect: {power: 5 W}}
"""
SUNSPEC = """\
profile: acme-m1/1
driver: modbus
kind: meter
source: made up
sunspec: [203]
points:
  power: {sunspec: W, quantity: power_active}
examples:
  - {regs: {3: {0: [203, 105], 18: [7], 22: [0]}}, expect: {power: 7 W}}
"""
FRAMES = "  - {asked: 01 04 00 01 00 01 60 0a, answered: 01 04 02 00 05 79 33, expect: {power: 5 W}}"
REGS = "  - {regs: {4: {1: [5]}}, expect: {power: 5 W}}"
MATCH = "match: [{fc: 4, addr: 1, equals: 5}]\npoints:"


def edited(text: str, old: str, new: str) -> str:
    assert old in text
    return text.replace(old, new)


@pytest.mark.parametrize(
    ("text", "code", "under"),
    [
        (edited(SUNSPEC, "sunspec: W,", "sunspec: Wt,"), "unknown_key", "Wt"),
        (edited(SUNSPEC, "[203]", "[203, 103]"), "bad_value", "[203, 103]"),
        (edited(SUNSPEC, "sunspec: W, ", ""), "missing_key", "{quantity"),
        (edited(PROFILE, "1, quantity", "1, status: {register: 0, bits: {17: absent}}, quantity"), "bad_value", "17"),
        (edited(PROFILE, "1, quantity", "1, status: {register: 0, bits: {1: sick}}, quantity"), "unknown_word", "sick"),
        (edited(PROFILE, "1, quantity", "1, status: {}, quantity"), "missing_key", "status"),
        (edited(PROFILE, "1, quantity", "1, scale: {exponent_register: x}, quantity"), "bad_value", "x"),
        (edited(PROFILE, "1, quantity", "1, counter: {wraps_at: -1}, quantity"), "bad_value", "-1"),
        (edited(PROFILE, REGS, edited(FRAMES, "60 0a", "60 0b")), "bad_frame", "01 04 00 01 00 01 60 0b"),
        (edited(PROFILE, REGS, edited(FRAMES, "79 33", "79 3")), "bad_hex", "01 04 02 00 05 79 3"),
        (edited(PROFILE, "points:", edited(MATCH, "equals: 5", "others: {acme-m2: [5]}")), "missing_key", "{fc"),
        (edited(PROFILE, "points:", edited(MATCH, "equals: 5", "equals: 5, othrs: {}")), "unknown_key", "othrs"),
        (edited(PROFILE, "points:", edited(MATCH, "addr: 1", "addr: -1")), "bad_value", "-1"),
    ],
)
def test_the_caret_stands_under_what_is_wrong(tmp_path: Path, text: str, code: str, under: str) -> None:
    path = tmp_path / "acme-m1.yaml"
    path.write_text(text)
    with pytest.raises(DocumentError) as wrong:
        load.profile(document.read(path), path.stem)
    found = [(one.code, one.source[one.column - 1 :][: len(under)]) for one in wrong.value.diagnostics]
    assert (code, under) in found
    assert all(one.fix for one in wrong.value.diagnostics)


@pytest.mark.parametrize("text", [PROFILE, SUNSPEC, edited(PROFILE, REGS, FRAMES), edited(PROFILE, "points:", MATCH)])
def test_what_is_right_is_right(tmp_path: Path, text: str) -> None:
    path = tmp_path / "acme-m1.yaml"
    path.write_text(text if "match" not in text else text.replace("expect:", "identifies: true, expect:"))
    assert load.profile(document.read(path), path.stem).profile == "acme-m1/1"


def test_a_meter_behind_an_inverter_is_a_variant_of_three_lines(tmp_path: Path) -> None:
    path = tmp_path / "acme-m1.yaml"
    path.write_text(
        "profile: acme-m1/1\ninherits: sunspec-meter\npoints: {power: {sign: export_positive}}\n"
        "examples:\n  - {regs: {3: {0: [203, 105], 18: [7], 22: [0]}}, expect: {power: -7 W}}\n"
        "  - {regs: {3: {40000: [0x5375, 0x6E53], 40070: [203]}}, identifies: true}\nrefusals:\n"
    )
    assert load.profile(document.read(path), path.stem).profile == "acme-m1/1"
