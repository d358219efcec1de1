"""Frames out of bytes: whole, byte by byte, merged, with noise between."""

import itertools
import time
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from drivers.serial import Profile
from drivers.serial.codec import Codec
from drivers.serial.frames import Frame
from drivers.serial.framing import QUIET, STALL, Framer, fault, wrapped
from tests.drivers.serial.bus import load

ONCE = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
FRAME = bytes.fromhex("aa c0 7b 00 c8 01 58 d9 75 ab")


def pieces(stream: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    return [stream[a:b] for a, b in itertools.pairwise(edges)]


def frames_of(framer: Framer, parts: list[bytes]) -> list[bytes]:
    return [frame for part in parts for frame in framer.feed(part)]


def every_way(profile: Profile, stream: bytes) -> list[bytes]:
    """The frames, after making sure that how the stream is cut makes no difference, nor to the evidence."""
    whole, bitten = Framer(profile.frame), Framer(profile.frame)
    frames = whole.feed(stream)
    assert frames == frames_of(bitten, [bytes([byte]) for byte in stream])
    assert (whole.stray, whole.refused) == (bitten.stray, bitten.refused)
    return frames


def test_every_reading_is_framed(sds011: Profile, facts: dict[str, Any]) -> None:
    for row in facts["readings"]:
        frame = bytes.fromhex(row["hex"])
        assert every_way(sds011, frame) == [frame]
        assert every_way(sds011, b"\x00\xaa\xff" + frame + b"\xaa") == [frame]


def test_merged_readings_come_out_one_by_one(sds011: Profile, facts: dict[str, Any]) -> None:
    frames = [bytes.fromhex(row["hex"]) for row in facts["readings"]]
    assert every_way(sds011, b"".join(frames)) == frames


def test_every_refusal_is_refused_for_its_reason(sds011: Profile, facts: dict[str, Any]) -> None:
    for row in facts["refused"]:
        stream = bytes.fromhex(row["hex"])
        assert every_way(sds011, stream) == []
        framer = Framer(sds011.frame)
        framer.feed(stream + FRAME)
        assert framer.stray == len(stream)
        assert dict(framer.refused) == ({} if row["why"] == "not_a_reading" else {row["why"]: 1})


def test_every_stream_of_the_facts(sds011: Profile, facts: dict[str, Any]) -> None:
    for row in facts["streams"]:
        assert len(every_way(sds011, bytes.fromhex(row["hex"]))) == row["frames"], row["name"]


@pytest.mark.parametrize("cut", range(1, 10))
def test_a_partial_frame_directly_before_costs_nothing(sds011: Profile, cut: int) -> None:
    """ESPHome's state machine loses all ten of these at a cut of 3."""
    assert every_way(sds011, (FRAME[:cut] + FRAME) * 10) == [FRAME] * 10


def test_length_prefixed(plantower: Profile) -> None:
    frames = [bytes(example.received) for example in plantower.examples]
    assert every_way(plantower, b"\x42".join(frames)) == frames


def test_an_impossible_length_is_left_at_once(plantower: Profile) -> None:
    frame = bytes(plantower.examples[0].received)
    framer = Framer(plantower.frame)
    assert framer.feed(bytes.fromhex("42 4d ff ff") + frame) == [frame]
    assert framer.refused["length"] == 1


VALUES = st.tuples(st.integers(0, 0xFFFF), st.integers(0, 0xFFFF))
NOISE = st.one_of(st.binary(max_size=12), st.lists(st.sampled_from([b"\xaa", b"\xc0", b"\xab"])).map(b"".join))


def built(profile: Profile, first: int, second: int) -> bytes:
    body = FRAME[:2] + first.to_bytes(2, "little") + second.to_bytes(2, "little") + FRAME[6:]
    return Codec(profile).sealed(body)


@ONCE
@given(rows=st.lists(VALUES, max_size=6), cuts=st.lists(st.integers(0, 100)))
def test_good_frames_survive_any_cut(sds011: Profile, rows: list[tuple[int, int]], cuts: list[int]) -> None:
    frames = [built(sds011, *row) for row in rows]
    framer = Framer(sds011.frame)
    assert frames_of(framer, pieces(b"".join(frames), cuts)) == frames
    assert framer.stray == 0


@ONCE
@given(rows=st.lists(st.tuples(NOISE, VALUES), max_size=5), end=NOISE, cuts=st.lists(st.integers(0, 200)))
def test_noise_between_costs_only_itself(
    sds011: Profile, rows: list[tuple[bytes, tuple[int, int]]], end: bytes, cuts: list[int]
) -> None:
    """Unless the noise, by chance, makes a valid frame of its own: then that one is in the stream as it stands."""
    frames = [built(sds011, *values) for _, values in rows]
    stream = b"".join(noise + frame for (noise, _), frame in zip(rows, frames, strict=True)) + end
    framer = Framer(sds011.frame)
    got = frames_of(framer, pieces(stream, cuts))
    alike = sum(
        stream[at : at + 2] == b"\xaa\xc0"
        and len(stream) >= at + 10
        and fault(sds011.frame, stream[at : at + 10]) is None
        for at in range(len(stream))
    )
    assert got == frames or alike > len(frames)
    assert framer.stray + len(framer._pending) + 10 * len(got) == len(stream)


@ONCE
@given(chunks=st.lists(st.binary(max_size=500), max_size=6))
def test_memory_stays_under_one_frame(sds011: Profile, plantower: Profile, chunks: list[bytes]) -> None:
    for profile in (sds011, plantower):
        framer = Framer(profile.frame)
        for chunk in [*chunks, bytes(profile.frame.sync) * 100]:
            framer.feed(chunk)
            assert len(framer._pending) < profile.frame.longest


@ONCE
@given(bit=st.integers(0, 79))
def test_one_wrong_bit_is_never_a_frame(sds011: Profile, bit: int) -> None:
    frame = bytearray(FRAME)
    frame[bit // 8] ^= 1 << bit % 8
    got = every_way(sds011, bytes(frame))
    # The sensor's id stands under the checksum too; sync, end and checksum itself complete the ten bytes.
    assert got == []


def frame_of(**keys: Any) -> Any:
    return TypeAdapter(Frame).validate_python(keys)


LINE = frame_of(type="delimited", end="0d 0a", max_length="64")


def test_two_halves_with_a_silence_between_are_no_line() -> None:
    """The sensor lost its power behind `12`, and began anew with `34.5`: there never was 1234.5."""
    framer = Framer(LINE)
    assert framer.feed(b"9.5\r\n12") == [b"9.5"]
    assert framer.gap == STALL
    assert framer.idle() == []
    assert framer.refused == {"end": 1}
    assert framer.gap is None
    assert framer.feed(b"34.5\r\n10.5\r\n") == [b"10.5"]
    assert framer.stray == len(b"1234.5\r\n")


def test_two_halves_are_no_frame_where_no_checksum_tells() -> None:
    framer = Framer(frame_of(type="fixed", sync="aa", length="4"))
    assert framer.feed(bytes.fromhex("aa 01")) == []
    assert framer.gap == STALL
    framer.idle()
    assert framer.feed(bytes.fromhex("aa 01 02 03")) == [bytes.fromhex("aa 01 02 03")]
    framer = Framer(frame_of(type="stuffed", delimiter="7e", escape="7d", escapes={"5e": "7e"}, max_length="9"))
    framer.feed(bytes.fromhex("7e 01"))
    framer.idle()
    assert framer.feed(bytes.fromhex("7e 01 02 7e")) == [bytes.fromhex("01 02")]


def test_a_frame_that_proves_itself_may_take_its_time(sds011: Profile) -> None:
    framer = Framer(sds011.frame)
    framer.feed(FRAME[:5])
    assert framer.gap is None
    assert framer.feed(FRAME[5:]) == [FRAME]


STUFFED = frame_of(
    type="stuffed", delimiter="7e", escape="7d", escapes={"5e": "7e"}, length_at="1", length_adds="3", max_length="64",
    checksum={"algorithm": "sum8_inverted", "over": ["0", "-1"], "at": "-1"},
)  # fmt: skip


def test_a_zero_that_was_lost_is_missed() -> None:
    """The sum does not change with it; the length that the frame says does."""
    whole = wrapped(STUFFED, bytes.fromhex("05 04 00 01 00 02 00"))
    assert Framer(STUFFED).feed(whole) == [whole[1:-1]]
    for lost in (3, 5):
        framer = Framer(STUFFED)
        assert framer.feed(whole[:lost] + whole[lost + 1 :]) == []
        assert framer.refused == {"length": 1}


def test_false_starts_one_behind_another_end_well() -> None:
    """Each says that it is long, so each waits; the good frame behind them all is found when it gets quiet."""
    rule = frame_of(
        type="length_prefixed", sync="42", length_at="1", length_type="u16be", max_length="4096",
        checksum={"algorithm": "sum8", "over": ["0", "-1"], "at": "-1"},
    )  # fmt: skip
    good = bytes.fromhex("42 00 05 07 4e")
    framer = Framer(rule)
    assert framer.feed(bytes.fromhex("42 0f ff") * 1200 + good) == []
    assert framer.gap == QUIET
    assert framer.idle() == [good]
    assert framer.stray == 3600
    assert framer.idle() == []


@pytest.mark.parametrize("name", ["gill-windsonic", "nmea-gnss", "plantower-pms5003", "sensirion-sps30", "lufft-umb"])
def test_a_flood_of_beginnings_costs_little(name: str) -> None:
    """A serial server gone mad costs its own link time, and no more than that: it was half a second."""
    rule: Any = load(name).frame
    mark = getattr(rule, "sync", b"") or getattr(rule, "start", b"") or rule.delimiter
    framer, before = Framer(rule), time.process_time()
    assert framer.feed(bytes(mark) * (16384 // len(mark))) == []
    assert time.process_time() - before < 0.3
