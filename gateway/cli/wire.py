"""One wire for a technician's tool: borrowed from the gateway that runs on it, or opened where none does."""

import argparse
import asyncio
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, cast

from pydantic import BaseModel

from gateway import document, load, profile, site
from gateway.cli import SITE, add_secrets, add_state
from gateway.clock import SystemClock
from gateway.control import NoGatewayError, held, socket_of
from gateway.diagnostic import DocumentError, sentence, unknown
from gateway.document import Document
from gateway.errors import ConfigError
from gateway.lending import not_a_line
from gateway.model import Command, Device, Event, Json, Lane, Reading, Record, Reply
from gateway.ports import Driver, Link
from gateway.profile import Catalogue, LinkKeys, Profile
from gateway.site import Credentials, resolver
from gateway.site.read import profile_folders
from gateway.supervise import ungrouped

Typed = TypeVar("Typed", bound=BaseModel)

WIRE = "a link's name, /dev/serial/by-id/…, tcp://host:port of a serial server, or host:port of Modbus TCP"


@dataclass(frozen=True, slots=True)
class Reach:
    """A wire that nobody else uses now. `link` has no devices of the site."""

    driver: str
    link: Link

    def at(self, **keys: Any) -> Link:
        """The same wire with other settings."""
        return replace(self.link, settings=self.link.settings.model_copy(update=keys))


class _Nothing:
    """A tool keeps no state of a link."""

    def get(self, key: str) -> Json:  # noqa: ARG002 - there is none
        return None

    def keys(self) -> Sequence[str]:
        return ()


def add(parser: argparse.ArgumentParser) -> None:
    """The arguments of every verb that goes to a wire."""
    parser.add_argument("--baud", metavar="N", help="bits per second of a line that is no link (9600)")
    parser.add_argument("--format", metavar="F", help="data bits, parity, stop bits of a line that is no link (8N1)")
    parser.add_argument("--timeout", metavar="T", help="how long an answer may take (1s)")
    parser.add_argument("--site", type=Path, default=SITE, metavar="SITE", help=f"the site file ({SITE})")
    add_secrets(parser)
    add_state(parser, "state folder of the gateway that may be running")


def add_device(parser: argparse.ArgumentParser) -> None:
    """The arguments that name one device."""
    parser.add_argument("target", metavar="DEVICE", help=f"asset/device of the site file; or {WIRE}")
    parser.add_argument("--unit", type=int, metavar="N", help="its unit id, where DEVICE is a wire")
    parser.add_argument("--profile", metavar="P", help="its profile's name or file, where DEVICE is a wire")


@asynccontextmanager
async def reached(args: argparse.Namespace, wire: str) -> AsyncIterator[Reach]:
    """The wire, alone ours while the block runs. ConfigError: no such wire; CommandError: it cannot be lent now;
    LinkError: the gateway took it back.
    """
    async with lent(args, wire) as found:
        yield _reach(args, wire, found)


@asynccontextmanager
async def lent(args: argparse.Namespace, wire: str) -> AsyncIterator[Mapping[str, Any]]:
    """What the gateway lends: `link` and its `settings`; no `link` where it does not use this wire, or none runs.

    Errors as of `reached`.
    """
    to = f"lampione {args.verb} (pid {os.getpid()})"
    try:
        async with held(socket_of(args.state), "lend", wire=wire, to=to) as found:
            yield cast("Mapping[str, Any]", found)
            return
    except NoGatewayError:
        pass
    yield {"link": None}


def _reach(args: argparse.Namespace, wire: str, lent: Mapping[str, Any]) -> Reach:
    if lent["link"]:
        # What was a valid model in the gateway needs no second check, and a duration is a number by now.
        model = load.driver(lent["settings"]["driver"]).Settings
        return _made(lent["link"], model.model_construct(**lent["settings"]), args)
    if _is_place(wire):
        given = {"baud": args.baud, "format": args.format, "timeout": args.timeout}
        keys = {"driver": "modbus", **_place(wire), **{key: one for key, one in given.items() if one}}
        return _made("line", _settings(keys, "WIRE"), args)
    found = site.load(args.site)
    if wire not in found.links:
        raise ConfigError(f"link {sentence(*unknown(wire, list(found.links)))} Or write {WIRE}.")
    return _made(wire, found.links[wire].settings, args)


def _made(name: str, settings: LinkKeys, args: argparse.Namespace) -> Reach:
    if args.timeout:
        settings = settings.model_copy(update={"timeout": _settings({**_WIRED, "timeout": args.timeout}, "").timeout})

    def secret(key: str) -> str:
        return resolver(site.load(args.site), f"links.{name}", Credentials.beside(args.site, args.secrets))(key)

    link = Link(
        name=name,
        settings=settings,
        devices=(),
        clock=SystemClock(),
        state=_Nothing(),
        alive=lambda _: None,
        bound=lambda _: None,
        secret=secret,
    )
    return Reach(settings.driver, link)


_WIRED = {"driver": "modbus", "port": "tcp://127.0.0.1:1"}


def _settings(keys: Mapping[str, Any], where: str) -> Any:
    return typed(load.driver(keys["driver"]).Settings, keys, where)


def typed(model: type[Typed], keys: Mapping[str, Any], where: str) -> Typed:
    """What a command line says, by the rules of the site file. ConfigError: a mistake; there is no line to show."""
    try:
        return document.check(document.parse("{}", where), model, dict(keys))
    except DocumentError as error:
        said = (f"{where}: {sentence(each.why, each.fix)}" for each in error.diagnostics)
        raise ConfigError("\n".join(said)) from None


def _is_place(wire: str) -> bool:
    return wire.startswith("/") or ":" in wire


def _place(wire: str) -> dict[str, str]:
    if wire.startswith(("/", "tcp://")):
        return {"port": wire}
    host, _, port = wire.rpartition(":")
    return {"host": host, "port": port}


def named(args: argparse.Namespace) -> tuple[str, Device]:
    """The wire's name, and the device on it that the arguments name. ConfigError: there is none, or on no line."""
    if "/" in args.target and not _is_place(args.target):
        found = site.load(args.site)
        asset, _, name = args.target.partition("/")
        target = f"{found.gateway.id}/{name}" if asset == "here" else args.target
        if target not in found.devices:
            raise ConfigError(f"device {sentence(*unknown(args.target, list(found.devices)))}")
        link, device = found.devices[target]
        if not hasattr(load.driver_class(link.driver), "let_go"):
            raise ConfigError(f"{device.id}: {not_a_line(link.name)}")
        return link.name, device
    if args.unit is None or args.profile is None:
        raise ConfigError(
            f"`{args.target}` is a wire: say with --unit and --profile which device on it, or write asset/device."
        )
    return args.target, device_at(args.unit, load_profile(args.profile, args.site))


def shown(value: float | str | bool | None, unit: str) -> str:
    """As a technician reads it: nine digits are more than any meter has."""
    said = f"{value:.9g}" if isinstance(value, float) else str(value)
    return said if unit == "1" else f"{said} {unit}"


def check_points(slugs: Sequence[str], device: Device) -> None:
    """ConfigError: the device has no such point."""
    for slug in slugs:
        if slug not in device.points:
            raise ConfigError(f"point {sentence(*unknown(slug, list(device.points)))}")


def device_at(unit: int, found: Profile) -> Device:
    """A device that no site file has, on a line."""
    if found.driver != "modbus":
        raise ConfigError(f"{found.profile} is for {found.driver}: a device on a wire without a site file is Modbus.")
    driver = load.driver(found.driver)
    settings: Any = typed(driver.DeviceSettings, {"link": "line", "address": str(unit), "every": "1h"}, "--unit")
    name = f"unit/{unit}"
    return Device(name, driver.points(name, found, settings), driver.verbs(found, settings), settings, found)


def load_profile(name: str, site_file: Path) -> Profile:
    """By its name, or from its file. ConfigError: there is none, or not of that version."""
    path = Path(name)
    if path.suffix == ".yaml":
        return load.profile(document.read(path), path.stem)
    path, written = found_in(Catalogue(profile_folders(site_file)), name)
    return load.profile(written, path.stem)


def found_in(catalogue: Catalogue, name: str) -> tuple[Path, Document]:
    """A profile's file, and what it says. ConfigError: there is none, or not of that version."""
    try:
        path = catalogue.path(name)
    except KeyError:
        raise ConfigError(f"profile {sentence(*unknown(name, catalogue.names()))}") from None
    written = document.read(path)
    here = written.tree.get("profile") if isinstance(written.tree, Mapping) else None
    if "/" in name and here != name:
        raise ConfigError(f"There is no `{name}`, only {here} in {path}.")
    return path, written


def profiles_of(driver: str, site_file: Path) -> list[Profile]:
    """Every profile of a driver that a site file can name; those that are broken are left out."""
    catalogue, found = Catalogue(profile_folders(site_file)), []
    for name in catalogue.names():
        try:
            one = profile.load(catalogue.path(name), load.profile_model)
        except document.DocumentError:
            continue
        if one.driver == driver:
            found.append(one)
    return found


class Heard:
    """What a device says while its driver runs: readings by slug, and what is said of it."""

    def __init__(self, device: Device) -> None:
        self.readings: dict[str, Reading] = {}
        self.said = ""
        self.something = asyncio.Event()
        self.everything = asyncio.Event()
        """Every point, or that it does not answer."""
        self._device = device
        self._slugs = {point.id: slug for slug, point in device.points.items()}

    async def __call__(
        self,
        records: Sequence[Record],
        *,
        lane: Lane = Lane.TELEMETRY,  # noqa: ARG002 - nothing is stored
        state: Mapping[str, Json] | None = None,  # noqa: ARG002
    ) -> None:
        self.something.set()
        is_down = False
        for record in records:
            if isinstance(record, Reading) and record.point in self._slugs:
                self.readings[self._slugs[record.point]] = record
            elif isinstance(record, Event) and record.on == self._device.id:
                self.said, is_down = record.say, record.kind == "device_down"
        if is_down or len(self.readings) == len(self._device.points):
            self.everything.set()


@asynccontextmanager
async def driven(reach: Reach, device: Device) -> AsyncIterator[tuple[Driver, Heard]]:
    """Its own driver, running with this device alone: what is read and written is what the gateway would."""
    driver = load.driver_class(reach.driver)(replace(reach.link, devices=(device,)))
    heard = Heard(device)
    with ungrouped():
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(driver.run(heard))
            yield driver, heard
            running.cancel()


async def poll(reach: Reach, device: Device, within: float = 60.0) -> Heard:
    """Every point once."""
    async with driven(reach, device) as (_, heard):
        try:
            async with asyncio.timeout(within):
                await heard.everything.wait()
        except TimeoutError:
            heard.said = heard.said or f"{device.id} did not say everything within {within:g} s."
    return heard


async def execute(reach: Reach, device: Device, command: Command) -> Reply:
    """CommandError or DeviceError: it is not done, or nobody knows whether it is."""
    async with driven(reach, device) as (driver, heard):
        async with asyncio.timeout(60):
            await heard.something.wait()
        return await driver.execute(command)
