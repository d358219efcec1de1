"""A frame as values and values as a frame, by the profile. Pure."""

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

from drivers.serial import arithmetic, checksum
from drivers.serial.arithmetic import Arithmetic, Sample, none
from drivers.serial.dialogue import Meaning, Message
from drivers.serial.layouts import Binary, Found, GarbledError, TextLayout, word
from drivers.serial.point import SerialPoint, Status, Verdict
from drivers.serial.settings import Profile, address_bytes
from drivers.serial.words import FORMATS, SIZES, Place, places_in
from gateway.model import Quality, Reason

__all__ = ["Codec", "Heard", "Sample"]

Reader = Callable[[bytes], Sample]
_LAYOUTS = {name: struct.Struct(code) for name, code in FORMATS.items()}


@dataclass(frozen=True, slots=True)
class Heard:
    """What one good frame says: samples by slug, or what it means that is no reading, or why nothing is believed."""

    message: str = ""
    samples: dict[str, Sample] = field(default_factory=dict)
    means: Meaning | None = None
    say: str = ""
    wait: float = 0.0
    refused: str | None = None


def integer(kind: str, frame: bytes, at: int) -> float | None:
    """The number of that type at `at`; None: the frame ends before it."""
    start = at if at >= 0 else len(frame) + at
    part = frame[start : start + SIZES[kind]] if start >= 0 else b""
    if len(part) < SIZES[kind]:
        return None
    if kind in _LAYOUTS:
        found: float = _LAYOUTS[kind].unpack(part)[0]
        return found
    return int.from_bytes(part, "little" if kind.endswith("le") else "big", signed=kind.startswith("s"))


def put(kind: str, frame: bytearray, at: int, number: float) -> None:
    """The other way round. ValueError: it does not fit."""
    try:
        if kind[0] == "f":
            packed = _LAYOUTS[kind].pack(number)
        else:
            packed = round(number).to_bytes(
                SIZES[kind], "little" if kind.endswith("le") else "big", signed=kind.startswith("s")
            )
    except (struct.error, OverflowError) as error:
        raise ValueError(f"does not fit: {error}") from None
    start = at if at >= 0 else len(frame) + at
    frame[start : start + len(packed)] = packed


@dataclass(frozen=True, slots=True)
class _Kind:
    """One message of the profile, made ready."""

    name: str
    message: Message | None
    layout: TextLayout | None
    """None: binary."""
    readers: Mapping[str, Reader]
    places: Mapping[str, tuple[Place, ...]]


class Codec:
    """Both directions of one profile; what the gateway reads with it, the emulator writes with it."""

    def __init__(self, profile: Profile) -> None:
        self._profile = profile
        self._checksum = profile.frame.checksum
        self._arithmetic = {slug: Arithmetic(point) for slug, point in profile.points.items()}
        names = list(profile.messages) or [""]
        self._kinds = {name: self._kind(name) for name in names}
        self._only = self._kinds[""] if not profile.messages else None

    def _kind(self, name: str) -> _Kind:
        profile, layout = self._profile, self._profile.layout_of(name)
        places = {slug: places_in(point.at, name) for slug, point in profile.points.items()}
        places = {slug: found for slug, found in places.items() if found}
        readers: dict[str, Reader] = {}
        if isinstance(layout, Binary):
            for slug, (at, *_) in places.items():
                readers[slug] = _reader(profile.points[slug], self._arithmetic[slug], int(at))
        text = None if isinstance(layout, Binary) else layout
        return _Kind(name, profile.messages.get(name), text, readers, places)

    def decode(self, frame: bytes) -> dict[str, Sample]:
        """The samples of a frame that the framer let through; none where it is no reading."""
        return self.read(frame).samples

    def read(self, frame: bytes) -> Heard:
        """Everything that a frame says that the framer let through."""
        kind = self._only or self._recognised(frame)
        if kind is None:
            return Heard(refused="unknown")
        if kind.message and kind.message.means:
            return _meaning(kind.message, kind.message.means, kind.name, frame)
        try:
            if kind.layout is None:
                samples = {slug: read(frame) for slug, read in kind.readers.items()}
                verdict = self._binary_verdict(frame, kind.name)
            else:
                found = kind.layout.split(self._text(frame))
                samples = self._from_text(kind, found)
                verdict = self._text_verdict(found, kind.name)
        except GarbledError:
            return Heard(kind.name, refused="garbled")
        if not samples:
            return Heard(kind.name, means=Meaning.OTHER)
        if verdict:
            return Heard(kind.name, {slug: _judged(one, verdict) for slug, one in samples.items()}, say=verdict.say)
        return Heard(kind.name, samples)

    def _recognised(self, frame: bytes) -> _Kind | None:
        return next((kind for kind in self._kinds.values() if kind.message and kind.message.holds(frame)), None)

    def _text(self, frame: bytes) -> str:
        """The text of a frame without its checksum. GarbledError: it is not text."""
        rule = self._checksum
        covered = frame[: rule.over[1]] if rule and rule.holds(frame) else frame
        try:
            text = covered.decode("ascii").strip("\r\n")
        except UnicodeDecodeError:
            raise GarbledError("not ASCII") from None
        if not text.isprintable():
            raise GarbledError("control characters")
        return text

    # Text

    def _from_text(self, kind: _Kind, found: Found) -> dict[str, Sample]:
        samples = {}
        for slug, places in kind.places.items():
            written = _first(found, places)
            if written is not None:
                samples[slug] = self._from_word(slug, written, found, kind.name) if written else none(Reason.ABSENT)
        return samples

    def _from_word(self, slug: str, written: str, found: Found, message: str) -> Sample:
        point, rule = self._profile.points[slug], self._arithmetic[slug]
        if point.type == "text":
            return rule.state(written)
        if point.words and written in point.words:
            return rule.state(written)
        number, letter = _number(point, written)
        if letter and (point.unit_at or not point.units):
            raise GarbledError(slug)
        if point.unit_at:
            letter = _first(found, places_in(point.unit_at, message)) or ""
        conversion = rule.letters.get(letter) if point.units else None
        if isinstance(conversion, Reason):
            return none(conversion)
        if point.units and conversion is None:
            return none(Reason.CONFIG_ERROR)
        if point.sign:
            direction = _first(found, places_in(point.sign.at, message))
            if direction not in (*point.sign.negative, *point.sign.positive):
                return none(Reason.ABSENT)
            number = -number if direction in point.sign.negative else number
        return rule.sample(number, conversion)

    # Status

    def _binary_verdict(self, frame: bytes, message: str) -> Verdict | None:
        status = self._profile.status
        if status is None:
            return None
        for at in places_in(status.at, message):
            number = integer(str(status.type), frame, int(at))
            # A frame that ends before its status vouches for nothing.
            return Verdict(reason=Reason.ABSENT) if number is None else _verdict(status, str(int(number)), int(number))
        return None

    def _text_verdict(self, found: Found, message: str) -> Verdict | None:
        status = self._profile.status
        if status is None:
            return None
        said = _first(found, places_in(status.at, message))
        if said is None:
            return None
        number = int(said, 16 if status.type == "hex" else 10) if said.isalnum() and _is_number(said, status) else 0
        return _verdict(status, said, number)

    # Writing

    def encode(self, values: Mapping[str, float | str], template: bytes) -> bytes:
        """`template` with `values` (canonical units) put in and the checksum made good. ValueError: does not fit."""
        kind = self._only or self._recognised(template)
        if kind is None:
            raise ValueError("the template is none of the messages")
        if kind.layout is None:
            frame = bytearray(template)
            for slug, (at, *_) in kind.places.items():
                if slug in values:
                    self._put(slug, values[slug], frame, int(at))
            return self.sealed(frame)
        covered = len(self._text(template))
        text, rest = template[:covered].decode(), template[covered:]
        for slug, places in kind.places.items():
            found = kind.layout.split(text)
            place = next((one for one in places if word(found, one)), None)
            if slug in values and place is not None:
                text = self._written(slug, values[slug], text, found, place, kind)
        return self.sealed(text.encode("latin-1") + rest)

    def _put(self, slug: str, value: float | str, frame: bytearray, at: int) -> None:
        point = self._profile.points[slug]
        kind = point.types.of.get(frame[point.types.at], "u8") if point.types else str(point.type)
        number = self._arithmetic[slug].number(value)
        if point.exponent_at is not None:
            number /= 10.0 ** int.from_bytes(frame[point.exponent_at : point.exponent_at + 1], "big", signed=True)
        if point.bits:
            low, mask = point.bits[1], (1 << point.bits[0] - point.bits[1] + 1) - 1
            around = int(integer(kind, bytes(frame), at) or 0) & ~(mask << low)
            number = float(around | (round(number) & mask) << low)
        try:
            put(kind, frame, at, number)
        except ValueError as error:
            raise ValueError(f"{slug}: {value} {error}") from None

    def _written(self, slug: str, value: float | str, text: str, found: Found, at: Place, kind: _Kind) -> str:
        point, rule = self._profile.points[slug], self._arithmetic[slug]
        old = word(found, at) or ""
        assert kind.layout
        if isinstance(value, str):
            spoken = next((one for one, name in point.words.items() if name == value), value)
            return kind.layout.put(text, at, spoken)
        letter = (_first(found, places_in(point.unit_at, kind.name)) if point.unit_at else _letter(old)) or ""
        conversion = rule.letters.get(letter)
        number = rule.number(value, conversion if isinstance(conversion, tuple) else None)
        if point.sign:
            direction = (point.sign.negative if number < 0 else point.sign.positive)[0]
            for place in places_in(point.sign.at, kind.name):
                if word(found, place) is not None:
                    text = kind.layout.put(text, place, direction)
            number = abs(number)
        if point.type == "coordinate":
            number = int(number) * 100 + (number - int(number)) * 60
        spoken = f"{round(number):0{len(old)}X}" if point.type == "hex" else arithmetic.as_written(number, old)
        return kind.layout.put(text, at, spoken)

    def sealed(self, frame: bytes | bytearray) -> bytes:
        """`frame` with the checksum that it should have."""
        return checksum.sealed(self._checksum, bytes(frame))

    # Addresses

    def addressed(self, sent: bytes, address: str | None) -> bytes:
        """A command for the sensor with that address."""
        rule = self._profile.address
        if rule is None or address is None:
            return sent
        number = address_bytes(rule, address)
        return self.sealed(sent[: rule.send_at] + number + sent[rule.send_at + len(number) :])

    def answering(self, frame: bytes, address: str | None) -> bytes:
        """A frame as if it came from that sensor."""
        rule = self._profile.address
        if rule is None or address is None:
            return frame
        number = address_bytes(rule, address)
        return self.sealed(frame[: rule.at] + number + frame[rule.at + len(number) :])

    def is_from(self, frame: bytes, address: str | None) -> bool:
        """Whether the sensor with that address sent it."""
        rule = self._profile.address
        if rule is None or address is None:
            return True
        number = address_bytes(rule, address)
        return frame[rule.at : rule.at + len(number)] == number


def _reader(point: SerialPoint, rule: Arithmetic, at: int) -> Reader:
    """The quick way for the usual point, which is a number at a fixed place; the long way for any other."""
    layout = _LAYOUTS.get(str(point.type))
    if layout is None or at < 0 or point.bits or point.types or point.exponent_at is not None:
        return partial(_slowly, point, rule, at)
    end, unpack, sample, absent = at + layout.size, layout.unpack_from, rule.sample, none(Reason.ABSENT)
    return lambda frame: sample(unpack(frame, at)[0]) if end <= len(frame) else absent


def _slowly(point: SerialPoint, rule: Arithmetic, at: int, frame: bytes) -> Sample:
    kind = str(point.type)
    if point.types:
        if point.types.at >= len(frame):
            return none(Reason.ABSENT)
        kind = point.types.of.get(frame[point.types.at], "")
        if not kind:
            return none(Reason.CONFIG_ERROR)
    number = integer(kind, frame, at)
    if number is None:
        return none(Reason.ABSENT)
    if point.bits:
        number = int(number) >> point.bits[1] & (1 << point.bits[0] - point.bits[1] + 1) - 1
    if point.exponent_at is not None and number not in point.invalid:
        power = integer("s8", frame, point.exponent_at)
        if power is None or not -6 <= power <= 6:
            return none(Reason.OUT_OF_RANGE)
        number = float(f"{number * 10.0**power:.12g}")
    return rule.sample(number)


def _meaning(message: Message, means: Meaning, name: str, frame: bytes) -> Heard:
    wait = 0.0
    if means is Meaning.WAIT and message.like and (match := message.like.search(frame.decode("latin-1"))):
        found = arithmetic.measured(match["wait"] or "")
        if found is None:
            return Heard(name, refused="garbled")
        wait = found[0]
    return Heard(name, means=means, say=message.say, wait=wait)


def _judged(sample: Sample, verdict: Verdict) -> Sample:
    if verdict.quality == "bad":
        return none(verdict.reason)
    return Sample(sample.value, Quality.UNCERTAIN, verdict.reason) if sample.quality is Quality.GOOD else sample


def _verdict(status: Status, said: str, number: int) -> Verdict | None:
    if said in status.good:
        return None
    if said in status.codes:
        return status.codes[said]
    for bit, verdict in sorted(status.bits.items(), key=lambda one: one[1].quality):
        if number >> bit & 1:
            return verdict
    if status.good or status.codes:
        return Verdict(say=f"its status is {said}")
    return None


def _is_number(said: str, status: Status) -> bool:
    try:
        int(said, 16 if status.type == "hex" else 10)
    except ValueError:
        return False
    return True


def _first(found: Found, places: tuple[Place, ...]) -> str | None:
    for place in places:
        said = word(found, place)
        if said is not None:
            return said
    return None


def _number(point: SerialPoint, written: str) -> tuple[float, str]:
    """(number, letter behind it). GarbledError: it is none."""
    if point.type == "hex":
        if not arithmetic.is_hex(written):
            raise GarbledError(written)
        return int(written, 16), ""
    found = arithmetic.measured(written)
    if found is None:
        raise GarbledError(written)
    if point.type == "coordinate":
        degrees = arithmetic.coordinate(found[0])
        if degrees is None or found[1]:
            raise GarbledError(written)
        return degrees, ""
    return found


def _letter(written: str) -> str:
    found = arithmetic.measured(written)
    return found[1] if found else ""
