"""Who may charge, and how a tag leaves the gateway: as a keyed pseudonym, never itself."""

import base64
import hmac
import secrets
from collections.abc import Mapping
from dataclasses import dataclass

from drivers.ocpp import codec
from drivers.ocpp.settings import Settings
from gateway.model import ClockState, Json
from gateway.ports import Link

STATE_KEY = "pseudonym"


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the local list. `expiry`: UTC milliseconds."""

    group: str | None = None
    expiry: int | None = None


def parse(lines: str) -> dict[str, Entry]:
    """`idTag[,group][,expiry]` a line, `#` starts a comment. Tags are compared without case (CiString20).

    A line whose expiry cannot be read is left out: a card that should have ended must not charge for ever.
    """
    entries: dict[str, Entry] = {}
    for line in lines.splitlines():
        words = [word.strip() for word in line.partition("#")[0].split(",")]
        if not words[0]:
            continue
        group, expiry = [*words[1:3], "", ""][:2]
        ends = codec.moment(expiry, codec.Remarks()) if expiry else None
        if expiry and ends is None:
            continue
        entries[words[0].casefold()] = Entry(group or None, ends)
    return entries


def authorise(tag: str, entries: Mapping[str, Entry] | None, wall: int | None) -> dict[str, Json]:
    """The `idTagInfo` for a tag. `entries` None: everybody may charge. `wall` None: the date is not known, and
    no card is refused for it.
    """
    if entries is None:
        return {"status": "Accepted"}
    entry = entries.get(tag.casefold())
    if entry is None:
        return {"status": "Invalid"}
    told: dict[str, Json] = {"status": "Accepted"}
    if entry.group:
        told["parentIdTag"] = entry.group[:20]
    if entry.expiry is not None:
        told["expiryDate"] = codec.iso(entry.expiry)
        if wall is not None and wall >= entry.expiry:
            told["status"] = "Expired"
    return told


class Pseudonyms:
    """HMAC-SHA256 of the tag, 20 characters of base32 behind the key's own short name: `k7qd.mzxw6ytboi…`."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._name = _letters(hmac.digest(key, b"lampione key name", "sha256"))[:4]

    def of(self, tag: str) -> str:
        """The same for the same tag and key; '' for no tag."""
        if not tag:
            return ""
        return f"{self._name}.{_letters(hmac.digest(self._key, tag.casefold().encode(), 'sha256'))[:20]}"


class Cards:
    """The local list and the pseudonyms of one link; works whether or not anybody upstream can be reached."""

    def __init__(self, link: Link) -> None:
        assert isinstance(link.settings, Settings)
        self._link, self._settings = link, link.settings
        self._lines, self._entries = "", dict[str, Entry]()
        self._unsaved: dict[str, Json] = {}
        if self._settings.pseudonym:
            key = link.secret("pseudonym")
        else:
            kept = link.state.get(STATE_KEY)
            key = kept if isinstance(kept, str) else secrets.token_hex(32)
            self._unsaved = {} if key == kept else {STATE_KEY: key}
        self.pseudonym = Pseudonyms(key.encode()).of

    def authorise(self, tag: str) -> dict[str, Json]:
        """The `idTagInfo` for a tag. The list is read anew each time: it may have been changed. ConfigError: it
        is named in the site file, but not stored.
        """
        clock = self._link.clock
        wall = None if clock.state() is ClockState.UNSYNCED else clock.wall()
        if self._settings.authorise == "open":
            return authorise(tag, None, wall)
        lines = self._link.secret("tags") if self._settings.tags else ""
        if lines != self._lines:
            self._lines, self._entries = lines, parse(lines)
        return authorise(tag, self._entries, wall)

    def unsaved(self) -> dict[str, Json]:
        """State to commit with the first record that carries a pseudonym: the key that was made for it."""
        return self._unsaved if self._link.state.get(STATE_KEY) is None else {}


def _letters(digest: bytes) -> str:
    return base64.b32encode(digest).decode().lower()
