"""`lampione version`: what is installed."""

import argparse
import json
import platform

import gateway


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="as JSON")


def run(args: argparse.Namespace) -> int:
    parts = {
        "lampione": gateway.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "system": platform.release(),
    }
    if args.json:
        print(json.dumps(parts))
    else:
        print("\n".join(f"{name} {version}" for name, version in parts.items()))
    return 0
