"""Every shipped meter, found by itself: over the wire and back, nothing for what it lacks, known by its registers."""

from __future__ import annotations

from typing import Any

import pytest

from drivers.modbus import identify
from drivers.modbus.codec import decode, encode
from drivers.modbus.examples import registers
from gateway import load, profile
from gateway.profile import Catalogue, shipped_profiles

from .conftest import make_device, running

CATALOGUE = Catalogue([shipped_profiles()])
FOUND = {name: profile.load(CATALOGUE.path(name), load.profile_model) for name in CATALOGUE.names()}
METERS: dict[str, Any] = {name: one for name, one in FOUND.items() if one.driver == "modbus"}


TWENTY_SIX = {
    "eastron-sdm630", "eastron-sdm120", "eastron-sdm230", "eastron-sdm72", "carlo-gavazzi-em24", "carlo-gavazzi-em300",
    "carlo-gavazzi-em100", "schneider-iem3000", "schneider-pm5000", "abb-b23", "janitza-umg", "janitza-b23",
    "siemens-pac3200", "siemens-pac1600", "socomec-countis", "phoenix-eem", "finder-7m24", "orno-we514", "orno-we504",
    "orno-we516", "dzg-dvh4013", "iskra-wm1", "inepro-pro380", "chint-dtsu666", "lovato-dmg610", "sunspec-meter",
}  # fmt: skip
"""One for each entry of the table of meters; some entries are several profiles."""


def test_the_meters_of_the_facts_are_there() -> None:
    assert len(TWENTY_SIX) == 26
    assert set(METERS) >= TWENTY_SIX
    assert sum(len(one.points) for one in METERS.values()) >= 400


@pytest.mark.parametrize("name", METERS)
class TestMeter:
    def test_every_point_stands_in_an_example(self, name: str) -> None:
        shown = {slug for example in METERS[name].examples for slug in example.expect}
        if METERS[name].inherits:
            shown |= {slug for example in METERS[METERS[name].inherits].examples for slug in example.expect}
        elif name != "eastron-sdm630":  # its bytes are the maker's, who shows few
            assert set(METERS[name].points) - shown == set()

    async def test_what_its_examples_say_comes_over_the_wire(self, name: str) -> None:
        meter, wanted = METERS[name], {}
        async with running(make_device("a/m", 1, meter)) as street:
            fields = dict((*meter.fields(), *meter.writable()))
            for example in meter.examples:
                for slug in example.expect:
                    words = registers(fields, example.regs, slug)
                    assert not isinstance(words, str)
                    street.emulator.set("a/m", slug, tuple(words))
                    wanted[f"a/m/{slug}"], _ = decode(fields[slug], words)
            polled = {point: value for point, value in wanted.items() if point.rpartition("/")[2] in meter.points}
            await street.until(
                lambda seen: polled.items() <= {r.point: r.value for r in seen.readings if r.value is not None}.items()
            )

    async def test_what_it_makes_up_comes_over_the_wire(self, name: str) -> None:
        meter = METERS[name]
        async with running(make_device("a/m", 1, meter)) as street:
            await street.until(
                lambda seen: {f"a/m/{slug}" for slug in meter.points} <= {r.point for r in seen.readings}
            )
            assert [r for r in street.recorder.readings if r.quality != "good"] == []

    async def test_absent_quantities_are_no_value(self, name: str) -> None:
        meter = METERS[name]
        fields = dict(meter.fields())
        wanted = {f"a/m/{slug}": reason for one in meter.refusals for slug, reason in one.because.items()}
        assert wanted
        async with running(make_device("a/m", 1, meter)) as street:
            for refusal in meter.refusals:
                for slug in refusal.because:
                    words = registers(fields, refusal.regs, slug)
                    assert not isinstance(words, str)
                    street.emulator.set("a/m", slug, tuple(words))
            start = len(street.recorder.readings)
            await street.until(
                lambda seen: wanted.items() <= {r.point: r.reason for r in seen.readings[start:]}.items()
            )
            last = {r.point: r for r in street.recorder.readings}
            assert [last[point].value for point in wanted] == [None] * len(wanted)

    def test_each_value_round_trips_through_its_registers(self, name: str) -> None:
        meter = METERS[name]
        fields = dict((*meter.fields(), *meter.writable()))
        for example in meter.examples:
            for slug in example.expect:
                field = fields[slug]
                words = registers(fields, example.regs, slug)
                assert not isinstance(words, str)
                value, _ = decode(field, words)
                if field.special is None and value is not None:
                    assert decode(field, encode(field, value))[0] == value

    def test_bytes_that_are_no_answer_have_no_registers(self, name: str) -> None:
        assert [one.note for one in METERS[name].refusals if one.asked and bool(one.regs) != bool(one.because)] == []

    def test_what_it_says_of_other_meters_they_say_themselves(self, name: str) -> None:
        for check in METERS[name].match:
            for other, codes in check.others.items():
                [same] = [one for one in METERS[other].match if (one.fc, one.addr) == (check.fc, check.addr)]
                own = [*same.one_of, *same.starts, *([] if same.equals is None else [same.equals])]
                assert list(codes) == own
                assert name in same.others

    def test_its_registers_find_it_and_no_meter_that_says_another_code(self, name: str) -> None:
        meter = METERS[name]
        assert meter.match or meter.kind in ("gas", "noise"), "it cannot be found"
        assert len(identify.requests(meter, (*meter.match, *meter.verify))) <= 8
        for example in meter.examples:
            if example.identifies:
                found = identify.matches(METERS.values(), identify.bank(example.regs))
                assert name in {one.profile.profile.partition("/")[0] for one in found}
                if any(check.exact for check in meter.match):
                    assert found[0].profile is meter
                    assert found[0].confidence == identify.SURE
                    assert [one for one in found[1:] if one.confidence == identify.SURE] == []
