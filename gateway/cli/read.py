"""`lampione read`: what a device says now, point by point."""

import argparse
import asyncio
import json
import sys
from typing import Any

from gateway.cli import wire
from gateway.model import Device


def add(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "Exit codes: 0 every point has a value, 1 one has none, 2 usage or configuration, 3 no answer."
    wire.add_device(parser)
    parser.add_argument("points", nargs="*", default=(), metavar="POINT", help="only these (all)")
    parser.add_argument("--json", action="store_true", help="as JSON")
    wire.add(parser)


def run(args: argparse.Namespace) -> int:
    name, device = wire.named(args)
    wire.check_points(args.points, device)
    wanted = args.points or list(device.points)
    heard = asyncio.run(_read(args, name, device))
    rows = [_row(device, slug, heard) for slug in wanted]
    if args.json:
        print(json.dumps({"device": device.id, "say": heard.said, "points": rows}))
    else:
        width = max(map(len, wanted))
        for row in rows:
            has_value = row["value"] is not None
            said = wire.shown(row["value"], row["unit"]) if has_value else f"no value ({row['reason']})"
            print(f"{row['point']:{width}}  {said}")
        if heard.said:
            print(heard.said, file=sys.stderr)
    if not heard.readings or all(row["reason"] == "comm_failure" for row in rows):
        return 3
    return 0 if all(row["value"] is not None for row in rows) else 1


async def _read(args: argparse.Namespace, name: str, device: Device) -> wire.Heard:
    async with wire.reached(args, name) as reach:
        return await wire.poll(reach, device)


def _row(device: Device, slug: str, heard: wire.Heard) -> dict[str, Any]:
    reading = heard.readings.get(slug)
    return {
        "point": slug,
        "value": reading.value if reading else None,
        "unit": device.points[slug].unit,
        "reason": reading.reason if reading else "comm_failure",
    }
