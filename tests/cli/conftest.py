"""A small site on disk, and no credentials from the environment."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

SITE = """\
version: 1
gateway: {id: cab-017, tenant: milan}
links: {air: {driver: serial, port: /dev/ttyUSB0}}
assets: {lp-1: {devices: {pm: {link: air, profile: nova-sds011, every: 5min}}}}
uplinks: {city: {uplink: mqtt, url: "mqtts://usp.example", username: u, password: secret}}
page: {token: secret:page}
"""


@pytest.fixture(autouse=True)
def outside_a_service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "site.yaml"
    path.write_text(SITE)
    return path
