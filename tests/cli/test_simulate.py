"""`lampione simulate`: the site that it writes finds the emulators; `--scenario`: what happens at a link is a file."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import pytest

from gateway import load
from gateway.cli import main
from gateway.simulate import Simulation
from gateway.site import Credentials, resolver
from gateway.site import load as read_site
from gateway.testing import Recorder, make_link
from tests.drivers.modbus.test_tls import OURS
from tests.drivers.ocpp.chargers import gateway, make_settings, of

if TYPE_CHECKING:
    from pathlib import Path

STREET = """\
version: 1
gateway: {id: cab-017, tenant: milan}
links:
  cs: {driver: ocpp, listen: "127.0.0.1:0", security: "0", authorise: open}
%sassets: {cp-1: {devices: {evse: {link: cs}}}}
uplinks: {city: {uplink: mqtt, url: "mqtts://usp.example", username: u, password: secret}}
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    path = tmp_path / "site.yaml"
    path.write_text(STREET % "")
    return path


@pytest.mark.parametrize(
    ("written", "say"),
    [
        ("street=x.yaml", "write LINK=FILE, with one of cs, air."),
        ("cs", "write LINK=FILE"),
        ("air=bad.yaml", "the emulator of `modbus` plays no scenarios from a file. Leave --scenario out."),
        ("cs=bad.yaml", "`sings`"),
        ("cs=none.yaml", "none.yaml"),
    ],
)
def test_a_scenario_that_cannot_be_played_is_2(
    site: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, written: str, say: str
) -> None:
    monkeypatch.chdir(site.parent)
    site.write_text(STREET % "  air: {driver: modbus, host: 127.0.0.1}\n")
    site.with_name("bad.yaml").write_text("quirks: [sings]\n")
    assert main(["simulate", str(site), "--state", str(site.parent), "--scenario", written]) == 2
    assert say in capsys.readouterr().err


async def test_chargers_find_a_gateway_that_was_started_again(site: Path, tmp_path: Path) -> None:
    """Its port is the same each time: they have asked for it once."""
    simulation = Simulation(read_site(site), Credentials.beside(site), tmp_path / "addresses.json")
    await simulation.start(tmp_path / "running.yaml")
    listen = json.loads((tmp_path / "running.yaml").read_text())["links"]["cs"]["listen"]
    assert listen.startswith("127.0.0.1:")
    assert listen != "127.0.0.1:0"


async def test_the_chargers_of_a_link_play_their_scenario(site: Path, tmp_path: Path) -> None:
    file = tmp_path / "odd.yaml"
    file.write_text("quirks: [unknown_words]\nvisits: false\n")
    recorder = Recorder()
    async with gateway(recorder, make_settings(security="0", authorise="open", tags=None)) as running:
        addresses = tmp_path / "addresses.json"
        addresses.write_text(json.dumps({"links.cs": running.address}))
        scenarios = {"cs": load.scenario("ocpp", file)}
        simulation = Simulation(read_site(site), Credentials.beside(site), addresses, scenarios)
        await simulation.start(tmp_path / "running.yaml")
        playing = asyncio.create_task(simulation.run())
        await recorder.until(lambda found: bool(of(found, "connector_fault")))
        playing.cancel()
        await asyncio.wait([playing])
    assert of(recorder, "connector_fault")[0].more["error"] == "Error"


@pytest.mark.needs("openssl")
async def test_a_meter_with_tls_is_played_and_trusted(tmp_path: Path) -> None:
    """The site file names the true meter's authority and its name; both sides show a certificate."""
    site, out = tmp_path / "site.yaml", tmp_path / "running.yaml"
    site.write_text(
        "version: 1\ngateway: {id: cab-017, tenant: milan}\nlinks:\n  line: {driver: modbus, host: 10.0.0.7, tls: true,"
        " ca: meters-ca.pem, server_name: meter-7, certificate: secret, key: secret}\nassets:\n  here: {devices: "
        "{feeder: {link: line, profile: eastron-sdm630, address: 1}}}\nuplinks: {city: {uplink: file, path: out}}\n"
    )
    credentials = Credentials.beside(site)
    for key, text in OURS.items():
        credentials.write(f"links.line.{key}", text)
    simulation = Simulation(read_site(site), credentials, tmp_path / "addresses.json")
    await simulation.start(out)
    playing = asyncio.create_task(simulation.run())
    found, recorder = read_site(out), Recorder()
    link = found.links["line"]
    secrets = {key: resolver(found, "links.line", credentials)(key) for key in OURS}
    driver = load.driver_class("modbus")(make_link(link.settings, link.devices, recorder, secrets=secrets))
    polling = asyncio.create_task(driver.run(recorder))
    await recorder.until(lambda seen: any(r.point == "cab-017/feeder/power" and r.value for r in seen.readings))
    polling.cancel()
    playing.cancel()
    await asyncio.wait([polling, playing])
