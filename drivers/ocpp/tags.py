"""Who may charge, and how a tag leaves the gateway: as a keyed pseudonym, never itself."""

import asyncio
import base64
import hmac
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias, assert_never

from drivers.ocpp import codec
from drivers.ocpp.settings import Settings
from gateway.errors import CommandError, ConfigError
from gateway.model import ClockState, Json, Lane
from gateway.ports import Emit, Link

STATE_KEY, CARD = "pseudonym", "card/"
MOST_CARDS = 2000
TRUSTED_MS = 7 * 24 * 3600 * 1000
"""How old the platform's last word on a tag may be when it cannot be asked."""
Ask: TypeAlias = Callable[[Mapping[str, Json]], Awaitable[None]]


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
    """HMAC-SHA256 of the tag, 20 characters of base32 behind the key's own short name: `k7qd.mzxw6ytboi…`.

    The first key makes them. Those after it are former ones: what was written under them is known again, and beside
    each new pseudonym stands the former one, until the key is taken from the secret.
    """

    def __init__(self, *keys: bytes) -> None:
        self._keys = [(_letters(hmac.digest(key, b"lampione key name", "sha256"))[:4], key) for key in keys]

    def of(self, tag: str) -> str:
        """The same for the same tag and key; '' for no tag."""
        return self.all_of(tag)[0]

    def all_of(self, tag: str) -> list[str]:
        """Under each key, newest first."""
        if not tag:
            return [""]
        content = tag.casefold().encode()
        return [f"{name}.{_letters(hmac.digest(key, content, 'sha256'))[:20]}" for name, key in self._keys]


class Cards:
    """Who may charge on one link, and the pseudonyms; works whether or not anybody upstream can be reached."""

    def __init__(self, link: Link, keep: Callable[[Mapping[str, Json]], Awaitable[None]]) -> None:
        """`keep` makes state durable in the billing lane, where the key of the pseudonyms lives."""
        assert isinstance(link.settings, Settings)
        self._link, self._settings, self._keep = link, link.settings, keep
        self._lines, self._entries = "", dict[str, Entry]()
        self._unsaved: dict[str, Json] = {}
        self._asked: dict[str, asyncio.Event] = {}
        if self._settings.pseudonym:
            keys = [line.strip() for line in link.secret("pseudonym").splitlines() if line.strip()]
            if not keys:
                raise ConfigError(f"The pseudonym key of `{link.name}` is empty. Store one.")
        else:
            kept = link.state.get(STATE_KEY)
            keys = [kept if isinstance(kept, str) else secrets.token_hex(32)]
            self._unsaved = {} if keys[0] == kept else {STATE_KEY: keys[0]}
        self._pseudonyms = Pseudonyms(*(key.encode() for key in keys))
        self.pseudonym, self.pseudonyms = self._pseudonyms.of, self._pseudonyms.all_of

    def named(self, tag: str) -> dict[str, Json]:
        """How a record names a tag: `tag`, and while a former key is kept, `tag_was`."""
        name, *former = self.pseudonyms(tag)
        return {"tag": name, "tag_was": former[0]} if former else {"tag": name}

    @property
    def entries(self) -> Mapping[str, Entry]:
        """The local list, read anew when it has changed. ConfigError: it is named in the site file, but not stored."""
        lines = self._link.secret("tags") if self._settings.tags else ""
        if lines != self._lines:
            self._lines, self._entries = lines, parse(lines)
        return self._entries

    def listed(self, tag: str, wall: int | None) -> dict[str, Json]:
        """The `idTagInfo` of a tag by the local list alone. ConfigError as `entries`."""
        return authorise(tag, self.entries, wall)

    async def authorise(self, tag: str, ask: Ask | None) -> dict[str, Json]:
        """The `idTagInfo` for a tag. `ask` puts the question to the platform; None: it is history, nobody is asked.
        ConfigError as `entries`.
        """
        clock = self._link.clock
        wall = None if clock.state() is ClockState.UNSYNCED else clock.wall()
        match self._settings.authorise:
            case "open":
                return authorise(tag, None, wall)
            case "list":
                return self.listed(tag, wall)
            case "platform":
                return await self._by_platform(tag, ask, wall)
            case _ as never:
                assert_never(never)

    async def _by_platform(self, tag: str, ask: Ask | None, wall: int | None) -> dict[str, Json]:
        """What the platform says in time; else what it said last, within a week; else the local list."""
        if not tag:
            return {"status": "Invalid"}
        if ask:
            await self._put(tag, ask)
        for name in self.pseudonyms(tag):
            told = self._link.state.get(CARD + name)
            if isinstance(told, Sequence):
                status, expires, group, at = told
                if wall is None or (isinstance(at, int) and wall - at < TRUSTED_MS):
                    entry = Entry(str(group) if group else None, expires if isinstance(expires, int) else None)
                    return authorise(tag, {tag.casefold(): entry}, wall) | (
                        {} if status == "Accepted" else {"status": status}
                    )
        return self.listed(tag, wall)

    async def _put(self, tag: str, ask: Ask) -> None:
        name = self.pseudonym(tag)
        told = self._asked.setdefault(name, asyncio.Event())
        try:
            async with asyncio.timeout(self._settings.authorise_within):
                await self.keep_key()
                await ask({**self.named(tag), "within_ms": round(self._settings.authorise_within * 1000)})
                await told.wait()
        except TimeoutError:
            pass
        finally:
            if self._asked.get(name) is told:
                del self._asked[name]

    async def told(self, emit: Emit, name: str, status: str, expires: str | None, group: str | None) -> None:
        """The platform's word on the tag with this pseudonym, asked for or not. CommandError: `expires` is no time."""
        ends = codec.moment(expires, codec.Remarks()) if expires else None
        if expires and ends is None:
            raise CommandError("bad_argument", f"`{expires}` is no time like 2026-12-31T00:00:00Z.")
        state = self._link.state
        cards = [key for key in state.keys() if key.startswith(CARD)]  # noqa: SIM118 - a State is not a mapping
        if len(cards) >= MOST_CARDS:
            cards.sort(key=lambda key: _age(state.get(key)))
        dropped: dict[str, Json] = dict.fromkeys(cards[: max(0, len(cards) - MOST_CARDS + 1)])
        entry: Json = [status, ends, group, self._link.clock.wall()]
        await emit([], lane=Lane.EVENT, state={**dropped, CARD + name: entry})
        if waiting := self._asked.pop(name, None):
            waiting.set()

    async def keep_key(self) -> None:
        """Before a pseudonym is told or kept apart from a record. StorageError: it would be another after a restart."""
        if unsaved := self.unsaved():
            await self._keep(unsaved)

    def unsaved(self) -> dict[str, Json]:
        """State to commit with the first record that carries a pseudonym: the key that was made for it."""
        return self._unsaved if self._link.state.get(STATE_KEY) is None else {}


def _age(card: Json) -> int:
    at = card[3] if isinstance(card, Sequence) else 0
    return at if isinstance(at, int) else 0


def _letters(digest: bytes) -> str:
    return base64.b32encode(digest).decode().lower()
