"""`lampione run`: the gateway itself, in the foreground, as the service manager starts it."""

import argparse
import asyncio
import signal
import sys

from gateway import collector, punctual
from gateway.app import Gateway
from gateway.cli import add_site, add_state
from gateway.durable import make_folder
from gateway.errors import ConfigError, StorageError
from gateway.log import configure
from gateway.site import Credentials, load_or_last_good


def add(parser: argparse.ArgumentParser) -> None:
    add_site(parser)
    add_state(parser, "folder of the buffer and the last good site file")


def run(args: argparse.Namespace) -> int:
    """0 after SIGTERM or SIGINT, 1 where the disk refuses, 2 where neither this site file nor a last good one runs."""
    configure()
    try:
        make_folder(args.state)
    except OSError as error:
        say = f"The state folder {args.state} cannot be made: {error.strerror}. Give another one with --state."
        raise ConfigError(say) from None
    site, rejected = load_or_last_good(args.site, args.state)
    say = ""
    if rejected:
        say = f"{rejected.diagnostics[0].say} The last good configuration still runs."
        print(f"{rejected}\n{say}", file=sys.stderr)
    gateway = Gateway(site, args.state, Credentials.beside(args.site, args.secrets), rejected=say)
    try:
        punctual.run(_until_told(gateway))
    except StorageError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


async def _until_told(gateway: Gateway) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, gateway.stop)
    loop.call_later(collector.SETTLED, collector.settle)
    await gateway.run()
