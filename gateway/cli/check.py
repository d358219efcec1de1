"""`lampione check`: is this site file right, and are its credentials there?"""

import argparse
import json
import sys

from gateway import site
from gateway.cli import add_site
from gateway.diagnostic import Diagnostic, DocumentError
from gateway.site import Credentials


def add(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "Exit codes: 0 the gateway can run on it, 1 a credential is missing, 2 a mistake in the file."
    add_site(parser)
    parser.add_argument("--json", action="store_true", help="as JSON")


def run(args: argparse.Namespace) -> int:
    try:
        found = site.load(args.site)
    except DocumentError as error:
        if args.json:
            print(json.dumps({"ok": False, "site": str(args.site), **_lists(error.diagnostics, [], [])}))
        else:
            count = len(error.diagnostics)
            print(f"{error}\n{count} mistake{'s' * (count != 1)}", file=sys.stderr)
        return 2
    missing = Credentials.beside(args.site, args.secrets).missing(found)
    devices = len(found.devices)
    if args.json:
        counts = {"devices": devices, "links": len(found.links), "uplinks": len(found.uplinks)}
        head = {"ok": not missing, "site": str(args.site), "hash": found.hash, **counts}
        print(json.dumps(head | _lists([], list(found.warnings), missing)))
        return 1 if missing else 0
    for warning in found.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    for fault in missing:
        print(fault, file=sys.stderr)
    if missing:
        print(f"{_count(len(missing), 'missing secret')}; the rest is right", file=sys.stderr)
        return 1
    street = f"{_count(devices, 'device')} on {_count(len(found.links), 'link')}"
    print(f"ok: {street}, {_count(len(found.uplinks), 'uplink')}, configuration {found.hash}")
    return 0


def _lists(mistakes: list[Diagnostic], warnings: list[Diagnostic], missing: list[Diagnostic]) -> dict[str, object]:
    named = {"mistakes": mistakes, "warnings": warnings, "missing_secrets": missing}
    return {name: [one.json() for one in found] for name, found in named.items()}


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
