"""Modbus TCP frames: only the answer to the question passes, whole, byte by byte, and with noise."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.modbus import frames
from drivers.modbus.frames import NoAnswer, Refused, Request, find_answer

# MODBUS Application Protocol V1.1b3, 6.3, 6.4, 6.6 and 6.12, with an MBAP header as in the Messaging Guide V1.0b.
EXAMPLES = [
    (Request(1, 17, 3, 0x6B, 3), (0x22B, 0, 100), "000100000006 11 03 006B 0003", "000100000009 11 03 06 022B00000064"),
    (Request(2, 1, 4, 8, 1), (10,), "000200000006 01 04 0008 0001", "000200000005 01 04 02 000A"),
    (Request(3, 1, 6, 1, 1, (3,)), (), "000300000006 01 06 0001 0003", "000300000006 01 06 0001 0003"),
    (Request(4, 1, 16, 1, 2, (10, 0x102)), (), "00040000000B0110 0001 0002 04 000A0102", "000400000006 0110 0001 0002"),
]  # fmt: skip


@pytest.mark.parametrize(("request_", "words", "asked", "answered"), EXAMPLES)
def test_examples_of_the_specification(request_: Request, words: tuple[int, ...], asked: str, answered: str) -> None:
    assert frames.ask(request_) == bytes.fromhex(asked)
    assert frames.parse(bytes.fromhex(asked)) == request_
    assert frames.answer(request_, words) == bytes.fromhex(answered)
    assert find_answer(bytes.fromhex(asked), bytes.fromhex(answered)) == bytes.fromhex(answered)


@pytest.mark.parametrize(
    ("code", "name", "reason"), [(2, "illegal data address", "config_error"), (99, "unknown", "device_failure")]
)
def test_an_exception_answer_says_which(code: int, name: str, reason: str) -> None:
    request = Request(1, 1, 4, 0, 2)
    with pytest.raises(Refused, match=name) as caught:
        find_answer(frames.ask(request), frames.refuse(request, code))
    assert caught.value.reason == reason


requests = st.builds(
    Request,
    transaction=st.integers(1, 65535),
    unit=st.integers(0, 255),
    function=st.sampled_from([3, 4]),
    addr=st.integers(0, 65000),
    count=st.integers(1, 125),
)


@given(requests, st.data())
def test_an_answer_is_found_byte_by_byte_behind_late_ones(request: Request, data: st.DataObject) -> None:
    words = data.draw(st.lists(st.integers(0, 65535), min_size=request.count, max_size=request.count))
    late = data.draw(st.lists(st.integers(0, 65535).filter(lambda n: n != request.transaction), max_size=3))
    before = b"".join(frames.answer(Request(t, request.unit, request.function, 0, 1), (7,)) for t in late)
    whole = frames.answer(request, words)
    stream = before + whole + data.draw(st.binary(max_size=4))
    for end in range(len(before) + len(whole)):
        assert find_answer(frames.ask(request), stream[:end]) is None
    assert find_answer(frames.ask(request), stream) == whole


@given(requests, st.binary(max_size=300))
def test_noise_is_never_an_answer(request: Request, noise: bytes) -> None:
    try:
        found = find_answer(frames.ask(request), noise)
    except (NoAnswer, Refused):
        return
    assert found is None or found[:8] == frames.answer(request, ())[:4] + found[4:6] + frames.ask(request)[6:8]


@given(requests, st.data())
def test_one_changed_byte_of_the_head_or_length_never_passes(request: Request, data: st.DataObject) -> None:
    asked = frames.ask(request)
    answer = bytearray(frames.answer(request, [1] * request.count))
    place = data.draw(st.integers(0, 8))
    answer[place] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(NoAnswer, Refused):
        assert find_answer(asked, bytes(answer)) is None


@pytest.mark.parametrize(
    "frame", ["000100000006 01 07 0000 0001", "000100000005 01 03 0000 00", "00010000000A 01 10 0001 0002 04 000A01"]
)
def test_a_request_that_is_not_spoken_here(frame: str) -> None:
    with pytest.raises(ValueError):
        frames.parse(bytes.fromhex(frame))
