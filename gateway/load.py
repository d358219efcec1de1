"""From a name in a site file to the code behind it: a driver's folder, an uplink's file, or a third-party package.

`modbus` is `drivers/modbus`, `mqtt` is `gateway/uplinks/mqtt.py`; a name with a dot (`acme.lora`) is a package
installed beside the gateway. The settings side never imports a protocol library: `driver_class` and
`emulator_class` do, when the site uses the driver.
"""

import importlib
import importlib.util
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, cast

from gateway import document
from gateway import profile as profiles
from gateway.document import Document, DocumentError, Location
from gateway.model import DeviceId, Point, Verb
from gateway.ports import Driver, Emulator, Link, Platform, Uplink
from gateway.profile import DeviceKeys, Finder, LinkKeys, Profile
from gateway.uplinks import UplinkKeys


class NotFoundError(LookupError):
    """No such driver or uplink. `why` names the nearest one, `fix` says what to write."""

    def __init__(self, why: str, fix: str) -> None:
        super().__init__(why)
        self.why, self.fix = why, fix


class DriverSettings(Protocol):
    """What `drivers/<name>/__init__.py` exports: all that a site file and a profile need, without the protocol."""

    Settings: type[LinkKeys]
    DeviceSettings: type[DeviceKeys]
    Profile: type[Profile]

    def points(self, device: DeviceId, profile: Any, settings: Any) -> Mapping[str, Point]:
        """By slug. `profile` is None where the device names none."""

    def verbs(self, profile: Any, settings: Any) -> Mapping[str, Verb]:
        """By verb; a writable point's verb is `set:<slug>`."""

    def address(self, settings: Any) -> str | None:
        """What must be unique among the devices of one link."""

    def self_test(self, profile: Any) -> Sequence[tuple[Location, str]]:
        """Each of the profile's own examples that fails: its place in the profile, and a sentence."""


class DriverClass(Protocol):
    def __call__(self, link: Link) -> Driver: ...


class EmulatorClass(Protocol):
    def __call__(
        self, settings: Any, devices: Any, address: str | None, secret: Callable[[str], str], /, **plays: Any
    ) -> Emulator:
        """`scenario`: what `scenario` has read, where it can be."""


class UplinkFile(Protocol):
    """What `gateway/uplinks/<name>.py` exports."""

    Settings: type[UplinkKeys]

    def Uplink(self, platform: Platform) -> Uplink:  # noqa: N802 - a class, seen as what it is called for
        """Constructed once for each uplink in the site file."""


def drivers() -> list[str]:
    """The drivers that are shipped."""
    return _inside("drivers")


def uplinks() -> list[str]:
    """The uplinks that are shipped."""
    return _inside("gateway.uplinks")


def driver(name: str) -> DriverSettings:
    """The settings side of a driver. NotFoundError where there is none, or where the package is not a driver."""
    return cast(DriverSettings, _module("driver", name, "drivers", DriverSettings))


def profile_model(name: str) -> type[Profile]:
    """What `profile.load` asks: the profile model of a driver. NotFoundError where there is no such driver."""
    return driver(name).Profile


def profile(written: Document, stem: str, find: Finder | None = None) -> Profile:
    """The profile in a document read from `<stem>.yaml`, borne out by its own examples. DocumentError otherwise.

    `find` gives what it inherits from, as `gateway.profile.parse` takes it.
    """
    found = profiles.parse(written, stem, profile_model, find)
    failed = driver(found.driver).self_test(found)
    if failed:
        fix = "Correct the point or the example."
        raise DocumentError(written.ordered(written.diagnostic("example_fails", at, why, fix) for at, why in failed))
    return found


def driver_class(name: str) -> DriverClass:
    """The class that speaks the protocol; imports the protocol's library."""
    return cast(DriverClass, importlib.import_module(f"{_full(name, 'drivers')}.driver").Driver)


def emulator_class(name: str) -> EmulatorClass:
    """The class that plays the far end; imports the protocol's library."""
    return cast(EmulatorClass, importlib.import_module(f"{_full(name, 'drivers')}.emulator").Emulator)


def scenario(name: str, file: Path) -> Any:
    """What a file says that is to happen at the far end. NotFoundError: that emulator plays no scenarios."""
    place = f"{_full(name, 'drivers')}.scenario"
    read = getattr(importlib.import_module(place), "read", None) if importlib.util.find_spec(place) else None
    if read is None:
        raise NotFoundError(f"the emulator of `{name}` plays no scenarios from a file", "Leave --scenario out.")
    return read(file)


def uplink(name: str) -> UplinkFile:
    """The file of an uplink, with its library. NotFoundError where there is none."""
    return cast(UplinkFile, _module("uplink", name, "gateway.uplinks", UplinkFile))


def _full(name: str, package: str) -> str:
    return name if "." in name else f"{package}.{name}"


def _inside(package: str) -> list[str]:
    spec = importlib.util.find_spec(package)
    places = spec.submodule_search_locations if spec else None
    return sorted(found.name for found in pkgutil.iter_modules(places or []) if not found.name.startswith("_"))


def _module(what: str, name: str, package: str, exports: type) -> Any:
    is_dotted = "." in name and all(part.isidentifier() for part in name.split("."))
    if not is_dotted and name not in _inside(package):
        why, fix = document.unknown(name, _inside(package))
        raise NotFoundError(f"{what} {why}", fix)
    full = _full(name, package)
    try:
        module = importlib.import_module(full)
    except ModuleNotFoundError as error:
        if error.name is None or not (full == error.name or full.startswith(f"{error.name}.")):
            why = f"{what} `{name}` needs the Python package `{error.name}`, which is not installed"
            raise NotFoundError(why, f"Install `{error.name}` beside the gateway.") from None
        why = f"{what} `{name}` is no package that is installed beside the gateway"
        raise NotFoundError(why, f"Install it, or write one of {', '.join(_inside(package))}.") from None
    except ImportError as error:
        why = f"{what} `{name}` cannot be imported: {error}"
        raise NotFoundError(why, "Install the versions that it was made for.") from None
    wanted = {*exports.__annotations__, *(word for word in vars(exports) if not word.startswith("_"))}
    lacking = sorted(word for word in wanted if not hasattr(module, word))
    if lacking:
        why = f"the package `{full}` is no {what}: it lacks {', '.join(lacking)}"
        raise NotFoundError(why, "CONTRIBUTING.md lists what such a package exports.")
    return module
