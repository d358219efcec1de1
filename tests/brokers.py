"""A real Mosquitto for tests, with the users and access lists of one gateway, its neighbour and a platform."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from gateway.cli import broker as mosquitto
from gateway.cli.broker import free_port

__all__ = ["Broker", "broker", "free_port"]

TENANT, GATEWAY, PLATFORM = "milan", "cab-017", "platform"
PASSWORDS = {GATEWAY: "lantern", "cab-018": "lantern-18", PLATFORM: "piazza"}
ACCESS = f"""\
pattern readwrite lampione/1/+/%u/#
user {PLATFORM}
topic readwrite lampione/1/#
"""


class Broker(mosquitto.Broker):
    """`gateway.cli.broker.Broker` with everybody of PASSWORDS let in."""

    def __init__(
        self, folder: Path, *, passwords: Mapping[str, str] = PASSWORDS, access: str = ACCESS, options: str = ""
    ) -> None:
        super().__init__(folder, passwords=passwords, access=access, options=options)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    """A broker that knows GATEWAY and PLATFORM, each with its word in PASSWORDS."""
    broker = Broker(tmp_path / "broker").start()
    yield broker
    broker.kill()
