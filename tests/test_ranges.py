"""Ranges against the simplest thing that is right: a set of numbers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.ranges import Ranges

numbers = st.integers(-5, 60)
span = st.tuples(numbers, st.integers(0, 12)).map(lambda pair: (pair[0], pair[0] + pair[1]))
spans = st.lists(span, max_size=12)


def model(some: list[tuple[int, int]]) -> set[int]:
    return {number for first, last in some for number in range(first, last + 1)}


def as_spans(some: set[int]) -> list[tuple[int, int]]:
    """The shortest list of ranges for a set."""
    found: list[tuple[int, int]] = []
    for number in sorted(some):
        if found and found[-1][1] == number - 1:
            found[-1] = (found[-1][0], number)
        else:
            found.append((number, number))
    return found


@given(spans)
def test_it_holds_what_was_added_in_as_few_ranges_as_can_be(some: list[tuple[int, int]]) -> None:
    ranges, numbers_held = Ranges(some), model(some)
    assert ranges.spans() == as_spans(numbers_held) == list(ranges)
    assert ranges.total() == len(numbers_held)
    assert len(ranges) == len(as_spans(numbers_held))
    assert ranges == Ranges(reversed(some))


@given(spans, span)
def test_covers_and_missing(some: list[tuple[int, int]], asked: tuple[int, int]) -> None:
    ranges, held, wanted = Ranges(some), model(some), model([asked])
    assert ranges.covers(*asked) == (wanted <= held)
    assert ranges.missing(*asked) == as_spans(wanted - held)
    assert (asked[0] in ranges) == (asked[0] in held)


@given(spans, numbers)
def test_first_missing(some: list[tuple[int, int]], start: int) -> None:
    held = model(some)
    expected = next(number for number in range(start, 200) if number not in held)
    assert Ranges(some).first_missing(start) == expected


@given(spans, numbers, span)
def test_forget_then_add(some: list[tuple[int, int]], below: int, more: tuple[int, int]) -> None:
    ranges = Ranges(some)
    ranges.forget(below)
    held = {number for number in model(some) if number >= below}
    assert ranges.spans() == as_spans(held)
    ranges.add(*more)
    assert ranges.spans() == as_spans(held | model([more]))


def test_a_range_that_ends_before_it_starts_is_refused() -> None:
    ranges = Ranges([(1, 3)])
    with pytest.raises(ValueError, match=r"5\.\.4"):
        ranges.add(5, 4)
    assert ranges.spans() == [(1, 3)]


def test_it_says_what_it_holds() -> None:
    assert repr(Ranges([(1, 2), (4, 4)])) == "Ranges([(1, 2), (4, 4)])"
    assert Ranges([(1, 2)]) != [(1, 2)]


@given(st.sets(st.integers(1, 60)), st.integers(1, 60), st.integers(0, 30))
def test_within_and_missing_make_up_the_whole(numbers: set[int], first: int, length: int) -> None:
    ranges, last = Ranges((n, n) for n in numbers), first + length
    there = {n for a, b in ranges.within(first, last) for n in range(a, b + 1)}
    assert there == {n for n in range(first, last + 1) if n in numbers}
    assert Ranges([*ranges.within(first, last), *ranges.missing(first, last)]) == Ranges([(first, last)])


@given(spans, span)
def test_what_is_removed_is_gone(some: list[tuple[int, int]], gone: tuple[int, int]) -> None:
    ranges = Ranges(some)
    ranges.remove(*gone)
    assert ranges.spans() == as_spans(model(some) - model([gone]))
