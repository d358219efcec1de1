"""Every shipped profile, found by itself: it loads, its examples come out, and it says where its facts are from."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from gateway import document, load
from gateway.batch import point_entry
from gateway.profile import Catalogue
from gateway.quantities import QUANTITIES, Kind
from gateway.site.read import shipped_profiles

CATALOGUE = Catalogue([shipped_profiles()])


def shipped(name: str) -> Any:
    path = CATALOGUE.path(name)
    return load.profile(document.read(path), path.stem)


def test_there_are_profiles_for_every_shipped_driver() -> None:
    assert {shipped(name).driver for name in CATALOGUE.names()} == set(load.drivers())


@pytest.mark.parametrize("name", CATALOGUE.names())
class TestProfile:
    def test_it_loads_and_its_own_examples_come_out(self, name: str) -> None:
        found = shipped(name)
        assert load.driver(found.driver).self_test(found) == []

    def test_it_has_examples(self, name: str) -> None:
        assert shipped(name).examples, "a profile that shows no bytes proves nothing"

    def test_it_says_where_its_facts_are_from(self, name: str) -> None:
        source = shipped(name).source
        assert all(len(one) > 10 for one in ([source] if isinstance(source, str) else source))
        assert source

    def test_it_says_what_it_is(self, name: str) -> None:
        found = shipped(name)
        assert found.title
        assert found.points

    def test_every_point_means_something_a_platform_knows(self, name: str) -> None:
        for slug, written in shipped(name).points.items():
            point = written.point("lp-1/x", slug)
            assert point_entry(point)[:3] == (f"lp-1/x/{slug}", point.quantity, point.unit)
            if known := QUANTITIES.get(point.quantity):
                assert point.unit == known.unit
                assert point.phase is None or known.phase, f"{point.quantity} has no phase"
                assert point.direction is None or known.direction, f"{point.quantity} has no direction"
                assert known.kind is not Kind.COUNTER or point.statistic in (None, "last"), f"{slug}: a counter"

    def test_no_two_points_mean_the_same(self, name: str) -> None:
        meanings = [tuple(point_entry(p.point("a/b", slug))[1:]) for slug, p in shipped(name).points.items()]
        assert sorted(map(repr, meanings)) == sorted({repr(one) for one in meanings})

    def test_a_wrong_example_would_be_found(self, name: str, tmp_path: Any) -> None:
        """The self-test must be able to fail: each number that an example expects is changed in turn."""
        path = CATALOGUE.path(name)
        written = document.read(path)
        found = load.profile(written, path.stem)
        driver = load.driver(found.driver)
        spoilt = 0
        for example in found.examples:
            key = "expect" if hasattr(example, "expect") else "reads"
            for slug, expected in getattr(example, key).items():
                other = _other(expected)
                if other is None:
                    continue
                changed = example.model_copy(update={key: {**getattr(example, key), slug: other}})
                examples = [changed if one is example else one for one in found.examples]
                failed = driver.self_test(found.model_copy(update={"examples": examples}))
                assert failed, f"{slug}: {other} instead of {expected} went through"
                assert written.line(failed[0][0]) > 1, "the failure has no place in the file"
                spoilt += 1
        assert spoilt


def _other(expected: Any) -> Any:
    """Another value of the same form, or None where there is no number."""
    if hasattr(expected, "value"):
        if expected.value is None:
            return None
        other = f"not_{expected.value}" if isinstance(expected.value, str) else expected.value + 7
        return dataclasses.replace(expected, value=other)
    number, _, unit = str(expected).partition(" ")
    try:
        return f"{float(number) + 7} {unit}".strip()
    except ValueError:
        return None
