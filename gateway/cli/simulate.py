"""`lampione simulate`: the street of a site file, emulated over real sockets, WebSockets and ptys."""

import argparse
import asyncio
import shlex
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gateway import punctual
from gateway.cli import add_site, add_state
from gateway.errors import ConfigError
from gateway.load import NotFoundError, scenario
from gateway.simulate import Simulation
from gateway.site import Credentials, Site, load


def add(parser: argparse.ArgumentParser) -> None:
    add_site(parser)
    add_state(parser, "the gateway's state folder: what it listens on stands there")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="the site file to write, which finds the emulators: run that one (running.yaml beside SITE)",
    )
    parser.add_argument(
        "--produced", type=Path, metavar="FILE", help="keep the number of values produced by each device here"
    )
    parser.add_argument(
        "--scenario",
        action="append",
        default=[],
        metavar="LINK=FILE",
        help="what happens at the far end of a link: cars, quirks, a network that fails (docs/ocpp.md)",
    )


def run(args: argparse.Namespace) -> int:
    """0 after SIGTERM or SIGINT; 2 where the site file is wrong."""
    site = load(args.site)
    args.out = args.out or args.site.with_name("running.yaml")
    punctual.run(_play(site, args))
    return 0


async def _play(site: Site, args: argparse.Namespace) -> None:
    credentials = Credentials.beside(args.site, args.secrets)
    if args.state.exists() and not args.state.is_dir():
        raise ConfigError(f"{args.state} is no folder. Give the gateway's state folder with --state.")
    simulation = Simulation(site, credentials, args.state / "addresses.json", _scenarios(site, args.scenario))
    await simulation.start(args.out)
    if args.produced:
        simulation.tell(args.produced)
    command = shlex.join(["lampione", "run", str(args.out), "--state", str(args.state)])
    print(f"{len(site.devices)} devices on {len(site.links)} links. Run: {command}", flush=True)
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    playing = loop.create_task(simulation.run(args.produced))
    stopping = loop.create_task(stop.wait())
    await asyncio.wait([playing, stopping], return_when=asyncio.FIRST_COMPLETED)
    if playing.done():
        playing.result()
    playing.cancel()
    await asyncio.wait([playing])
    if args.produced:
        simulation.tell(args.produced)


def _scenarios(site: Site, written: Sequence[str]) -> dict[str, Any]:
    """By link. ConfigError: no such link, or no scenarios there."""
    found = {}
    for one in written:
        name, _, file = one.partition("=")
        if name not in site.links or not file:
            raise ConfigError(f"--scenario {one}: write LINK=FILE, with one of {', '.join(site.links)}.")
        try:
            found[name] = scenario(site.links[name].driver, Path(file))
        except NotFoundError as error:
            raise ConfigError(f"--scenario {one}: {error.why}. {error.fix}") from None
    return found
