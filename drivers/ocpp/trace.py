"""The last frames of a connection, byte for byte, for the technician who asks; never written to a log.

Whoever is shown them sees pseudonyms for tags, and no keys.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import orjson

from gateway.model import Json

MOST, MOST_CHARACTERS = 40, 16_384
HIDDEN = "(hidden)"
_TAGS = ("idtag", "parentidtag")
_SECRET_KEYS = ("authorizationkey", "password", "passwd", "secret", "apn")
# Longer than a word, these carry keys, or addresses with a password in them.
_SECRET_FIELDS = ("csr", "certificatechain", "certificate", "data", "location", "remotelocation", "signature")


class Frame(NamedTuple):
    """`at`: seconds of the event loop."""

    at: float
    is_ours: bool
    content: str | bytes


class Trace:
    """As many of the last frames as fit MOST and MOST_CHARACTERS; one that is larger by itself is only counted."""

    def __init__(self) -> None:
        self._frames: list[Frame] = []
        self._held = 0
        self.too_large = 0

    def note(self, frame: Frame) -> None:
        if len(frame.content) > MOST_CHARACTERS:
            self.too_large += 1
            return
        self._frames.append(frame)
        self._held += len(frame.content)
        while len(self._frames) > MOST or self._held > MOST_CHARACTERS:
            self._held -= len(self._frames.pop(0).content)

    def frames(self) -> Sequence[Frame]:
        """Oldest first, as they came and went."""
        return tuple(self._frames)


def shown(frame: Frame, now: float, pseudonym: Callable[[str], str]) -> Json:
    """`{ms ago, from, frame}` without tags and keys."""
    return {
        "ago_ms": round((now - frame.at) * 1000),
        "from": "gateway" if frame.is_ours else "charger",
        "frame": redacted(frame.content, pseudonym),
    }


def redacted(content: str | bytes, pseudonym: Callable[[str], str]) -> Json:
    """The message in a frame, tags as pseudonyms, keys hidden; of what is no JSON only how long it is."""
    try:
        return _redacted(orjson.loads(content), pseudonym)
    except orjson.JSONDecodeError:
        return f"{len(content)} characters that are no JSON"


def _redacted(found: Any, pseudonym: Callable[[str], str]) -> Json:
    if isinstance(found, Mapping):
        hides = is_secret(str(found.get("key", "")))
        return {key: _content(key.casefold(), value, hides, pseudonym) for key, value in found.items()}
    if isinstance(found, list):
        return [_redacted(one, pseudonym) for one in found]
    return found  # type: ignore[no-any-return]


def is_secret(key: str) -> bool:
    """Whether a configuration key holds what nobody may read."""
    return any(word in key.casefold() for word in _SECRET_KEYS)


def _content(key: str, value: Any, hides: bool, pseudonym: Callable[[str], str]) -> Json:
    if isinstance(value, str):
        if key in _TAGS:
            return pseudonym(value)
        if (key == "value" and hides) or (key in _SECRET_FIELDS and len(value) > len("Outlet")):
            return HIDDEN
    return _redacted(value, pseudonym)
