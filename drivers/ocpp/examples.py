"""A profile proves itself: its own examples and refusals, run through the codec."""

from collections.abc import Mapping
from typing import Any

from drivers.ocpp import codec
from drivers.ocpp.settings import DeviceSettings, Profile, routed, routes
from gateway.document import Location
from gateway.model import Quality
from gateway.quantities import convert

_HERE = "profile/example"


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


def _read(profile: Profile, received: Mapping[str, Any]) -> dict[str, codec.Sample]:
    settings = DeviceSettings(link="example", connectors=1)
    where = routes(_HERE, profile, settings)
    remarks = codec.Remarks()
    connector = codec.whole(received, "connectorId", remarks)
    read = {}
    for sample in codec.samples(received.get("meterValue"), remarks):
        at = connector if connector is not None else 1
        if point := routed(where, at, sample.measurand, sample.phase, sample.location, sample.context):
            read[point.rpartition("/")[2]] = sample
    return read


def _differs(sample: codec.Sample | None, expected: str, unit: str) -> str:
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
