"""Certificates: when they end, read from their bytes; the warning a month before; renewal while it runs."""

import asyncio
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gateway import certificates
from gateway.certificates import RENEWED, Certificates, ends
from gateway.errors import ConfigError, UplinkError
from gateway.model import ClockState
from gateway.ports import Platform
from gateway.testing import LoopClock, jumped
from tests.authority import Authority

pytestmark = pytest.mark.needs("openssl")
TLS = Path(__file__).parent / "uplinks" / "tls"
DAY = timedelta(days=1)


def enddate(certificate: Path) -> int:
    """What the openssl program says, UTC milliseconds."""
    said = subprocess.run(
        ["openssl", "x509", "-in", certificate, "-noout", "-enddate"], check=True, capture_output=True, text=True
    ).stdout
    at = datetime.strptime(said.strip().removeprefix("notAfter="), "%b %d %H:%M:%S %Y GMT").replace(tzinfo=UTC)
    return round(at.timestamp() * 1000)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority") / "own")


def test_the_end_of_a_certificate_is_what_openssl_reads(authority: Authority) -> None:
    late, _ = authority.issue("late", ends=timedelta(days=36_500))
    soon, _ = authority.issue("soon", ends=DAY)
    gone, _ = authority.issue("gone", ends=-DAY)
    found = [authority.ca, late, soon, gone, *TLS.glob("*[!y].pem")]
    assert len(found) == 7
    for certificate in found:
        assert ends(certificate.read_text()) == [enddate(certificate)]
    chain = late.read_text() + "between\n" + soon.read_text()
    assert ends(chain) == [enddate(late), enddate(soon)]
    assert ends("") == ends("no PEM") == []
    der = certificates.ssl.PEM_cert_to_DER_cert(soon.read_text())
    for cut in range(0, len(der), 7):
        assert certificates._ends([der[:cut]]) in ([], [enddate(soon)]), "no guess at what is not there"


class City:
    """A platform's side of `watch`: what was warned of, on a clock that begins when the test does."""

    def __init__(self) -> None:
        self.warned: list[str] = []
        self.clock = LoopClock(start=round(datetime.now(UTC).timestamp() * 1000))
        self.platform = Platform(
            "city", None, "cab-017", "milan", {}, self.clock, lambda _: None, lambda name: name, self.warned.append
        )

    def warning(self, found: Certificates) -> str:
        async def look() -> str:
            return found.warning(self.clock)

        return asyncio.run(look())


@pytest.mark.parametrize(("days", "is_warned"), [(-1, True), (1, True), (29, True), (31, False)])
def test_a_month_before_the_end_of_our_certificate_somebody_is_warned(
    authority: Authority, days: int, is_warned: bool
) -> None:
    certificate, key = authority.issue("cab-017", ends=days * DAY)
    found = Certificates(authority.ca, lambda: (certificate.read_text(), key.read_text()))
    found.context()
    day = (datetime.now(UTC) + days * DAY).date()
    said = City().warning(found)
    assert said == (f"Our certificate {'ended' if days < 0 else 'ends'} on {day}. Renew it." if is_warned else "")


def test_the_authority_and_the_platform_are_watched_too(tmp_path: Path) -> None:
    short = Authority(tmp_path / "short", ends=20 * DAY)
    found = Certificates(short.ca)
    found.context()
    assert City().warning(found).startswith(f"The authority's certificate in {short.ca} ends on ")
    broker, _ = short.issue("broker", ends=10 * DAY)
    found.peer = certificates.ssl.PEM_cert_to_DER_cert(broker.read_text())
    day = (datetime.now(UTC) + 10 * DAY).date()
    assert City().warning(found) == f"The platform's certificate ends on {day}. Have it renewed there."


def test_an_authority_that_is_renewed_has_two_certificates_and_the_newer_counts(
    authority: Authority, tmp_path: Path
) -> None:
    old = Authority(tmp_path / "old", ends=5 * DAY)
    both = tmp_path / "both.pem"
    both.write_text(authority.ca.read_text() + old.ca.read_text())
    found = Certificates(both)
    found.context()
    assert City().warning(found) == ""


def test_a_clock_that_nobody_vouches_for_warns_of_nothing(authority: Authority) -> None:
    certificate, key = authority.issue("cab-017", ends=DAY)
    found = Certificates(None, lambda: (certificate.read_text(), key.read_text()))
    found.context()
    city = City()
    city.clock.quality = ClockState.UNSYNCED
    assert city.warning(found) == ""


def test_renewed_certificates_end_the_connection_once_they_are_whole(authority: Authority) -> None:
    """So that the next one is made with them. Half of a pair, or none, leaves alone what works."""
    texts = {name: tuple(file.read_text() for file in authority.issue(name, ends=20 * DAY)) for name in ("old", "new")}
    now: list[tuple[str, str] | None] = [texts["old"]]

    def own() -> tuple[str, str]:
        if now[0] is None:
            raise ConfigError("The credential is not there.")
        return now[0]

    async def main() -> None:
        loop, city = asyncio.get_running_loop(), City()
        found = Certificates(authority.ca, own)
        found.context()
        watching = asyncio.create_task(found.watch(city.platform))
        for halfway in (None, (texts["new"][0], texts["old"][1]), ("no PEM", "")):
            now[0] = halfway
            await asyncio.sleep(5 * certificates.LOOK_EVERY)
            assert not watching.done()
        now[0] = texts["new"]
        renewed = loop.time()
        with pytest.raises(UplinkError, match=RENEWED):
            await watching
        assert loop.time() - renewed <= certificates.LOOK_EVERY + 1
        assert set(city.warned) == {f"Our certificate ends on {(datetime.now(UTC) + 20 * DAY).date()}. Renew it."}

    jumped(main())
