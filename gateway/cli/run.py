"""`lampione run`: the gateway itself, in the foreground, as the service manager starts it."""

import argparse
import asyncio
import os
import signal
import sys
from pathlib import Path

from gateway.app import Gateway
from gateway.cli import add_site
from gateway.errors import StorageError
from gateway.log import configure
from gateway.site import Credentials, load_or_last_good


def add(parser: argparse.ArgumentParser) -> None:
    add_site(parser)
    parser.add_argument(
        "--state",
        type=Path,
        default=Path(os.environ.get("STATE_DIRECTORY", "/var/lib/lampione")),
        metavar="DIR",
        help="folder of the buffer and the last good site file ($STATE_DIRECTORY, else /var/lib/lampione)",
    )


def run(args: argparse.Namespace) -> int:
    """0 after SIGTERM or SIGINT, 1 where the disk refuses, 2 where neither this site file nor a last good one runs."""
    configure()
    args.state.mkdir(parents=True, exist_ok=True, mode=0o700)
    site, rejected = load_or_last_good(args.site, args.state)
    say = ""
    if rejected:
        first = rejected.diagnostics[0]
        say = f"Line {first.line}: {first.why} Last night's configuration still runs."
        print(f"{rejected}\n{say}", file=sys.stderr)
    gateway = Gateway(site, args.state, Credentials.beside(args.site, args.secrets), rejected=say)
    try:
        asyncio.run(_until_told(gateway))
    except StorageError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


async def _until_told(gateway: Gateway) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, gateway.stop)
    await gateway.run()
