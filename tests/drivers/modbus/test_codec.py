"""Registers and values: vectors from makers, and round trips of every kind."""

from __future__ import annotations

import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.modbus.codec import WIDTH, Field, Kind, decode, encode, same
from drivers.modbus.kinds import ACCUMULATORS
from drivers.modbus.kinds import WHOLE as WHOLE_KINDS
from gateway.model import Reason

# (registers high word first, kind, value). Sources: Eastron SDM320Y user manual 06-2018 p. 43 (230.2 and 100, in
# the words it prints); Eastron SDM630 protocol document (7200 W, demand period 60 min); libmodbus, modbus_get_float
# (916.540649); Eastron SDM120CT-40mA manual, example frames (15 min); the rest from IEEE 754 and two's complement.
VECTORS = [
    ((0x4366, 0x3334), Kind.F32, 230.20001),
    ((0x4366, 0x3333), Kind.F32, 230.2),
    ((0x42C8, 0x0000), Kind.F32, 100),
    ((0x45E1, 0x0000), Kind.F32, 7200),
    ((0x4270, 0x0000), Kind.F32, 60),
    ((0x4170, 0x0000), Kind.F32, 15),
    ((0x4465, 0x229A), Kind.F32, 916.54065),
    ((0x8000, 0x0000), Kind.F32, 0),
    ((0x7F7F, 0xFFFF), Kind.F32, 3.4028235e38),
    ((0x0000, 0x0001), Kind.F32, 1.401298e-45),
    ((0x400C, 0xCCCC, 0xCCCC, 0xCCCD), Kind.F64, 3.6),
    ((0xFFFF,), Kind.U16, 65535),
    ((0xFFFF,), Kind.S16, -1),
    ((0x0001, 0x0000), Kind.U32, 65536),
    ((0xFFFF, 0xFF9C), Kind.S32, -100),
    ((0xFFFF, 0xFFFF, 0xFFFF, 0xFFFF), Kind.U64, 2**64 - 1),
    ((0xFFFF, 0xFFFF, 0xFFFF, 0xFFFE), Kind.S64, -2),
]


@pytest.mark.parametrize(("words", "kind", "value"), VECTORS)
def test_vectors(words: tuple[int, ...], kind: Kind, value: float) -> None:
    assert decode(Field(4, 0, kind), words) == (value, None)
    assert decode(Field(4, 0, kind, low_word_first=True), words[::-1]) == (value, None)


def test_a_shortest_decimal_never_says_less_than_the_float() -> None:
    """The largest counters keep every step that 32 bits can tell apart."""
    low, high = (decode(Field(4, 0, Kind.F32, factor=1000), w)[0] for w in ((0x4800, 0x0000), (0x4800, 0x0001)))
    assert low == 131072000
    assert high == 131072020  # 131072.015625 kWh: the next below and above are 15 Wh away


@pytest.mark.parametrize(
    ("field", "words", "value"),
    [
        (Field(4, 0, Kind.F32, factor=1000), struct.unpack(">2H", struct.pack(">f", 1234.56)), 1234560),
        (Field(4, 0, Kind.U32, scale=0.01, factor=1000), (1, 0xE240), 1234560),
        (Field(4, 0, Kind.U16, scale=0.1), (3,), 0.3),
        (Field(4, 0, Kind.S16, scale=0.1), (0xFFFD,), -0.3),
        (Field(4, 0, Kind.U64, factor=1000), (0x0020, 0, 0, 1), (2**53 + 1) * 1000),
        (Field(4, 0, Kind.S16, factor=5 / 9, offset=-160 / 9), (68,), 20),
        (Field(4, 0, Kind.U16, offset=-273.15), (300,), 26.85),
    ],
)
def test_units_and_scales_leave_no_binary_noise(field: Field, words: tuple[int, ...], value: float) -> None:
    got, reason = decode(field, words)
    assert reason is None
    assert repr(float(got or 0)) == repr(float(value))


@pytest.mark.parametrize(
    ("field", "words", "reason"),
    [
        (Field(4, 0, Kind.F32), (0x7FC0, 0), Reason.NOT_A_NUMBER),
        (Field(4, 0, Kind.F32), (0xFFFF, 0xFFFF), Reason.NOT_A_NUMBER),
        (Field(4, 0, Kind.F32), (0xFF80, 0), Reason.NOT_A_NUMBER),
        (Field(4, 0, Kind.F64), (0x7FF0, 0, 0, 0), Reason.NOT_A_NUMBER),
        (Field(4, 0, Kind.F64, factor=1000), (0x7FEF, 0xFFFF, 0xFFFF, 0xFFFF), Reason.NOT_A_NUMBER),
        (Field(4, 0, Kind.S32, invalid=(0x7FFFFFFF,)), (0x7FFF, 0xFFFF), Reason.ABSENT),
        (Field(4, 0, Kind.S32, low_word_first=True, invalid=(0x80000000,)), (0, 0x8000), Reason.ABSENT),
        (Field(4, 0, Kind.F32, invalid=(0xFFFFFFFF,)), (0xFFFF, 0xFFFF), Reason.ABSENT),
        (Field(4, 0, Kind.U16, low=0, high=100), (101,), Reason.OUT_OF_RANGE),
        (Field(4, 0, Kind.U16, scale=0.1, low=0, high=10), (101,), Reason.OUT_OF_RANGE),
    ],
)
def test_what_is_no_value_is_never_a_number(field: Field, words: tuple[int, ...], reason: Reason) -> None:
    assert decode(field, words) == (None, reason)


def test_bounds_are_in_the_devices_unit_and_inclusive() -> None:
    field = Field(4, 0, Kind.U16, scale=0.1, factor=1000, low=0.3, high=10)
    assert decode(field, (3,)) == (300, None)
    assert decode(field, (100,)) == (10000, None)


orders = st.booleans()
WHOLE = {
    kind: (-(2 ** (16 * width - 1)), 2 ** (16 * width - 1) - 1) if kind[0] == "s" else (0, 2 ** (16 * width) - 1)
    for kind, width in WIDTH.items()
    if kind in WHOLE_KINDS and kind not in ACCUMULATORS
}


@given(st.data(), st.sampled_from(sorted(WHOLE)), orders)
def test_whole_numbers_round_trip(data: st.DataObject, kind: Kind, low_first: bool) -> None:
    value = data.draw(st.integers(*WHOLE[kind]))
    field = Field(4, 0, kind, low_first)
    words = encode(field, value)
    assert len(words) == WIDTH[kind]
    assert decode(field, words) == (value, None)


@given(st.floats(width=32, allow_nan=False, allow_infinity=False), orders)
def test_every_f32_round_trips_through_its_shortest_decimal(value: float, low_first: bool) -> None:
    field = Field(4, 0, Kind.F32, low_first)
    words = encode(field, value)
    got, reason = decode(field, words)
    assert reason is None
    assert got is not None
    assert struct.pack(">f", got) == struct.pack(">f", value + 0.0)
    assert float(f"{got:.9g}") == got


@given(st.floats(allow_nan=False, allow_infinity=False), orders)
def test_every_f64_round_trips(value: float, low_first: bool) -> None:
    field = Field(4, 0, Kind.F64, low_first)
    assert decode(field, encode(field, value)) == (value, None)


@given(st.lists(st.integers(0, 65535), min_size=4, max_size=4), st.sampled_from(sorted(WIDTH)), orders)
def test_any_registers_are_a_finite_number_or_a_reason(words: list[int], kind: Kind, low_first: bool) -> None:
    value, reason = decode(Field(4, 0, kind, low_first, scale=0.1, factor=1e3), words[: WIDTH[kind]])
    assert (value is None) == (reason is not None)
    assert value is None or (isinstance(value, int | float) and math.isfinite(value))


@given(st.integers(-2000, 2000), orders)
def test_a_scaled_setting_round_trips(tenths: int, low_first: bool) -> None:
    field = Field(3, 0, Kind.S32, low_first, scale=0.1, factor=1000)
    words = encode(field, tenths * 100)
    assert decode(field, words) == (tenths * 100, None)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (Field(3, 0, Kind.U16), -1),
        (Field(3, 0, Kind.U16), 65536),
        (Field(3, 0, Kind.U16, scale=0.1), 6553.6),
        (Field(3, 0, Kind.F32), 1e39),
        (Field(3, 0, Kind.F32), math.nan),
        (Field(3, 0, Kind.U32), math.inf),
    ],
)
def test_what_a_register_cannot_hold_is_not_written(field: Field, value: float) -> None:
    with pytest.raises(ValueError):
        encode(field, value)


def test_the_same_to_the_last_bit_but_one() -> None:
    field = Field(3, 0, Kind.F32)
    assert same(field, (0x4366, 0x3333), (0x4366, 0x3334))
    assert not same(field, (0x4366, 0x3333), (0x4366, 0x3433))
    assert not same(field, (0x4366, 0x3333), (0x7FC0, 0))
    assert not same(Field(3, 0, Kind.U16), (1,), (2,))
