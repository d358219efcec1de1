#!/usr/bin/env python3
"""The pages that follow from the code: docs/cli.md, docs/profiles.md, and the reference in docs/site.md.

python docs/generate.py           write them
python docs/generate.py --check   exit with 1 where one is out of date (tests/test_docs.py does the same)
"""

from __future__ import annotations

import argparse
import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gateway import load, profile
from gateway.cli import VERBS
from gateway.profile import Catalogue
from gateway.site.read import shipped_profiles
from gateway.site.schema import json_schema

DOCS = Path(__file__).resolve().parent
START, END = "<!-- generated: settings -->\n", "<!-- end -->\n"
NOTE = "<!-- Written by docs/generate.py: change the code it comes from. -->\n"

CLI_HEAD = """\
Every verb explains itself with `--help`. Exit codes: 0 ok, 1 a fault was found, 2 usage or configuration,
3 something cannot be reached; 130 after Ctrl-C. `--json` gives output that is data as JSON.
"""
PROFILES_HEAD = """\
A site file names one as `profile: maker-model`. A file of the same name in the folder `profiles` beside the
site file goes first, and `lampione check` says so. Each is proved by its own examples at every start.
"""

# What a setting means, where no text stands under it in the code.
WORDS = {
    "ack": "`application`: a record is settled when the platform has stored it. `puback`: when the broker has it "
    "(degraded: a broker may lose it).",
    "ack_timeout": "How long the platform may take to answer; then the batch is sent again.",
    "baud": "Bits per second; left out, as the profile says.",
    "ca": "PEM file of the authority that signed the platform's certificate; left out, the system's authorities.",
    "certificate": "This gateway's certificate, PEM.",
    "connectors": "How many outlets it has.",
    "format": "Data bits, parity, stop bits, like `8N1`; left out, as the profile says.",
    "host": "Name or address.",
    "keepalive": "A connection that is silent for so long is tested.",
    "key": "The certificate's private key, PEM.",
    "lanes": "Which lanes go to this platform.",
    "listen": "Address and port.",
    "max_current": "What its fuse and cable carry, per phase.",
    "password": "The user's password.",
    "path": "The file to append to, one JSON batch a line.",
    "port": "TCP port.",
    "safe_current": "What it falls back to when a limit's lease ends or the gateway is gone.",
    "security": "OCPP security profile: 2 TLS and a key for each charger; 0 and 1 on loopback only.",
    "timeout": "How long an answer may take.",
    "token": "Sent as `Authorization: Bearer`.",
    "uplink": "Which uplink it is.",
    "url": "Where the platform is.",
    "username": "The user at the broker.",
}


def settings() -> Iterator[tuple[str, str, list[tuple[str, str, str]]]]:
    """(title, place in the file, [(key, default, words)]) of each group of settings, in the order of a site file."""
    schema = json_schema()
    inner = schema["$defs"]
    yield "Top level", "", _rows(schema)
    yield "gateway", "`gateway`", _rows(inner["GatewayKeys"])
    for one in _choices(schema["properties"]["links"])[:-1]:
        yield f"links: {one['title']}", f"`links.<name>` with `driver: {one['title']}`", _rows(one)
    yield "assets", "`assets.<id>`", _rows(inner["AssetKeys"])
    yield "at", "`assets.<id>.at`", _rows(inner["Position"])
    for one in _choices(inner["AssetKeys"]["properties"]["devices"]):
        driver = one["title"].partition(" ")[0]
        place = f"`assets.<id>.devices.<name>` on a link with `driver: {driver}`"
        yield f"devices: {driver}", place, _rows(one)
    for one in _choices(schema["properties"]["uplinks"]):
        yield f"uplinks: {one['title']}", f"`uplinks.<name>` with `uplink: {one['title']}`", _rows(one)
    yield "page", "`page`", _rows(inner["PageKeys"])
    yield "buffer", "`buffer`", _rows(inner["BufferKeys"])


def _choices(entry: dict[str, Any]) -> list[dict[str, Any]]:
    [pattern] = entry["patternProperties"].values()
    return list(pattern["anyOf"])


def _rows(schema: dict[str, Any]) -> list[tuple[str, str, str]]:
    needed = schema.get("required", ())
    return [
        (key, "needed" if key in needed else _default(entry), entry.get("description") or WORDS.get(key, ""))
        for key, entry in schema["properties"].items()
    ]


def _default(entry: dict[str, Any]) -> str:
    default = entry.get("default")
    if default in (None, {}, []):
        return "none"
    if isinstance(default, dict):
        return "as below"
    if isinstance(default, list):
        return f"`[{', '.join(map(str, default))}]`"
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"


def site_page() -> str:
    tables = []
    for title, place, rows in settings():
        lines = [f"### {title}\n", f"{place}\n" if place else "", "| key | default | |", "|---|---|---|"]
        lines += [f"| `{key}` | {default} | {_cell(words)} |" for key, default, words in rows]
        tables.append("\n".join(line for line in lines if line) + "\n")
    page = (DOCS / "site.md").read_text()
    before, _, rest = page.partition(START)
    return before + START + "\n" + "\n".join(tables) + "\n" + END + rest.partition(END)[2]


def cli_page() -> str:
    parts = [
        "# Command line\n",
        NOTE,
        CLI_HEAD,
    ]
    for verb in VERBS:
        command = argparse.ArgumentParser(prog=f"lampione {verb}")
        importlib.import_module(f"gateway.cli.{verb}").add(command)
        parts.append(f"## lampione {verb}\n\n{VERBS[verb][0].upper()}{VERBS[verb][1:]}.\n")
        parts += _options(command)
    return "\n".join(parts)


def _options(command: argparse.ArgumentParser) -> Iterator[str]:
    rows = []
    for action in command._actions:  # noqa: SLF001 - argparse shows its arguments nowhere else
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            for choice in action._choices_actions:  # noqa: SLF001
                yield f"### {command.prog} {choice.dest}\n\n{_sentence(choice.help or '')}\n"
                yield from _options(action.choices[choice.dest])
        elif "--help" not in action.option_strings:
            value = "" if action.nargs == 0 else f" {action.metavar or action.dest.upper()}"
            name = f"{', '.join(action.option_strings)}{value}".strip()
            words = re.sub(r"%\((\w+)\)s", lambda found, shown=action: str(getattr(shown, found[1])), action.help or "")
            rows.append(f"| `{name}` | {_cell(words.replace('%%', '%'))} |")
    if rows:
        yield "\n".join(["| argument | |", "|---|---|", *rows]) + "\n"
    if command.epilog:
        yield f"{command.epilog}\n"


def _sentence(words: str) -> str:
    return f"{words[:1].upper()}{words[1:]}." if words else ""


def profiles_page() -> str:
    catalogue = Catalogue([shipped_profiles()])
    parts = [
        "# Device profiles\n",
        NOTE,
        PROFILES_HEAD,
        "| profile | what | driver | points |\n|---|---|---|---|",
    ]
    found = [profile.load(catalogue.path(name), load.profile_model) for name in catalogue.names()]
    for one in found:
        name, points = one.profile.partition("/")[0], getattr(one, "points", {})
        parts[-1] += f"\n| [`{name}`](#{name}) | {_cell(one.title)}, {one.kind} | {one.driver} | {len(points)} |"
    parts[-1] += "\n"
    for one in found:
        sources = [one.source] if isinstance(one.source, str) else list(one.source)
        parts.append(f"## {one.profile.partition('/')[0]}\n\n{one.title}, version {one.profile.partition('/')[2]}.")
        parts.append("".join(f"{' '.join(line.split())}\n" for line in [one.note] if line))
        parts.append("| point | quantity | unit | |\n|---|---|---|---|")
        for slug, point in getattr(one, "points", {}).items():
            more = " ".join(filter(None, (point.phase, point.direction, point.statistic, point.part)))
            parts[-1] += f"\n| `{slug}` | {point.quantity} | {point.canonical_unit} | {more} |"
        for slug in getattr(one, "writes", {}):
            parts[-1] += f"\n| `{slug}` | {one.writes[slug].quantity} | {one.writes[slug].canonical_unit} | writable |"
        parts[-1] += "\n"
        parts.append("Source: " + "; ".join(_cell(source) for source in sources) + ".\n")
    return "\n".join(parts)


def _cell(words: str) -> str:
    return " ".join(words.split()).replace("|", "\\|")


PAGES = {"cli.md": cli_page, "profiles.md": profiles_page, "site.md": site_page}


def main() -> int:
    outdated = [
        name for name, page in PAGES.items() if not (DOCS / name).exists() or (DOCS / name).read_text() != page()
    ]
    if "--check" in sys.argv[1:]:
        for name in outdated:
            sys.stderr.write(f"docs/{name} is out of date. Type: python docs/generate.py\n")
        return 1 if outdated else 0
    for name in outdated:
        (DOCS / name).write_text(PAGES[name]())
    return 0


if __name__ == "__main__":
    sys.exit(main())
