"""The command `lampione`: one file per verb, imported when the verb is called.

A verb's file exports `add(parser)`, which adds its arguments, and `run(args) -> int`, its exit code:
0 ok, 1 a fault was found, 2 usage or configuration, 3 something cannot be reached.
"""

import argparse
import importlib
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from gateway.errors import ConfigError, LampioneError, LinkError, UplinkError

SITE = Path("/etc/lampione/site.yaml")

VERBS = {
    "run": "run the gateway on a site file",
    "check": "check a site file: every mistake at once, with its place and the fix",
    "scan": "who is on a line: every meter, its address, speed and profile; it only reads",
    "assign": "give new meters on one line their addresses, one after the other",
    "read": "what a device says now",
    "write": "set a point of a device, proved by reading it back",
    "decode": "which register, type and word order a known value is in",
    "status": "how the running gateway is: clock, links, uplinks, buffer, devices",
    "simulate": "play the far end of every link of a site file",
    "demo": "a whole street on this machine: emulated devices, gateway, platform",
    "receive": "the platform's side: take batches in, store, acknowledge",
    "buffer": "what waits in the buffer, export it, send it again",
    "profiles": "list, show and check device profiles, and start one from a capture",
    "monitor": "what comes over a serial port: bytes, frames and values side by side",
    "secret": "store credentials, and list which ones a site needs",
    "schema": "the JSON Schema of the site file, for editors",
    "version": "what is installed",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Carry out a command line. Returns the exit code."""
    words = sys.argv[1:] if argv is None else list(argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        verb = words[0] if words else ""
        if verb and not verb.startswith("-") and verb not in VERBS:
            return _unknown_verb(verb)
        args = parser(verb).parse_args(words)
        code: int = importlib.import_module(f"gateway.cli.{args.verb}").run(args)
        if sys.stdout:  # none where the shell has closed it
            sys.stdout.flush()
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 0
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    except (LinkError, UplinkError) as error:
        print(error, file=sys.stderr)
        return 3
    except LampioneError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read us has gone; Python would complain once more while it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        print(f"{error.filename or 'lampione'}: {error.strerror}.", file=sys.stderr)
        return 1
    return code


def parser(verb: str = "") -> argparse.ArgumentParser:
    """The command line; only `verb` has its options, as only its file is imported."""
    whole = argparse.ArgumentParser(
        prog="lampione",
        description="The edge gateway of a smart street.",
        epilog="Exit codes: 0 ok, 1 a fault was found, 2 usage or configuration, 3 something cannot be reached.",
    )
    verbs = whole.add_subparsers(dest="verb", metavar="VERB", required=True)
    for name, line in VERBS.items():
        command = verbs.add_parser(name, help=line, description=f"{line[0].upper()}{line[1:]}.")
        if name == verb:
            importlib.import_module(f"gateway.cli.{name}").add(command)
    return whole


def add_site(command: argparse.ArgumentParser) -> None:
    """The arguments of every verb that reads a site file: `site`, `secrets`."""
    command.add_argument("site", nargs="?", type=Path, default=SITE, metavar="SITE", help=f"the site file ({SITE})")
    add_secrets(command)


def add_secrets(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--secrets", type=Path, metavar="DIR", help="folder of credentials (`secrets` beside the site file)"
    )


def check_seconds(seconds: float | None) -> None:
    """ConfigError: `--seconds` is no length of time."""
    if seconds is not None and not seconds > 0:
        raise ConfigError("--seconds is more than 0.")


def add_state(command: argparse.ArgumentParser, what: str) -> None:
    """The argument `state` of every verb that knows the running gateway's folder."""
    folder = Path(os.environ.get("STATE_DIRECTORY", "/var/lib/lampione"))
    where = "$STATE_DIRECTORY, else /var/lib/lampione"
    command.add_argument("--state", type=Path, default=folder, metavar="DIR", help=f"{what} ({where})")


def _unknown_verb(word: str) -> int:
    from gateway.diagnostic import sentence, unknown

    print(f"lampione: {sentence(*unknown(word, list(VERBS)))}", file=sys.stderr)
    return 2
