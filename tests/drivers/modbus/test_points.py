"""The profile language: every type, what tells how to read it, and every mistake at its place."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers import modbus
from drivers.modbus.codec import Field, Kind, Special, decode, encode, lay
from gateway import document
from gateway.document import DocumentError
from gateway.model import Reason

UNSEEN = """\
profile: acme-m1/1
driver: modbus
kind: meter
source: "Acme M1 register list, p. 3"
address_base: one
points:
  voltage: {addr: 1, type: u16, quantity: voltage, unit: V, scale: 0.1}
  power: {addr: 2, type: s32, quantity: power_active, unit: W}
  energy_import: {addr: 4, type: u32, quantity: energy_active, direction: import, unit: kWh, scale: 0.01}
examples:
  - regs: {4: {0: [2302, 0xFFFF, 0xFF9C, 0, 12345]}}
    expect: {voltage: 230.2 V, power: -100 W, energy_import: 123.45 kWh}
"""


def make(point: str, more: str = "") -> modbus.Profile:
    """A profile of one point that is called `x`."""
    text = (
        "profile: acme-m1/1\ndriver: modbus\nkind: meter\nsource: made up\n"
        f"{more}points:\n  x: {point}\nexamples: [{{regs: {{4: {{0: [0]}}}}, expect: {{x: 0}}}}]\n"
    )
    return document.check(document.parse(text, "acme-m1.yaml"), modbus.Profile)


def field(point: str, more: str = "") -> Field:
    [(_, made)] = make(point, more).fields()
    return made


def test_a_profile_for_an_unseen_meter_is_ten_lines_for_three_points() -> None:
    profile = document.check(document.parse(UNSEEN, "acme-m1.yaml"), modbus.Profile)
    assert modbus.self_test(profile) == []
    assert len(UNSEEN.splitlines()) == 12
    assert dict(profile.frames()) == {
        "voltage": "04 00 00 00 01",
        "power": "04 00 01 00 02",
        "energy_import": "04 00 03 00 02",
    }


F32 = struct.Struct(">2H")
X = "quantity: x_it, unit: '1'"
GIVEN = [
    # BCD by definition; text by SunSpec (NUL ends it) and Carlo Gavazzi EM24 (letters in the high bytes).
    (f"{{addr: 0, type: bcd, words: 2, {X}}}", (0x0012, 0x3456), 123456),
    (f"{{addr: 0, type: bcd, words: 2, word_order: little, scale: 0.01, {X}}}", (0x3456, 0x0012), 1234.56),
    (f"{{addr: 0, type: str, words: 3, {X}}}", (0x4232, 0x3320, 0), "B23"),
    (f"{{addr: 0, type: str, words: 4, bytes: low, {X}}}", (0x53, 0x4F, 0x43, 0x4F), "SOCO"),
    (f"{{addr: 0, type: str, words: 2, bytes: high, {X}}}", (0x4100, 0x4200), "AB"),
    (f"{{addr: 0, type: str, words: 2, word_order: little, {X}}}", (0x4142, 0x4344), "ABCD"),
    (f"{{addr: 0, type: u16, bits: [3, 3], {X}}}", (0b1000,), 1),
    (f"{{addr: 0, type: u32, bits: [15, 16], {X}}}", (0x0001, 0x8000), 3),
    (f"{{addr: 0, type: u16, map: {{0: idle, 1: running}}, {X}}}", (1,), "running"),
    (f"{{addr: 0, type: u16, bits: [1, 1], map: {{0: ok, 1: alarm}}, {X}}}", (2,), "alarm"),
    (f"{{addr: 0, type: acc32, {X}}}", (0, 7), 7),
    # pyiskra helper.py: 24-bit mantissa, signed decimal exponent in the top byte.
    (f"{{addr: 0, type: iskra_t5, {X}}}", (0xFE00, 0x59EC), 230.2),
    (f"{{addr: 0, type: iskra_t6, {X}}}", (0xFFFF, 0xFC18), -100),
    (f"{{addr: 0, type: iskra_t7, {X}}}", (0xFF00, 0x251C), -0.95),
    # Schneider: beyond 1 it is 2 - register, leading.
    (f"{{addr: 0, type: pf4q, {X}}}", (0x3F80, 0x0000), 1),
    (f"{{addr: 0, type: pf4q, {X}}}", F32.unpack(struct.pack(">f", 1.05)), 0.95),
    (f"{{addr: 0, type: pf4q, {X}}}", F32.unpack(struct.pack(">f", -1.05)), -0.95),
    # SunSpec: value * 10^sf, sf in the same model.
    (f"{{addr: 0, type: s16, scale: {{exponent_register: 3}}, {X}}}", (2302, 9, 9, 0xFFFF), 230.2),
    (f"{{addr: 3, type: s16, scale: {{exponent_register: 0}}, {X}}}", (2, 9, 9, 7), 700),
    (f"{{addr: 0, type: u16, scale: {{register: 1, map: {{0: 1, 1: 1000}}}}, {X}}}", (5, 1), 5000),
    # DZG: drawn and delivered power are two registers, both positive.
    (f"{{addr: 0, type: u32, minus: 2, scale: 0.1, {X}}}", (0, 0, 0, 1500), -150),
    (f"{{addr: 0, type: s16, sign: export_positive, {X}}}", (100,), -100),
]


@pytest.mark.parametrize(("point", "words", "value"), GIVEN)
def test_what_registers_say(point: str, words: tuple[int, ...], value: Any) -> None:
    made = field(point)
    assert made.width == len(words)
    got, reason = decode(made, words)
    assert reason is None
    assert got == (pytest.approx(value, rel=1e-6) if made.kind is Kind.PF4Q else value)


@pytest.mark.parametrize(
    ("point", "words", "reason"),
    [
        (f"{{addr: 0, type: bcd, words: 1, {X}}}", (0x12A4,), Reason.NOT_A_NUMBER),
        (f"{{addr: 0, type: str, words: 2, {X}}}", (0, 0), Reason.ABSENT),
        (f"{{addr: 0, type: str, words: 2, {X}}}", (0xFFFF, 0xFFFF), Reason.ABSENT),
        (f"{{addr: 0, type: str, words: 2, {X}}}", (0x4101, 0x4200), Reason.NOT_A_NUMBER),
        (f"{{addr: 0, type: u16, map: {{0: idle}}, {X}}}", (1,), Reason.OUT_OF_RANGE),
        (f"{{addr: 0, type: acc16, {X}}}", (0,), Reason.ABSENT),
        (f"{{addr: 0, type: acc64, {X}}}", (0, 0, 0, 0), Reason.ABSENT),
        (f"{{addr: 0, type: iskra_t7, {X}}}", (0x0100, 0x251C), Reason.NOT_A_NUMBER),
        (f"{{addr: 0, type: pf4q, {X}}}", (0x7FC0, 0), Reason.NOT_A_NUMBER),
        (f"{{addr: 0, type: pf4q, {X}}}", (0x4040, 0), Reason.OUT_OF_RANGE),
        (f"{{addr: 0, type: s16, scale: {{exponent_register: 1}}, {X}}}", (230, 0x8000), Reason.ABSENT),
        (f"{{addr: 0, type: s16, scale: {{exponent_register: 1}}, {X}}}", (230, 11), Reason.CONFIG_ERROR),
        (f"{{addr: 0, type: u16, scale: {{register: 1, map: {{0: 1}}}}, {X}}}", (5, 1), Reason.CONFIG_ERROR),
        (f"{{addr: 0, type: s32, invalid: ['0x7FFFxxxx'], {X}}}", (0x7FFF, 0x1234), Reason.ABSENT),
        (f"{{addr: 0, type: s32, word_order: little, invalid: ['0x7FFFxxxx'], {X}}}", (1, 0x7FFF), Reason.ABSENT),
        (f"{{addr: 0, type: u16, minus: 1, invalid: [0xFFFF], {X}}}", (5, 0xFFFF), Reason.ABSENT),
        (f"{{addr: 0, type: f32, {X}}}", (0xFFFF, 0xFFFF), Reason.NOT_A_NUMBER),
    ],
)
def test_what_is_absent_is_not_zero(point: str, words: tuple[int, ...], reason: Reason) -> None:
    assert decode(field(point), words) == (None, reason)


def test_patterns_hold_by_type_and_a_point_may_say_otherwise() -> None:
    more = "defaults: {invalid: {s32: [0x7FFFFFFF]}}\n"
    assert decode(field(f"{{addr: 0, type: s32, {X}}}", more), (0x7FFF, 0xFFFF)) == (None, Reason.ABSENT)
    assert decode(field(f"{{addr: 0, type: u32, {X}}}", more), (0x7FFF, 0xFFFF)) == (0x7FFFFFFF, None)
    assert decode(field(f"{{addr: 0, type: s32, invalid: [], {X}}}", more), (0x7FFF, 0xFFFF)) == (0x7FFFFFFF, None)


@pytest.mark.parametrize(
    ("base", "fc", "addr", "frame"),
    [
        ("wire", 4, "0x34", "04 00 34 00 02"),
        ("one", 4, "53", "04 00 34 00 02"),
        ("modicom", 3, "30053", "04 00 34 00 02"),
        ("modicom", 4, "300053", "04 00 34 00 02"),
        ("modicom", 4, "40053", "03 00 34 00 02"),
        ("modicom", 4, "465536", None),
        ("modicom", 4, "400001", "03 00 00 00 02"),
    ],
)
def test_an_address_is_explicit_and_its_frame_is_shown(base: str, fc: int, addr: str, frame: str | None) -> None:
    more = f"address_base: {base}\ndefaults: {{fc: {fc}}}\n"
    if frame is None:
        with pytest.raises(DocumentError, match="bad_register"):
            make(f"{{addr: {addr}, {X}}}", more)
    else:
        assert dict(make(f"{{addr: {addr}, {X}}}", more).frames()) == {"x": frame}


MISTAKES = [
    ("{addr: 0, type: str, %s}", "", "missing_key", "a str needs its length"),
    ("{addr: 0, type: u16, words: 2, %s}", "", "bad_register", "u16 always takes 1 registers"),
    ("{addr: 0, type: bcd, words: 5, %s}", "", "bad_register", "more than 16 digits"),
    ("{addr: 0, type: u16, bytes: low, %s}", "", "bad_register", "u16 has no letters"),
    ("{addr: 0, type: s16, bits: [0, 1], %s}", "", "bad_register", "the bits [0, 1] are not in s16"),
    ("{addr: 0, type: u16, bits: [2, 16], %s}", "", "bad_register", "the bits [2, 16] are not in u16"),
    ("{addr: 0, type: f32, map: {0: idle}, %s}", "", "bad_register", "f32 is no whole number"),
    ("{addr: 0, type: u16, map: {0: idle}, scale: 2, %s}", "", "bad_register", "neither scale"),
    ("{addr: 0, type: str, words: 2, scale: 2, %s}", "", "bad_register", "text has no scale"),
    ("{addr: 0, type: u16, invalid: [0x1FFFF], %s}", "", "bad_register", "longer than 1 registers"),
    ("{addr: 0, type: u16, invalid: [none], %s}", "", "bad_value", "`none` is no pattern"),
    ("{addr: 0, scale: 0, %s}", "", "bad_scale", "a scale of 0"),
    ("{addr: 0, type: u16, scale: {register: 1, map: {0: 0}}, %s}", "", "bad_scale", "a scale of 0"),
    ("{addr: 0, type: u16, scale: {exponent_register: 200}, %s}", "", "bad_register", "does not fit: 201 registers"),
    ("{addr: 0, %s}", "address_base: one\n", "bad_address_base", "0 is -1 on the wire"),
    ("{addr: 20001, %s}", "address_base: modicom\n", "bad_address_base", "20001 is no Modicom address"),
    ("{addr: 30001, minus: 40001, %s}", "address_base: modicom\n", "bad_register", "not in one answer"),
    (
        "{addr: 30001, %s}",
        "address_base: modicom\nserial_number: {fc: 4, addr: 40001}\n",
        "bad_address_base",
        "40001 is read by function 3, not 4",
    ),
    (
        "{addr: 30001, %s}",
        "address_base: modicom\nmatch: [{fc: 3, addr: 11, equals: 1}]\n",
        "bad_address_base",
        "11 is no Modicom address",
    ),
    ("{addr: 0, %s}", "match: [{fc: 3, addr: 11}]\n", "missing_key", "what the register must hold"),
    ("{addr: 0, %s}", "match: [{fc: 3, addr: 11, type: str, equals: A}]\n", "bad_register", "a wrong length"),
]


@pytest.mark.parametrize(("point", "more", "code", "why"), MISTAKES)
def test_every_mistake_has_a_caret_and_a_sentence(point: str, more: str, code: str, why: str) -> None:
    with pytest.raises(DocumentError) as caught:
        make(point % X, more)
    found = caught.value.diagnostics[0]
    assert (found.code, why in found.why) == (code, True), str(caught.value)
    assert found.fix
    assert ("x: {" in found.source) != ("match:" in more or "serial_number:" in more)


def test_a_word_order_and_registers_around_are_one_span() -> None:
    made = field(f"{{addr: 6, type: s32, word_order: little, minus: 2, scale: {{exponent_register: 9}}, {X}}}")
    assert (made.addr, made.width) == (2, 8)
    assert decode(made, (5, 0, 0, 0, 3, 1, 0, 0xFFFE)) == (655.34, None)
    assert lay(made, 655) == {6: 655, 7: 0, 9: 0, 2: 0, 3: 0}


words = st.lists(st.integers(0, 65535), min_size=8, max_size=8)


@given(words, st.sampled_from(GIVEN))
def test_any_registers_are_a_value_or_a_reason(registers: list[int], given: tuple[str, tuple[int, ...], Any]) -> None:
    made = field(given[0])
    value, reason = decode(made, registers[: made.width])
    assert (value is None) == (reason is not None)
    assert value is None or isinstance(value, str) or abs(value) < float("inf")


@given(st.integers(-8388607, 8388607), st.integers(-9, 9))
def test_iskra_floats_round_trip(mantissa: int, exponent: int) -> None:
    made = Field(4, 0, Kind.ISKRA_T6, special=Special(2, size=2))
    value = float(f"{mantissa}e{exponent}")
    got, _ = decode(made, encode(made, value))
    assert got == pytest.approx(value, rel=1e-6)
