"""What stands in the street, and what its devices say of themselves. The version grows with every change.

A device's serial number and firmware come from what its driver keeps of it: `emit(…, state={device id: {"serial": …,
"firmware": …}})`. So they are known from the start on, whoever answers then. Devices that come up together are told
together: a street of sixty meters is not sent sixty times.
"""

import asyncio
import hashlib
import json
from collections.abc import Mapping
from typing import Any, cast

from gateway.model import DeviceId, Json

SETTLE = 5.0
"""Seconds from the first news to the version that has it."""
_KEYS = ("serial", "firmware")


class Inventory:
    """The inventory of one site, while its gateway runs."""

    def __init__(self, content: Mapping[str, Any], kept: Json, said: Mapping[DeviceId, Json]) -> None:
        """`content`: what the site says; `kept`: what `keep` gave last; `said`: what is kept of each device."""
        self._content = content
        self._devices = {str(device["id"]) for asset in content["assets"] for device in asset["devices"]}
        self._heard: dict[DeviceId, dict[str, str]] = {}
        """What devices say of themselves."""
        self._news, self._renewed = asyncio.Event(), asyncio.Event()
        self.hear(said)
        self._news.clear()
        self._told = dict(self._heard)
        """What of it is in this version."""
        self.version = 0
        before: Mapping[str, Json] = kept if isinstance(kept, Mapping) else {}
        self.is_new = before.get("content") != self._digest()
        """Whether it is another one than the last that was kept."""
        self.version = cast("int", before.get("version", 0)) + self.is_new

    @property
    def now(self) -> dict[str, Json]:
        """The document (config/schema/inventory.json)."""
        assets = [
            {**asset, "devices": [{**device, **self._told.get(device["id"], {})} for device in asset["devices"]]}
            for asset in self._content["assets"]
        ]
        return {**self._content, "version": self.version, "assets": assets}

    def keep(self) -> dict[str, Json]:
        """What is to be kept, so that its version goes on."""
        return {"content": self._digest(), "version": self.version}

    def hear(self, said: Mapping[DeviceId, Json]) -> None:
        """What a driver keeps of its devices now; what is not said stays as it was said last."""
        for name in self._devices & said.keys():
            identity, known = said[name], self._heard.get(name, {})
            if isinstance(identity, Mapping):
                heard = known | {key: str(identity[key]) for key in _KEYS if identity.get(key)}
                if heard != known:
                    self._heard[name] = heard
                    self._news.set()

    async def grow(self) -> None:
        """Return when there is a new version."""
        await self._news.wait()
        await asyncio.sleep(SETTLE)
        self._news.clear()
        self._told = dict(self._heard)
        self.version += 1
        before, self._renewed = self._renewed, asyncio.Event()
        before.set()

    async def other_than(self, version: object) -> dict[str, Json]:
        """The document, as soon as its version is not this one."""
        while self.version == version:
            await self._renewed.wait()
        return self.now

    def _digest(self) -> str:
        return hashlib.sha256(json.dumps({**self.now, "version": 0}, sort_keys=True).encode()).hexdigest()[:16]
