"""Scans of emulated lines: every meter of the catalogue on one line is found and named, whatever else is on it."""

from __future__ import annotations

import asyncio
from functools import cache
from typing import TYPE_CHECKING, Any, Self

import pytest

from drivers import modbus
from drivers.modbus.driver import wire
from drivers.modbus.emulator import Emulator
from drivers.modbus.frames import ILLEGAL_FUNCTION, Request
from drivers.modbus.inquiry import Candidates, Inquiry
from drivers.modbus.played import BAD_ADDRESS, Unit
from drivers.modbus.scan import MOST, Found, Step, factory_settings, look, scan, settings
from gateway import load, profile
from gateway.errors import LinkError
from gateway.testing import Recorder, make_link

from .conftest import PROFILES, SELF_IDENTIFYING, WIRES, make_device, make_settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from drivers.modbus.inquiry import Question
    from gateway.model import Device

BUDGET = 8


@cache
def meters() -> list[modbus.Profile]:
    found = (profile.load(path, load.profile_model) for path in sorted(PROFILES.glob("*.yaml")))
    return [each for each in found if isinstance(each, modbus.Profile) and each.match]


CANDIDATES = Candidates(meters())


class Deaf:
    """A wire at a speed that nobody on it speaks."""

    def __init__(self, wire: Any) -> None:
        self.wire = wire
        self.close = wire.close

    async def open(self) -> None:
        await self.wire.open()

    async def read(self, unit: int, *question: int) -> list[int]:
        words: list[int] = await self.wire.read(unit + 100, *question)
        return words


class Bench:
    """Devices on an emulated line, and what a scan of it tells."""

    def __init__(self, devices: Sequence[Device], on: str) -> None:
        self.keys = WIRES[on]
        self.emulator = Emulator(make_settings(self.keys, "250ms"), devices)
        self.steps: list[Step] = []
        self.found: list[Found] = []
        self.opened: list[str] = []
        self.spoken = ""

    async def __aenter__(self) -> Self:
        self.keys = {**self.keys, **await self.emulator.start()}
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.emulator.stop()

    def wire_at(self, serial: str) -> Any:
        """The emulated line does not mind the speed, unless it is told which one is `spoken`."""
        self.opened.append(serial)
        opened = wire(make_link(make_settings(self.keys, "250ms"), [], Recorder()), {})
        return opened if self.spoken in ("", serial) else Deaf(opened)

    async def tell(self, told: Step | Found) -> None:
        (self.steps if isinstance(told, Step) else self.found).append(told)  # type: ignore[arg-type]


@pytest.fixture(params=["rtu-over-tcp", "tcp"])
async def shared(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    """All meters of the catalogue, at addresses from 1."""
    devices = [make_device(f"a/{each.profile[:-2]}", unit, each) for unit, each in enumerate(meters(), 1)]
    async with Bench(devices, request.param) as bench:
        yield bench


async def test_every_meter_on_a_shared_line_is_named(shared: Bench) -> None:
    count = len(meters())
    await scan(shared.wire_at, meters(), {}, ["9600 8N1"], range(1, count + 3), shared.tell)
    named = {each.unit: [match.profile.profile for match in each.matches] for each in shared.found}
    assert named == {unit: [each.profile] for unit, each in enumerate(meters(), 1)}
    assert [step.done for step in shared.steps] == list(range(count + 2))
    assert {step.total for step in shared.steps} == {count + 2}
    assert {each.unit: each.questions for each in shared.found if each.questions > BUDGET} == {}


@pytest.mark.parametrize("each", meters(), ids=lambda each: each.profile)
async def test_a_meter_takes_eight_questions_at_most_and_none_twice(each: modbus.Profile) -> None:
    """At every setting: which one it is asked at does not matter."""
    async with Bench([make_device("a/m", 7, each)], "rtu-over-tcp") as bench:
        for serial in (each.line.serial or "9600 8N1", "57600 8O1"):
            before = bench.emulator.requests
            found = await look(bench.wire_at(serial), serial, 7, CANDIDATES)
            assert found
            assert [match.profile.profile for match in found.matches] == [each.profile]
            assert found.questions == bench.emulator.requests - before <= BUDGET


@pytest.mark.parametrize("base", [40000, 50000, 0])
@pytest.mark.parametrize("name", ["sunspec-meter/1", "sunspec-inverter/1"])
async def test_a_sunspec_device_is_found_wherever_it_begins(name: str, base: int) -> None:
    each = next(one for one in meters() if one.profile == name)
    async with Bench([make_device("a/m", 7, each)], "tcp") as bench:
        bench.emulator.move("a/m", base, [])
        found = await look(bench.wire_at(""), "", 7, CANDIDATES)
        assert found
        assert [match.profile.profile for match in found.matches] == [name]
        assert found.questions == bench.emulator.requests <= BUDGET


def test_a_sunspec_device_of_which_we_know_no_model_is_not_named() -> None:
    words = {40000: 0x5375, 40001: 0x6E53, 40002: 1, 40003: 66, 40070: 64999, 40071: 4, 40076: 0xFFFF, 40077: 0}
    inquiry = Inquiry(CANDIDATES)
    while question := inquiry.next():
        _, first, count = question
        there = [words[addr] for addr in range(first, first + count) if addr in words]
        inquiry.told(question, there if len(there) == count else None)
        assert len(inquiry.asked) < MOST
    assert (3, 40076, 2) in inquiry.asked
    assert inquiry.found() == []


def answers_of(unit: Unit, candidates: Candidates, code: int | None = None) -> tuple[list[Question], list[str]]:
    """What a meter is asked, and what it is taken for; `code`: how it refuses, whatever it is asked."""
    inquiry = Inquiry(candidates)
    while question := inquiry.next():
        answer = unit.read(Request(0, 7, *question), 1.0)
        if isinstance(answer, int):
            inquiry.told(question, None, is_illegal=(code or answer) == ILLEGAL_FUNCTION)
        else:
            inquiry.told(question, answer)
        assert len(inquiry.asked) < MOST
    return inquiry.asked, [match.profile.profile for match in inquiry.found()]


@pytest.mark.parametrize("each", meters(), ids=lambda each: each.profile)
def test_a_meter_that_refuses_otherwise_than_its_maker_says_is_found_all_the_same(each: modbus.Profile) -> None:
    """Many say that a register is not there where they do not know the function, and some the other way round."""
    asked, named = answers_of(Unit(make_device("a/m", 7, each), 0.0), CANDIDATES, code=2)
    assert named == [each.profile]
    assert len(asked) == len(set(asked))


class Zeros(Unit):
    """Many meters answer a register that they do not have with zero, and refuse nothing."""

    def read(self, request: Request, now: float) -> tuple[int, ...] | int:
        answer = super().read(request, now)
        return (0,) * request.count if answer == BAD_ADDRESS else answer


@pytest.mark.parametrize("each", meters(), ids=lambda each: each.profile)
def test_a_meter_that_says_zero_where_it_has_nothing_is_named_with_those_alone_that_are_like_it(
    each: modbus.Profile,
) -> None:
    asked, named = answers_of(Zeros(make_device("a/m", 7, each), 0.0), CANDIDATES)
    assert each.profile in named
    assert {name.partition("-")[0] for name in named} == {each.profile.partition("-")[0]}
    assert len(asked) == len(set(asked))


async def test_a_meter_that_is_set_to_the_other_word_order_is_named() -> None:
    sdm630 = next(each for each in meters() if each.profile == "eastron-sdm630/1")
    async with Bench([make_device("a/m", 7, sdm630)], "rtu-over-tcp") as bench:
        bench.emulator.turn("a/m")
        found = await look(bench.wire_at("9600 8N1"), "9600 8N1", 7, CANDIDATES)
        assert found
        assert [match.profile.profile for match in found.matches] == ["eastron-sdm630/1"]


async def test_a_stranger_is_found_but_not_named() -> None:
    async with Bench([make_device("a/m", 3, SELF_IDENTIFYING)], "rtu-over-tcp") as bench:
        await scan(bench.wire_at, meters(), {}, ["9600 8N1"], [1, 2, 3, 4], bench.tell)
        (found,) = bench.found
        assert (found.unit, found.matches, found.trouble) == (3, [], "")


@pytest.mark.parametrize("serial", ["9600 8N1", "115200 8N2"])
async def test_two_meters_with_one_address_are_not_taken_for_one(serial: str) -> None:
    """Whether the first question is answered or refused."""
    sdm630 = next(each for each in meters() if each.profile == "eastron-sdm630/1")
    async with Bench([make_device("a/m", 1, sdm630)], "rtu-over-tcp") as bench:
        bench.emulator.fault("a/m", "duplicate")
        await scan(bench.wire_at, meters(), {serial: [1]}, [], [1], bench.tell)
        (found,) = bench.found
        assert found.trouble.startswith("Two meters share address 1. Disconnect one, ")
        assert not found.matches


async def test_bytes_of_another_speed_are_said_and_nothing_is_named() -> None:
    async with Bench([make_device("a/m", 1, meters()[0])], "rtu-over-tcp") as bench:
        bench.emulator.fault("a/m", "other_speed")
        await scan(bench.wire_at, meters(), {"9600 8N1": [1]}, [], [1], bench.tell)
        (found,) = bench.found
        assert "bytes came, but at another speed" in found.trouble
        assert not found.matches


async def test_factory_settings_come_first_and_lively_speeds_before_silent_ones() -> None:
    async with Bench([make_device("a/m", 1, meters()[0])], "rtu-over-tcp") as bench:
        bench.spoken = "19200 8E1"
        factory = {"9600 8N1": [1], "19200 8E1": [1]}
        await scan(bench.wire_at, meters(), factory, list(factory), [1, 2], bench.tell)
        assert bench.opened == ["9600 8N1", "19200 8E1", "19200 8E1", "9600 8N1"]
        assert [(step.serial, step.unit) for step in bench.steps] == [
            ("9600 8N1", 1), ("19200 8E1", 1), ("19200 8E1", 2), ("9600 8N1", 2),
        ]  # fmt: skip


class Unset:
    """A port that does not have this setting."""

    async def open(self) -> None:
        raise LinkError("It cannot be set so.")

    def close(self) -> None: ...


async def test_a_setting_that_the_port_does_not_have_is_passed_over() -> None:
    async with Bench([make_device("a/m", 1, meters()[0])], "rtu-over-tcp") as bench:

        def wire_at(serial: str) -> Any:
            return Unset() if serial == "1200 8O1" else bench.wire_at(serial)

        await scan(wire_at, meters(), {}, ["9600 8N1", "1200 8O1", "19200 8N1"], [1], bench.tell)
        assert [each.serial for each in bench.found] == ["9600 8N1", "19200 8N1"]
        with pytest.raises(LinkError):
            await scan(wire_at, meters(), {}, ["1200 8O1", "9600 8N1"], [1], bench.tell)


async def test_a_port_that_is_gone_ends_the_scan() -> None:
    async with Bench([make_device("a/m", 1, meters()[0])], "rtu-over-tcp") as bench:
        wires = iter([bench.wire_at("9600 8N1"), Unset(), Unset()])
        with pytest.raises(LinkError):
            await scan(lambda _: next(wires), meters(), {}, ["9600 8N1", "19200 8N1"], [1], bench.tell)
        assert [each.serial for each in bench.found] == ["9600 8N1"]


async def test_a_cancelled_scan_closes_its_wire_and_the_next_is_right(shared: Bench) -> None:
    scanning = asyncio.create_task(scan(shared.wire_at, meters(), {}, ["9600 8N1"], range(1, 30), shared.tell))
    async with asyncio.timeout(600):
        while not shared.found:  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.003)
    await asyncio.sleep(0.007)
    scanning.cancel()
    await asyncio.wait([scanning])
    assert scanning.cancelled()
    shared.found.clear()
    await scan(shared.wire_at, meters(), {}, ["9600 8N1"], [4, 5], shared.tell)
    assert [each.matches[0].profile.profile for each in shared.found] == [meters()[3].profile, meters()[4].profile]


def test_a_device_that_answers_everything_with_zero_is_nobody() -> None:
    inquiry = Inquiry(CANDIDATES)
    while question := inquiry.next():
        inquiry.told(question, [0] * question[2])
        assert len(inquiry.asked) < 60
    assert inquiry.found() == []


def test_a_device_that_answers_no_half_values_is_asked_for_whole_ones() -> None:
    """Carlo Gavazzi and ABB leave that open: then what `match` looks for decides."""
    abb = next(each for each in meters() if each.profile == "abb-b23/1")
    whole = {(field.fc, field.addr, field.width) for _, field in abb.fields()} | {(3, 0x8960, 3)}
    inquiry = Inquiry(CANDIDATES)
    while question := inquiry.next():
        words = [0x4232, 0x3320, 0x2020] if question == (3, 0x8960, 3) else [0] * (question[2] - 1) + [1]
        inquiry.told(question, words if question in whole else None)
        assert len(inquiry.asked) < 60
    assert [match.profile.profile for match in inquiry.found()] == ["abb-b23/1"]


def test_every_setting_is_tried_and_new_meters_are_looked_for_where_they_are() -> None:
    new = factory_settings(meters(), range(1, 248))
    assert next(iter(new)) == "9600 8N1"
    assert 33 in new["115200 8N2"]
    every = list(settings(meters()))
    assert every[: len(new)] == list(new)
    assert len(every) == len(set(every))
    assert {"1200 8N1", "2400 8N1", "38400 8E1"} <= set(every)
