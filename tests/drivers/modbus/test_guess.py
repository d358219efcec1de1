"""A known value is found wherever it lies, whichever way round."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from drivers.modbus.codec import Field, encode
from drivers.modbus.guess import KINDS, guesses
from drivers.modbus.kinds import WIDTH, Kind


@given(
    kind=st.sampled_from(KINDS),
    little=st.booleans(),
    shift=st.sampled_from([-1, 0, 1]),
    value=st.integers(2000, 30000),
    around=st.lists(st.integers(0, 0xFFFF), min_size=8, max_size=8),
)
def test_whatever_type_and_order_it_is_among_the_guesses(
    kind: Kind, little: bool, shift: int, value: int, around: list[int]
) -> None:
    words = encode(Field(3, 0, kind, little), value)
    registers = dict(enumerate(around, 99)) | dict(enumerate(words, 100 + shift))
    found = [each for each in guesses(3, registers, value) if each.scale == 1 and each.addr == 100 + shift]
    narrow = {Kind.S16: Kind.U16, Kind.S32: Kind.U32, Kind.S64: Kind.U64}.get(kind, kind)
    if kind in (Kind.U64, Kind.S64, Kind.U32, Kind.S32):  # the same number in fewer registers is said instead
        assume(not any(word for word in words if word != value))
        at = 100 + shift + (0 if little else WIDTH[kind] - 1)
        assert any(each.value == value for each in guesses(3, registers, value) if each.addr in (at, at - 1))
        return
    order = "little" if little and WIDTH[kind] > 1 else "big"
    assert (narrow, order, value) in [(each.kind, each.word_order, each.value) for each in found]


@pytest.mark.parametrize(
    ("words", "known", "first"),
    [
        ([0x4366, 0x3334], 230, "{fc: 4, addr: 0x0000, type: f32}"),  # Eastron's own example: 230.2 V
        ([0x3334, 0x4366], 230, "{fc: 4, addr: 0x0000, type: f32, word_order: little}"),
        ([0x08FC], 230, "{fc: 4, addr: 0x0000, type: u16, scale: 0.1}"),
        ([0x1386], 50, "{fc: 4, addr: 0x0000, type: u16, scale: 0.01}"),
        ([0xFF9C], -100, "{fc: 4, addr: 0x0000, type: s16}"),
    ],
)
def test_the_plainest_way_comes_first(words: list[int], known: float, first: str) -> None:
    assert guesses(4, dict(enumerate(words)), known)[0].place == first


def test_what_is_not_there_is_not_found() -> None:
    assert guesses(4, {0: 1, 1: 2, 2: 3}, 230) == []
