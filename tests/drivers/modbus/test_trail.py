"""Answers that come one behind: what tells them apart, what is asked where nothing does, and what that guarantees."""

from __future__ import annotations

import asyncio
import struct
from typing import TYPE_CHECKING, Any

import pytest

from drivers.modbus.codec import Field, Kind
from drivers.modbus.device import Polled
from drivers.modbus.plan import Block, Limits
from drivers.modbus.trail import SUSPECT, Trail
from gateway.testing import Recorder

from .conftest import EQUALS, ISOLATED, make_device, running
from .test_meters import METERS

if TYPE_CHECKING:
    from drivers.modbus.emulator import Fault

LONE = ISOLATED.model_copy(update={"points": {f"r{n}": ISOLATED.points[f"r{n}"] for n in (0, 10, 20, 40)}})
"""Nothing at all tells its answers apart."""


def single(addr: int, kind: Kind = Kind.U16, fc: int = 4) -> Block:
    field = Field(fc, addr, kind)
    return Block(fc, addr, field.width, ((f"r{addr}", field),))


def place(block: Block | None) -> tuple[int, int, int]:
    assert block
    return block.fc, block.addr, block.count


def trail(*blocks: Block) -> Trail:
    return Trail(Limits(), [pair for block in blocks for pair in block.fields])


A, B, PAIR = single(0), single(10), single(20, Kind.U32)


def test_what_is_of_one_length_is_proved_by_what_is_not() -> None:
    found = trail(A, B, PAIR)
    proved = []
    for asked in (A, B, PAIR, PAIR, A, B):
        found.asks(asked, 0.0)
        proved.append(found.is_proved(0.0))
    assert proved == [False, False, True, True, True, False]
    assert place(found.apart(0.0)) == place(PAIR)
    found.start_over()
    found.asks(PAIR, 0.0)
    assert not found.is_proved(0.0), "nobody knows what was asked before"


def test_a_refusal_proves_nothing() -> None:
    found = trail(A, B, PAIR)
    for asked in (A, PAIR):
        found.asks(asked, 0.0)
    found.refused(PAIR)
    assert not found.is_proved(0.0)


def test_the_same_question_again_and_again_is_proved_once_a_minute() -> None:
    found = trail(A, PAIR)
    for asked in (PAIR, A):
        found.asks(asked, 0.0)
    for now in range(0, round(SUSPECT), 10):
        found.asks(A, float(now))
        assert found.is_proved(float(now))
    assert not found.is_proved(SUSPECT)


def test_what_may_still_come_is_not_asked_for_until_something_else_is_answered() -> None:
    found = trail(A, B, PAIR)
    found.asks(A, 0.0)
    found.missed(A, 0.0)
    assert found.is_suspect(B, 1.0)
    assert not found.is_suspect(B, SUSPECT + 1)
    apart = found.apart(1.0)
    assert apart
    assert place(apart) == place(PAIR)
    for _ in range(3):  # silent for long: nobody looks at what this says
        found.asks(apart, 1.0)
        found.missed(apart, 1.0)
        assert found.apart(1.0) is apart
    found.answered(apart)
    assert not found.is_suspect(B, 1.0)
    assert found.is_suspect(PAIR, 1.0), "it was asked several times"
    found.answered(A)
    assert not found.is_suspect(PAIR, 1.0)


def test_what_was_refused_does_not_stand_apart_twice() -> None:
    found = trail(A, B, PAIR, single(30, Kind.U64))
    found.asks(A, 0.0)
    assert place(found.apart(0.0)) == place(PAIR)
    found.refused(PAIR)
    assert place(found.apart(0.0)) == (4, 30, 4)


def test_the_last_question_of_a_poll_proves_the_others_where_any_does() -> None:
    assert trail(A, B, PAIR).ordered([PAIR, A, B]) == [A, B, PAIR]
    assert trail(A, B).ordered([A, B]) == [A, B]
    holding = single(0, fc=3)
    assert trail(A, B, holding).ordered([holding, A, B]) == [A, B, holding]
    beside = [A, B, single(11)]
    assert trail(*beside).ordered([B, A]) == [A, B], "it can be asked for with its neighbour"


@pytest.mark.parametrize("name", METERS)
@pytest.mark.parametrize("every", [None, "1s"])
def test_every_meter_of_the_catalogue_is_proved_for_little(name: str, every: str | None) -> None:
    """At most one question more in a poll, and hardly ever that."""
    meter = METERS[name]
    device = Polled(make_device("a/m", 1, meter, every), Recorder())
    found = device.trail
    found.leads([pair for rate in device.rates for pair in rate.fields])
    now, asked, more = 0.0, 0, 0
    for _ in range(60):
        for block in device.blocks(device.take_due(now, 0.0), 20):
            found.asks(found.as_asked(block, now), now)
            asked += 1
        if not found.is_proved(now) and len(list(meter.fields())) > 1:
            apart = found.apart(now)
            assert apart, "nothing tells its answers apart"
            found.asks(apart, now)
            assert found.is_proved(now)
            more += 1
        now = device.due
    assert more <= 1 + asked / 6, "a lone request is proved once a minute"


BEHIND: list[Fault] = ["previous", "duplicate", "twin", "stale", "late", "overdue", "foreign"]


@pytest.mark.parametrize("wire", ["tcp", "rtu-over-tcp"])
@pytest.mark.parametrize("fault", BEHIND)
@pytest.mark.parametrize("name", ["equals", "isolated"])
async def test_answers_that_come_one_behind_are_no_values(name: str, fault: Fault, wire: str) -> None:
    """The right unit and transaction, and the registers of the question before (HA #130791, evcc #21026)."""
    async with running(
        make_device("a/m", 1, {"equals": EQUALS, "isolated": ISOLATED}[name], None), wire=wire
    ) as street:
        await street.seen(24, "a/m")
        for pause in (60, 1.003, 1.01, 1.02, 1.05, 1.1, 1.4, 2.2, 3):
            street.emulator.fault("a/m", fault)
            await asyncio.sleep(pause)
            street.emulator.fault("a/m", None)
            if fault == "previous":
                street.hang_up()
            await street.seen(24, "a/m")
        assert street.wrong() == []
        assert all(event.kind in ("device_up", "device_down") for event in street.recorder.events)


@pytest.mark.parametrize("wire", ["tcp", "rtu-over-tcp"])
@pytest.mark.parametrize("fault", ["late", "overdue", "stale", "foreign", "silent"])
async def test_where_nothing_tells_answers_apart_what_was_missed_is_still_waited_for(fault: Fault, wire: str) -> None:
    """What is left to a profile whose points are all of one length, none beside another: see docs/modbus.md."""
    async with running(make_device("a/m", 1, LONE, None), wire=wire) as street:
        await street.seen(24, "a/m")
        for pause in (60, 1.003, 1.05, 1.4, 3):
            street.emulator.fault("a/m", fault)
            await asyncio.sleep(pause)
            street.emulator.fault("a/m", None)
            await street.seen(24, "a/m")
        assert street.wrong() == []


async def test_a_lost_answer_is_followed_by_a_question_of_another_length() -> None:
    """Answers come in order: once that one is answered, the lost one comes no more; then it is asked for again."""
    async with running(make_device("a/m", 1, ISOLATED, None), wire="rtu-over-tcp") as street:
        await street.seen(24, "a/m")
        asked: list[tuple[int, int]] = []
        answer = street.emulator._spoilt

        def noted(frame: bytes) -> Any:
            asked.append(struct.unpack_from(">HH", frame, 8))
            if len(asked) == 1:
                return b"", None, 0.0
            return answer(frame)

        street.emulator._spoilt = noted  # type: ignore[method-assign]
        await street.seen(7, "a/m")
        lost, apart, again = asked[:3]
        assert lost == again
        assert apart[1] != lost[1]
        assert not street.recorder.events
