"""`lampione schema`: the JSON Schema of the site file. `config/schema/site.json` is it, kept by --write."""

import argparse
import sys
from pathlib import Path

import config
from gateway.site import schema

FILE = Path(config.__file__).parent / "schema" / "site.json"


def add(parser: argparse.ArgumentParser) -> None:
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--check", action="store_true", help="exit with 1 where the shipped schema is out of date")
    mode.add_argument("--write", action="store_true", help="write the shipped schema anew")


def run(args: argparse.Namespace) -> int:
    text = schema.text()
    if args.write:
        FILE.write_text(text)
    elif args.check:
        if not FILE.exists() or FILE.read_text() != text:
            print(f"{FILE} is out of date. Type: lampione schema --write", file=sys.stderr)
            return 1
    else:
        print(text, end="")
    return 0
