"""Every frame of every sensor that we know: whole, byte by byte, merged, with noise between; and what is refused."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from drivers.serial import Profile, self_test
from drivers.serial.codec import Codec, Heard
from drivers.serial.frames import DelimitedFrame, IdleFrame, StuffedFrame
from drivers.serial.framing import Framer
from gateway import profile as profiles
from gateway.model import Quality

PROFILES = Path(__file__).resolve().parents[3] / "config" / "profiles"
SENSORS: dict[str, dict[str, list[dict[str, Any]]]] = yaml.safe_load(
    Path(__file__).with_name("sensors.yaml").read_text()
)


def load(name: str) -> Profile:
    profile = profiles.load(PROFILES / f"{name}.yaml", lambda _driver: Profile)
    assert isinstance(profile, Profile)
    return profile


def raw(row: dict[str, Any]) -> bytes:
    return bytes.fromhex(row["hex"]) if "hex" in row else row["text"].encode("latin-1")


def rows(kind: str) -> list[Any]:
    return [
        pytest.param(name, row, id=f"{name}-{number}")
        for name, sensor in SENSORS.items()
        for number, row in enumerate(sensor.get(kind, ()))
    ]


def heard(profile: Profile, parts: list[bytes]) -> list[Heard]:
    codec, framer = Codec(profile), Framer(profile.frame)
    frames: list[bytes] = []
    for part in parts:
        frames += framer.feed(part)
    return [codec.read(frame) for frame in frames + framer.idle()]


def readings(profile: Profile, parts: list[bytes]) -> list[Heard]:
    return [one for one in heard(profile, parts) if one.samples]


def bitten(stream: bytes) -> list[bytes]:
    return [bytes([byte]) for byte in stream]


def test_every_sensor_has_its_frames() -> None:
    assert len(SENSORS) == 21
    assert sum(len(sensor["readings"]) for sensor in SENSORS.values()) == 62
    assert sum(len(sensor.get("refused", ())) for sensor in SENSORS.values()) == 19


@pytest.mark.parametrize(("name", "row"), rows("readings"))
def test_a_frame_says_what_its_source_says(name: str, row: dict[str, Any]) -> None:
    profile, stream = load(name), raw(row)
    (one,) = readings(profile, [stream])
    for slug, value in row["decoded"].items():
        sample, point = one.samples[slug], profile.points[slug]
        if isinstance(value, str):
            assert sample.value == value
            continue
        assert isinstance(sample.value, int | float)
        factor, offset = point.conversion
        # Sources round floats to four digits.
        assert sample.value == pytest.approx(value * factor + offset, abs=6e-5)
        assert sample.quality is not Quality.BAD
    for slug, reason in row["none"].items():
        assert (one.samples[slug].value, one.samples[slug].reason) == (None, reason)
    assert readings(profile, bitten(stream)) == [one]


def noise(profile: Profile) -> bytes:
    """What a bad contact adds. Where only its end marks a line, noise ends like one too, or it is part of the line."""
    mark = b"\x00\xff\x15\xf1" + bytes(profile.frame.sync[:1] if hasattr(profile.frame, "sync") else b"")
    if isinstance(profile.frame, DelimitedFrame):
        return mark + (b"" if profile.frame.start else profile.frame.end)
    return mark


@pytest.mark.parametrize("name", SENSORS)
def test_frames_merged_and_with_noise_between(name: str) -> None:
    profile = load(name)
    frames = [raw(row) for row in SENSORS[name]["readings"]]
    alone = [one for frame in frames for one in readings(profile, [frame])]
    assert len(alone) == len(frames)
    if isinstance(profile.frame, IdleFrame):
        # Only silence parts these: merged, they are too long or garbled, and never another value.
        framer = Framer(profile.frame)
        assert framer.feed(b"".join(frames)) + framer.idle() == []
        return
    stream = b"".join(frames)
    assert readings(profile, [stream]) == readings(profile, bitten(stream)) == alone
    dirt = noise(profile)
    stream = dirt + b"".join(frame + dirt for frame in frames)
    assert readings(profile, [stream]) == readings(profile, bitten(stream)) == alone


@pytest.mark.parametrize("name", SENSORS)
def test_a_truncated_frame_costs_only_itself(name: str) -> None:
    profile = load(name)
    if isinstance(profile.frame, IdleFrame):
        pytest.skip("only silence parts its frames")
    first = raw(SENSORS[name]["readings"][0])
    end = profile.frame.end if isinstance(profile.frame, DelimitedFrame) and not profile.frame.start else b""
    (one,) = readings(profile, [first])
    # Without its last delimiter a stuffed frame is still whole: the next one's first ends it.
    for cut in range(1, len(first) - (len(end) or isinstance(profile.frame, StuffedFrame))):
        whole = readings(profile, [first[:cut] + end + first])
        assert whole[-1] == one
        if profile.frame.checksum and profile.frame.checksum.holds(first[:-2]):
            assert whole == [one]


@pytest.mark.parametrize(("name", "row"), rows("meanings"))
def test_what_is_no_reading_gives_no_value(name: str, row: dict[str, Any]) -> None:
    profile, stream = load(name), raw(row)
    for parts in ([stream], bitten(stream)):
        (one,) = heard(profile, parts)
        assert not one.samples
        assert one.means or one.refused


@pytest.mark.parametrize(("name", "row"), rows("refused"))
def test_what_must_be_refused_is(name: str, row: dict[str, Any]) -> None:
    profile, stream = load(name), raw(row)
    for parts in ([stream], bitten(stream)):
        assert readings(profile, parts) == []
    good = raw(SENSORS[name]["readings"][0])
    gap = profile.frame.end if isinstance(profile.frame, DelimitedFrame) else b""
    assert readings(profile, [stream + gap + good]) == readings(profile, [good]), "the next good frame is not lost"


@pytest.mark.parametrize(("name", "row"), rows("streams"))
def test_every_stream(name: str, row: dict[str, Any]) -> None:
    profile = load(name)
    assert len(readings(profile, [raw(row)])) == len(readings(profile, bitten(raw(row)))) == row["readings"]


@pytest.mark.parametrize("name", SENSORS)
def test_the_profile_carries_its_own_vectors(name: str) -> None:
    profile = load(name)
    assert self_test(profile) == []
    assert {raw(row) for row in SENSORS[name]["readings"]} <= {one.received for one in profile.examples}
    refused = {one.received for one in profile.refusals}
    assert {raw(row) for row in SENSORS[name].get("refused", ())} <= refused
    meant = {one.received for one in profile.examples if one.means}
    assert {raw(row) for row in SENSORS[name].get("meanings", ())} <= refused | meant
    assert len(profile.streams) >= len(SENSORS[name].get("streams", ()))
