"""A profile tested by its own examples, refusals and streams."""

import math

from drivers.serial.codec import Codec, Heard, Sample
from drivers.serial.framing import Framer
from drivers.serial.settings import Example, Expected, Profile, Refusal
from gateway.document import Location, unknown
from gateway.model import Quality
from gateway.profile import ProfilePoint
from gateway.quantities import convert

Failures = list[tuple[Location, str]]


def self_test(profile: Profile) -> Failures:
    """Every example, refusal and stream that does not hold: its place in the profile, and what came instead."""
    found: Failures = []
    codec = Codec(profile)
    for number, example in enumerate(profile.examples):
        found += _example(profile, codec, example, ("examples", number))
    for number, refusal in enumerate(profile.refusals):
        found += _refusal(profile, codec, refusal, ("refusals", number))
    for number, stream in enumerate(profile.streams):
        frames = every_way(profile, stream.received)[1]
        readings = sum(bool(codec.read(frame).samples) for frame in frames or [])
        if frames is None or readings != stream.readings:
            found.append((("streams", number, "readings"), f"{readings} readings are in these bytes"))
    return found


def every_way(profile: Profile, received: bytes) -> tuple[Framer, list[bytes] | None]:
    """The frames in `received`; None where it makes a difference whether they come at once or byte by byte."""
    whole, bitten = Framer(profile.frame), Framer(profile.frame)
    frames = whole.feed(received) + whole.idle()
    again = [frame for byte in received for frame in bitten.feed(bytes([byte]))] + bitten.idle()
    return whole, frames if frames == again else None


def _example(profile: Profile, codec: Codec, example: Example, at: Location) -> Failures:
    framer, frames = every_way(profile, example.received)
    if frames is None or len(frames) != 1 or framer.stray:
        why = ", ".join(framer.refused) or "sync or length"
        return [((*at, "received"), f"this is not one good frame ({why})")]
    heard = codec.read(frames[0])
    if example.means:
        same = heard.means is example.means
        return [] if same else [((*at, "means"), f"expected {example.means}, got {_meant(heard)}")]
    if heard.refused or heard.means:
        return [((*at, "received"), f"this is no reading: {_meant(heard)}")]
    found: Failures = []
    for slug, expected in example.expect.items():
        here = (*at, "expect", slug)
        if slug not in profile.points:
            found.append((here, unknown(slug, list(profile.points))[0]))
        elif slug not in heard.samples:
            found.append((here, f"the frame says nothing of `{slug}`"))
        elif said := _differs(expected, heard.samples[slug], profile.points[slug]):
            found.append((here, said))
    return found


def _meant(heard: Heard) -> str:
    return heard.refused or heard.means or "a reading"


def _refusal(profile: Profile, codec: Codec, refusal: Refusal, at: Location) -> Failures:
    framer, frames = every_way(profile, refusal.received)
    heard = [codec.read(frame) for frame in frames or []]
    if frames is None or any(one.samples for one in heard):
        return [((*at, "received"), "these bytes hold a good frame, but must be refused")]
    whys = {*framer.refused, *(one.refused or "not_a_reading" for one in heard)}
    if refusal.why in whys or (refusal.why == "not_a_reading" and not whys):
        return []
    why = ", ".join(sorted(whys)) or "there is no frame in it at all"
    return [((*at, "why"), f"it is refused, but for another reason: {why}")]


def _differs(expected: Expected, sample: Sample, point: ProfilePoint) -> str | None:
    got = _say(sample, point.canonical_unit)
    if expected.value is None:
        same = sample.value is None and sample.reason == expected.reason
        return None if same else f"expected {expected.reason} and no value, got {got}"
    if isinstance(expected.value, str):
        return None if sample.value == expected.value else f"expected {expected.value}, got {got}"
    try:
        factor, offset = convert(expected.unit, point.canonical_unit)
    except ValueError as error:
        return str(error)
    wanted = expected.value * factor + offset
    quality = Quality.UNCERTAIN if expected.reason else Quality.GOOD
    same = isinstance(sample.value, int | float) and math.isclose(sample.value, wanted, rel_tol=1e-9, abs_tol=1e-9)
    if same and sample.quality is quality and sample.reason == expected.reason:
        return None
    return f"expected {_words(f'{wanted:g}', point.canonical_unit, expected.reason)}, got {got}"


def _say(sample: Sample, unit: str) -> str:
    if sample.value is None:
        return f"{sample.reason} and no value"
    if isinstance(sample.value, str):
        return sample.value
    return _words(f"{sample.value:g}", unit, sample.reason)


def _words(*words: str | None) -> str:
    return " ".join(word for word in words if word)
