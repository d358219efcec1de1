"""The far end of a whole site: one emulator per link, on ephemeral loopback addresses, for an unmodified site file.

Runs in a process of its own, so that the gateway is met over the wire only. A link whose driver listens
(`listen:` in its settings) is called by its emulator, at the address that the gateway tells in
`addresses.json`; every other emulator listens, and the site is written anew with where to find it.
"""

import asyncio
import json
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gateway import document, durable, load
from gateway.errors import ConfigError
from gateway.ports import Emulator
from gateway.site import Credentials, Site, SiteLink, resolver

_LOOK_AGAIN = 0.1
_TELL_EVERY = 0.5


class Simulation:
    """Emulators for `site`; those that call in read `addresses` (the gateway's addresses.json) first. `scenarios`: what
    happens there, by link (see `load.scenario`).
    """

    def __init__(
        self, site: Site, credentials: Credentials, addresses: Path, scenarios: Mapping[str, Any] | None = None
    ) -> None:
        self._site, self._credentials, self._addresses = site, credentials, addresses
        self._scenarios = scenarios or {}
        self._emulators: dict[str, Emulator] = {}

    async def start(self, out: Path) -> None:
        """Start what listens and write to `out` the site that finds it there. ConfigError: it cannot be written."""
        moved: dict[str, Mapping[str, str]] = {}
        for link in self._site.links.values():
            if _calls_in(link):
                moved[link.name] = {"listen": f"127.0.0.1:{_free_port()}"}
            else:
                self._emulators[link.name] = emulator = self._emulator(link, None)
                moved[link.name] = await emulator.start()
        _write(out, _rewritten(self._site, moved))

    async def run(self, produced: Path | None = None) -> None:
        """Until cancelled; `produced` is kept up to date with the values put on the wire, by device id."""
        async with asyncio.TaskGroup() as tasks:
            for emulator in self._emulators.values():
                tasks.create_task(emulator.run())
            for link in self._site.links.values():
                if _calls_in(link):
                    tasks.create_task(self._call(link))
            while True:
                if produced:
                    self.tell(produced)
                await asyncio.sleep(_TELL_EVERY)

    def produced(self) -> dict[str, int]:
        counts: dict[str, int] = {}
        for emulator in self._emulators.values():
            counts |= emulator.produced()
        return counts

    def tell(self, file: Path) -> None:
        """Keep `produced` in a file. ConfigError: it cannot be written."""
        _write(file, json.dumps(self.produced()))

    def _emulator(self, link: SiteLink, address: str | None) -> Emulator:
        secret = resolver(self._site, f"links.{link.name}", self._credentials)
        plays = {"scenario": self._scenarios[link.name]} if link.name in self._scenarios else {}
        return load.emulator_class(link.driver)(link.settings, link.devices, address, secret, **plays)

    async def _call(self, link: SiteLink) -> None:
        place = f"links.{link.name}"
        while place not in (known := _read(self._addresses)):  # noqa: ASYNC110 - another process tells it by a file
            await asyncio.sleep(_LOOK_AGAIN)
        self._emulators[link.name] = emulator = self._emulator(link, known[place])
        await emulator.start()
        await emulator.run()


def _free_port() -> int:
    """One that stays the same when the gateway is started again: who calls it has asked for it once."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _calls_in(link: SiteLink) -> bool:
    return "listen" in type(link.settings).model_fields


def _read(addresses: Path) -> dict[str, str]:
    try:
        known: dict[str, str] = json.loads(addresses.read_text())
    except FileNotFoundError:
        return {}
    return known


def _write(file: Path, text: str) -> None:
    try:
        durable.replace(file, text.encode(), flush=False)
    except OSError as error:
        raise ConfigError(f"{file} cannot be written: {error.strerror}. Choose another file.") from None


def _rewritten(site: Site, moved: Mapping[str, Mapping[str, str]]) -> str:
    """The site file with other link settings, as JSON: which is YAML too."""
    tree: dict[str, Any] = document.parse(site.text, str(site.path)).tree
    for name, settings in moved.items():
        tree["links"][name].update(settings)
    return json.dumps(tree, indent=1)
