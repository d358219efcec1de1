"""`lampione buffer`: what waits on a gateway's disk, whether it runs or not."""

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

from gateway.buffer import lock
from gateway.buffer.lanefile import LaneFile
from gateway.buffer.overview import letters, overview, records
from gateway.buffer.resend import resend
from gateway.cli.columns import columns
from gateway.cli.status import span
from gateway.clock import SystemClock
from gateway.control import ask, socket_of
from gateway.errors import ConfigError
from gateway.model import Json, Lane


def add(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    show = actions.add_parser("show", help="depth, age, bytes, dead letters, quarantine and time to full of each lane")
    dead = actions.add_parser("dead", help="records that a platform refused for good, with its reason")
    export = actions.add_parser("export", help="every record that is here, as JSON lines")
    export.add_argument("file", type=Path, metavar="FILE", help="where to write them: a USB stick")
    again = actions.add_parser("resend", help="send again what a platform has lost")
    again.add_argument("uplink", metavar="UPLINK", help="its name in the site file")
    again.add_argument("lane", type=Lane, metavar="LANE", help="billing, event or telemetry")
    again.add_argument("epoch", metavar="EPOCH", help="`ep` of the batches")
    again.add_argument("first", type=int, metavar="FROM", help="first seq")
    again.add_argument("last", type=int, metavar="TO", help="last seq")
    for action in (show, dead):
        action.add_argument("--json", action="store_true", help="as JSON")
    for action in (show, dead, export, again):
        action.add_argument(
            "--state",
            type=Path,
            default=Path(os.environ.get("STATE_DIRECTORY", "/var/lib/lampione")),
            metavar="DIR",
            help="the gateway's state folder ($STATE_DIRECTORY, else /var/lib/lampione)",
        )


def run(args: argparse.Namespace) -> int:
    """Of a running gateway over its control socket, of a stopped one from its files."""
    if args.action == "resend" and not 1 <= args.first <= args.last:
        raise ConfigError(f"{args.first} to {args.last} are no sequence numbers. Write the first, then the last.")
    folder = args.state / "buffer"
    if not folder.is_dir():
        raise ConfigError(f"{folder} is not there. Name the gateway's state folder with --state.")
    try:
        held = lock(folder / "lock")
    except ConfigError:
        return _act(args, _Running(args.state))
    try:
        return _act(args, _Stopped(folder))
    finally:
        if held is not None:
            os.close(held)


def _act(args: argparse.Namespace, buffer: "_Running | _Stopped") -> int:
    match args.action:
        case "show":
            rows = buffer.show()
            print(json.dumps(rows) if args.json else "\n".join(_lanes(rows, SystemClock().wall())))
        case "dead":
            _print(buffer.dead(), as_json=args.json)
        case "export":
            count = _export(args.file, buffer.records())
            print(f"{count:,} records are in {args.file}; they stay in the buffer too.")
        case _:
            return _say_resent(args, buffer.resend(args))
    return 0


class _Running:
    """The buffer of a gateway that runs."""

    def __init__(self, state: Path) -> None:
        self._socket = socket_of(state)

    def show(self) -> list[dict[str, Any]]:
        return cast("list[dict[str, Any]]", self._ask(action="show"))

    def dead(self) -> list[dict[str, Any]]:
        return cast("list[dict[str, Any]]", self._ask(action="dead"))

    def records(self) -> Iterator[Any]:
        for lane in Lane:
            at: int | None = 1
            while at is not None:
                page = cast("dict[str, Any]", self._ask(action="export", lane=lane.value, at=at))
                yield from page["records"]
                at = page["next"]

    def resend(self, args: argparse.Namespace) -> int:
        asked = {"uplink": args.uplink, "epoch": args.epoch, "first": args.first, "last": args.last}
        return cast("int", self._ask(action="resend", lane=args.lane.value, **asked))

    def _ask(self, **asked: Json) -> Json:
        return asyncio.run(ask(self._socket, "buffer", **asked))


class _Stopped:
    """The files of a gateway that does not run."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def show(self) -> list[dict[str, Any]]:
        return [asdict(overview(lane, file, self._folder)) for lane, file in self._lanes()]

    def dead(self) -> list[dict[str, Any]]:
        return [letter for lane, file in self._lanes() for letter in letters(lane, file)]

    def records(self) -> Iterator[Any]:
        for lane, file in self._lanes():
            at: int | None = 1
            while at is not None:
                some, at = records(lane, file, at)
                yield from some

    def resend(self, args: argparse.Namespace) -> int:
        path = self._folder / f"{args.lane}.sqlite"
        if not path.exists():
            raise ConfigError(f"{path} is not there.")
        file = LaneFile.look(path)
        with closing(file.db):
            return resend(file, args.uplink, args.epoch, args.first, args.last).total()

    def _lanes(self) -> Iterator[tuple[Lane, LaneFile]]:
        for lane in Lane:
            path = self._folder / f"{lane}.sqlite"
            if path.exists():
                file = LaneFile.look(path)
                with closing(file.db):
                    yield lane, file


def _print(rows: list[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(rows))
        return
    for row in rows:
        print("  ".join(f"{key} {value}" for key, value in row.items() if value is not None))


def _lanes(rows: list[dict[str, Any]], now: int) -> Iterator[str]:
    """`now`: UTC milliseconds."""
    head = ("lane", "waiting", "oldest", "MB on disk", "full in", "dead letters", "quarantined", "epoch")
    yield from columns(head, [_lane(row, now) for row in rows])
    for row in rows:
        if row["error"]:
            yield f"{row['lane']}: {row['error']}"
        if len(row["uplinks"]) > 1:
            yield f"{row['lane']}: " + ", ".join(f"{count:,} for {uplink}" for uplink, count in row["uplinks"].items())


def _lane(row: dict[str, Any], now: int) -> tuple[str, ...]:
    oldest, full = row["oldest"], row["full_ms"]
    return (
        row["lane"],
        f"{row['waiting']:,}",
        "-" if oldest is None else span(max(0, now - oldest)),
        f"{row['bytes'] / 1024**2:,.1f}",
        "-" if full is None else span(full),
        f"{row['dead']:,}",
        f"{row['quarantined']:,}",
        row["epoch"],
    )


def _export(file: Path, found: Iterator[Any]) -> int:
    """How many. ConfigError: the file takes them not."""
    count = 0
    try:
        with file.open("w") as out:
            for record in found:
                print(json.dumps(record), file=out)
                count += 1
            out.flush()
            os.fsync(out.fileno())
    except OSError as error:
        raise ConfigError(f"{file} cannot be written: {error.strerror}. Choose another file.") from None
    return count


def _say_resent(args: argparse.Namespace, count: int) -> int:
    asked = args.last - args.first + 1
    print(f"{count:,} of {asked:,} records are still here and go to {args.uplink} again while a gateway runs.")
    if count < asked:
        print(f"{asked - count:,} are no longer here.", file=sys.stderr)
    return 0 if count == asked else 1
