"""RTU frames: vectors of the specification and a maker; only the answer to the question passes, in any noise."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.modbus import frames, rtu
from drivers.modbus.frames import NoAnswer, Refused, Request

# The first two: Eastron SDM320Y user manual 06-2018, p. 42 and 43 (voltage, 230.2 V; write of the demand period).
# The third: MODBUS over Serial Line V1.02, 6.2.2 (unit 2, function 7: CRC 0x1241, sent 41 12).
VECTORS = ["01 04 00 00 00 02 71 CB", "01 04 04 43 66 33 34 1B 38", "02 07 41 12"]


@pytest.mark.parametrize("frame", VECTORS)
def test_the_crc_of_vectors(frame: str) -> None:
    raw = bytes.fromhex(frame)
    assert rtu.crc16(raw[:-2]) == raw[-2:]


def test_a_makers_question_and_answer() -> None:
    asked, answered = (bytes.fromhex(each) for each in VECTORS[:2])
    assert rtu.seal(frames.ask(Request(9, 1, 4, 0, 2))) == asked
    assert rtu.find_answer(asked, answered) == answered
    assert rtu.answer_length(asked) == len(answered)
    assert frames.parse(rtu.unseal(asked)) == Request(0, 1, 4, 0, 2)


words16 = st.integers(0, 65535)
reads = st.builds(
    Request,
    transaction=st.just(0),
    unit=st.integers(1, 247),
    function=st.sampled_from([3, 4]),
    addr=st.integers(0, 65000),
    count=st.integers(1, 125),
)
writes = st.integers(1, 20).flatmap(
    lambda n: st.builds(
        Request,
        transaction=st.just(0),
        unit=st.integers(1, 247),
        function=st.just(16),
        addr=st.integers(0, 65000),
        count=st.just(n),
        words=st.tuples(*[words16] * n),
    )
)


@given(reads, st.binary(max_size=20), st.binary(max_size=20), st.data())
def test_an_answer_is_found_byte_by_byte_in_noise(
    request: Request, before: bytes, after: bytes, data: st.DataObject
) -> None:
    words = data.draw(st.lists(words16, min_size=request.count, max_size=request.count))
    asked, whole = rtu.seal(frames.ask(request)), rtu.seal(frames.answer(request, words))
    stream = before + whole
    for end in range(len(stream)):
        assert rtu.find_answer(asked, stream[:end]) is None
    assert rtu.find_answer(asked, stream + after) == whole


@given(reads, st.binary(max_size=300))
def test_noise_is_never_an_answer(request: Request, noise: bytes) -> None:
    with contextlib.suppress(NoAnswer, Refused):
        assert rtu.find_answer(rtu.seal(frames.ask(request)), noise) is None


@given(reads, st.data())
def test_no_changed_bit_passes(request: Request, data: st.DataObject) -> None:
    """CRC-16 finds every error of one or two bits in frames of this length."""
    asked, answer = rtu.seal(frames.ask(request)), rtu.seal(frames.answer(request, [1] * request.count))
    damaged = int.from_bytes(answer, "big")
    for bit in data.draw(st.sets(st.integers(0, 8 * len(answer) - 1), min_size=1, max_size=2)):
        damaged ^= 1 << bit
    heard = damaged.to_bytes(len(answer), "big")
    assert rtu.find_answer(asked, heard) is None
    rtu.why_none(asked, heard)


@given(reads, reads)
def test_the_answer_to_another_question_never_passes(ours: Request, other: Request) -> None:
    asked, answer = rtu.seal(frames.ask(ours)), rtu.seal(frames.answer(other, [0xFFFF] * other.count))
    same = (ours.unit, ours.function, ours.count) == (other.unit, other.function, other.count)
    assert (rtu.find_answer(asked, answer) is not None) == same


@given(st.one_of(reads, writes))
def test_a_question_is_cut_from_a_stream_byte_by_byte(request: Request) -> None:
    whole = rtu.seal(frames.ask(request))
    rest, found = b"", []
    for byte in whole + whole:
        question, rest = rtu.cut_question(rest + bytes([byte]))
        found += [question] if question else []
    assert found == [whole, whole]


@pytest.mark.parametrize(
    ("heard", "say", "fix"),
    [
        ("01 04 04 43 66 33 34 1B 39", "checksum is wrong", "no other device has address 1"),
        ("01 04 04 43 66 33", "cut short: 6 of 9 bytes", "Check its power"),
        ("02 04 04 00 00 00 00 C8 84", "unit 2 answered a question to unit 1", "unit id"),
        ("01 03 04 00 00 00 00 FA 33", "function 3 answered function 4", "unit id"),
        ("01 04 02 00 00 B9 30", "2 registers were asked, the answer has 1", "unit id"),
        ("05 03 00 00 00 02 C5 8F", "another master asks on this line", "Disconnect the other master."),
    ],
)
def test_what_is_wrong_is_said(heard: str, say: str, fix: str) -> None:
    raw = bytes.fromhex(heard)
    asked = bytes.fromhex(VECTORS[0])
    assert rtu.find_answer(asked, raw) is None
    found = rtu.why_none(asked, raw)
    assert found is not None
    assert say in str(found)
    assert fix in found.fix


def test_bytes_that_are_no_frame_at_all() -> None:
    assert rtu.why_none(bytes.fromhex(VECTORS[0]), bytes.fromhex("FC E0 1C 80 00 FE")) is None


def test_an_exception_answer_is_a_refusal() -> None:
    with pytest.raises(Refused, match="exception 2, illegal data address"):
        rtu.find_answer(bytes.fromhex(VECTORS[0]), bytes.fromhex("00 01 84 02 C2 C1"))


def test_whose_answer_it_is_when_another_master_asks_the_same_unit() -> None:
    """The answer to its question would fit ours: unit, function and count are the same."""
    asked, answered = (bytes.fromhex(each) for each in VECTORS[:2])
    other = rtu.seal(frames.ask(Request(0, 1, 4, 8, 2)))
    with pytest.raises(NoAnswer, match="another master asks unit 1"):
        rtu.find_answer(asked, other + answered)
    elsewhere = rtu.seal(frames.ask(Request(0, 7, 4, 8, 2)))
    assert rtu.find_answer(asked, elsewhere + answered) == answered
