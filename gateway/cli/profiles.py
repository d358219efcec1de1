"""`lampione profiles`: the catalogue of devices, and the check that a profile does what its examples say."""

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from drivers.serial.draft import DraftError, draft
from gateway import document, load, profile
from gateway.cli import SITE
from gateway.cli.wire import found_in
from gateway.diagnostic import DocumentError
from gateway.errors import ConfigError
from gateway.profile import Catalogue, Profile
from gateway.site.read import profile_folders


def add(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="every profile that a site file can name")
    show = actions.add_parser("show", help="one profile as it is written")
    show.add_argument("name", metavar="NAME", help="as `lampione profiles list` shows it")
    for action in (listing, show):
        action.add_argument(
            "--site",
            type=Path,
            default=SITE,
            metavar="SITE",
            help=f"profiles beside this site file come first ({SITE})",
        )
        action.add_argument("--json", action="store_true", help="as JSON")
    check = actions.add_parser("check", help="check profile files, and run their own examples")
    check.add_argument("files", nargs="+", type=Path, metavar="FILE", help="a profile")
    check.add_argument("--json", action="store_true", help="as JSON")
    new = actions.add_parser("new", help="start a profile from a capture of a sensor, or from a scan of a line")
    new.add_argument("name", metavar="NAME", help="maker-model, in small letters")
    new.add_argument(
        "capture", type=Path, metavar="CAPTURE", help="what `lampione monitor --save` or `scan --json` said"
    )
    new.add_argument("--unit", type=int, metavar="N", help="which one of a scan")
    new.add_argument("--baud", type=int, default=9600, metavar="N", help="bits per second (9600)")
    new.add_argument("--out", type=Path, metavar="FOLDER", help="write NAME.yaml there instead of showing it")


def run(args: argparse.Namespace) -> int:
    match args.action:
        case "list":
            return _list(Catalogue(profile_folders(args.site)), args.json)
        case "show":
            return _show(Catalogue(profile_folders(args.site)), args.name, args.json)
        case "new":
            return _new(args.name, args.capture, args)
        case _:
            return _check(args.files, args.json)


def row(found: Profile) -> dict[str, Any]:
    """One line of the catalogue."""
    points = getattr(found, "points", {})
    source = found.source if isinstance(found.source, str) else found.source[0]
    return {
        "profile": found.profile,
        "title": found.title,
        "kind": found.kind,
        "driver": found.driver,
        "points": len(points),
        "source": source,
    }


def _list(catalogue: Catalogue, as_json: bool) -> int:
    rows, broken = [], []
    for name in catalogue.names():
        try:
            rows.append(row(profile.load(catalogue.path(name), load.profile_model)))
        except DocumentError as error:
            broken.append(error)
    if as_json:
        print(json.dumps(rows))
    else:
        _table(rows)
    for fault in broken:
        print(fault, file=sys.stderr)
    return 1 if broken else 0


def _table(rows: Sequence[dict[str, Any]]) -> None:
    columns = ("profile", "kind", "driver", "points", "source")
    shown = [columns, *(tuple(str(one[column]) for column in columns) for one in rows)]
    widths = [max(len(line[n]) for line in shown) for n in range(len(columns) - 1)]
    for line in shown:
        start = "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=False))
        print(f"{start}  {line[-1]}"[:160].rstrip())


def _show(catalogue: Catalogue, name: str, as_json: bool) -> int:
    path, written = found_in(catalogue, name)
    if as_json:
        print(json.dumps(written.tree, ensure_ascii=False))
    else:
        print(f"# {path}")
        print(path.read_text(), end="")
        frames = getattr(load.profile(written, path.stem), "frames", None)
        if frames:
            print("# Read requests on the wire, behind the unit id: function, address, registers")
            for slug, frame in frames():
                print(f"#   {frame}  {slug}")
    return 0


def _new(name: str, capture: Path, args: argparse.Namespace) -> int:
    out: Path | None = args.out
    if not re.fullmatch("[a-z0-9]+(-[a-z0-9]+)+", name):
        raise ConfigError(f"`{name}` is no profile's name. Write maker-model, in small letters and digits.")
    try:
        received = capture.read_bytes()
    except OSError as error:
        raise ConfigError(f"{capture} cannot be read: {error.strerror}. Check the path.") from None
    scanned = _scanned(received)
    if scanned is not None:
        text = _of_scan(name, capture, scanned, args.unit)
    else:
        try:
            text = draft(name, received, args.baud)
        except DraftError as error:
            fix = "Capture for longer, at the sensor's speed."
            raise ConfigError(f"{capture} shows no frames: {error}. {fix}") from None
    load.profile(document.parse(text, f"{name}.yaml"), name)
    if out is None:
        print(text, end="")
        return 0
    path = out / f"{name}.yaml"
    if path.exists():
        raise ConfigError(f"{path} is there already. Remove it, or choose another name.")
    try:
        out.mkdir(exist_ok=True)
        path.write_text(text)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}. Choose another folder with --out.") from None
    what = "values" if scanned else "frames"
    print(f"{path}: {what} are recognised. Now name its points from the maker's document, and check it:")
    print(f"lampione profiles check {path}")
    return 0


def _scanned(received: bytes) -> list[dict[str, Any]] | None:
    """Who was found, where these are the words of `lampione scan --json`."""
    try:
        said = json.loads(received)
        return list(said["found"])
    except (ValueError, TypeError, KeyError):
        return None


def _of_scan(name: str, capture: Path, found: Sequence[dict[str, Any]], unit: int | None) -> str:
    from drivers.modbus import draft as modbus

    wanted = [one for one in found if one["unit"] == unit or (unit is None and one["profile"] is None)]
    if not wanted:
        raise ConfigError(f"{capture} has no such meter. Say with --unit which one; it has {_units(found)}.")
    registers = {
        int(fc): {int(addr): word for addr, word in inner.items()} for fc, inner in wanted[0]["registers"].items()
    }
    try:
        return modbus.draft(name, registers)
    except modbus.DraftError as error:
        fix = "Scan while mains is on the meter, or write the profile from the maker's register list."
        raise ConfigError(f"Unit {wanted[0]['unit']}: {error}. {fix}") from None


def _units(found: Sequence[dict[str, Any]]) -> str:
    return ", ".join(str(one["unit"]) for one in found) or "none"


def _check(files: Sequence[Path], as_json: bool) -> int:
    results, code = [], 0
    for path in files:
        try:
            found = load.profile(document.read(path), path.stem)
        except DocumentError as error:
            results.append({"file": str(path), "ok": False, "mistakes": [one.json() for one in error.diagnostics]})
            code = 2
            if not as_json:
                print(error, file=sys.stderr)
            continue
        results.append({"file": str(path), "ok": True, "mistakes": []})
        if not as_json:
            examples = len(getattr(found, "examples", ())) + len(getattr(found, "refusals", ()))
            print(f"ok: {path}: {found.profile}, {row(found)['points']} points, {examples} examples")
    if as_json:
        print(json.dumps(results))
    return code
