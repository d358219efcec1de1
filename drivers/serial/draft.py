"""A first profile from a capture: where its frames begin and end, and which checksum holds. Pure.

A draft frames and checks; what its values mean, only the maker's document says. A steady last byte may pass for the
first where the capture begins in the middle of a frame: the maker's table decides.
"""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise

from drivers.serial.checksum import NAMED, SUMS, is_good
from drivers.serial.words import Checksum

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


def _lines(capture: bytes) -> list[bytes]:
    """Whole lines with their ends, where the capture is text; the first and last may be torn and are left out."""
    end = b"\r\n" if b"\r\n" in capture else b"\n" if b"\n" in capture else b"\r"
    lines = [line for line in capture.split(end)[1:-1] if line]
    printable = sum(32 <= byte < 127 or byte in b"\r\n\t\x02\x03" for byte in capture)
    if len(lines) < MIN_FRAMES or printable < 0.95 * len(capture) or max(map(len, lines)) > LONGEST:
        return []
    return [line + end for line in lines if all(32 <= byte < 127 or byte in b"\t\x02\x03" for byte in line)]


def _text(lines: Sequence[bytes]) -> str:
    end = b"\r\n" if lines[0].endswith(b"\r\n") else lines[0][-1:]
    longest = max(map(len, lines))
    first = lines[0].removesuffix(end)
    is_nmea = all(line[:1] in b"$!" and line.removesuffix(end)[-3:-2] == b"*" for line in lines)
    frame = "frame:\n  type: delimited\n"
    if is_nmea:
        frame += "  start: 24\n"
    frame += f"  end: {end.hex(' ')}\n  max_length: {min(4096, 2 * longest)}\n"
    if is_nmea:
        frame += "  checksum: {algorithm: xor8, over: [0, -3], at: -2, encoding: hex}\n"
        words = first[1:-3].decode().split(",")
        return frame + _nmea(words, lines)
    if first.startswith(b"{"):
        keys = [key for key, value in json.loads(first).items() if isinstance(value, int | float)]
        points = "".join(f'  {_slug(key)}: {{quantity: x_{_slug(key)}, unit: "1", at: {key}}}\n' for key in keys)
        return f"{frame}layout: {{type: json}}\n\npoints:\n{points}\n" + _text_examples(lines, _slug(keys[0]))
    words = first.decode().split(",")
    numbers = [at for at, word in enumerate(words) if _is_number(word)]
    if not numbers:
        raise DraftError("the lines hold no numbers between commas")
    points = "".join(f'  value_{at}: {{quantity: x_value, unit: "1", part: "{at}", at: {at}}}\n' for at in numbers)
    same = [line for line in lines if len(line.split(b",")) == len(words)]
    layout = f"layout: {{type: csv, columns: {len(words)}}}\n"
    return f"{frame}{layout}\npoints:\n{points}\n" + _text_examples(same, f"value_{numbers[0]}", numbers[0])


def _nmea(words: Sequence[str], lines: Sequence[bytes]) -> str:
    sentence = words[0][-3:]
    numbers = [at for at, word in enumerate(words) if at and _is_number(word)]
    points = "".join(
        f'  value_{at}: {{quantity: x_value, unit: "1", part: "{at}", at: {sentence}.{at}}}\n' for at in numbers
    )
    if not numbers:
        raise DraftError(f"the {sentence} sentence holds no numbers")
    head = f"layout: {{type: nmea}}\nmessages:\n  reading: {{when: {{-3: 2a}}, like: '^..{sentence},'}}\n"
    head += "  other: {when: {-3: 2a}, means: other}\n"
    same = [line for line in lines if line[3:6] == sentence.encode()]
    return f"{head}\npoints:\n{points}\n" + _text_examples(same, f"value_{numbers[0]}", numbers[0])


def _text_examples(lines: Sequence[bytes], slug: str, column: int | None = None) -> str:
    shown = ""
    for line in lines[:SHOWN]:
        text = line.decode("latin-1")
        body = text.strip().partition("*")[0]
        value = json.loads(text)[slug] if column is None else float(body.split(",")[column])
        shown += f"  - received: {{text: {json.dumps(text)}}}\n    expect: {{{slug}: {value:.12g} 1}}\n"
        shown += "    origin: capture\n"
    return "examples:\n" + shown


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _slug(key: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in key.lower())


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
