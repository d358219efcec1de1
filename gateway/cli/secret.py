"""`lampione secret`: store a credential without showing it, and list which ones a site needs."""

import argparse
import getpass
import json
import sys
from contextlib import suppress
from pathlib import Path

from gateway import site
from gateway.cli import SITE, add_secrets, add_site
from gateway.diagnostic import sentence, unknown
from gateway.errors import ConfigError
from gateway.site import Credentials


def add(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    store = actions.add_parser(
        "set",
        help="ask for a credential, twice and without echo, and store it",
        description="Store a credential in a file that only its owner can read. Run it as the gateway's user.",
    )
    store.add_argument("name", metavar="NAME", help="as `lampione secret list` shows it: links.cs.key")
    store.add_argument("--stdin", action="store_true", help="read it from standard input instead of asking")
    store.add_argument("--site", type=Path, default=SITE, metavar="SITE", help=f"the site file it is for ({SITE})")
    add_secrets(store)
    listing = actions.add_parser(
        "list",
        help="which credentials a site needs, and which are missing",
        description="List the credentials that a site refers to, never their values. Exit code 1: one is missing.",
    )
    add_site(listing)
    listing.add_argument("--json", action="store_true", help="as JSON")


def run(args: argparse.Namespace) -> int:
    credentials = Credentials.beside(args.site, args.secrets)
    return _set(args, credentials) if args.action == "set" else _list(args, credentials)


def _set(args: argparse.Namespace, credentials: Credentials) -> int:
    credentials.check_name(args.name)
    if args.stdin:
        value = sys.stdin.read()
    elif not sys.stdin.isatty():
        raise ConfigError("There is no terminal to ask at. Pass the secret with --stdin.")
    else:
        try:
            value = getpass.getpass(f"{args.name}: ")
            again = getpass.getpass("once more: ")
        except EOFError:
            raise ConfigError("Nothing was typed; nothing is stored.") from None
        if value != again:
            raise ConfigError("The two differ; nothing is stored.")
    print(f"stored in {credentials.write(args.name, value)}")
    with suppress(ConfigError):  # the site file may come later
        if args.name not in (needed := site.load(args.site).secrets):
            print(f"Nothing in {args.site} uses it: {sentence(*unknown(args.name, sorted(needed)))}", file=sys.stderr)
    return 0


def _list(args: argparse.Namespace, credentials: Credentials) -> int:
    needed = site.load(args.site).secrets
    faults = {name: credentials.fault(name) for name in sorted(needed)}
    if args.json:
        print(
            json.dumps([{"name": name, "set": not fault, "fault": str(fault or "")} for name, fault in faults.items()])
        )
    else:
        for name, fault in faults.items():
            print(f"{'MISSING' if fault else 'set':8} {name}")
            if fault:
                print(f"{'':8} {fault}")
    return 1 if any(faults.values()) else 0
