"""The planner: every point once, no limit passed, and no cheaper cut there is."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.modbus.codec import WIDTH, Field, Kind
from drivers.modbus.plan import Block, Limits, halves, lengthened, plan

from .conftest import SDM630

fields = st.lists(
    st.builds(Field, fc=st.sampled_from([3, 4]), addr=st.integers(0, 400), kind=st.sampled_from(sorted(WIDTH))),
    max_size=40,
)


def named(some: list[Field]) -> list[tuple[str, Field]]:
    return [(f"p{n}", field) for n, field in enumerate(some)]


@given(fields, st.integers(4, 125), st.integers(0, 30), st.integers(0, 60))
def test_every_point_is_covered_and_every_limit_kept(some: list[Field], longest: int, hole: int, worth: int) -> None:
    cuts = {(4, at) for at in range(50, 400, 70)}
    limits = Limits(longest, hole, frozenset({"p1"}), [(3, 100, 120)], cuts)
    blocks = plan(named(some), limits, worth)
    assert sorted(slug for block in blocks for slug in block.slugs) == sorted(slug for slug, _ in named(some))
    for block in blocks:
        assert 1 <= block.count <= longest
        assert block.addr == min(field.addr for _, field in block.fields)
        assert block.end == max(field.end for _, field in block.fields)
        assert {field.fc for _, field in block.fields} == {block.fc}
        assert "p1" not in block.slugs or len(block.fields) == 1
        unasked = 0
        for addr in range(block.addr, block.end):
            inside = any(field.addr <= addr < field.end for _, field in block.fields)
            unasked = 0 if inside else unasked + 1
            assert unasked <= hole
            assert inside or block.fc == 4 or not 100 <= addr <= 120
        for at in (at for fc, at in cuts if fc == block.fc and block.addr < at < block.end):
            assert any(field.addr < at < field.end for _, field in block.fields), "only inside a value"


@given(
    st.lists(st.builds(Field, fc=st.just(4), addr=st.integers(0, 60), kind=st.just(Kind.F32)), min_size=1, max_size=7),
    st.integers(4, 40),
    st.integers(0, 30),
)
def test_no_cut_is_cheaper(some: list[Field], longest: int, worth: int) -> None:
    """Against every way to cut the sorted points into runs."""
    runs = sorted(some, key=lambda field: (field.addr, field.end))
    best = None
    for cuts in product([False, True], repeat=len(runs) - 1):
        blocks, inside = [], [runs[0]]
        for field, is_cut in zip(runs[1:], cuts, strict=True):
            if is_cut:
                blocks.append(inside)
                inside = []
            inside.append(field)
        counts = [max(each.end for each in block) - block[0].addr for block in [*blocks, inside]]
        if max(counts) <= longest:
            cost = sum(counts) + worth * len(counts)
            best = cost if best is None else min(best, cost)
    found = plan(named(some), Limits(longest, 125), worth)
    assert sum(block.count + worth for block in found) == best


@given(
    st.lists(st.builds(Field, fc=st.just(4), addr=st.integers(0, 200).map(lambda n: 2 * n), kind=st.just(Kind.F32))),
    st.data(),
)
def test_pairs_stay_pairs(some: list[Field], data: st.DataObject) -> None:
    limits = Limits(80, 24)
    for block in plan(named(some), limits, 24):
        asked = lengthened(block, named(some), limits, {block.count})
        for each in [block, asked, *(halves(block) if len(block.fields) > 1 else [])]:
            assert each.addr % 2 == 0
            assert each.count % 2 == 0


def test_an_sdm630_takes_two_requests() -> None:
    blocks = plan(SDM630.fields(), SDM630.limits(), 125)
    assert [(block.addr, block.count) for block in blocks] == [(0x00, 0x4E), (0xC8, 26)]


def test_without_holes_only_neighbours_share_a_request() -> None:
    some = [Field(4, 0, Kind.F32), Field(4, 2, Kind.F32), Field(4, 5, Kind.U16)]
    assert [(b.addr, b.count) for b in plan(named(some), Limits(), 125)] == [(0, 4), (5, 1)]


@given(fields.filter(lambda some: len(some) > 1), st.integers(10, 125))
def test_halves_hold_the_whole(some: list[Field], longest: int) -> None:
    for block in plan(named(some), Limits(longest, 60), 60):
        if len(block.fields) > 1:
            left, right = halves(block)
            assert left.fields + right.fields == block.fields
            assert left.fields
            assert right.fields


def test_a_block_is_parted_at_its_widest_hole_else_in_the_middle() -> None:
    apart = [Field(4, 0, Kind.F32), Field(4, 2, Kind.F32), Field(4, 8, Kind.F32), Field(4, 12, Kind.F32)]
    (block,) = plan(named(apart), Limits(max_hole=9), 125)
    assert [(half.addr, half.end) for half in halves(block)] == [(0, 4), (8, 14)]
    close = [Field(4, addr, Kind.U16) for addr in range(8)]
    (block,) = plan(named(close), Limits(), 125)
    assert [(half.addr, half.end) for half in halves(block)] == [(0, 4), (4, 8)]


NEAR = named([Field(4, addr, Kind.U16) for addr in (0, 1, 2, 3, 10)])


@pytest.mark.parametrize(
    ("limits", "taken", "asked"),
    [
        (Limits(), set(), (1, 2)),
        (Limits(), {2}, (0, 3)),
        (Limits(), {2, 3}, (0, 4)),
        (Limits(), {2, 3, 4}, (1, 2)),
        (Limits(max_hole=6), {2, 3, 4}, (0, 11)),
        (Limits(longest=2), {2}, (1, 2)),
        (Limits(cuts={(4, 1)}), {2}, (1, 3)),
        (Limits(cuts={(4, 1), (4, 3)}), {2}, (1, 2)),
        (Limits(alone=frozenset({"p0"})), {2}, (1, 3)),
        (Limits(alone=frozenset({"p1"})), {2}, (1, 2)),
        (Limits(forbidden=[(4, 5, 6)], max_hole=6), {2, 3, 4}, (1, 2)),
    ],
)
def test_a_question_gets_another_length_where_the_device_allows_it(
    limits: Limits, taken: set[int], asked: tuple[int, int]
) -> None:
    block = Block(4, 1, 2, tuple(NEAR[1:3]))
    found = lengthened(block, NEAR, limits, taken)
    assert (found.addr, found.count) == asked
    assert found.fields == block.fields


def test_a_field_that_overlaps_the_block_is_no_way_round_a_cut() -> None:
    """A value and its scale span registers of others; a longer request that was refused is not asked for ever."""
    near = named([Field(4, 2, Kind.U64), Field(4, 0, Kind.U64)])
    block = Block(4, 0, 4, tuple(near[1:]))
    assert lengthened(block, near, Limits(), {4}).count == 6
    assert lengthened(block, near, Limits(cuts={(4, 4)}), {4}) == block
