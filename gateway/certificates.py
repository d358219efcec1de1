"""What TLS to a platform is made of: its authority's certificate, ours and our key; when they end, when renewed."""

import asyncio
import math
import os
import ssl
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

from gateway.errors import LampioneError, UplinkError
from gateway.model import ClockState
from gateway.ports import Clock, Platform

WARN_DAYS = 30
LOOK_EVERY = 60.0
RENEWED = "Certificates were renewed; the connection is made again with them."
_DAY = 86_400_000
_UTC_TIME, _VERSION, _VALIDITY = 0x17, 0xA0, 3


@dataclass(frozen=True, slots=True)
class _Texts:
    """PEM; empty where there is none."""

    ca: str
    certificate: str
    key: str


class Certificates:
    """Those of one uplink. `ca`: a file; `own`: our certificate and key as PEM texts, read anew at each call."""

    def __init__(self, ca: Path | None, own: Callable[[], tuple[str, str]] | None = None) -> None:
        self._ca, self._own = ca, own
        self._used: _Texts | None = None
        self.peer = b""
        """The peer's certificate, DER, while a connection stands."""

    def context(self) -> ssl.SSLContext:
        """What to connect with, from what is there now. UplinkError says what is not usable."""
        texts = self._read()
        try:
            context = ssl.create_default_context(cadata=texts.ca or None)
            if texts.certificate:
                # OpenSSL reads them from a file only; this one never touches a disk.
                memory = os.memfd_create("certificate")
                with os.fdopen(memory, "w") as pem:
                    pem.write(f"{texts.certificate}\n{texts.key}\n")
                    pem.flush()
                    context.load_cert_chain(f"/proc/self/fd/{memory}")
        except (ssl.SSLError, ValueError, TypeError) as error:
            why = getattr(error, "reason", None) or str(error)
            raise UplinkError(f"Our certificate, key or `ca` is not usable PEM ({why}). Renew it.") from None
        self._used = texts
        return context

    async def watch(self, platform: Platform) -> NoReturn:
        """While a connection stands: warn before one of them ends. UplinkError once they are renewed."""
        while True:
            platform.warn(self.warning(platform.clock))
            await asyncio.sleep(LOOK_EVERY)
            if await asyncio.to_thread(self._are_renewed):
                raise UplinkError(RENEWED)

    def warning(self, clock: Clock, days: int = WARN_DAYS) -> str:
        """On the first of them to end, if within `days`; nothing on a clock that nobody vouches for."""
        if self._used is None or clock.state() is ClockState.UNSYNCED:
            return ""
        found = [(end, "Our certificate", "Renew it.") for end in ends(self._used.certificate)[:1]]
        # While an authority is renewed, its file holds the old one and the new.
        of_ca = f"The authority's certificate in {self._ca}"
        found += [(end, of_ca, "Renew it.") for end in sorted(ends(self._used.ca))[-1:]]
        found += [(end, "The platform's certificate", "Have it renewed there.") for end in _ends([self.peer])]
        end, what, act = min(found, default=(math.inf, "", ""))
        if end - clock.wall() >= days * _DAY:
            return ""
        day = datetime.fromtimestamp(end / 1000, UTC).date()
        return f"{what} {'ended' if end <= clock.wall() else 'ends'} on {day}. {act}"

    def _are_renewed(self) -> bool:
        """Whether others are there now, and usable: half a certificate must not end a connection that works."""
        try:
            if self._used is None or self._read() == self._used:
                return False
            self.context()
        except LampioneError:
            return False
        return True

    def _read(self) -> _Texts:
        try:
            ca = self._ca.read_text(encoding="ascii", errors="replace") if self._ca else ""
        except OSError as error:
            why = "is not there" if isinstance(error, FileNotFoundError) else f"cannot be read ({error.strerror})"
            raise UplinkError(f"The authority's certificate {self._ca} {why}. Put it in place.") from None
        return _Texts(ca, *(self._own() if self._own else ("", "")))


def ends(pem: str) -> list[int]:
    """UTC milliseconds of the last moment of each certificate in a text, less those that cannot be read."""
    marked = [one.split(ssl.PEM_FOOTER)[0] for one in pem.split(ssl.PEM_HEADER)[1:]]
    return _ends(ssl.PEM_cert_to_DER_cert(f"{ssl.PEM_HEADER}{one}{ssl.PEM_FOOTER}") for one in marked)


def _ends(ders: Iterable[bytes]) -> list[int]:
    found: list[int] = []
    for der in ders:
        # OpenSSL takes a time that the standard does not allow: it is not worth a connection.
        with suppress(ValueError, StopIteration, IndexError):
            found.append(_end(der))
    return found


def _end(der: bytes) -> int:
    """notAfter of an X.509 certificate. RFC 5280, 4.1: UTCTime up to 2049, GeneralizedTime from then on."""
    _, certificate = next(_parts(der))
    _, signed = next(_parts(certificate))
    fields = [body for tag, body in _parts(signed) if tag != _VERSION]
    _, (tag, text) = _parts(fields[_VALIDITY])
    layout = "%y%m%d%H%M%SZ" if tag == _UTC_TIME else "%Y%m%d%H%M%SZ"
    return round(datetime.strptime(text.decode(), layout).replace(tzinfo=UTC).timestamp() * 1000)


def _parts(der: bytes) -> Iterator[tuple[int, bytes]]:
    """(tag, body) of each value in a sequence. X.690, 8.1."""
    at = 0
    while at < len(der):
        tag, length, at = der[at], der[at + 1], at + 2
        if length & 0x80:
            width = length & 0x7F
            length, at = int.from_bytes(der[at : at + width]), at + width
        yield tag, der[at : at + length]
        at += length
