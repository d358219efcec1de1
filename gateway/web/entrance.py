"""Who may come in: one token, sessions derived from it, patience with wrong ones, and names that are ours."""

import hashlib
import hmac
import ipaddress
import secrets
import socket
from collections.abc import Iterable

from gateway.errors import ConfigError

SHORTEST = 16
"""Characters of a token; what is drawn at random has more."""
_FREE_TRIES = 5
_LONGEST_LOCK = 60.0
_REMEMBERED = 1024


class Entrance:
    """Judges a token or a session. ConfigError where the token is too short to keep anybody out."""

    def __init__(self, token: str) -> None:
        if len(token) < SHORTEST:
            raise ConfigError(
                f"The page's token has {len(token)} characters: too short to keep anybody out. "
                f"Set one of {SHORTEST} or more."
            )
        self._key = hmac.digest(token.encode(), b"lampione page", hashlib.sha256)
        self._token = self._mac(b"token:" + token.encode())

    def is_token(self, offered: str) -> bool:
        return hmac.compare_digest(self._mac(b"token:" + offered.encode(errors="replace")), self._token)

    def session(self) -> str:
        """A new session: a nonce and its seal. It says nothing of the token and dies when the token is changed."""
        nonce = secrets.token_urlsafe(12)
        return f"{nonce}.{self._seal(nonce)}"

    def is_session(self, offered: str) -> bool:
        nonce, _, seal = offered.partition(".")
        return hmac.compare_digest(self._seal(nonce).encode(), seal.encode(errors="replace"))

    def _seal(self, nonce: str) -> str:
        return self._mac(b"session:" + nonce.encode(errors="replace")).hex()

    def _mac(self, text: bytes) -> bytes:
        return hmac.digest(self._key, text, hashlib.sha256)


class Patience:
    """Wrong tokens per address: a few are free, then each costs a pause that doubles, up to a minute."""

    def __init__(self) -> None:
        self._wrong: dict[str, tuple[int, float]] = {}

    def pause(self, address: str, now: float) -> float:
        """Seconds for which this address is not listened to; `now` is loop time."""
        return max(0.0, self._wrong.get(_neighbourhood(address), (0, 0.0))[1] - now)

    def wrong(self, address: str, now: float) -> None:
        key = _neighbourhood(address)
        count = self._wrong.pop(key, (0, 0.0))[0] + 1
        lock = min(_LONGEST_LOCK, 2.0 ** min(count - _FREE_TRIES, 10)) if count >= _FREE_TRIES else 0.0
        self._wrong[key] = (count, now + lock)
        if len(self._wrong) > _REMEMBERED:
            del self._wrong[next(iter(self._wrong))]

    def right(self, address: str) -> None:
        self._wrong.pop(_neighbourhood(address), None)


def _neighbourhood(address: str) -> str:
    """An IPv6 host has a whole /64 to knock from."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    return str(ipaddress.ip_network((parsed, 64), strict=False)) if parsed.version == 6 else address


def own_names(more: Iterable[str] = ()) -> frozenset[str]:
    name = socket.gethostname().lower()
    return frozenset({"localhost", name, f"{name.partition('.')[0]}.local", *(each.lower() for each in more)})


def is_own_host(header: str, names: frozenset[str]) -> bool:
    """Whether a Host header is ours. An address always is: only a name can be rebound to us by a stranger's DNS."""
    host = header.strip().lower()
    if host.startswith("["):
        host = host[1:].partition("]")[0]
    elif host.count(":") <= 1:
        host = host.partition(":")[0]
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return host.rstrip(".") in names
    return True
