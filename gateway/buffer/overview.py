"""What a person asks of a buffer: what waits and for how long there is room, what was refused, and every record.

Each of these reads one lane's file, in the thread that has it: a running gateway's, or that of `lampione buffer`.
"""

from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from gateway.buffer.block import EVENT
from gateway.buffer.epoch import epoch_at
from gateway.buffer.lanefile import LaneFile
from gateway.model import Json, Lane

_EVERY = 60.0
_SAMPLES = 60
_LETTERS = 10_000
_PAGE = 1024 * 1024
_HIGHEST = 2**62


@dataclass(frozen=True, slots=True)
class Overview:
    """Of one lane."""

    lane: str
    waiting: int
    """Records that the uplink which has most before it is still to get."""
    oldest: int | None
    """UTC milliseconds of the oldest that waits."""
    bytes: int
    room: int | None
    """Bytes that it may hold now; None of a gateway that is stopped."""
    epoch: str
    uplinks: dict[str, int]
    """Records that each is still to get."""
    dead: int
    quarantined: int
    """Damaged files that are kept aside."""
    damaged: int = 0
    """Blocks that were found bad since the start; they go out as skipped."""
    committed: int = 0
    """Records of the epoch that grows."""
    full_ms: int | None = None
    """Until the lane is full, if it goes on filling as it did of late; None where it does not fill."""
    error: str | None = None


def overview(lane: Lane, file: LaneFile, folder: Path) -> Overview:
    """StorageError where it cannot be read."""
    waiting, size, oldest = file.depth()
    return Overview(
        lane=lane.value,
        waiting=waiting,
        oldest=oldest,
        bytes=size,
        room=file.max_bytes or None,
        epoch=file.epoch,
        uplinks={uplink: file.claim(uplink) for uplink in file.settled},
        dead=file.dead.count(),
        quarantined=_quarantined(lane, folder),
    )


def _quarantined(lane: Lane, folder: Path) -> int:
    """A disk that lets nobody look has none to show."""
    try:
        return len(list((folder / "quarantine").glob(f"{lane}-*")))
    except OSError:
        return 0


def letters(lane: Lane, file: LaneFile) -> list[dict[str, Json]]:
    """Dead letters, the newest first."""
    return [
        {
            "lane": lane.value, "uplink": each.uplink, "epoch": each.epoch, "seq": each.seq, "time": each.at,
            "reason": each.reason, "record": each.record,
        }
        for each in file.dead.newest(_LETTERS)
    ]  # fmt: skip


def records(lane: Lane, file: LaneFile, at: int) -> tuple[list[dict[str, Json]], int | None]:
    """Some of the records from position `at`, and the position to go on from, None at the end."""
    found: list[dict[str, Json]] = []
    blocks = file.read(at, _HIGHEST, _PAGE)
    for block in blocks:
        epoch = epoch_at(file.epochs, block.first)
        for place, row in enumerate(block.rows or (), block.first):
            head = {"lane": lane.value, "ep": epoch.id, "seq": place - epoch.base, "t": block.anchor.wall + row[1]}
            entry = orjson.loads(file.points[row[0]]) if row[0] in file.points else None
            what = {"e": row[2]} if row[0] == EVENT else {"p": entry, "r": row[2:]}
            found.append(head | {"clock": block.anchor.clock.value} | what)
    return found, blocks[-1].last + 1 if blocks else None


@dataclass(slots=True)
class Filling:
    """How a lane has filled in the last hour."""

    seen: deque[tuple[float, int]] = field(default_factory=lambda: deque[tuple[float, int]](maxlen=_SAMPLES))

    def full_ms(self, now: float, size: int, room: int) -> int | None:
        """Milliseconds until `room` bytes are full. `now`: seconds of a clock that never steps."""
        if not self.seen or now - self.seen[-1][0] >= _EVERY:
            self.seen.append((now, size))
        began, before = self.seen[0]
        grown, took = size - before, now - began
        return round(1000 * (room - size) * took / grown) if grown > 0 and took > 0 else None
