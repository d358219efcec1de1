"""A profile tested by its own examples and refusals."""

import math

from drivers.serial.codec import Codec, Sample
from drivers.serial.framing import Framer
from drivers.serial.settings import Expected, Profile
from gateway.document import Location, unknown
from gateway.model import Quality
from gateway.profile import ProfilePoint
from gateway.quantities import convert


def self_test(profile: Profile) -> list[tuple[Location, str]]:
    """Every example and refusal that does not hold: its place in the profile, and what came instead."""
    found: list[tuple[Location, str]] = []
    codec = Codec(profile)
    for number, example in enumerate(profile.examples):
        at: Location = ("examples", number)
        whole, bitten = Framer(profile.frame), Framer(profile.frame)
        frames = whole.feed(example.received)
        if frames != [example.received] or frames != _byte_by_byte(bitten, example.received):
            why = ", ".join(whole.refused) or "sync or length"
            found.append(((*at, "received"), f"this is not one good frame ({why})"))
            continue
        samples = codec.decode(frames[0])
        for slug, expected in example.expect.items():
            here = (*at, "expect", slug)
            if slug not in samples:
                found.append((here, unknown(slug, list(samples))[0]))
            elif said := _differs(expected, samples[slug], profile.points[slug]):
                found.append((here, said))
    for number, refusal in enumerate(profile.refusals):
        framer = Framer(profile.frame)
        at = ("refusals", number)
        if framer.feed(refusal.received):
            found.append(((*at, "received"), "these bytes hold a good frame, but must be refused"))
        elif refusal.why != "not_a_reading" and not framer.refused[refusal.why]:
            why = ", ".join(framer.refused) or "there is no frame in it at all"
            found.append(((*at, "why"), f"it is refused, but for another reason: {why}"))
    return found


def _byte_by_byte(framer: Framer, received: bytes) -> list[bytes]:
    return [frame for byte in received for frame in framer.feed(bytes([byte]))]


def _differs(expected: Expected, sample: Sample, point: ProfilePoint) -> str | None:
    got = _say(sample, point.canonical_unit)
    if expected.value is None:
        same = sample.value is None and sample.reason == expected.reason
        return None if same else f"expected {expected.reason} and no value, got {got}"
    try:
        factor, offset = convert(expected.unit, point.canonical_unit)
    except ValueError as error:
        return str(error)
    wanted = expected.value * factor + offset
    quality = Quality.UNCERTAIN if expected.reason else Quality.GOOD
    same = sample.value is not None and math.isclose(sample.value, wanted, rel_tol=1e-9, abs_tol=1e-9)
    if same and sample.quality is quality and sample.reason == expected.reason:
        return None
    return f"expected {_words(f'{wanted:g}', point.canonical_unit, expected.reason)}, got {got}"


def _say(sample: Sample, unit: str) -> str:
    if sample.value is None:
        return f"{sample.reason} and no value"
    return _words(f"{sample.value:g}", unit, sample.reason)


def _words(*words: str | None) -> str:
    return " ".join(word for word in words if word)
