"""`lampione buffer`: what waits on a gateway's disk, while no gateway runs on it."""

import argparse
import json
import os
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from gateway.buffer import lock
from gateway.buffer.block import EVENT
from gateway.buffer.epoch import epoch_at
from gateway.buffer.lanefile import LaneFile
from gateway.buffer.resend import resend
from gateway.errors import ConfigError
from gateway.model import Lane

_ALL = 2**62
_PAGE = 1024 * 1024


def add(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    show = actions.add_parser("show", help="depth, age, bytes, dead letters and quarantine of each lane")
    dead = actions.add_parser("dead", help="records that a platform refused for good, with its reason")
    export = actions.add_parser("export", help="every record that is here, as JSON lines")
    export.add_argument("file", type=Path, metavar="FILE", help="where to write them: a USB stick")
    resend = actions.add_parser("resend", help="send again what a platform has lost")
    resend.add_argument("uplink", metavar="UPLINK", help="its name in the site file")
    resend.add_argument("lane", type=Lane, metavar="LANE", help="billing, event or telemetry")
    resend.add_argument("epoch", metavar="EPOCH", help="`ep` of the batches")
    resend.add_argument("first", type=int, metavar="FROM", help="first seq")
    resend.add_argument("last", type=int, metavar="TO", help="last seq")
    for action in (show, dead):
        action.add_argument("--json", action="store_true", help="as JSON")
    for action in (show, dead, export, resend):
        action.add_argument(
            "--state",
            type=Path,
            default=Path(os.environ.get("STATE_DIRECTORY", "/var/lib/lampione")),
            metavar="DIR",
            help="the gateway's state folder ($STATE_DIRECTORY, else /var/lib/lampione)",
        )


def run(args: argparse.Namespace) -> int:
    """ConfigError where a gateway has the folder: its page shows what waits."""
    folder = args.state / "buffer"
    if not folder.is_dir():
        raise ConfigError(f"{folder} is not there. Name the gateway's state folder with --state.")
    try:
        held = lock(folder / "lock")
    except ConfigError:
        raise ConfigError(
            f"A gateway runs on {args.state}: its page shows what waits. Stop it (`systemctl stop lampione`) first."
        ) from None
    try:
        return _act(args, folder)
    finally:
        if held is not None:
            os.close(held)


def _act(args: argparse.Namespace, folder: Path) -> int:
    match args.action:
        case "show":
            _print([_show(lane, file, folder) for lane, file in _lanes(folder)], as_json=args.json)
        case "dead":
            letters = [
                {"lane": lane.value, "uplink": each.uplink, "epoch": each.epoch, "seq": each.seq, "time": each.at,
                 "reason": each.reason, "record": each.record}
                for lane, file in _lanes(folder) for each in file.dead.newest(10_000)
            ]  # fmt: skip
            _print(letters, as_json=args.json)
        case "export":
            with args.file.open("w") as out:
                count = sum(_export(lane, file, out) for lane, file in _lanes(folder))
                out.flush()
                os.fsync(out.fileno())
            print(f"{count:,} records are in {args.file}; they stay in the buffer too.")
        case _:
            return _resend(args, folder)
    return 0


def _lanes(folder: Path) -> Iterator[tuple[Lane, LaneFile]]:
    for lane in Lane:
        path = folder / f"{lane}.sqlite"
        if path.exists():
            file = LaneFile.look(path)
            with closing(file.db):
                yield lane, file


def _show(lane: Lane, file: LaneFile, folder: Path) -> dict[str, Any]:
    waiting, size, oldest = file.depth()
    return {
        "lane": lane.value, "waiting": waiting, "oldest": oldest, "bytes": size, "epoch": file.epoch,
        "uplinks": {uplink: file.claim(uplink) for uplink in file.settled}, "dead": file.dead.count(),
        "quarantined": len(list((folder / "quarantine").glob(f"{lane}-*"))),
    }  # fmt: skip


def _print(rows: list[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(rows))
        return
    for row in rows:
        print("  ".join(f"{key} {value}" for key, value in row.items()))


def _export(lane: Lane, file: LaneFile, out: Any) -> int:
    names = {number: json.loads(entry) for number, entry in file.points.items()}
    at, count = 1, 0
    while blocks := file.read(at, _ALL, _PAGE):
        for block in blocks:
            epoch = epoch_at(file.epochs, block.first)
            for place, row in enumerate(block.rows or (), block.first):
                head = {"lane": lane, "ep": epoch.id, "seq": place - epoch.base, "t": block.anchor.wall + row[1]}
                what = {"e": row[2]} if row[0] == EVENT else {"p": names.get(row[0]), "r": row[2:]}
                print(json.dumps(head | {"clock": block.anchor.clock} | what), file=out)
                count += 1
        at = blocks[-1].last + 1
    return count


def _resend(args: argparse.Namespace, folder: Path) -> int:
    path = folder / f"{args.lane}.sqlite"
    if not path.exists():
        raise ConfigError(f"{path} is not there.")
    file = LaneFile.look(path)
    with closing(file.db):
        count = resend(file, args.uplink, args.epoch, args.first, args.last)
    asked = args.last - args.first + 1
    print(f"{count:,} of {asked:,} records are still here and go to {args.uplink} again when the gateway starts.")
    if count < asked:
        print(f"{asked - count:,} are no longer here.", file=sys.stderr)
    return 0 if count == asked else 1
