"""`lampione assign`: new meters all answer at the maker's address: they are connected, and given theirs, one by one."""

import argparse
import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from stat import S_ISFIFO, S_ISSOCK
from typing import IO, Any

from drivers.modbus import Profile
from drivers.modbus.assign import Unwritten, move
from drivers.modbus.driver import wire as modbus_wire
from drivers.modbus.line import Line
from drivers.modbus.scan import UNITS, Found, Step, factory_settings, scan
from drivers.modbus.tcp import Tcp
from gateway.cli import wire
from gateway.cli.scan import SILENCE, at_setting, own_setting
from gateway.errors import ConfigError, DeviceError


def add(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "Exit codes: 0 every meter has its address, 1 one has not, 2 usage or configuration, 3 no such wire."
    )
    parser.add_argument("wire", metavar="WIRE", help=wire.WIRE)
    parser.add_argument("first", type=int, metavar="ADDRESS", help="the first meter's; the next one gets the next")
    parser.add_argument("--count", type=int, metavar="N", help="so many meters (until Ctrl-D)")
    parser.add_argument("--to", metavar="SETTING", help='their line setting, "19200 8E1" (that of the line)')
    parser.add_argument("--yes", action="store_true", help="do not ask before writing")
    wire.add(parser)


def run(args: argparse.Namespace) -> int:
    if args.first not in UNITS:
        raise ConfigError(f"{args.first} is no address: 1 to 247.")
    if args.to and not re.fullmatch(r"[0-9]+ 8[NEO][12]", args.to):
        raise ConfigError(f"`{args.to}` is no line setting. Write speed and format: 9600 8N1.")
    if args.count is not None and not 1 <= args.count <= UNITS.stop - args.first:
        raise ConfigError(f"--count {args.count}: from {args.first} on there are {UNITS.stop - args.first} addresses.")
    return asyncio.run(_assign(args))


async def _assign(args: argparse.Namespace) -> int:
    args.timeout = args.timeout or SILENCE
    async with wire.reached(args, args.wire) as reach, _answers() as ask:
        if reach.driver != "modbus" or not (own := own_setting(reach)):
            raise ConfigError(f"{args.wire} is no Modbus line: there each meter is set at its own page or keys.")
        bench = _Bench(args, reach, own)
        done: list[tuple[int, Profile]] = []
        last = args.first + args.count if args.count else UNITS.stop
        for address in range(args.first, min(last, UNITS.stop)):
            if (meter := await bench.one(address, ask)) is None:
                break
            done.append((address, meter))
    if done:
        print("\nFor the site file, under `devices:` of an asset:")
    for address, profile in done:
        name = profile.profile.partition("/")[0]
        print(f"  meter-{address}: {{link: {reach.link.name}, profile: {name}, address: {address}}}")
    return 0 if done and len(done) == (args.count or len(done)) else 1


class _Bench:
    def __init__(self, args: argparse.Namespace, reach: wire.Reach, own: str) -> None:
        self._reach, self._yes = reach, args.yes
        self._profiles = [each for each in wire.profiles_of("modbus", args.site) if isinstance(each, Profile)]
        self._own, self._wanted = own, args.to or own
        factory = factory_settings(self._profiles, UNITS)
        self._is_fixed = str(reach.link.settings.port).startswith("tcp://")
        """The speed of a serial server is set there."""
        if self._is_fixed and self._wanted != own:
            raise ConfigError(f"The speed of {reach.link.settings.port} is set at the serial server: {own}.")
        everywhere = sorted({unit for each in factory.values() for unit in each})
        self._factory = {own: everywhere} if self._is_fixed else {own: [1]} | factory

    async def one(self, address: int, ask: "_Ask") -> Profile | None:
        """One meter gets `address`. None: there are no more."""
        while True:
            print(
                f"Connect the meter that gets address {address}, and no other new one. Then press Enter; Ctrl-D ends."
            )
            if await ask() is None:
                return None
            found = await self._new(address)
            if isinstance(found, str):
                print(found)
                continue
            profile = found.matches[0].profile
            assert isinstance(profile, Profile)
            what = f"{profile.title or profile.profile} at address {found.unit}, {found.serial}"
            if (found.unit, found.serial) == (address, self._wanted):
                print(f"ok: {what}: as it should be.")
                return profile
            if profile.assign is None:
                print(f"{what}: it takes its address at its keys only. Set {address} and {self._wanted} there.")
                continue
            if profile.assign.keys:
                print(profile.assign.keys)
            if not self._yes:
                said = await ask(f"{what}. Give it address {address} and {self._wanted}? [y/N] ")
                if (said or "").strip().lower() not in ("y", "yes"):
                    print("Nothing was written.")
                    continue
            try:
                await move(self._wire_at, profile.assign, (found.unit, found.serial), (address, self._wanted))
            except LookupError:
                print(f"{profile.profile} cannot be set to {self._wanted} over the line. Choose another with --to.")
                continue
            except Unwritten as error:
                print(f"Nothing was written: {error}. Set {address} and {self._wanted} at its keys.")
                continue
            except DeviceError as error:
                print(f"It is not done: {error}. Switch the meter off and on, then look for it: lampione scan.")
                continue
            print(f"ok: {profile.title or profile.profile} answers at address {address}, {self._wanted}.")
            return profile

    async def _new(self, address: int) -> Found | str:
        """The one new meter on the line; or why there is none that can be given an address."""
        seen: list[Found] = []

        async def tell(told: Step | Found) -> None:
            if isinstance(told, Found):
                seen.append(told)

        units = {serial: [*dict.fromkeys((*each, address))] for serial, each in self._factory.items()}
        await scan(self._wire_at, self._profiles, units, [], UNITS, tell)
        new = [each for each in seen if each.unit != address]
        there = [each for each in seen if each.unit == address]
        for each in seen:
            if each.trouble:
                return each.trouble
        if new and there:
            return f"Address {address} is taken. Disconnect who has it, or begin with another address."
        if not seen:
            return f"{self._reach.link.name}: not one byte. Check power, swap A and B."
        if len(seen) > 1:
            return f"Meters answer at {_listed(seen)}. Leave one of them connected."
        if not seen[0].matches:
            return f"Unit {seen[0].unit} fits no profile. Start one: lampione profiles new."
        return seen[0]

    def _wire_at(self, serial: str) -> Tcp | Line:
        return modbus_wire(at_setting(self._reach, serial).link, {})


def _listed(seen: Sequence[Found]) -> str:
    return " and ".join(f"address {each.unit} ({each.serial})" for each in seen)


class _Ask:
    """Asks a person, without keeping the line's lease from being renewed. None: nobody answers any more."""

    def __init__(self, lines: asyncio.StreamReader) -> None:
        self._lines = lines

    async def __call__(self, question: str = "") -> str | None:
        print(question, end="", flush=True)
        line = await self._lines.readline()
        if question and not sys.stdin.isatty():
            print(line.decode().strip())  # as a terminal shows it
        return line.decode() if line else None


@asynccontextmanager
async def _answers() -> AsyncIterator[_Ask]:
    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader()
    if not any(kind(os.fstat(sys.stdin.fileno()).st_mode) for kind in (S_ISFIFO, S_ISSOCK)) and not sys.stdin.isatty():
        # A file is all there already, and no event loop waits for one.
        lines.feed_data(sys.stdin.buffer.read())
        lines.feed_eof()
        yield _Ask(lines)
        return
    source = _source()
    same = os.dup(source.fileno())  # the transport closes the file at its end
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), source)
    try:
        yield _Ask(lines)
    finally:
        transport.close()
        os.set_blocking(same, True)
        os.close(same)


def _source() -> IO[Any]:
    """A terminal opened anew: the shell's own descriptor must not be left without blocking."""
    return Path(os.ttyname(sys.stdin.fileno())).open("rb", buffering=0) if sys.stdin.isatty() else sys.stdin
