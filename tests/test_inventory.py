"""The inventory says of each device what it says of itself, from the register in the meter to the platform's table."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from drivers import modbus
from drivers.modbus.emulator import Emulator
from gateway.inventory import Inventory
from gateway.receiver import HttpIn, Receiver
from gateway.site import Credentials, load
from tests.platforms import until, working

if TYPE_CHECKING:
    from pathlib import Path

DEVICES: Any = [{"id": "here/feeder", "points": []}, {"id": "here/sub", "points": []}]
CONTENT: Any = {"v": 1, "assets": [{"id": "here", "devices": DEVICES}]}
SITE = """\
version: 1
gateway: {{id: cab-017, tenant: milan, clock: trusted}}
links:
  line: {{driver: modbus, host: 127.0.0.1, port: {port}, timeout: 1s}}
assets:
  here: {{devices: {{feeder: {{link: line, profile: eastron-sdm630, address: 1, every: 1s}}}}}}
uplinks:
  city: {{uplink: http, url: "{url}", token: secret}}
"""


def told(inventory: Inventory, device: int = 0) -> dict[str, Any]:
    entry: dict[str, Any] = inventory.now["assets"][0]["devices"][device]
    return {key: entry[key] for key in ("serial", "firmware") if key in entry}


async def grown(inventory: Inventory) -> None:
    async with asyncio.timeout(1):
        await inventory.grow()


async def test_it_is_another_one_only_where_something_is_new(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.inventory.SETTLE", 0.0)
    inventory = Inventory(CONTENT, None, {})
    assert (inventory.version, inventory.is_new, told(inventory)) == (1, True, {})
    inventory.hear({"here/feeder": {"serial": "4711", "last": {"energy_import": 7}}})
    assert (inventory.version, told(inventory)) == (1, {}), "a version never changes"
    await grown(inventory)
    assert (inventory.version, told(inventory), told(inventory, 1)) == (2, {"serial": "4711"}, {})
    inventory.hear({"here/feeder": {"serial": "4711", "last": {"energy_import": 8}}})
    inventory.hear({"here/feeder": {"serial": None}, "here/nobody": {"serial": "1"}, "base/here": 7})
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await inventory.grow()
    inventory.hear({"here/feeder": {"serial": "4712", "firmware": "2.1.9"}})
    await grown(inventory)
    assert (inventory.now["version"], told(inventory)) == (3, {"serial": "4712", "firmware": "2.1.9"})
    assert CONTENT["assets"][0]["devices"] == DEVICES


async def test_devices_that_come_up_together_are_told_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.inventory.SETTLE", 0.02)
    inventory = Inventory(CONTENT, None, {})
    waiting = asyncio.create_task(inventory.other_than(1))
    growing = asyncio.create_task(inventory.grow())
    inventory.hear({"here/feeder": {"serial": "4711"}})
    inventory.hear({"here/sub": {"serial": "4712"}})
    await growing
    assert (inventory.version, told(inventory), told(inventory, 1)) == (2, {"serial": "4711"}, {"serial": "4712"})
    async with asyncio.timeout(1):
        assert await waiting == await inventory.other_than(1) == inventory.now, "one that asks late misses nothing"


async def test_its_version_goes_on_after_a_restart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.inventory.SETTLE", 0.0)
    first = Inventory(CONTENT, None, {})
    first.hear({"here/feeder": {"serial": "4711"}})
    await grown(first)
    again = Inventory(CONTENT, first.keep(), {"here/feeder": {"serial": "4711"}})
    assert (again.version, again.is_new) == (2, False)
    other = Inventory(CONTENT, first.keep(), {"here/feeder": {"serial": "4712"}})
    assert (other.version, other.is_new) == (3, True)


def versions(receiver: Receiver) -> list[int]:
    """Of the inventories that came as events."""
    return [event["more"]["version"] for event in receiver.events() if event.get("event") == "inventory"]


async def test_a_meter_s_serial_number_reaches_the_platform(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.inventory.SETTLE", 0.1)
    store = tmp_path / "usp.db"

    def platform() -> dict[str, Any]:
        """What the platform has, as it was told last."""
        with closing(sqlite3.connect(store)) as table:
            rows = table.execute("SELECT inventory FROM gateway WHERE inventory IS NOT NULL").fetchall()
        return json.loads(rows[0][0]) if rows else {"version": 0}  # type: ignore[no-any-return]

    def serial() -> str | None:
        return platform()["assets"][0]["devices"][0].get("serial") if platform()["version"] else None

    site, credentials = tmp_path / "site.yaml", Credentials(tmp_path / "secrets")
    credentials.write("uplinks.city.token", "lantern-lantern-lantern")
    receiver = Receiver(store, http=HttpIn({"*": "lantern-lantern-lantern"}))
    receiving = asyncio.create_task(receiver.run())
    await receiver.ready()
    site.write_text(SITE.format(port=1, url=receiver.url))
    [(_, meter)] = load(site).devices.values()
    emulator = Emulator(modbus.Settings.model_validate({"driver": "modbus", "host": "127.0.0.1"}), [meter])
    where = await emulator.start()
    site.write_text(SITE.format(port=where["port"], url=receiver.url))
    number = emulator._by_id[meter.id].number
    async with working(site, credentials):
        await until(lambda: serial() == number)
        assert platform()["version"] == 2
        await until(lambda: versions(receiver) == [1, 2])
    await emulator.stop()
    async with working(site, credentials) as again:
        await until(lambda: bool(again._deliveries))
        assert json.loads(json.dumps(again._inventory.now)) == platform()
        assert serial() == number
    receiving.cancel()
    await asyncio.wait((receiving,))
