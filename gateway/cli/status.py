"""`lampione status`: the running gateway's clock, links, uplinks, buffer and devices, each with its reason."""

import argparse
import asyncio
import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, cast

from gateway.cli import add_state
from gateway.control import NoGatewayError, ask, socket_of
from gateway.errors import LinkError
from gateway.model import ClockState

_UNITS = ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s"))
_UP: Mapping[bool | None, str] = {True: "up", False: "down", None: "starting"}


def add(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "Exit codes: 0 all is well, 1 something is down, degraded or not set, 3 no gateway runs."
    parser.add_argument("--json", action="store_true", help="as JSON: the page's document")
    add_state(parser, "the gateway's state folder")


def run(args: argparse.Namespace) -> int:
    try:
        found = cast("dict[str, Any]", asyncio.run(ask(socket_of(args.state), "status")))
    except NoGatewayError as error:
        raise LinkError(f"{error} Start it: systemctl start lampione") from None
    if args.json:
        print(json.dumps(found))
    else:
        print("\n".join(_lines(found)))
    return 0 if _is_well(found) else 1


def _is_well(found: Mapping[str, Any]) -> bool:
    return (
        found["clock"]["state"] != ClockState.UNSYNCED
        and not found["configuration"]["say"]
        and all(link["up"] for link in found["links"])
        and all(uplink["connected"] for uplink in found["uplinks"])
        and not any(lane["error"] for lane in found["lanes"])
        and all(device["health"] == "up" for device in found["devices"])
    )


def _lines(found: Mapping[str, Any]) -> Iterator[str]:
    yield f"{found['gateway']}: up for {span(found['uptime_ms'])}"
    clock = found["clock"]
    error = "" if clock["error_ms"] is None else f" ± {clock['error_ms'] / 1000:,.1f} s"
    now = datetime.fromtimestamp(clock["time"] // 1000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    yield from _table("clock", [[clock["state"], f"for {span(clock['since_ms'])}", f"{now}{error}", clock["say"]]])
    applied = found["configuration"]
    yield from _table("configuration", [[applied["running"][:12], f"for {span(applied['since_ms'])}", applied["say"]]])
    yield from _table("links", [_peer(link, link["up"], link["since_ms"]) for link in found["links"]])
    yield from _table("uplinks", [_peer(each, each["connected"], each["since_ms"]) for each in found["uplinks"]])
    yield from _table("buffer", [_lane(lane) for lane in found["lanes"]])
    yield from _table(
        "devices",
        [[each["id"], each["health"], f"for {span(each['since_ms'])}", each["say"]] for each in found["devices"]],
    )


def _peer(peer: Mapping[str, Any], up: bool | None, since: int) -> list[str]:
    return [peer["name"], _UP[up], f"for {span(since)}", peer["say"]]


def _lane(lane: Mapping[str, Any]) -> list[str]:
    oldest = "" if lane["oldest_ms"] is None else f"the oldest for {span(lane['oldest_ms'])}"
    return [lane["name"], f"{lane['records']:,} records wait", oldest, lane["error"] or ""]


def _table(title: str, rows: Sequence[Sequence[str]]) -> Iterator[str]:
    if rows:
        yield title
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  " + "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()


def span(ms: int) -> str:
    """A span of time in its two largest units: `3 d 2 h`."""
    left, parts = ms // 1000, list[str]()
    for size, unit in _UNITS:
        count, left = divmod(left, size)
        if count or (unit == "s" and not parts):
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2])
