"""What refusals teach: whatever a device lacks, it is found, and what is learnt is never asked for again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.modbus.codec import Field, Kind
from drivers.modbus.frames import Refused
from drivers.modbus.lesson import HOPELESS, MOST_PARTS, Lesson
from drivers.modbus.plan import Block, Limits, plan

FIELDS = [(f"p{addr}", Field(4, addr, Kind.U16)) for addr in range(0, 64, 2)]


def polled(limits: Limits, lacking: set[int], code: int, longest: int = 125) -> tuple[Lesson, int, set[str]]:
    """One poll of a device: the lesson, how many questions it took, and what has been read."""
    lesson, asked, read = Lesson(), 0, set()
    pending = plan(FIELDS, limits, 30)
    while pending:
        block = pending.pop(0)
        asked += 1
        if block.count > longest or lacking & set(range(block.addr, block.end)):
            pending = [*lesson.parts(block, Refused(3 if block.count > longest else code)), *pending]
        else:
            lesson.passed()
            read |= set(block.slugs)
    lesson.learn(limits)
    return lesson, asked, read


@given(st.sets(st.sampled_from(range(0, 64, 2)), max_size=2))
def test_the_culprits_are_found_and_all_else_is_read(lacking: set[int]) -> None:
    lesson, asked, read = polled(Limits(max_hole=1), lacking, 2)
    assert lesson.culprits == {f"p{addr}" for addr in lacking}
    assert read == {slug for slug, _ in FIELDS} - lesson.culprits
    assert asked <= 1 + 12 * len(lacking)


@given(st.sets(st.sampled_from(range(1, 64, 2)), min_size=1, max_size=2))
def test_holes_that_cannot_be_read_over_are_learnt(lacking: set[int]) -> None:
    limits = Limits(max_hole=1)
    for _ in range(8):
        lesson, asked, read = polled(limits, lacking, 2)
        assert not lesson.culprits
        assert len(read) == len(FIELDS)
    assert asked == len(plan(FIELDS, limits, 30))
    assert not any(block.addr < addr < block.end for block in plan(FIELDS, limits, 30) for addr in lacking)


@given(st.integers(1, 62))
def test_how_much_it_gives_at_once_is_learnt(longest: int) -> None:
    limits = Limits(max_hole=1)
    lesson, _, read = polled(limits, set(), 2, longest)
    if longest >= 3:
        assert not lesson.culprits
        assert len(read) == len(FIELDS)
        assert longest / 2 - 2 <= limits.longest <= longest


@pytest.mark.parametrize(("code", "questions"), [(2, 20), (3, 20), (1, 1), (4, 1), (6, 1)])
def test_a_device_that_refuses_everything_is_not_asked_much(code: int, questions: int) -> None:
    lesson, asked, read = polled(Limits(max_hole=1), set(range(64)), code)
    assert not read
    assert asked <= questions
    assert len(lesson.culprits) == (0 if code in (4, 6) else len(FIELDS))


def test_no_poll_parts_for_ever() -> None:
    lesson = Lesson()
    lesson.passed()
    block = Block(4, 0, 63, tuple(FIELDS))
    assert [bool(lesson.parts(block, Refused(2))) for _ in range(MOST_PARTS + 1)] == [True] * MOST_PARTS + [False]
    assert HOPELESS < MOST_PARTS


def test_what_was_refused_for_another_reason_teaches_nothing() -> None:
    """Exception 6, busy, in the middle of a search: nobody knows."""
    lesson, limits = Lesson(), Limits(max_hole=1)
    left, right = lesson.parts(Block(4, 0, 63, tuple(FIELDS)), Refused(2))
    lesson.passed()
    assert lesson.parts(right, Refused(6)) == ()
    assert not lesson.learn(limits)
    assert limits.cuts == set()
    assert left.fields


def test_a_longer_request_that_is_refused_is_not_tried_again_unless_something_else_was_the_reason() -> None:
    block, asked = Block(4, 4, 2, (FIELDS[2],)), Block(4, 4, 4, (FIELDS[2],))
    lesson, limits = Lesson(), Limits()
    lesson.refused_more(block, asked, limits)
    assert limits.cuts == {(4, 6)}
    assert lesson.learn(limits)
    assert limits.cuts == {(4, 6)}
    lesson = Lesson()
    lesson.refused_more(block, Block(4, 2, 4, (FIELDS[2],)), limits)
    assert lesson.parts(block, Refused(2)) == ()
    lesson.learn(limits)
    assert limits.cuts == {(4, 6)}
