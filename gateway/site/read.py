"""From the text of a site file to a `Site`: names found, devices made, every mistake said at once."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from gateway import deadband, document
from gateway import load as code
from gateway import profile as profiles
from gateway.diagnostic import Diagnostic, DocumentError, Location, Mistake, unknown
from gateway.document import Document, Model
from gateway.fields import secrets
from gateway.model import Device
from gateway.profile import Catalogue, LinkKeys, Profile
from gateway.site import relations
from gateway.site.keys import HERE, SiteKeys
from gateway.site.relations import Names, several
from gateway.site.site import Asset, Site, SiteLink, SiteUplink

Texts = Mapping[str, tuple[str, str]]


def profile_folders(path: Path) -> list[Path]:
    """Where the profiles of the site file at `path` are: beside it, then the shipped ones."""
    own, shipped = path.resolve().parent / "profiles", shipped_profiles()
    return [own, shipped] if own != shipped.resolve() else [shipped]


shipped_profiles = profiles.shipped_profiles


def load(path: Path) -> Site:
    """The site in `path`. DocumentError with every mistake in it and in the profiles it uses."""
    return resolve(document.read(path), path, Shelf(Catalogue(profile_folders(path))))


def resolve(written: Document, path: Path, shelf: "Shelf") -> Site:
    """The site that is written in `written`, with paths taken from the folder of `path`."""
    return _Reading(written, path, shelf).site()


class Shelf:
    """The profiles that a site may use, each read once: from a catalogue, and from texts that were kept."""

    def __init__(self, catalogue: Catalogue, kept: Texts | None = None) -> None:
        self.catalogue = catalogue
        self.kept = kept or {}
        self.used: dict[str, tuple[str, str]] = {}
        self.broken: dict[str, list[Diagnostic]] = {}
        self._read: dict[str, Profile | None] = {}

    def names(self) -> list[str]:
        return sorted({*self.kept, *self.catalogue.names()})

    def get(self, name: str) -> Profile | None:
        """The profile `name`, or None where it is broken. KeyError where there is none."""
        if name not in self._read:
            if name not in self.kept:
                self.catalogue.path(name)
            self._read[name] = self._parse(name)
        return self._read[name]

    def _parse(self, name: str) -> Profile | None:
        try:
            written = self._document(name)
            if name in self.kept:
                return profiles.parse(written, name, code.profile_model, self._document)
            return code.profile(written, name, self._document)
        except DocumentError as error:
            self.broken[name] = error.diagnostics
            return None

    def _document(self, name: str) -> Document:
        """Its text, which is from now on one that the site uses: what a profile inherits from is kept with it."""
        if name in self.kept:
            file, text = self.kept[name]
            written = document.parse(text, file)
        else:
            written = document.read(self.catalogue.path(name))
        self.used[name] = (written.file, written.text)
        return written


@dataclass(slots=True)
class _Wire:
    """A link as far as it could be read."""

    driver: str
    package: code.DriverSettings | None = None
    settings: LinkKeys | None = None
    devices: list[Device] = field(default_factory=list)
    addresses: dict[str, tuple[str, Location]] = field(default_factory=dict)
    is_used: bool = False


_KIND = "Compare each with docs/site.md: text, a number, a list, or a map."


class _Reading:
    def __init__(self, written: Document, path: Path, shelf: Shelf) -> None:
        self.written, self.path, self.shelf = written, path, shelf
        self.folder = path.resolve().parent
        self.found: list[Diagnostic] = []
        self.warnings: list[Diagnostic] = []
        self.secrets: dict[str, Diagnostic] = {}
        self.references: dict[str, str] = {}
        self.wires: dict[str, _Wire] = {}
        self.uplinks: dict[str, SiteUplink] = {}
        self.names = Names(HERE)

    def site(self) -> Site:
        """All the checks, then the site. A part that is wrong does not keep the others from being checked."""
        tree = self.written.tree if isinstance(self.written.tree, Mapping) else {}
        keys = self._collect(SiteKeys, self.written.tree, ())
        gateway = tree.get("gateway")
        if isinstance(gateway, Mapping) and isinstance(gateway.get("id"), str):
            self.names = Names(gateway["id"])
        for name, raw in _maps(tree.get("links")):
            self.wires[name] = self._link(name, raw)
        for asset, raw in _maps(tree.get("assets")):
            for device, inner in _maps(raw.get("devices")):
                self._device(asset, device, inner)
        for name, raw in _maps(tree.get("uplinks")):
            self._uplink(name, raw)
        if keys and keys.page:
            self._secrets(keys.page, "page", ("page",))
        self.found += relations.mistakes(self.written, self.names, tree.get("assets"))
        self.found += [one for broken in self.shelf.broken.values() for one in broken]
        if self.found or keys is None:
            raise DocumentError(self.written.ordered(self.found))
        self._look_around()
        return self._made(keys)

    def _made(self, keys: SiteKeys) -> Site:
        digest = hashlib.sha256(self.written.text.encode())
        for name in sorted(self.shelf.used):
            digest.update(self.shelf.used[name][1].encode())
        return Site(
            path=self.path,
            text=self.written.text,
            hash=digest.hexdigest()[:12],
            gateway=keys.gateway,
            links={
                name: SiteLink(name, wire.driver, wire.settings, tuple(wire.devices))
                for name, wire in self.wires.items()
                if wire.settings
            },
            assets={
                self.names.id(name): Asset(
                    id=self.names.id(name),
                    at=asset.at,
                    fed_by=self.names.id(asset.fed_by) if asset.fed_by else None,
                    serves=tuple(self.names.id(served) for served in several(asset.serves)),
                    devices=tuple(self.names.id(f"{name}/{device}") for device in asset.devices),
                )
                for name, asset in keys.assets.items()
            },
            uplinks=self.uplinks,
            page=keys.page,
            buffer=keys.buffer,
            profiles=dict(self.shelf.used),
            secrets=self.secrets,
            references=self.references,
            warnings=tuple(self.written.ordered(self.warnings)),
        )

    def _link(self, name: str, raw: Mapping[str, Any]) -> _Wire:
        at: Location = ("links", name)
        wire = _Wire(str(raw.get("driver")))
        if not isinstance(raw.get("driver"), str):
            self._missing("driver", at, f"Add `driver:`, one of {', '.join(code.drivers())}.")
            return wire
        try:
            wire.package = code.driver(wire.driver)
        except code.NotFoundError as error:
            self._find("unknown_driver", (*at, "driver"), error.why, error.fix)
            return wire
        wire.settings = self._collect(wire.package.Settings, raw, at)
        if wire.settings:
            wire.settings = self._located(wire.settings)
            self._secrets(wire.settings, f"links.{name}", at)
        return wire

    def _uplink(self, name: str, raw: Mapping[str, Any]) -> None:
        at: Location = ("uplinks", name)
        kind = raw.get("uplink")
        if not isinstance(kind, str):
            self._missing("uplink", at, f"Add `uplink:`, one of {', '.join(code.uplinks())}.")
            return
        try:
            model = code.uplink(kind).Settings
        except code.NotFoundError as error:
            self._find("unknown_uplink", (*at, "uplink"), error.why, error.fix)
            return
        settings = self._collect(model, raw, at)
        if settings:
            self._secrets(settings, f"uplinks.{name}", at)
            only = tuple(self.names.id(pattern) for pattern in settings.only)
            self.uplinks[name] = SiteUplink(name, kind, self._located(settings).model_copy(update={"only": only}))

    def _device(self, asset: str, name: str, raw: Mapping[str, Any]) -> None:
        at: Location = ("assets", asset, "devices", name)
        device = self.names.id(f"{asset}/{name}")
        link = raw.get("link")
        if not isinstance(link, str):
            self._missing("link", at, f"Add `link:`, one of {', '.join(self.wires) or 'those under `links`'}.")
            return
        wire = self.wires.get(link)
        if wire is None:
            why, fix = unknown(link, list(self.wires))
            self._find("unknown_link", (*at, "link"), f"link {why}", fix)
            return
        wire.is_used = True
        if wire.package is None:
            return
        usual = wire.package.DeviceSettings.model_fields["profile"].default
        profile, is_sound = self._profile(raw.get("profile", usual), wire.driver, at)
        settings = self._collect(wire.package.DeviceSettings, raw, at)
        if settings is None:
            return
        self._address(wire, device, wire.package.address(settings), at)
        if not is_sound:
            return
        self._secrets(settings, device, at)
        served = tuple(self.names.id(one) for one in several(settings.serves))
        fed_by = self.names.id(settings.fed_by) if settings.fed_by else None
        settings = self._located(settings).model_copy(update={"fed_by": fed_by, "serves": served})
        try:
            points = wire.package.points(device, profile, settings)
            verbs = wire.package.verbs(profile, settings)
            deadband.rules(settings, points)
        except Mistake as error:
            self._find(error.code, (*at, *error.at), str(error), error.fix)
            return
        except (AttributeError, TypeError):
            if profile is not None:
                raise
            self._missing("profile", at, "Add `profile:`; `lampione profiles list` shows them.")
            return
        wire.devices.append(Device(device, points, verbs, settings, profile))

    def _profile(self, name: Any, driver: str, at: Location) -> tuple[Profile | None, bool]:
        """The profile that a device names, and whether the device can be made with it."""
        if not isinstance(name, str):
            return None, True
        short, _, version = name.partition("/")
        try:
            profile = self.shelf.get(short)
        except KeyError:
            why, fix = unknown(short, self.shelf.names())
            self._find("unknown_profile", (*at, "profile"), f"profile {why}", fix)
            return None, False
        if profile is None:
            return None, False
        if version and profile.profile != name:
            why = f"profile `{name}` is not there; the catalogue has `{profile.profile}`"
            self._find("unknown_profile", (*at, "profile"), why, f"Write `{profile.profile}`, or `{short}`.")
            return None, False
        if profile.driver != driver:
            why = f"profile `{short}` is for a {profile.driver} link; this link is {driver}"
            fix = f"Choose a link whose driver is {profile.driver}, or another profile."
            self._find("wrong_driver_for_profile", (*at, "profile"), why, fix)
            return None, False
        return profile, True

    def _address(self, wire: _Wire, device: str, address: str | None, at: Location) -> None:
        if address is None:
            return
        if address not in wire.addresses:
            wire.addresses[address] = (device, at)
            return
        other, place = wire.addresses[address]
        where = self.written.line((*place, "address"))
        why = f"`{device}` has the address {address} of `{other}` in line {where}, on the same link"
        fix = "Give one of them another address, in the device and here."
        self._find("duplicate_address", (*at, "address"), why, fix)

    def _secrets(self, model: BaseModel, place: str, at: Location) -> None:
        for key, reference in secrets(model):
            name = reference.partition(":")[2] or f"{place.replace('/', '.')}.{key}"
            why = f"the secret `{name}` is not set"
            self.secrets.setdefault(name, self.written.diagnostic("missing_secret", (*at, *key.split(".")), why))
            self.references[f"{place}.{key}"] = name

    def _look_around(self) -> None:
        for name, wire in self.wires.items():
            if not wire.is_used:
                why, fix = f"no device is on link `{name}`", "Remove it, or put a device on it."
                self.warnings.append(self.written.diagnostic("unused_link", ("links", name), why, fix, key=True))
        for name in sorted(set(self.shelf.used) & set(self.shelf.catalogue.overrides)):
            why = f"profile `{name}` is the site's own file, not the shipped one"
            file, fix = self.shelf.used[name][0], "Remove the file to use the shipped one again."
            self.warnings.append(Diagnostic("overridden_profile", file, 1, 1, why, fix))

    def _collect(self, model: type[Model], raw: Any, at: Location) -> Model | None:
        try:
            made, found = document.collect(self.written, model, raw, at)
        except (AttributeError, TypeError) as error:
            # A driver's own check that trips over a list where text should stand: a mistake in the file all the same.
            self._find("bad_value", at, f"one of these values is of another kind than it should be: {error}", _KIND)
            return None
        self.found += found
        return made

    def _find(self, code: str, at: Location, why: str, fix: str = "") -> None:
        self.found.append(self.written.diagnostic(code, at, why, fix))

    def _missing(self, key: str, at: Location, fix: str) -> None:
        why = f"`{key}` is missing in `{at[-1]}`"
        self.found.append(self.written.diagnostic("missing_key", at, why, fix, key=True))

    def _located(self, settings: Model) -> Model:
        """Files named in the site file lie beside it."""
        paths = {
            name: self.folder / value
            for name in type(settings).model_fields
            if isinstance(value := getattr(settings, name), Path)
        }
        return settings.model_copy(update=paths) if paths else settings


def _maps(tree: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The entries of `tree` that are maps; what is not has its own diagnostic."""
    if isinstance(tree, Mapping):
        for name, value in tree.items():
            if isinstance(value, Mapping):
                yield name, value
