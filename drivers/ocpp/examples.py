"""A profile proves itself: its own examples and refusals, run through the codec."""

from collections.abc import Mapping
from typing import Any

from drivers.ocpp import codec
from drivers.ocpp.samples import Sample, samples
from drivers.ocpp.settings import Profile
from gateway.document import Location
from gateway.model import Quality
from gateway.quantities import convert


def self_test(profile: Profile) -> list[tuple[Location, str]]:
    """Each example that fails: its place in the profile, and a sentence."""
    found: list[tuple[Location, str]] = []
    for number, example in enumerate(profile.examples):
        read = _read(profile, example.received)
        for slug, expected in example.reads.items():
            at: Location = ("examples", number, "reads", slug)
            if slug not in profile.points:
                found.append((at, f"`{slug}` is no point of this profile"))
            elif why := _differs(read.pop(slug, None), expected, profile.points[slug].canonical_unit):
                found.append((at, f"{slug} {why}"))
        found += [(("examples", number, "received"), f"{slug} is read, but not expected") for slug in read]
    for number, refusal in enumerate(profile.refusals):
        good = [slug for slug, sample in _read(profile, refusal.received).items() if sample.quality is Quality.GOOD]
        found += [(("refusals", number, "received"), f"{slug} is read as a good value") for slug in good]
    return found


def _read(profile: Profile, received: Mapping[str, Any]) -> dict[str, Sample]:
    """By slug, at a charger with one connector."""
    remarks, read = codec.Remarks(), dict[str, Sample]()
    if codec.whole(received, "connectorId", remarks) in (1, None):
        for sample in samples(received.get("meterValue"), remarks):
            if isinstance(sample, Sample) and (slug := profile.routes.get(sample.route)):
                read[slug] = sample
    return read


def _differs(sample: Sample | None, expected: str, unit: str) -> str:
    if sample is None:
        return "is not in the message"
    number, _, written = expected.partition(" ")
    if not written:
        return "" if sample.value is None and sample.reason == number else f"gives {sample.value}, not {number}"
    try:
        factor, offset = convert(written, unit)
        wanted = float(number) * factor + offset
    except ValueError as error:
        return f"cannot be `{expected}`: {error}"
    if sample.value is None:
        return f"gives no value ({sample.reason}), not {expected}"
    return "" if abs(sample.value - wanted) < 1e-6 else f"gives {sample.value:g} {unit}, not {expected}"
