"""Lines: RTU over TCP and on a pty. No fault makes a value, each is said in one sentence, and the pace is kept."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from drivers.modbus.frames import NoAnswer
from drivers.modbus.line import Line
from drivers.modbus.pace import Pace
from gateway.errors import CommandError
from gateway.model import Quality

from .conftest import SELF_IDENTIFYING, WIRES, Street, make_device, make_settings, order, running

if TYPE_CHECKING:
    from drivers.modbus.emulator import Fault

LINES = ["rtu-over-tcp", "pty"]
DEADLY: dict[Fault, str] = {
    "silent": "no answer within 1 s, not one byte. Check power and unit id, swap A and B.",
    "late": "not one byte",
    "truncated": "the answer was cut short",
    "crc": "the checksum is wrong. Check shield, termination and earth, and that no other device has address 1.",
    "short": "registers were asked, the answer has",
    "long": "registers were asked, the answer has",
    "wrong_function": "answered function",
    "wrong_unit": "unit 0 answered a question to unit 1",
    "garbage": "bytes came, but at another speed or parity. Try 9600 8N1.",
    "other_speed": "bytes came, but at another speed or parity. Try 9600 8N1.",
    "foreign": "another master asks unit 1 on this line. Disconnect the other master.",
    "echo_only": "the adapter hears only its own question. Check the device's power",
    "twin": "two devices have address 1. Disconnect one of them and give it another address.",
    "duplicate": "two devices have address 1. Disconnect one of them and give it another address.",
}
HARMLESS: list[Fault] = ["echo", "garbage_before", "garbage_after", "trickle", "stale"]


def pair() -> list[Any]:
    return [make_device("a/m", 1, SELF_IDENTIFYING), make_device("b/m", 2, SELF_IDENTIFYING)]


@pytest.mark.parametrize("wire", LINES)
@pytest.mark.parametrize(("fault", "say"), DEADLY.items(), ids=DEADLY)
async def test_no_fault_ever_makes_a_value_and_each_is_said(wire: str, fault: Fault, say: str) -> None:
    """Registers say their own address, so a value from elsewhere would show."""
    async with running(*pair(), wire=wire) as street:
        await street.seen(24, "a/m")
        street.emulator.fault("a/m", fault)
        await street.until(lambda r: bool(r.events))
        assert street.recorder.events[0].kind == "device_down"
        assert say in street.recorder.events[0].say
        await street.seen(60, "b/m")
        street.emulator.fault("a/m", None)
        await street.until(lambda r: r.events[-1].kind == "device_up")
        await street.seen(24, "a/m")
        assert street.wrong() == []


@pytest.mark.parametrize("wire", LINES)
@pytest.mark.parametrize("fault", HARMLESS)
async def test_what_does_no_harm_costs_no_value(wire: str, fault: Fault) -> None:
    async with running(*pair(), wire=wire) as street:
        await street.seen(24, "a/m")
        street.emulator.fault("a/m", fault)
        await street.seen(60, "a/m")
        assert street.wrong() == []
        assert not street.recorder.events
        assert all(r.quality is Quality.GOOD for r in street.recorder.readings)


@pytest.mark.parametrize("wire", LINES)
async def test_a_cancelled_question_never_answers_the_next(wire: str) -> None:
    street = Street(pair(), wire=wire)
    await street.start()
    line = Line("line", street.settings, {})
    try:
        for turns in range(30):
            task = asyncio.create_task(line.read(1, 4, 0, 4))
            await asyncio.sleep(0.001 * turns)
            task.cancel()
            await asyncio.wait({task})
            assert await line.read(1, 4, 40, 4) == [1040, 1041, 1042, 1043]
    finally:
        line.close()
        await street.emulator.stop()


@pytest.mark.parametrize("wire", LINES)
async def test_a_late_answer_never_answers_the_next(wire: str) -> None:
    """As many registers are asked, of the same unit: only the quiet after the failure tells them apart."""
    street = Street(pair(), wire=wire)
    await street.start()
    line = Line("line", street.settings, {})
    try:
        for _ in range(5):
            street.emulator.fault("a/m", "late")
            with pytest.raises(NoAnswer):
                await line.read(1, 4, 0, 4)
            street.emulator.fault("a/m", None)
            assert await line.read(1, 4, 40, 4) == [1040, 1041, 1042, 1043]
    finally:
        line.close()
        await street.emulator.stop()


@pytest.mark.parametrize("wire", LINES)
async def test_a_kept_answer_before_the_right_one_is_not_believed(wire: str) -> None:
    """Both fit the question: unit, function, length and checksum. Only that there are two tells."""
    street = Street(pair(), wire=wire)
    await street.start()
    line = Line("line", street.settings, {})
    try:
        assert await line.read(1, 4, 0, 4) == [1000, 1001, 1002, 1003]
        street.emulator.fault("a/m", "stale")
        with pytest.raises(NoAnswer, match="two answers came to one question, nobody knows which is right"):
            await line.read(1, 4, 40, 4)
        street.emulator.fault("a/m", None)
        assert await line.read(1, 4, 40, 4) == [1040, 1041, 1042, 1043]
    finally:
        line.close()
        await street.emulator.stop()


@pytest.mark.parametrize("wire", LINES)
async def test_a_duplicate_never_answers_the_next(wire: str) -> None:
    street = Street(pair(), wire=wire)
    await street.start()
    line = Line("line", street.settings, {1: Pace(1.0, gap=0.06)})
    try:
        street.emulator.fault("a/m", "duplicate")
        with suppress(NoAnswer):  # on a machine that stands still both come at once
            assert await line.read(1, 4, 0, 4) == [1000, 1001, 1002, 1003]
        for addr in (40, 0, 40):
            with pytest.raises(NoAnswer, match="two answers come to each question, two devices have address 1"):
                await line.read(1, 4, addr, 4)
        street.emulator.fault("a/m", None)
        assert await line.read(1, 4, 40, 4) == [1040, 1041, 1042, 1043]
    finally:
        line.close()
        await street.emulator.stop()


@pytest.mark.parametrize("wire", LINES)
async def test_a_write_is_proved_and_an_echo_is_no_proof(wire: str) -> None:
    async with running(make_device("a/m", 1, SELF_IDENTIFYING), wire=wire) as street:
        await street.seen(12, "a/m")
        street.emulator.fault("a/m", "echo")
        reply = await street.driver.execute(order("a/m/target", 15))
        assert (reply.now, reply.proof) == ({"value": 15}, "readback")
        street.emulator.fault("a/m", "echo_only")
        with pytest.raises(CommandError, match="cannot be read back") as failed:
            await street.driver.execute(order("a/m/target", 20))
        assert failed.value.code == "unconfirmed"


async def test_a_write_of_one_register_that_only_echoed_is_no_answer() -> None:
    """The answer to function 6 is the question itself."""
    street = Street(pair(), wire="pty")
    await street.start()
    line = Line("line", street.settings, {})
    try:
        street.emulator.fault("a/m", "echo")
        assert await line.read(1, 4, 0, 2) == [1000, 1001]
        street.emulator.fault("a/m", "echo_only")
        with pytest.raises(NoAnswer, match="hears only its own question"):
            await line.write(1, 6, 7, [5])
    finally:
        line.close()
        await street.emulator.stop()


@pytest.mark.parametrize("minimum", [0.0, 0.06])
async def test_the_line_is_silent_before_each_question(minimum: float) -> None:
    """3.5 characters at 19200 Bd are 1.8 ms; Eastron wants 60 ms."""
    street = Street(pair(), wire="rtu-over-tcp")
    await street.start()
    line = Line("line", street.settings, {1: Pace(1.0, gap=minimum)})
    bus = street.emulator.bus
    assert bus
    gaps = []
    try:
        await line.read(1, 4, 0, 4)
        hear = bus.hear

        def heard(asked: bytes) -> None:
            gaps.append(asyncio.get_running_loop().time() - bus._free)
            hear(asked)

        bus.hear = heard  # type: ignore[method-assign]
        for _ in range(20):
            await line.read(1, 4, 0, 4)
    finally:
        line.close()
        await street.emulator.stop()
    assert line.silence == pytest.approx(3.5 * 10 / 19200)
    assert min(gaps) >= max(line.silence, minimum)


async def test_a_serial_server_that_closes_idle_connections_is_no_fault() -> None:
    async with running(make_device("a/m", 1, SELF_IDENTIFYING), wire="rtu-over-tcp") as street:
        await street.seen(24, "a/m")
        assert street.emulator.bus
        street.emulator.bus.unplug()
        await street.seen(24, "a/m")
        assert not street.recorder.events


async def test_a_serial_server_that_closes_behind_its_answer_has_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    street = Street(pair(), wire="rtu-over-tcp")
    await street.start()
    bus = street.emulator.bus
    assert bus
    put = bus._put

    def put_and_close(piece: bytes) -> None:
        put(piece)
        assert bus._peer
        bus._peer.close()

    monkeypatch.setattr(bus, "_put", put_and_close)
    line = Line("line", street.settings, {})
    try:
        for _ in range(3):
            assert await line.read(1, 4, 0, 4) == [1000, 1001, 1002, 1003]
    finally:
        line.close()
        await street.emulator.stop()


async def test_nobody_wakes_for_the_pieces_of_a_long_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """161 bytes come in 11 pieces, most of them in the time that the device was found to think."""
    street = Street([make_device("a/m", 1)], wire="rtu-over-tcp")
    assert street.emulator.bus
    street.emulator.bus.turnaround = 0.1
    await street.start()
    line = Line("line", street.settings, {})
    heard = 0
    hear = line.hear

    def counted(data: bytes) -> None:
        nonlocal heard
        heard += 1
        hear(data)

    monkeypatch.setattr(line, "hear", counted)
    try:
        await line.read(1, 4, 0, 78)
        heard = 0
        for _ in range(5):
            await line.read(1, 4, 0, 78)
    finally:
        line.close()
        await street.emulator.stop()
    assert heard <= 25  # of 55 pieces


async def test_the_silence_behind_an_answer_is_not_the_devices_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """It answers when 0.95 of its second are over, and 3.5 characters take longer than the rest."""
    monkeypatch.setitem(WIRES, "slow", {"port": "tcp://127.0.0.1:1", "baud": "300"})
    street = Street(pair(), wire="slow")
    assert street.emulator.bus
    street.emulator.bus.turnaround = 0.95
    await street.start()
    line = Line("line", street.settings, {})
    try:
        assert await line.read(1, 4, 0, 4) == [1000, 1001, 1002, 1003]
    finally:
        line.close()
        await street.emulator.stop()


async def test_a_line_that_is_never_quiet() -> None:
    street = Street(pair(), wire="rtu-over-tcp")
    await street.start()
    line = Line("line", street.settings, {})
    await line.open()
    assert street.emulator.bus
    peer = street.emulator.bus._peer
    while peer is None:
        await asyncio.sleep(0.01)
        peer = street.emulator.bus._peer

    async def talk() -> None:
        while True:
            peer.write(b"\xaa" * 40)
            await asyncio.sleep(0.2)

    task = asyncio.create_task(talk())
    try:
        with pytest.raises(NoAnswer, match="the line is never quiet") as failed:
            await line.read(1, 4, 0, 4)
        assert "second master" in failed.value.fix
    finally:
        task.cancel()
        await asyncio.wait({task})
        line.close()
        await street.emulator.stop()


@pytest.mark.parametrize(
    ("baud", "gap", "turnaround", "registers"),
    [("9600", 0.0, 0.04, 29), ("9600", 0.0, 0.0, 10), ("115200", 0.0, 0.04, 257), ("9600", 0.06, 0.04, 56)],
)
async def test_how_many_registers_a_question_is_worth(baud: str, gap: float, turnaround: float, registers: int) -> None:
    """By hand: 13 characters, two silences and the turnaround, over two characters."""
    pace = Pace(1.0, gap=gap)
    pace.took(turnaround)
    line = Line("line", make_settings({"port": "/dev/null", "baud": baud}), {1: pace})
    assert line.worth(1) == registers


async def test_the_turnaround_is_measured() -> None:
    street = Street(pair(), wire="rtu-over-tcp")
    assert street.emulator.bus
    street.emulator.bus.turnaround = 0.04
    await street.start()
    pace = Pace(1.0)
    line = Line("line", street.settings, {1: pace})
    try:
        before = line.worth(1)
        for _ in range(5):
            await line.read(1, 4, 0, 4)
        assert pace.turnaround is not None
        assert 0.036 <= pace.turnaround <= 0.06
        assert line.worth(1) - before == pytest.approx(0.04 / (20 / 19200), abs=15)
        assert line.worth(1) > before
    finally:
        line.close()
        await street.emulator.stop()
