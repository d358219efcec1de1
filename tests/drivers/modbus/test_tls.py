"""Modbus/TCP Security against pymodbus's server: who is trusted, who is shown, and what is said when it fails.

And against our emulator, which makes its own certificate.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pymodbus.server import ModbusTcpServer, ModbusTlsServer
from pymodbus.simulator import DataType, SimData, SimDevice

from drivers.modbus.driver import Driver
from drivers.modbus.emulator import Emulator
from drivers.modbus.frames import NoAnswer
from drivers.modbus.tcp import Tcp
from drivers.modbus.tls import context
from gateway.errors import ConfigError, LinkError
from gateway.testing import Recorder, make_link

from .conftest import SELF_IDENTIFYING, make_device, make_settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

PEM = Path(__file__).resolve().parents[2] / "uplinks" / "tls"
CA = str(PEM / "ca.pem")
OURS = {"certificate": (PEM / "cab-017.pem").read_text(), "key": (PEM / "cab-017-key.pem").read_text()}
MUTUAL = {"ca": CA, "certificate": "secret", "key": "secret"}


@asynccontextmanager
async def meter(*, asks_for_ours: bool = True, speaks_tls: bool = True) -> AsyncIterator[int]:
    """The TCP port of a foreign server whose registers hold their own address."""
    registers = [SimData(0, values=list(range(60)), datatype=DataType.REGISTERS)]
    bits = [SimData(0, values=[False], datatype=DataType.BITS)]
    device = SimDevice(1, simdata=(bits, bits, registers, registers))
    server: ModbusTcpServer
    if speaks_tls:
        trusted = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        trusted.load_cert_chain(PEM / "broker.pem", PEM / "broker-key.pem")
        if asks_for_ours:
            trusted.verify_mode = ssl.CERT_REQUIRED
            trusted.load_verify_locations(CA)
        server = ModbusTlsServer([device], sslctx=trusted, address=("127.0.0.1", 0))
    else:
        server = ModbusTcpServer([device], address=("127.0.0.1", 0))
    await server.serve_forever(background=True)
    assert server.transport
    try:
        yield server.transport.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
    finally:
        await server.shutdown()


async def polled(port: int, secrets: Mapping[str, str] = OURS, **keys: Any) -> list[Any]:
    """The first values, or what stops the driver."""
    settings = make_settings({"host": "127.0.0.1", "port": str(port), "tls": True, "timeout": "5s", **keys})
    recorder, device = Recorder(), make_device("a/m", 1, SELF_IDENTIFYING)
    driver = Driver(make_link(settings, [device], recorder, secrets=secrets))
    task = asyncio.create_task(driver.run(recorder))
    news = asyncio.create_task(recorder.until(lambda r: len(r.readings) >= 13))
    await asyncio.wait({task, news}, return_when=asyncio.FIRST_COMPLETED)
    for one in (task, news):
        one.cancel()
    results = await asyncio.wait({task, news})
    assert results
    if not task.cancelled() and (error := task.exception()):
        raise error
    return [(r.point.rpartition("/")[2], r.value) for r in recorder.readings[:13]]


async def test_both_sides_show_who_they_are() -> None:
    async with meter() as port:
        values = await polled(port, **MUTUAL)
    assert {(f"r{n}", n) for n in (*range(8), *range(40, 44))} | {("target", 7)} == set(values)


async def test_a_device_that_asks_for_no_certificate() -> None:
    async with meter(asks_for_ours=False) as port:
        assert len(await polled(port, {}, ca=CA)) == 13


@pytest.mark.parametrize(
    ("keys", "say"),
    [
        (MUTUAL | {"server_name": "meter-7"}, r"not trusted: Hostname mismatch.*Put .* in `server_name`"),
        ({k: v for k, v in MUTUAL.items() if k != "ca"}, r"not trusted: .*Put its authority's file in `ca`"),
        (MUTUAL | {"ca": "/nowhere/ca.pem"}, r"authority's certificate /nowhere/ca.pem is not there"),
    ],
    ids=["another name", "an unknown authority", "no file"],
)
async def test_why_there_is_no_connection(keys: dict[str, str], say: str) -> None:
    async with meter() as port:
        with pytest.raises(LinkError, match=say):
            await polled(port, **keys)


async def test_a_server_that_breaks_off_without_our_certificate() -> None:
    async with meter() as port:
        settings = make_settings({"host": "127.0.0.1", "port": str(port), "tls": True, "ca": CA}, "5s")
        tcp = Tcp(*settings.endpoint, 5.0, tls=partial(context, settings, OURS.__getitem__))
        with pytest.raises(NoAnswer, match="it ended TLS without an answer") as failed:
            await tcp.read(1, 4, 0, 4)
        assert "add `certificate` and `key`" in failed.value.fix
        tcp.close()


async def test_a_server_that_says_that_it_wants_our_certificate() -> None:
    """OpenSSL's alert comes after our side of the handshake, with the first question (TLS 1.3)."""
    trusted = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trusted.load_cert_chain(PEM / "broker.pem", PEM / "broker-key.pem")
    trusted.verify_mode = ssl.CERT_REQUIRED
    trusted.load_verify_locations(CA)

    def refuse(listener: socket.socket) -> None:
        """Closing at once would reset the connection, and the alert might be lost on the way."""
        connection, _ = listener.accept()
        heard, said = ssl.MemoryBIO(), ssl.MemoryBIO()
        handshake = trusted.wrap_bio(heard, said, server_side=True)
        with connection:
            why = ""
            while not why:
                heard.write(connection.recv(4096))
                try:
                    handshake.do_handshake()
                except ssl.SSLWantReadError:
                    connection.sendall(said.read())
                except ssl.SSLError as error:
                    why = error.reason or "unknown"
            connection.sendall(said.read())
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(4096):
                pass
            assert why == "PEER_DID_NOT_RETURN_A_CERTIFICATE"

    with socket.create_server(("127.0.0.1", 0)) as listener:
        refusing = asyncio.create_task(asyncio.to_thread(refuse, listener))
        with pytest.raises(LinkError, match=r"refuses our certificate \(.*alert.*\)\. Add `certificate` and `key`"):
            await polled(listener.getsockname()[1], ca=CA)
        await refusing


async def test_a_device_that_speaks_no_tls() -> None:
    async with meter(speaks_tls=False) as port:
        with pytest.raises(
            LinkError, match=r"or not with TLS\. Check its power and cable, and whether the port takes TLS\."
        ):
            await polled(port, timeout="300ms", **MUTUAL)


async def test_a_certificate_that_is_none() -> None:
    async with meter() as port:
        with pytest.raises(LinkError, match=r"not usable PEM .*Renew it"):
            await polled(port, {"certificate": "x", "key": "y"}, ca=CA, certificate="secret", key="secret")


async def test_a_secret_that_is_missing_is_the_integrators() -> None:
    def missing(_place: str) -> str:
        raise ConfigError("links.line.key is missing.")

    settings = make_settings({"host": "127.0.0.1", "tls": "true", **MUTUAL})
    link = make_link(settings, [], Recorder())
    object.__setattr__(link, "secret", missing)
    with pytest.raises(ConfigError, match=r"links\.line\.key"):
        await Driver(link).run(Recorder())


@pytest.mark.parametrize(
    ("keys", "port"),
    [({"tls": "true"}, 802), ({"tls": "true", "port": "502"}, 502), ({}, 502), ({"port": "5020"}, 5020)],
)
def test_the_port_of_modbus_tcp_security(keys: dict[str, str], port: int) -> None:
    assert make_settings({"host": "h", **keys}).endpoint == ("h", port)


@asynccontextmanager
async def emulated(**keys: Any) -> AsyncIterator[Mapping[str, str]]:
    """What the site file of a link with `keys` must say to find the emulated device."""
    device = make_device("a/m", 1, SELF_IDENTIFYING)
    written = {"host": "10.0.0.7", "tls": "true", **keys}
    emulator = Emulator(make_settings(written), [device], None, OURS.__getitem__)
    where = await emulator.start()
    for slug, place in SELF_IDENTIFYING.points.items():
        emulator.set("a/m", slug, place.addr)
    try:
        yield {**written, **where}
    finally:
        await emulator.stop()
    with pytest.raises(LinkError, match="is not there"):
        context(make_settings({**written, **where}), OURS.__getitem__)


@pytest.mark.needs("openssl")
@pytest.mark.parametrize("name", [{}, {"server_name": "meter-7"}, {"server_name": "10.0.0.7"}])
@pytest.mark.parametrize("own", [{}, {"certificate": "secret", "key": "secret"}], ids=["nobody's", "ours"])
async def test_an_emulated_device_is_trusted_by_the_certificate_that_it_names(
    name: dict[str, str], own: dict[str, str]
) -> None:
    async with emulated(**name, **own) as where:
        values = await polled(int(where["port"]), OURS, **{key: where[key] for key in ("ca", *name, *own)})
    assert {(f"r{n}", n) for n in (*range(8), *range(40, 44))} <= set(values)


@pytest.mark.needs("openssl")
@pytest.mark.parametrize("shown", [None, "broker"], ids=["none", "another"])
async def test_an_emulated_device_takes_only_the_gateways_certificate(shown: str | None) -> None:
    """Of one authority with it, and still not it."""
    keys = {"certificate": "secret", "key": "secret"} if shown else {}
    other = {"certificate": (PEM / "broker.pem").read_text(), "key": (PEM / "broker-key.pem").read_text()}
    async with emulated(certificate="secret", key="secret") as where:
        settings = make_settings({"host": "127.0.0.1", "tls": "true", "port": where["port"], "ca": where["ca"], **keys})
        tcp = Tcp(*settings.endpoint, 5.0, tls=partial(context, settings, other.__getitem__))
        with pytest.raises((LinkError, NoAnswer), match=r"refuses our certificate|ended TLS without an answer"):
            await tcp.read(1, 4, 0, 4)
        tcp.close()


async def test_without_openssl_no_device_with_tls_is_played(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ConfigError, match=r"Type: apt install openssl\."):
        async with emulated():
            pass
