"""The composition root with real parts, in this process: what an uplink says reaches the status."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from gateway.app import Gateway
from gateway.model import Lane
from gateway.receiver import HttpIn, Receiver
from gateway.site import Credentials, load
from gateway.testing import jumped
from tests.authority import Authority
from tests.platforms import until, working

SITE = """\
version: 1
gateway: {{id: cab-017, tenant: milan, clock: trusted}}
uplinks:
  city: {{{keys}}}
"""
WITH_A_PAGE = """\
version: 1
gateway: {id: cab-017, tenant: milan}
links: {air: {driver: serial, port: /dev/nobody}}
assets: {lp-1: {devices: {pm: {link: air, profile: nova-sds011, every: 5min}}}}
uplinks: {log: {uplink: file, path: FILE}}
page: {listen: "127.0.0.1:0", token: secret}
"""


@asynccontextmanager
async def running(folder: Path, keys: str, *, token: str = "") -> AsyncIterator[Gateway]:
    site = folder / "site.yaml"
    site.write_text(SITE.format(keys=keys))
    if token:
        secrets = folder / "secrets"
        secrets.mkdir(mode=0o700)
        (secrets / "uplinks.city.token").write_text(token)
        (secrets / "uplinks.city.token").chmod(0o600)
    async with working(site, Credentials.beside(site, None)) as gateway:
        yield gateway


def uplink(gateway: Gateway) -> dict[str, Any]:
    return cast("list[dict[str, Any]]", gateway.status.snapshot()["uplinks"])[0]


@pytest.mark.needs("openssl")
async def test_what_an_uplink_warns_of_is_shown_while_it_is_connected(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "authority", ends=timedelta(days=20))
    certificate, key = authority.issue("platform")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    receiver = Receiver(tmp_path / "usp.db", http=HttpIn({"*": "lantern-lantern-lantern"}, tls=context))
    receiving = asyncio.create_task(receiver.run())
    await receiver.ready()
    keys = f"uplink: http, url: {receiver.url}, token: secret, ca: {authority.ca}"
    async with running(tmp_path, keys, token="lantern-lantern-lantern") as gateway:
        day = (datetime.now(UTC) + timedelta(days=20)).date()
        said = f"The authority's certificate in {authority.ca} ends on {day}. Renew it."
        await until(lambda: uplink(gateway)["say"] == said)
        assert uplink(gateway)["connected"]
    receiving.cancel()
    await asyncio.wait((receiving,))


async def test_an_uplink_that_falls_while_the_buffer_cannot_be_read_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.app.LAST_WORDS", 0.5)
    async with running(tmp_path, f"uplink: file, path: {tmp_path}/gone/batches") as gateway:
        await until(lambda: "0 readings are safe." in uplink(gateway)["say"])
        lane = gateway.buffer.lanes[Lane.TELEMETRY]
        async with asyncio.timeout(20):
            while "How many readings wait is not known." not in uplink(gateway)["say"]:
                await lane._in_thread(lane._file.abandon)  # it opens the file again each time
                await asyncio.sleep(0.001)
        before = uplink(gateway)["restarts"]
        await until(lambda: uplink(gateway)["restarts"] > before)
        stopped = asyncio.get_running_loop().time()
        gateway.stop()
    assert asyncio.get_running_loop().time() - stopped < 3, "the loop waited for the disk"


def test_who_has_nothing_to_do_for_minutes_is_not_taken_for_dead(tmp_path: Path) -> None:
    """systemd's watchdog is not fed while anybody is late: it would kill a gateway that is well."""
    path = tmp_path / "site.yaml"
    path.write_text(WITH_A_PAGE.replace("FILE", str(tmp_path / "out")))
    Credentials(tmp_path).write("page.token", "a-token-for-the-page")

    async def main() -> None:
        gateway = Gateway(load(path), tmp_path, Credentials(tmp_path))
        run = asyncio.create_task(gateway.run())
        for _ in range(30):
            await asyncio.sleep(10)
            assert gateway.watch.overdue() == []
        gateway.stop()
        await run

    jumped(main(), 0.001)
