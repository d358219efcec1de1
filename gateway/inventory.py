"""What stands in the street, and what its devices say of themselves. The version grows with every change.

A device's serial number and firmware come from what its driver keeps of it: `emit(…, state={device id: {"serial": …,
"firmware": …}})`. So they are known from the start on, whoever answers then.
"""

import asyncio
import copy
import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any, cast

from gateway.model import Json

_TOLD = ("serial", "firmware")


class Inventory:
    """`content`: what the site says; `kept`: what `keep` gave last, in this process or an earlier one."""

    def __init__(self, content: Mapping[str, Json], kept: Json, said: Mapping[str, Json]) -> None:
        """`said`: what is kept of each device, by its id."""
        self._content: dict[str, Any] = copy.deepcopy({**content, "version": 0})
        self._devices = {str(each["id"]): each for each in _devices(self._content)}
        self._take(said)
        before: Mapping[str, Json] = kept if isinstance(kept, Mapping) else {}
        self.is_new = before.get("content") != self._digest()
        """Whether it is another one than the last that was kept."""
        self.version = cast("int", before.get("version", 0)) + self.is_new
        self._renewed = asyncio.Event()

    @property
    def now(self) -> dict[str, Json]:
        """The document (config/schema/inventory.json)."""
        return {**self._content, "version": self.version}

    def keep(self) -> dict[str, Json]:
        """What is to be kept, so that its version goes on."""
        return {"content": self._digest(), "version": self.version}

    def hear(self, said: Mapping[str, Json]) -> bool:
        """What a driver keeps of its devices now. Whether the inventory is another one by that."""
        if not self._take(said):
            return False
        self.version += 1
        before, self._renewed = self._renewed, asyncio.Event()
        before.set()
        return True

    async def renewed(self) -> None:
        """Return when it is another one."""
        await self._renewed.wait()

    def _take(self, said: Mapping[str, Json]) -> bool:
        is_other = False
        for name in self._devices.keys() & said.keys():
            device, identity = self._devices[name], said[name]
            told = {key: identity[key] for key in _TOLD if identity.get(key)} if isinstance(identity, Mapping) else {}
            if any(device.get(key) != value for key, value in told.items()):
                device.update(told)
                is_other = True
        return is_other

    def _digest(self) -> str:
        return hashlib.sha256(json.dumps(self._content, sort_keys=True).encode()).hexdigest()[:16]


def _devices(content: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for asset in content["assets"]:
        yield from asset["devices"]
