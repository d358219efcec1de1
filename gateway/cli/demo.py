"""`lampione demo`: a whole street on this machine, over real protocols, with the platform cut off in the middle.

Four processes: Mosquitto, the emulated street, the gateway on an ordinary site file, and this one, which is
the platform (the reference receiver) and shows what happens. Nothing leaves the loopback interface.
"""

import argparse
import asyncio
import json
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from gateway.cli import check_seconds, street, table
from gateway.cli.broker import is_here
from gateway.cli.stage import Stage
from gateway.errors import ConfigError

_REFRESH = 1.0
_ALL_HEARD = 10.0
"""Seconds after which something has come of every device that speaks."""


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--seconds", type=float, metavar="N", help="end after N seconds, and fail if a record is missing"
    )
    parser.add_argument("--posts", type=int, default=6, metavar="N", help="lamp posts with an air sensor each (6)")
    parser.add_argument("--meters", type=int, default=2, metavar="N", help="three-phase meters on one link (2)")
    parser.add_argument("--chargers", type=int, default=3, metavar="N", help="charge points with sessions (3)")
    parser.add_argument("--uplink", choices=("mqtt", "http"), default="mqtt", help="the way to the platform (mqtt)")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="work in this folder and leave everything in it")
    parser.add_argument("--json", action="store_true", help="print the closing account as JSON")


def run(args: argparse.Namespace) -> int:
    """0 where every record arrived, 1 where one is missing, 2 where the options make no street."""
    if min(args.posts, args.meters, args.chargers) < 1 or args.meters > 247:
        print("A street has at least one post, one meter and one charger, and 247 meters at most.", file=sys.stderr)
        return 2
    check_seconds(args.seconds)
    if args.uplink == "mqtt" and not is_here():
        print("Mosquitto is not installed: the demo uses HTTP. (sudo apt install mosquitto)", file=sys.stderr)
        args.uplink = "http"
    folder = args.keep or Path(tempfile.mkdtemp(prefix="lampione-demo-"))
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise ConfigError(f"{folder} cannot be used: {error.strerror}. Give another folder with --keep.") from None
    try:
        account = asyncio.run(_play(args, folder))
    finally:
        if not args.keep:
            shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(account.json(), indent=1) if args.json else account.text())
    return 0 if account.is_complete else 1


async def _play(args: argparse.Namespace, folder: Path) -> table.Account:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with Stage(folder, uplink=args.uplink) as stage:
        street.write(
            folder, url=stage.url, password=stage.password, posts=args.posts, meters=args.meters, chargers=args.chargers
        )
        await stage.perform()
        print(f"The page: {stage.addresses()['page']}/?token={stage.token}", file=sys.stderr)
        print(f"The site file: {stage.site}\n", file=sys.stderr)
        seconds = await _watch(stage, args.seconds, stop)
        await stage.end("simulation")
        committed = await stage.drained()
        snapshot = await stage.snapshot()
        await stage.end("gateway")
        return table.account(
            stage.produced(), snapshot, committed, stage.platform.report(), stage.platform.per_device(),
            is_brief=seconds < _ALL_HEARD,
        )  # fmt: skip


async def _watch(stage: Stage, seconds: float | None, stop: asyncio.Event) -> float:
    """Show the street until the time is over; for a fifth of it, or of each minute, the platform is cut off.

    Returns how long that was.
    """
    loop, screen = asyncio.get_running_loop(), table.Screen(sys.stderr)
    began = loop.time()
    period = seconds or 60.0
    while not stop.is_set() and (seconds is None or loop.time() - began < seconds):
        elapsed = loop.time() - began
        is_cut = period * 0.4 <= elapsed % period < period * 0.6
        if is_cut and not stage.cut.is_open:
            await stage.cut.open()
        elif stage.cut.is_open and not is_cut:
            await stage.cut.close()
        screen.show(await stage.snapshot(), stage.platform, elapsed, seconds, is_cut=is_cut)
        try:
            async with asyncio.timeout(_REFRESH):
                await stop.wait()
        except TimeoutError:
            pass
    await stage.cut.close()
    return loop.time() - began
