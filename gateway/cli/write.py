"""`lampione write`: set one point of a device, proved by reading it back; or say what would be sent."""

import argparse
import asyncio
import re
import sys
import uuid

from gateway.cli import wire
from gateway.errors import ConfigError
from gateway.model import Command, Device, Reply
from gateway.quantities import convert


def add(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "Exit codes: 0 it holds now, or would be sent so; 1 it was refused or cannot be read back, 2 usage or "
        "configuration, 3 no answer."
    )
    wire.add_device(parser)
    parser.add_argument("point", metavar="POINT", help="the setting, as `lampione profiles show` lists it")
    parser.add_argument("value", metavar="VALUE", help='a number, with its unit if you like: "30 min"')
    how = parser.add_mutually_exclusive_group(required=True)
    how.add_argument("--dry-run", action="store_true", help="read it, and say what would be sent; nothing is written")
    how.add_argument("--confirm", action="store_true", help="write it, and read it back")
    wire.add(parser)


def run(args: argparse.Namespace) -> int:
    name, device = wire.named(args)
    wire.check_points([args.point], device)
    if f"set:{args.point}" not in device.verbs:
        settable = [verb.removeprefix("set:") for verb in device.verbs if verb.startswith("set:")]
        takes = f"it takes {', '.join(settable)}" if settable else "nothing of it can be"
        raise ConfigError(f"{device.id}/{args.point} cannot be written; {takes}.")
    value = _number(args.value, device.points[args.point].unit)
    reply = asyncio.run(_write(args, name, device, value))
    unit = device.points[args.point].unit
    now = reply.now or {}
    value_now = wire.shown(now["value"], unit)  # type: ignore[arg-type]
    if args.dry_run:
        print(f"{device.id}/{args.point} is {value_now}. To set {value:g} {unit}, this would be sent:")
        print(f"  {now['frame']}")
        print("Nothing was written. Write it with --confirm.", file=sys.stderr)
    else:
        print(f"{device.id}/{args.point} is {value_now}, read back.")
    return 0


async def _write(args: argparse.Namespace, name: str, device: Device, value: float) -> Reply:
    said: dict[str, float | str] = {"value": value}
    if args.dry_run:
        said["dry_run"] = "yes"
    async with wire.reached(args, name) as reach:
        now = reach.link.clock.wall()
        command = Command(
            id=uuid.uuid4().hex,
            issuer="lampione write",
            do="set",
            on=f"{device.id}/{args.point}",
            args=said,
            issued=now,
            expires=now + 60_000,
        )
        return await wire.execute(reach, device, command)


def _number(written: str, unit: str) -> float:
    """In `unit`. ConfigError: it is none, or of another unit."""
    match = re.fullmatch(r"\s*([-+]?[0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?)\s*(\S*)\s*", written)
    if not match:
        raise ConfigError(f"`{written}` is not a number. Write one, with its unit if you like: `30 {unit}`.")
    if not match[2]:
        return float(match[1])
    try:
        factor, offset = convert(match[2], unit)
    except ValueError as error:
        raise ConfigError(f"`{written}`: {error}.") from None
    return float(match[1]) * factor + offset
