"""MQTT over TLS with an authority of one's own: certificates that end, are renewed, or ended already."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from gateway import certificates
from gateway.clock import SystemClock
from gateway.errors import UplinkError
from gateway.uplinks import mqtt
from tests.authority import TEN_YEARS, Authority
from tests.brokers import GATEWAY, Broker
from tests.platforms import fails, platform, running, telemetry, until

if TYPE_CHECKING:
    from collections.abc import Iterator

# paho leaves the socket of a failed TLS handshake to the garbage collector.
pytestmark = [
    pytest.mark.needs("openssl"),
    pytest.mark.filterwarnings("ignore:Exception ignored in. <ssl.SSLSocket"),
]


class City:
    """A broker that wants a client's certificate of its own authority, and the gateway's credentials for it."""

    def __init__(self, folder: Path, *, ends: timedelta = TEN_YEARS, broker_ends: timedelta = TEN_YEARS) -> None:
        self.authority = Authority(folder / "authority")
        certificate, key = self.authority.issue("broker", ends=broker_ends)
        options = (
            f"cafile {self.authority.ca}\ncertfile {certificate}\nkeyfile {key}\n"
            "require_certificate true\nuse_identity_as_username true"
        )
        self.secrets: dict[str, str] = {}
        self.issue(ends)
        self.warned: list[str] = []
        self.broker = Broker(folder / "broker", options=options).start()

    def issue(self, ends: timedelta) -> None:
        certificate, key = self.authority.issue(GATEWAY, ends=ends)
        self.secrets |= {"certificate": certificate.read_text(), "key": key.read_text()}

    def uplink(self) -> mqtt.Uplink:
        url = self.broker.url.replace("mqtt:", "mqtts:")
        keys = {"url": url, "ca": str(self.authority.ca), "certificate": "secret", "key": "secret"}
        given = platform(mqtt, keys)
        clock = SystemClock(trusted=True)
        return mqtt.Uplink(replace(given, clock=clock, secret=lambda name: self.secrets[name], warn=self.warned.append))


@pytest.fixture
def cities(tmp_path: Path) -> Iterator[list[City]]:
    made: list[City] = []
    yield made
    for city in made:
        city.broker.kill()


async def test_a_certificate_that_ends_within_a_month_is_told_while_all_works(
    cities: list[City], tmp_path: Path
) -> None:
    cities.append(city := City(tmp_path, ends=timedelta(days=20), broker_ends=timedelta(days=25)))
    day = (datetime.now(UTC) + timedelta(days=20)).date()
    async with running(city.uplink()):
        await until(lambda: city.warned)
    assert city.warned == [f"Our certificate ends on {day}. Renew it."]
    city.issue(TEN_YEARS)
    async with running(city.uplink()):
        await until(lambda: len(city.warned) > 1)
    assert city.warned[1].startswith("The platform's certificate ends on "), "it is seen in the handshake"


async def test_a_renewed_certificate_is_used_without_a_restart(
    cities: list[City], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(certificates, "LOOK_EVERY", 0.02)
    cities.append(city := City(tmp_path, ends=timedelta(days=2)))
    up = city.uplink()
    async with running(up) as task:
        city.issue(TEN_YEARS)
        await until(task.done)
        assert str(task.exception()) == certificates.RENEWED
    async with running(up) as task:
        await until(lambda: city.warned[-1] == "")
        with pytest.raises(UplinkError, match="nobody to give our batches to"):
            await up.send(telemetry(1))
        assert not task.done(), "it is not renewed again and again"


async def test_a_certificate_that_has_ended_is_said_to_have(cities: list[City], tmp_path: Path) -> None:
    cities.append(city := City(tmp_path, ends=-timedelta(days=2)))
    day = (datetime.now(UTC) - timedelta(days=2)).date()
    assert await fails(city.uplink()) == f"Our certificate ended on {day}. Renew it."
    city.issue(TEN_YEARS)
    async with running(city.uplink()):
        pass


TLS = Path(__file__).parent / "tls"


@pytest.fixture
def tls_broker(tmp_path: Path) -> Iterator[Broker]:
    """Speaks TLS, wants a client's certificate, and takes its common name for the user's."""
    options = (
        f"cafile {TLS}/ca.pem\ncertfile {TLS}/broker.pem\nkeyfile {TLS}/broker-key.pem\n"
        "require_certificate true\nuse_identity_as_username true"
    )
    broker = Broker(tmp_path / "broker", options=options).start()
    yield broker
    broker.kill()


def over_tls(broker: Broker, **keys: Any) -> mqtt.Uplink:
    secrets = {"certificate": (TLS / "cab-017.pem").read_text(), "key": (TLS / "cab-017-key.pem").read_text()}
    certificates = {"ca": str(TLS / "ca.pem"), "certificate": "secret", "key": "secret"}
    url = broker.url.replace("mqtt:", "mqtts:")
    return mqtt.Uplink(platform(mqtt, {"url": url} | certificates | keys, secrets=secrets | keys.pop("secrets", {})))


async def test_tls_with_a_certificate_for_a_password(tls_broker: Broker) -> None:
    up = over_tls(tls_broker, ack="puback")
    async with running(up):
        with pytest.raises(UplinkError, match=r"^The broker has nobody"):
            await up.send(telemetry(1))


async def test_what_is_wrong_with_tls(tls_broker: Broker, tmp_path: Path) -> None:
    stranger = await fails(over_tls(tls_broker, ca=None))
    assert stranger.startswith("The broker's certificate is not trusted: ")
    assert stranger.endswith("Put its authority's file in `ca`.")
    other_name = await fails(over_tls(tls_broker, url=f"mqtts://localhost.localdomain:{tls_broker.port}"))
    assert "not trusted" in other_name or "not found" in other_name
    gone = await fails(over_tls(tls_broker, ca=str(tmp_path / "gone.pem")))
    assert gone == f"The authority's certificate {tmp_path}/gone.pem is not there. Put it in place."
    (tmp_path / "no.pem").write_text("no PEM")
    assert "not usable PEM" in await fails(over_tls(tls_broker, ca=str(tmp_path / "no.pem")))
    without = await fails(over_tls(tls_broker, certificate=None, key=None))
    assert without.startswith("The broker ends TLS at once. If it wants our certificate,")
