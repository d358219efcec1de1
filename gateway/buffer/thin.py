"""Many readings of a minute, or of a quarter of an hour, become one: what telemetry shrinks to when room runs out.

An aggregate's value is the mean of a gauge and the last of a counter, a state, a text or an angle; beside it stand
`min`, `max`, `mean`, `last`, `n` and `seconds`, and in `replaces` the ranges of seqs of the records it stands for.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

from gateway.buffer.block import EVENT, Block
from gateway.model import Json, Quality
from gateway.quantities import QUANTITIES, Kind
from gateway.ranges import Ranges, Span

SECONDS = {1: 60, 2: 900}
"""Window of an aggregate by its level."""
AGGREGATE = "aggregate"
_ANGLES = {"wind_direction"}
_BY_BADNESS = (Quality.GOOD, Quality.UNCERTAIN, Quality.BAD)


def aggregate(
    blocks: Sequence[Block], level: int, base: int, entry: Callable[[int], Sequence[Json] | None]
) -> list[list[Any]]:
    """Rows that replace `blocks`, all of one boot, with times counted from the first block's anchor.

    `base` is what their positions have beyond their seqs; `entry` gives a point's entry by its number.
    """
    window, origin = SECONDS[level] * 1000, blocks[0].anchor
    replaces = Ranges((block.first - base, block.last - base) for block in blocks).spans()
    cells: dict[tuple[int, int], list[Any]] = {}
    kept: list[list[Any]] = []
    for block in blocks:
        shift = block.anchor.boot - origin.boot
        for row in block.rows or ():
            at = row[1] + shift
            if row[0] == EVENT:
                kept.append([row[0], at, *row[2:]])
            else:
                minute = (block.anchor.wall + row[1]) // window
                cells.setdefault((row[0], minute), []).append([row[0], at, *row[2:]])
    rows = [_one(members, level, replaces, entry(number)) for (number, _), members in cells.items()]
    return sorted([*rows, *kept], key=lambda row: row[1])


def _one(members: Sequence[Any], level: int, replaces: list[Span], entry: Sequence[Json] | None) -> list[Any]:
    numbers = [row for row in members if type(row[2]) in (int, float) and math.isfinite(row[2])]
    last = (numbers or members)[-1]
    quality, reason = (last[3], last[4]) if len(last) > 4 else (Quality.GOOD, None)
    for row in numbers:
        if len(row) > 4 and _BY_BADNESS.index(row[3]) > _BY_BADNESS.index(quality):
            quality, reason = row[3], row[4]
    more: dict[str, Any] = {"replaces": replaces, "seconds": SECONDS[level], "n": sum(map(_count, members))}
    value = last[2]
    if numbers:
        parts = [_aggregate(row) for row in numbers]
        total = sum(part["n"] for part in parts)
        mean = sum(part["mean"] * part["n"] for part in parts) / total
        more |= {
            "min": min(part["min"] for part in parts), "max": max(part["max"] for part in parts),
            "mean": mean, "last": parts[-1]["last"], "n": total,
        }  # fmt: skip
        quantity = str(entry[1]) if entry else ""
        known = QUANTITIES.get(quantity)
        is_gauge = known is not None and known.kind is Kind.GAUGE and quantity not in _ANGLES
        value = mean if is_gauge else parts[-1]["last"]
    return [last[0], last[1], value, quality, reason, {AGGREGATE: more}]


def _aggregate(row: Sequence[Any]) -> dict[str, Any]:
    known = row[5].get(AGGREGATE) if len(row) > 5 else None
    if known and "mean" in known:
        return dict(known)
    return {"min": row[2], "max": row[2], "mean": row[2], "last": row[2], "n": 1}


def _count(row: Sequence[Any]) -> int:
    known = row[5].get(AGGREGATE) if len(row) > 5 else None
    return int(known["n"]) if known else 1
