"""From stored blocks to one batch: nothing in its span is left unaccounted for.

A record that the uplink does not take, that is gone from the buffer, or that the disk has damaged is
listed in `skip` with its reason, so that the platform never takes filtering for loss.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import Any

from gateway.batch import BACKLOG, Batch
from gateway.buffer import EVENT, Block, LaneBuffer
from gateway.buffer.block import Anchor
from gateway.buffer.skips import CORRUPT, DEAD_LETTER, EXPIRED
from gateway.clock import CLOCK_ANCHOR, Fix
from gateway.model import ClockState
from gateway.ranges import Ranges, Span

NOT_SELECTED = "not_selected"


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
    uplink: str,
    selection: Selection,
    gateway: str,
    inventory: int,
    mode: str,
    low: int,
    fixes: Mapping[str, Fix] = MappingProxyType({}),
) -> Batch:
    """A batch that starts at position span[0] and reaches as far within `span` as its blocks are of one kind.

    `span` lies in one epoch; the batch counts in that epoch's seqs. `fixes`: by boot id, what is known of boots
    whose clock was set at last.
    """
    epoch, base = lane.epoch_at(span[0])
    made = _Rows(lane, selection, base)
    wanted = _dated(_of_one_kind(blocks), fixes)
    first, end = span[0], min(span[1], wanted[-1].last) if wanted else span[1]
    skipped = lane.skipped(uplink, first, end)
    whole = Ranges((a, b) for a, b, _ in skipped).missing(first, end)
    for a, b, why in sorted([*skipped, *((a, b, "") for a, b in whole)]):
        if why:
            made.skip(a, b, why)
        else:
            made.take_all(wanted, a, b)
    anchor = wanted[0].anchor if wanted else None
    time = made.time if made.time is not None else anchor.wall if anchor else 0
    errors = [block.anchor.error for block in wanted if block.anchor.error is not None]
    return Batch(
        gateway=gateway,
        lane=lane.lane,
        epoch=epoch,
        span=(first - base, end - base),
        low=low - base,
        time=time,
        clock=anchor.clock if anchor else ClockState.UNSYNCED,
        boot=anchor.boot_id if anchor else "",
        mode=BACKLOG if wanted and wanted[0].level else mode,
        inventory=inventory,
        skip=tuple((first, last, why) for first, last, why in made.skipped),
        points=tuple(made.points),
        readings=made.readings,
        events=made.events,
        error=max(errors, default=None),
        up=anchor.boot + time - anchor.wall if anchor and anchor.clock is ClockState.UNSYNCED else None,
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


def _of_one_kind(blocks: Sequence[Block]) -> list[Block]:
    """Those at the start that are of one boot and clock state; aggregates are the past, and never go with live ones."""
    wanted: list[Block] = []
    for block in blocks:
        if wanted and _kind(block) != _kind(wanted[0]):
            break
        wanted.append(block)
    return wanted


def _kind(block: Block) -> tuple[str, ClockState, bool]:
    return block.anchor.boot_id, block.anchor.clock, block.level > 0


def _dated(blocks: Sequence[Block], fixes: Mapping[str, Fix]) -> list[Block]:
    """Blocks of a boot whose clock was set later get its true time. Where it never was, they hang together by the boot
    clock: the wall clock may have been set by hand between them.
    """
    if not blocks or blocks[0].anchor.clock is not ClockState.UNSYNCED:
        return list(blocks)
    first = blocks[0].anchor
    fix = fixes.get(first.boot_id)
    dated = []
    for block in blocks:
        boot = block.anchor.boot
        if fix:
            anchor = Anchor(first.boot_id, boot, boot + fix.offset, ClockState.CORRECTED, fix.error_at(boot))
        else:
            anchor = replace(block.anchor, wall=boot + first.wall - first.boot)
        dated.append(replace(block, anchor=anchor))
    return dated


class _Rows:
    def __init__(self, lane: LaneBuffer, selection: Selection, base: int) -> None:
        self.time: int | None = None
        self.readings: list[Any] = []
        self.events: list[Any] = []
        self.points: list[tuple[Any, ...]] = []
        self.skipped: list[list[Any]] = []
        self._lane, self._selection, self._base = lane, selection, base
        self._index: dict[int, int | str] = {}
        """Number in the block -> place in `points`, or why it is skipped."""

    def skip(self, first: int, last: int, why: str) -> None:
        """Positions first..last."""
        first, last = first - self._base, last - self._base
        if self.skipped and self.skipped[-1][1] == first - 1 and self.skipped[-1][2] == why:
            self.skipped[-1][1] = last
        else:
            self.skipped.append([first, last, why])

    def take_all(self, blocks: Sequence[Block], first: int, last: int) -> None:
        """Positions first..last, from whichever blocks hold them; what none holds has gone."""
        for block in blocks:
            if block.last >= first and block.first <= last:
                if block.first > first:
                    self.skip(first, block.first - 1, EXPIRED)
                first = self._take(block, max(first, block.first), min(block.last, last))
        if first <= last:
            self.skip(first, last, EXPIRED)

    def _take(self, block: Block, first: int, last: int) -> int:
        """Rows first..last of `block`; returns the position after them."""
        if block.rows is None:
            self.skip(first, last, CORRUPT)
            return last + 1
        if self.time is None:
            self.time = block.anchor.wall + block.rows[first - block.first][1]
        shift = block.anchor.wall - self.time
        index, readings, base = self._index, self.readings, self._base
        for at, row in enumerate(block.rows[first - block.first : last - block.first + 1], first):
            number = row[0]
            if number == EVENT:
                if self._is_wanted(row[2]):
                    self.events.append([at - base, row[1] + shift, row[2]])
                else:
                    self.skip(at, at, NOT_SELECTED)
                continue
            place = index[number] if number in index else self._place(number)
            if isinstance(place, str):
                self.skip(at, at, place)
            else:
                readings.append([at - base, place, row[1] + shift, *row[2:]])
        return last + 1

    def _is_wanted(self, event: Mapping[str, Any]) -> bool:
        """What answers a command or dates the others' records goes to everybody."""
        is_for_all = "cmd" in event or event.get("event") == CLOCK_ANCHOR
        return is_for_all or self._selection.takes(str(event.get("on", "")))

    def _place(self, number: int) -> int | str:
        entry = self._lane.entry(number)
        place: int | str = NOT_SELECTED
        if entry is None:
            place = CORRUPT
        elif self._selection.takes(str(entry[0])):
            place = len(self.points)
            self.points.append(tuple(entry))
        self._index[number] = place
        return place
