"""The planner: every point once, no limit passed, nothing read that does not pay."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from drivers.modbus.codec import WIDTH, Field, Kind
from drivers.modbus.plan import plan

from .conftest import SDM630

fields = st.lists(
    st.builds(Field, fc=st.sampled_from([3, 4]), addr=st.integers(0, 400), kind=st.sampled_from(sorted(WIDTH))),
    max_size=40,
)


@given(fields, st.integers(4, 125), st.integers(0, 30))
def test_every_point_is_covered_and_every_limit_kept(some: list[Field], longest: int, hole: int) -> None:
    named = [(f"p{n}", field) for n, field in enumerate(some)]
    blocks = plan(named, longest=longest, hole=hole)
    assert sorted(pair[0] for block in blocks for pair in block.fields) == sorted(slug for slug, _ in named)
    for block in blocks:
        assert 1 <= block.count <= longest
        assert block.addr == min(field.addr for _, field in block.fields)
        assert block.addr + block.count == max(field.end for _, field in block.fields)
        assert {field.fc for _, field in block.fields} == {block.fc}
        unasked = 0
        for addr in range(block.addr, block.addr + block.count):
            unasked = 0 if any(field.addr <= addr < field.end for _, field in block.fields) else unasked + 1
            assert unasked <= hole


@given(st.lists(st.builds(Field, fc=st.just(4), addr=st.integers(0, 200).map(lambda n: 2 * n), kind=st.just(Kind.F32))))
def test_pairs_stay_pairs(some: list[Field]) -> None:
    for block in plan([(f"p{n}", field) for n, field in enumerate(some)], longest=80, hole=24):
        assert block.addr % 2 == 0
        assert block.count % 2 == 0


def test_an_sdm630_takes_two_requests() -> None:
    line = SDM630.line
    blocks = plan(SDM630.fields(), longest=line.max_regs, hole=line.max_hole)
    assert [(block.addr, block.count) for block in blocks] == [(0x00, 0x4E), (0xC8, 26)]


def test_without_holes_only_neighbours_share_a_request() -> None:
    some = [("a", Field(4, 0, Kind.F32)), ("b", Field(4, 2, Kind.F32)), ("c", Field(4, 5, Kind.U16))]
    assert [(b.addr, b.count) for b in plan(some, longest=125, hole=0)] == [(0, 4), (5, 1)]
