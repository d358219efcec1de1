"""A frame as values and values as a frame, by the profile. Pure."""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from drivers.serial import framing
from drivers.serial.settings import FORMATS, SIZES, Profile, SerialPoint
from gateway.model import Quality, Reason


@dataclass(frozen=True, slots=True)
class Sample:
    """What one frame says of one point, in the point's canonical unit; no value is None with a reason."""

    value: float | None
    quality: Quality = Quality.GOOD
    reason: Reason | None = None


@dataclass(frozen=True, slots=True)
class _Place:
    slug: str
    at: int
    end: int
    layout: struct.Struct
    point: SerialPoint
    digits: int
    factor: float
    offset: float

    def read(self, frame: bytes) -> Sample:
        if self.end > len(frame):
            return Sample(None, Quality.BAD, Reason.ABSENT)
        (number,) = self.layout.unpack_from(frame, self.at)
        point = self.point
        if number in point.invalid:
            return Sample(None, Quality.BAD, Reason.ABSENT)
        value = round(number * point.scale, self.digits)
        if point.range and not point.range[0] <= value <= point.range[1]:
            return Sample(None, Quality.BAD, Reason.OUT_OF_RANGE)
        canonical = value * self.factor + self.offset
        if point.saturates is not None and value >= point.saturates:
            return Sample(canonical, Quality.UNCERTAIN, Reason.OUT_OF_RANGE)
        return Sample(canonical)


class Codec:
    """Both directions of one profile; what the gateway reads with it, the emulator writes with it."""

    def __init__(self, profile: Profile) -> None:
        self._frame = profile.frame
        self._places = tuple(_place(slug, point) for slug, point in profile.points.items())

    def decode(self, frame: bytes) -> dict[str, Sample]:
        """Every point's sample from a frame that the framer let through."""
        return {place.slug: place.read(frame) for place in self._places}

    def encode(self, values: Mapping[str, float], template: bytes) -> bytes:
        """`template` with `values` (canonical units) put in and the checksum made good. ValueError: does not fit."""
        frame = bytearray(template)
        for place in self._places:
            if place.slug in values:
                number = round((values[place.slug] - place.offset) / place.factor / place.point.scale)
                try:
                    place.layout.pack_into(frame, place.at, number)
                except struct.error as error:
                    raise ValueError(f"{place.slug}: {values[place.slug]} does not fit: {error}") from None
        return self.sealed(frame)

    def sealed(self, frame: bytes | bytearray) -> bytes:
        """`frame` with the checksum that it should have."""
        if self._frame.checksum is None:
            return bytes(frame)
        whole, sealed = bytes(frame), bytearray(frame)
        sealed[framing.stands_at(self._frame.checksum, whole)] = framing.checksum(self._frame.checksum, whole)
        return bytes(sealed)


def _place(slug: str, point: SerialPoint) -> _Place:
    factor, offset = point.conversion
    exponent = Decimal(str(point.scale)).normalize().as_tuple().exponent
    return _Place(
        slug=slug,
        at=point.at,
        end=point.at + SIZES[point.type],
        layout=struct.Struct(FORMATS[point.type]),
        point=point,
        # 6 * 0.1 is 0.6000000000000001: the scale says how many digits the sensor means.
        digits=max(0, -int(exponent)),
        factor=factor,
        offset=offset,
    )
