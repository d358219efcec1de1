"""From stored blocks to one batch: nothing in its span is left unaccounted for.

A record that the uplink does not take, that is gone from the buffer, or that the disk has damaged is
listed in `skip` with its reason, so that the platform never takes filtering for loss.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any

from gateway.batch import Batch
from gateway.buffer import EVENT, Block, LaneBuffer
from gateway.model import ClockState
from gateway.ranges import Span

NOT_SELECTED, EXPIRED, CORRUPT, DEAD_LETTER = "not_selected", "expired", "corrupt", "dead_letter"


@dataclass(slots=True)
class Selection:
    """The devices that an uplink takes: globs over device ids, none of them means all."""

    only: Sequence[str] = ()
    _known: dict[str, bool] = field(default_factory=dict)

    def takes(self, subject: str) -> bool:
        """Whether a point id, device id or link name is selected."""
        if not self.only:
            return True
        known = self._known.get(subject)
        if known is None:
            device = "/".join(subject.split("/")[:2])
            known = self._known[subject] = any(fnmatchcase(device, glob) for glob in self.only)
        return known


def compose(
    blocks: Sequence[Block],
    span: Span,
    *,
    lane: LaneBuffer,
    selection: Selection,
    gateway: str,
    inventory: int,
    mode: str,
    low: int,
) -> Batch:
    """A batch that starts at span[0] and reaches as far within `span` as the blocks are of one boot and clock state."""
    made = _Rows(lane, selection)
    wanted = _of_one_clock(blocks)
    at, end = span
    for block in wanted:
        if block.first > at:
            made.skip(at, block.first - 1, EXPIRED)
        at = made.take(block, max(at, block.first), min(block.last, end))
    if not blocks:
        made.skip(at, end, EXPIRED)
        at = end + 1
    anchor = wanted[0].anchor if wanted else None
    return Batch(
        gateway=gateway,
        lane=lane.lane,
        epoch=lane.epoch,
        span=(span[0], at - 1),
        low=low,
        time=made.base if made.base is not None else anchor.wall if anchor else 0,
        clock=anchor.clock if anchor else ClockState.UNSYNCED,
        boot=anchor.boot_id if anchor else "",
        mode=mode,
        inventory=inventory,
        skip=tuple((first, last, why) for first, last, why in made.skipped),
        points=tuple(made.points),
        readings=made.readings,
        events=made.events,
    )


def seqs(batch: Batch) -> list[int]:
    """The seqs of its records, ascending."""
    return sorted(row[0] for row in (*batch.readings, *batch.events))


def halves(batch: Batch) -> tuple[Batch, Batch]:
    """Two batches with half of the records each, at least one, that settle the span of `batch` together."""
    records = seqs(batch)
    middle = records[len(records) // 2]
    return _part(batch, batch.span[0], middle - 1), _part(batch, middle, batch.span[1])


def without_records(batch: Batch) -> Batch:
    """The same span with every record skipped as a dead letter."""
    skip = sorted([*batch.skip, *((seq, seq, DEAD_LETTER) for seq in seqs(batch))])
    return replace(batch, skip=tuple(skip), points=(), readings=[], events=[])


def _part(batch: Batch, first: int, last: int) -> Batch:
    readings = [row for row in batch.readings if first <= row[0] <= last]
    used = sorted({row[1] for row in readings})
    place = {old: new for new, old in enumerate(used)}
    return replace(
        batch,
        span=(first, last),
        skip=tuple((max(a, first), min(b, last), why) for a, b, why in batch.skip if a <= last and b >= first),
        points=tuple(batch.points[old] for old in used),
        readings=[[row[0], place[row[1]], *row[2:]] for row in readings],
        events=[row for row in batch.events if first <= row[0] <= last],
    )


def _of_one_clock(blocks: Sequence[Block]) -> list[Block]:
    wanted: list[Block] = []
    for block in blocks:
        if wanted and (block.anchor.boot_id, block.anchor.clock) != (wanted[0].anchor.boot_id, wanted[0].anchor.clock):
            break
        wanted.append(block)
    return wanted


class _Rows:
    def __init__(self, lane: LaneBuffer, selection: Selection) -> None:
        self.base: int | None = None
        self.readings: list[Any] = []
        self.events: list[Any] = []
        self.points: list[tuple[Any, ...]] = []
        self.skipped: list[list[Any]] = []
        self._lane, self._selection = lane, selection
        self._index: dict[int, int | None] = {}

    def skip(self, first: int, last: int, why: str) -> None:
        if self.skipped and self.skipped[-1][1] == first - 1 and self.skipped[-1][2] == why:
            self.skipped[-1][1] = last
        else:
            self.skipped.append([first, last, why])

    def take(self, block: Block, first: int, last: int) -> int:
        """Rows first..last of `block`; returns the seq after them."""
        if block.rows is None:
            self.skip(first, last, CORRUPT)
            return last + 1
        if self.base is None:
            self.base = block.anchor.wall + block.rows[first - block.first][1]
        shift = block.anchor.wall - self.base
        index, readings = self._index, self.readings
        for seq, row in enumerate(block.rows[first - block.first : last - block.first + 1], first):
            number = row[0]
            if number == EVENT:
                if self._selection.takes(str(row[2].get("on", ""))) or "cmd" in row[2]:
                    self.events.append([seq, row[1] + shift, row[2]])
                else:
                    self.skip(seq, seq, NOT_SELECTED)
                continue
            place = index[number] if number in index else self._place(number)
            if place is None:
                self.skip(seq, seq, NOT_SELECTED)
            else:
                readings.append([seq, place, row[1] + shift, *row[2:]])
        return last + 1

    def _place(self, number: int) -> int | None:
        entry = self._lane.entry(number)
        place = None
        if self._selection.takes(str(entry[0])):
            place = len(self.points)
            self.points.append(tuple(entry))
        self._index[number] = place
        return place
