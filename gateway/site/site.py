"""A site as the gateway runs it: every name resolved, every value typed, nothing left to look up."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gateway.batch import point_entry
from gateway.diagnostic import Diagnostic
from gateway.model import Device, DeviceId, Json
from gateway.profile import DeviceKeys, LinkKeys, Profile, ProfilePoint
from gateway.site.keys import BufferKeys, GatewayKeys, PageKeys, Position
from gateway.uplinks import UplinkKeys


@dataclass(frozen=True, slots=True)
class SiteLink:
    """One wire: `driver` is a name for `gateway.load`, `settings` that driver's own Settings."""

    name: str
    driver: str
    settings: LinkKeys
    devices: tuple[Device, ...]


@dataclass(frozen=True, slots=True)
class Asset:
    """A thing on the map. Relations name assets or devices, `here` already being the gateway's id."""

    id: str
    at: Position | None
    fed_by: str | None
    serves: tuple[str, ...]
    devices: tuple[DeviceId, ...]


@dataclass(frozen=True, slots=True)
class SiteUplink:
    """One platform: `uplink` is a name for `gateway.load`, `settings` that uplink's own Settings."""

    name: str
    uplink: str
    settings: UplinkKeys


@dataclass(frozen=True, slots=True)
class Site:
    path: Path
    text: str = field(repr=False)
    hash: str
    """SHA-256 of the text and of the profiles it uses, the first 12 digits."""
    gateway: GatewayKeys
    links: Mapping[str, SiteLink]
    assets: Mapping[str, Asset]
    uplinks: Mapping[str, SiteUplink]
    page: PageKeys | None
    buffer: BufferKeys
    profiles: Mapping[str, tuple[str, str]] = field(repr=False)
    """The profiles it uses: name -> (file, text)."""
    secrets: Mapping[str, Diagnostic] = field(repr=False)
    """The credentials that it refers to, each with what to say where it is missing."""
    references: Mapping[str, str] = field(repr=False)
    """Place -> name of the credential: `links.cs.key`, `cp-1/evse.key`, `uplinks.city.password`, `page.token`."""
    warnings: tuple[Diagnostic, ...] = ()

    @property
    def devices(self) -> dict[DeviceId, tuple[SiteLink, Device]]:
        return {device.id: (link, device) for link in self.links.values() for device in link.devices}

    def intervals(self) -> dict[str, float]:
        """Seconds between readings, by device or point, where somebody wrote them: for what `Status` calls overdue."""
        found: dict[str, float] = {}
        for _, device in self.devices.values():
            settings: Mapping[str, ProfilePoint] = getattr(device.profile, "writes", {})
            found |= {f"{device.id}/{slug}": point.every or math.inf for slug, point in settings.items()}
            if isinstance(device.settings, DeviceKeys) and device.settings.every is not None:
                found[device.id] = device.settings.every
            elif isinstance(device.profile, Profile):
                of_points: Mapping[str, ProfilePoint] = getattr(device.profile, "points", {})
                found |= {f"{device.id}/{slug}": point.every for slug, point in of_points.items() if point.every}
            if isinstance(device.settings, DeviceKeys):
                for slug, place in device.points.items():
                    for told in (device.settings.quantities.get(place.quantity), device.settings.points.get(slug)):
                        if every := getattr(told, "every", None):
                            found[place.id] = every
        return found

    def inventory(self, version: int) -> dict[str, Json]:
        """What a platform must know of the street (config/schema/inventory.json)."""
        placed = self.devices
        return {
            "v": 1,
            "gw": self.gateway.id,
            "tenant": self.gateway.tenant,
            "version": version,
            "assets": [_asset_entry(asset, placed) for asset in self.assets.values()],
        }


def _asset_entry(asset: Asset, placed: Mapping[DeviceId, tuple[SiteLink, Device]]) -> dict[str, Json]:
    entry: dict[str, Any] = {"id": asset.id}
    if asset.at:
        entry["at"] = {"lat": asset.at.lat, "lon": asset.at.lon}
    if asset.fed_by:
        entry["fed_by"] = asset.fed_by
    if asset.serves:
        entry["serves"] = list(asset.serves)
    entry["devices"] = [_device_entry(*placed[device]) for device in asset.devices]
    return entry


def _device_entry(link: SiteLink, device: Device) -> dict[str, Json]:
    entry: dict[str, Any] = {"id": device.id, "driver": link.driver, "link": link.name}
    if isinstance(device.profile, Profile):
        entry["profile"] = device.profile.profile
    if isinstance(device.settings, DeviceKeys) and device.settings.fed_by:
        entry["fed_by"] = device.settings.fed_by
    entry["points"] = [point_entry(point) for point in device.points.values()]
    return entry
