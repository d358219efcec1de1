"""`lampione scan`: who is on a line, which profile fits, and whether what it says can be true."""

import argparse
import asyncio
import json
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from drivers.modbus import Profile
from drivers.modbus.driver import wire as modbus_wire
from drivers.modbus.inquiry import Candidates
from drivers.modbus.scan import UNITS, Found, Step, factory_settings, look, scan, settings
from gateway.cli import wire
from gateway.cli.plausible import Verdict, judge
from gateway.errors import ConfigError, LinkError

UNLIKELY = (246, 241, 235)
"""Addresses that no street gives to three meters."""
SILENCE = "300ms"
"""How long a unit that may not exist is waited for; meters answer within 40 ms, the slowest within 500."""


def add(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "Exit codes: 0 every meter is known and plausible, 1 something is wrong or unknown, 2 usage or configuration, "
        "3 nobody answers. Ctrl-C ends it at once, with what was found."
    )
    parser.add_argument("wire", metavar="WIRE", help=wire.WIRE)
    parser.add_argument("--quick", action="store_true", help="only where new meters are: factory speeds and addresses")
    parser.add_argument("--units", default="1-247", metavar="A-B", help="which unit ids (1-247)")
    parser.add_argument("--here", action="store_true", help="only at the speed that the line has")
    parser.add_argument("--blind", action="store_true", help="do not read what the meters say now")
    parser.add_argument("--json", action="store_true", help="as JSON; progress goes to the other stream")
    wire.add(parser)


@dataclass(slots=True)
class Meter:
    """Somebody on the line, and what is made of it."""

    found: Found
    verdict: Verdict | None = None
    values: dict[str, Any] | None = None

    @property
    def profile(self) -> Profile | None:
        best = self.found.matches[0].profile if self.found.matches else None
        return best if isinstance(best, Profile) else None

    @property
    def confidence(self) -> float:
        sure = self.found.matches[0].confidence if self.found.matches else 0.0
        return self.verdict.confidence(sure) if self.verdict else sure

    @property
    def wrong(self) -> list[str]:
        trouble = [self.found.trouble] if self.found.trouble else []
        if not trouble and not self.profile:
            trouble = [f"Unit {self.found.unit} fits no profile. Start one: lampione profiles new."]
        return trouble + list(self.verdict.wrong if self.verdict else ())

    def entry(self) -> dict[str, Any]:
        return {
            "unit": self.found.unit, "serial": self.found.serial,
            "profile": self.profile.profile if self.profile else None, "confidence": round(self.confidence, 2),
            "also": [match.profile.profile for match in self.found.matches[1:]], "questions": self.found.questions,
            "wrong": self.wrong, "values": self.values,
            "registers": {
                str(fc): {str(addr): word for addr, word in sorted(inner.items())}
                for fc, inner in self.found.bank.items()
            },
        }  # fmt: skip

    def heading(self) -> str:
        head = f"unit {self.found.unit}" + (f" at {self.found.serial}" if self.found.serial else "")
        if self.profile:
            head += f": {self.profile.title or self.profile.profile}, profile {self.profile.profile}"
        return head

    def for_site(self, link: str) -> str:
        """The line of a site file that it comes to."""
        assert self.profile
        name, unit = self.profile.profile.partition("/")[0], self.found.unit
        sure = f"{self.confidence:.0%} sure"
        sure += "".join(f", or {match.profile.profile}" for match in self.found.matches[1:])
        return f"  meter-{unit}: {{link: {link}, profile: {name}, address: {unit}}}  # {sure}"


def run(args: argparse.Namespace) -> int:
    meters: list[Meter] = []
    units = _units(args.units)
    try:
        name = asyncio.run(_scan(args, units, meters))
    except KeyboardInterrupt:
        print("\nInterrupted; the line is free again.", file=sys.stderr)
        _report(args, args.wire, meters)
        return 130
    except LinkError as error:
        print(error, file=sys.stderr)
        _report(args, args.wire, meters)
        return 3
    _report(args, name, meters)
    if not meters:
        print(f"{name}: not one byte. Check power, swap A and B.", file=sys.stderr)
        return 3
    return 1 if any(meter.wrong for meter in meters) else 0


async def _scan(args: argparse.Namespace, units: Sequence[int], meters: list[Meter]) -> str:
    args.timeout = args.timeout or SILENCE
    async with wire.reached(args, args.wire) as reach:
        if reach.driver != "modbus":
            raise ConfigError(f"{reach.link.name} is for {reach.driver}: only Modbus can be scanned.")
        profiles = [each for each in wire.profiles_of("modbus", args.site) if isinstance(each, Profile)]
        own = own_setting(reach)
        is_fixed = args.here or own == "" or str(reach.link.settings.port).startswith("tcp://")
        factory = factory_settings(profiles, units)
        if is_fixed:
            factory = {own: sorted({unit for each in factory.values() for unit in each})}
        else:
            factory = {own: [1] if 1 in units else []} | factory
        rest = [] if args.quick else [own] if is_fixed else [own, *(each for each in settings(profiles) if each != own)]

        if args.quick and not any(factory.values()):
            raise ConfigError(f"No new meter has an address among {args.units}. Leave --quick away.")

        async def tell(told: Step | Found) -> None:
            if isinstance(told, Step):
                _progress(f"{told.serial or 'TCP'}: unit {told.unit}, {told.done} of {told.total}")
                return
            meters.append(meter := Meter(told))
            if not args.json:
                _progress("")
                print(meter.heading(), flush=True)

        def wire_at(serial: str) -> Any:
            return modbus_wire(at_setting(reach, serial).link, {})

        if not own and await _is_deaf_to_units(wire_at(""), profiles):
            units, factory = [1], {}
            print("It answers as every unit: it is one device. Write address 1.", file=sys.stderr)
        await scan(wire_at, profiles, factory, rest, units, tell)
        _progress("")
        if not args.blind:
            for meter in meters:
                await _listen(reach, meter)
        return reach.link.name


async def _is_deaf_to_units(opened: Any, profiles: Sequence[Profile]) -> bool:
    """Whether it is a meter that speaks TCP itself, whichever unit is asked for: else somebody is at none of these."""
    candidates = Candidates(profiles)
    try:
        return all([await look(opened, "", unit, candidates) for unit in UNLIKELY])
    finally:
        opened.close()


async def _listen(reach: wire.Reach, meter: Meter) -> None:
    """What it says now, and whether that can be true."""
    if not meter.profile or meter.found.trouble:
        return
    _progress(f"unit {meter.found.unit} says …")
    device = wire.device_at(meter.found.unit, meter.profile)
    heard = await wire.poll(at_setting(reach, meter.found.serial, timeout=1.0), device)
    meter.values = {slug: reading.value for slug, reading in heard.readings.items()}
    numbers = {slug: value for slug, value in meter.values.items() if isinstance(value, int | float)}
    meter.verdict = judge(f"Unit {meter.found.unit}", device.points, numbers)
    _progress("")


def own_setting(reach: wire.Reach) -> str:
    """The line's setting as profiles write it; '' for TCP."""
    keys = reach.link.settings
    return "" if keys.host else f"{keys.baud} {keys.format}"


def at_setting(reach: wire.Reach, serial: str, **more: Any) -> wire.Reach:
    baud, _, form = serial.partition(" ")
    keys = {"baud": int(baud), "format": form} if serial else {}
    return wire.Reach(reach.driver, reach.at(**keys, **more))


def _units(written: str) -> list[int]:
    match = re.fullmatch(r"([0-9]+)(?:-([0-9]+))?", written)
    first = int(match[1]) if match else 0
    last = int(match[2] or match[1]) if match else 0
    if not UNITS.start <= first <= last < UNITS.stop:
        raise ConfigError(f"`{written}` are no unit ids. Write 1-32, or one: 7.")
    return list(range(first, last + 1))


def _progress(line: str) -> None:
    """One line that the next one takes the place of; nothing where nobody watches."""
    if sys.stderr.isatty():
        print(f"\r{line:60}\r", end="", file=sys.stderr, flush=True)


def _report(args: argparse.Namespace, name: str, meters: Sequence[Meter]) -> None:
    if args.json:
        print(json.dumps({"wire": args.wire, "found": [meter.entry() for meter in meters]}))
        return
    for meter in meters:
        for say in meter.wrong:
            print(say)
    known = [meter for meter in meters if meter.profile and not meter.found.trouble]
    if known:
        print("\nFor the site file, under `devices:` of an asset:")
    for meter in known:
        print(meter.for_site(_link(name)))


def _link(name: str) -> str:
    return name if re.fullmatch(r"[a-z0-9-]+", name) else "line"
