"""`lampione status`, asked of a gateway that runs beside it, and where none does."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from gateway.app import Gateway
from gateway.cli import main
from gateway.cli.status import span
from gateway.clock import SystemClock
from gateway.site import Credentials
from gateway.site.read import load

if TYPE_CHECKING:
    from pathlib import Path

SITE = """\
version: 1
gateway: {id: cab-017, tenant: milan}
links: {air: {driver: serial, port: /dev/nobody}}
assets: {lp-1: {devices: {pm: {link: air, profile: nova-sds011, every: 5min}}}}
uplinks: {log: {uplink: file, path: FILE}}
"""


class Told:
    """A machine that says when its clock was compared."""

    boot_id = "b007b007"
    touch: int | None = None

    def wall(self) -> int:
        return 2_531_779_200_000

    def boot(self) -> int:
        return 10 * 3_600_000

    def touched(self) -> int | None:
        return self.touch

    def bound(self) -> int | None:
        return None


def is_settled(found: Any) -> bool:
    """Whether the link is known to be down and the uplink to be up."""
    return found["links"][0]["up"] is False and found["uplinks"][0]["connected"]


def asked(folder: Path, machine: Told, *words: str) -> int:
    """The exit code of `lampione status`, while a gateway with this clock runs."""
    path = folder / "site.yaml"
    path.write_text(SITE.replace("FILE", str(folder / "out")))

    async def main_() -> int:
        gateway = Gateway(load(path), folder, Credentials(folder), clock=SystemClock(machine))
        run = asyncio.create_task(gateway.run())
        async with asyncio.timeout(20):
            while not is_settled(gateway.status.snapshot()):
                await gateway.status.changed(gateway.status.version)
        code = await asyncio.to_thread(main, ["status", "--state", str(folder), *words])
        gateway.stop()
        await run
        return code

    return asyncio.run(main_())


@pytest.mark.parametrize(
    ("hours", "clock"),
    [
        (None, "unsynced  for 0 s  2050-03-25 00:00:00Z  Clock not set: lamps stay lit, readings are marked."),
        (0, "synced  for 0 s  2050-03-25 00:00:00Z ± 0.5 s\n"),
        (
            5,
            "holdover  for 0 s  2050-03-25 00:00:00Z ± 2.3 s  The clock runs on by itself and may be off by 2.3 s.",
        ),
    ],
)
def test_what_the_clock_is_and_since_when_and_how_far_it_may_be_off(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], hours: int | None, clock: str
) -> None:
    machine = Told()
    machine.touch = None if hours is None else machine.wall() - hours * 3_600_000
    assert asked(tmp_path, machine) == 1, "a link is down"
    shown = capsys.readouterr().out
    assert "cab-017: up for 0 s\nclock\n  " in shown, "after the gateway's own log"
    assert clock in shown
    assert "links\n  air  down  for 0 s  " in shown
    assert "uplinks\n  log  up" in shown
    assert "\n  lp-1/pm  down  for 0 s  " in shown


def test_as_json_it_is_the_pages_document(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked(tmp_path, Told(), "--json")
    found: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["v"] == 1
    assert found["clock"] == {
        "state": "unsynced", "time": 2_531_779_200_000, "since_ms": 0, "error_ms": None,
        "say": "Clock not set: lamps stay lit, readings are marked. Connect network or GNSS.",
    }  # fmt: skip


def test_without_a_gateway_it_says_so_and_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--state", str(tmp_path)]) == 3
    assert capsys.readouterr().err.endswith("Start it: systemctl start lampione\n")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("ms", "said"),
    [
        (0, "0 s"),
        (59_999, "59 s"),
        (60_000, "1 min"),
        (61_000, "1 min 1 s"),
        (90_000_000, "1 d 1 h"),
        (86_405_000, "1 d 5 s"),
    ],
)
def test_spans_are_told_in_two_units(ms: int, said: str) -> None:
    assert span(ms) == said
