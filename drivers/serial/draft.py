"""A first profile from a capture: where its frames begin and end, and which checksum holds. Pure.

A draft frames and checks; what its values mean, only the maker's document says. A steady last byte may pass for the
first where the capture begins in the middle of a frame: the maker's table decides.
"""

import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise

from pydantic import TypeAdapter

from drivers.serial.arithmetic import measured
from drivers.serial.checksum import NAMED, SUMS, is_good, sealed
from drivers.serial.layouts import Csv, GarbledError, Json, KeyValues, Nmea, TextLayout
from drivers.serial.words import Checksum, Place

MIN_FRAMES = 3
LONGEST = 256
SHOWN = 3
"""Frames that become examples."""


class DraftError(ValueError):
    """The capture shows no frames; the text says what was looked for."""


def draft(name: str, capture: bytes, baud: int) -> str:
    """A profile `name` (maker-model) in YAML, which passes its own check. DraftError: no frames were recognised."""
    text = _lines(capture)
    body = _text(text) if text else _binary(capture)
    return f"""profile: {name}/1
driver: serial
kind: sensor
title: {name.replace("-", " ").title()}
source: a capture; name the maker's document here

line: {{baud: {baud}, format: 8N1}}
mode: push
cadence: 1s
silence: 10s

{body}"""


# Text

NMEA = Checksum(algorithm="xor8", over=(0, -3), at=-2, encoding="hex")
Numbers = dict[Place, tuple[float, str]]
"""Where a number stands -> the number, and the letter behind it."""


def _lines(capture: bytes) -> list[bytes]:
    """Whole lines with their ends, where the capture is text; the first and last may be torn and are left out."""
    end = b"\r\n" if b"\r\n" in capture else b"\n" if b"\n" in capture else b"\r"
    lines = [line for line in capture.split(end)[1:-1] if line]
    printable = sum(32 <= byte < 127 or byte in b"\r\n\t" for byte in capture)
    if len(lines) < MIN_FRAMES or printable < 0.95 * len(capture) or max(map(len, lines)) > LONGEST:
        return []
    return [line + end for line in lines if all(32 <= byte < 127 for byte in line)]


def _text(lines: Sequence[bytes]) -> str:
    end = b"\r\n" if lines[0].endswith(b"\r\n") else lines[0][-1:]
    texts = [line.removesuffix(end).decode() for line in lines]
    frame = f"frame:\n  type: delimited\n  end: {end.hex(' ')}\n  max_length: {2 * max(map(len, lines))}\n"
    sentences = [one[1:-3] for one in texts if one.startswith("$") and is_good(NMEA, one[1:].encode())]
    if len(sentences) >= MIN_FRAMES:
        frame += "  start: 24\n  checksum: {algorithm: xor8, over: [0, -3], at: -2, encoding: hex}\n"
        texts = sentences
    for written, layout in _layouts(texts):
        found = _alike([(text, _numbers(layout, text)) for text in texts])
        if len(found) >= MIN_FRAMES:
            return frame + _profile_of(written, found, end.decode(), is_nmea=texts is sentences)
    raise DraftError("no numbers stand at the same places in its lines")


def _layouts(texts: Sequence[str]) -> Iterator[tuple[str, TextLayout]]:
    """What the lines may be, the strictest first."""
    yield "type: nmea", Nmea(type="nmea")
    yield "type: json", Json(type="json")
    for separator in ",; ":
        yield f'type: key_values, separator: "{separator}"', KeyValues(type="key_values", separator=separator)
    for separator in ",; ":
        columns = max(Counter(text.count(separator) + 1 for text in texts).items(), key=lambda one: one[::-1])[0]
        if columns > 1:
            written = f'type: csv, separator: "{separator}", columns: {columns}'
            yield written, Csv(type="csv", separator=separator, columns=columns)
    for kind, like, more in (
        ("series", r"[+-][0-9]+(?:[.][0-9]+)?", {"skip": 1}),
        ("expression", r"[^0-9.+-]*(?P<value>[+-]?[0-9]+(?:[.][0-9]+)?)[^0-9]*", {}),
    ):
        tree = {"type": kind, "like": like, **more}
        written = ", ".join(f"{key}: '{value}'" if key == "like" else f"{key}: {value}" for key, value in tree.items())
        yield written, TypeAdapter[TextLayout](TextLayout).validate_python(tree)


def _numbers(layout: TextLayout, text: str) -> Numbers:
    if isinstance(layout, Nmea) and not text[:5].isalpha():
        return {}
    try:
        found = layout.split(text)
    except GarbledError:
        return {}
    words = found.items() if isinstance(found, dict) else enumerate(found)
    numbers = {place: measured(word) for place, word in words}
    return {place: one for place, one in numbers.items() if one and math.isfinite(one[0])}


def _alike(found: Sequence[tuple[str, Numbers]]) -> list[tuple[str, Numbers]]:
    """Those with numbers and letters where most have them."""

    def shape(one: tuple[str, Numbers]) -> tuple[tuple[Place, str], ...]:
        return tuple((place, letter) for place, (_, letter) in one[1].items())

    usual = max(Counter(map(shape, found)).items(), key=lambda one: (bool(one[0]), one[1]))[0]
    return [one for one in found if usual and shape(one) == usual]


def _profile_of(layout: str, found: Sequence[tuple[str, Numbers]], end: str, *, is_nmea: bool) -> str:
    text, numbers = found[0]
    kinds = ""
    if is_nmea:
        reading = f"when: {{-3: 2a}}, like: '^{text.partition(',')[0]},'"
        kinds = f"messages:\n  reading: {{{reading}}}\n  other: {{when: {{-3: 2a}}, means: other}}\n"
    points = examples = ""
    for number, (place, (_, letter)) in enumerate(numbers.items()):
        units = f', units: {{{json.dumps(letter)}: "1"}}' if letter else ""
        stands = f'part: "{number}", at: {json.dumps(place)}'
        points += f'  value_{number}: {{quantity: x_value, unit: "1", {stands}{units}}}\n'
    for line, values in found[:SHOWN]:
        whole = f"${sealed(NMEA, f'{line}*00'.encode()).decode()}" if is_nmea else line
        expect = ", ".join(f"value_{number}: {value:.12g} 1" for number, (value, _) in enumerate(values.values()))
        examples += f"  - received: {{text: {json.dumps(whole + end)}}}\n"
        examples += f"    expect: {{{expect}}}\n    origin: capture\n"
    return f"layout: {{{layout}}}\n{kinds}\npoints:\n{points}\nexamples:\n{examples}"


# Bytes


def _binary(capture: bytes) -> str:
    sync, length, frames = _fixed(capture)
    rule = next((one for one in _checksums(length) if all(is_good(one, frame) for frame in frames)), None)
    frame = f"frame:\n  type: fixed\n  sync: {sync.hex(' ')}\n  length: {length}\n"
    if rule:
        frame += f"  checksum: {{algorithm: {rule.algorithm}, over: [{rule.over[0]}, {rule.over[1]}], at: {rule.at}"
        frame += f", encoding: {rule.encoding}}}\n" if rule.encoding != "big" else "}\n"
    behind = rule.at if rule else length
    places = range(len(sync), (behind if behind >= 0 else length + behind) - 1, 2)
    if not places:
        raise DraftError("nothing stands between sync and checksum")
    points = "".join(f'  value_{at}: {{quantity: x_value, unit: "1", part: "{at}", at: {at}, type: u16be}}\n'
                     for at in places)  # fmt: skip
    at = places[0]
    shown = "".join(
        f"  - received: {one.hex(' ')}\n    expect: {{value_{at}: {int.from_bytes(one[at : at + 2])} 1}}\n"
        "    origin: capture\n"
        for one in frames[:SHOWN]
    )
    return f"{frame}\npoints:\n{points}\nexamples:\n{shown}"


def _fixed(capture: bytes) -> tuple[bytes, int, list[bytes]]:
    """(sync, length, frames): the pair of bytes that comes back most regularly, and what follows it."""
    pairs = Counter(capture[at : at + 2] for at in range(len(capture) - 1))
    best: tuple[int, bytes, int] = (0, b"", 0)
    for pair, _ in pairs.most_common(16):
        places = [at for at in range(len(capture) - 1) if capture[at : at + 2] == pair]
        steps = Counter(b - a for a, b in pairwise(places) if 3 < b - a <= LONGEST)
        for length, count in steps.most_common(1):
            # Zeros come back, too: a sync of two different bytes that are not zero is likelier.
            best = max(best, (4 * count * length + (pair[0] != pair[1]) + 2 * (0 not in pair), pair, length))
    _, sync, length = best
    starts = [at for at in range(len(capture) - length + 1) if capture[at : at + 2] == sync]
    frames = [capture[at : at + length] for at in starts if capture[at + length : at + length + 2] in (sync, b"")]
    if not sync or len(frames) < MIN_FRAMES:
        raise DraftError("no two bytes come back at a regular distance")
    sync, length, frames = _turned(sync, length, frames)
    return sync, length, frames


def _turned(sync: bytes, length: int, frames: list[bytes]) -> tuple[bytes, int, list[bytes]]:
    """The same frames from where they really begin: a good checksum, else a steady end before the sync, tells it."""
    stream = b"".join(frames)
    for turn in range(length):
        turned = [stream[at : at + length] for at in range(turn, len(stream) - length + 1, length)]
        steady = len({one[:2] for one in turned}) == 1
        if steady and any(all(is_good(rule, one) for one in turned) for rule in _checksums(length)):
            return turned[0][:2], length, turned
    return sync, length, frames


def _checksums(length: int) -> Iterator[Checksum]:
    for behind in (0, 1):  # with or without a byte that ends the frame
        for algorithm in (*SUMS, *NAMED):
            for encoding in ("big", "little"):
                size = 4 if algorithm == "crc32" else 2 if "16" in algorithm else 1
                if size == 1 and encoding == "little":
                    continue
                at = length - behind - size
                for first in range(min(4, at)):
                    yield Checksum.model_validate(
                        {"algorithm": algorithm, "over": [first, at], "at": at, "encoding": encoding}
                    )
