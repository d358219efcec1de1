"""The gateway as a whole, where no other process is needed to see it."""

import asyncio
from pathlib import Path

from gateway.app import Gateway
from gateway.site import Credentials
from gateway.site.read import load
from gateway.testing import jumped

SITE = """\
version: 1
gateway: {id: cab-017, tenant: milan}
links: {air: {driver: serial, port: /dev/nobody}}
assets: {lp-1: {devices: {pm: {link: air, profile: nova-sds011, every: 5min}}}}
uplinks: {log: {uplink: file, path: FILE}}
page: {listen: "127.0.0.1:0", token: secret}
"""


def test_who_has_nothing_to_do_for_minutes_is_not_taken_for_dead(tmp_path: Path) -> None:
    """systemd's watchdog is not fed while anybody is late: it would kill a gateway that is well."""
    path = tmp_path / "site.yaml"
    path.write_text(SITE.replace("FILE", str(tmp_path / "out")))
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
