"""Keeping a lane within its bounds: what yields first, and that everything which yields is told as skipped.

First what every uplink has settled and is only kept for a `resend`; then, of an uplink beyond its quota, its own
oldest claims; then records that are too old; then, at 80 % of the room, telemetry thins to minutes, to quarters
of an hour, and at last the oldest goes. Billing never yields: it refuses what is new.
"""

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from gateway.buffer.ballast import Ballast
from gateway.buffer.block import COLUMNS, COUNT, MAX_RECORDS, Block, block_of
from gateway.buffer.connection import Transaction
from gateway.buffer.epoch import EPOCH_BITS
from gateway.buffer.fault import fault
from gateway.buffer.lanefile import LaneFile
from gateway.buffer.skips import EVERYBODY, EXPIRED, THINNED, Skips
from gateway.buffer.thin import aggregate
from gateway.model import Json
from gateway.ranges import Ranges

YIELD_AT = 0.8
_SLICE = 64
_SCANNED = 2048
_LEVELS = (1, 2)


@dataclass(frozen=True, slots=True)
class Bounds:
    """Bytes and age (seconds of the gateway's uptime) of one lane, and what it may give up to stay within."""

    max_bytes: int
    max_age: float = float("inf")
    keep_after_ack: float = 0.0
    """Seconds for which records that everybody has settled are kept for `resend`."""
    thins: bool = False
    drops: bool = True
    quotas: Mapping[str, int] = field(default_factory=dict)
    """Uplink -> bytes that records may hold for it alone."""


class Sweep:
    """Bounded steps over one file, in its thread."""

    def __init__(
        self,
        file: LaneFile,
        bounds: Bounds,
        entry: Callable[[int], Sequence[Json] | None],
        ballast: Ballast | None = None,
    ) -> None:
        self._file, self._bounds, self._entry = file, bounds, entry
        self._ballast = ballast if file.path else None
        self._scanned = 0
        self._thinned = dict.fromkeys(_LEVELS, 0)

    def run(self, boot_id: str, boot: int, sent: Ranges) -> bool:
        """One step; True where there may be more to do at once. `sent`: positions that may be at a platform."""
        now = self._file.uptime(boot_id, boot)
        try:
            if self._ballast:
                self._file.limit(self._bounds.max_bytes, self._ballast.room(yields=self._bounds.thins))
            is_tight = self._file.used() > YIELD_AT * self._file.max_bytes
            freed = self._free(now, is_tight=is_tight)
            for uplink, quota in self._bounds.quotas.items():
                self._hold_quota(uplink, quota)
            if not self._bounds.drops:
                return freed
            aged = self._expire(now)
            if not is_tight or freed:
                return freed or aged
            return (self._bounds.thins and any(self._thin(level, sent) for level in _LEVELS)) or self._drop()
        except sqlite3.Error as error:
            raise fault(f"{self._file.path} cannot be swept", error) from error

    def _heads(self, after: int, limit: int, only: str = "") -> list[tuple[int, int, str, int]]:
        boot = "coalesce(CAST(boot AS INTEGER), 0)"
        query = f"SELECT first, {COUNT}, boot_id, {boot} FROM block WHERE first > ? {only} ORDER BY first LIMIT ?"  # noqa: S608 - constants
        return self._file.db.execute(query, (after, limit)).fetchall()

    def _free(self, now: int, *, is_tight: bool) -> bool:
        """Delete what nobody waits for, once it is old enough or room is short."""
        heads = self._heads(self._scanned, _SCANNED)
        done = []
        for first, count, boot_id, boot in heads:
            is_old = now - self._file.uptime(boot_id, boot) >= self._bounds.keep_after_ack * 1000
            if (is_old or is_tight) and self._file.is_free(first, first + count - 1):
                done.append((first,))
                if len(done) == _SLICE:
                    break
        if len(done) < _SLICE:
            self._scanned = heads[-1][0] if len(heads) == _SCANNED else 0
        if done:
            with Transaction(self._file.db):
                self._file.db.executemany("DELETE FROM block WHERE first=?", done)
        return len(done) == _SLICE or (is_tight and bool(done or self._scanned))

    def _hold_quota(self, uplink: str, quota: int) -> None:
        """An uplink beyond its quota gives up its oldest claims; other uplinks lose nothing."""
        file = self._file
        held = file.db.execute("SELECT coalesce(sum(count), 0) FROM block").fetchone()[0]
        claim = file.claim(uplink) if uplink in file.settled else 0
        if not held or claim * file.used() / held <= quota:
            return
        excess = claim - int(quota * held / file.used())
        skips = file.skips.get(uplink, Skips()).copy()
        with Transaction(file.db):
            for first, last in file.settled[uplink].missing(1, file.next - 1):
                last = min(last, first + excess + _total(skips, first, last) - 1)
                skips.add(EXPIRED, first, last)
                excess -= last - first + 1
                if excess <= 0:
                    break
            file.store_skips(uplink, skips)

    def _expire(self, now: int) -> bool:
        """Records older than the lane's bound go, sent or not."""
        limit = self._bounds.max_age * 1000
        old = [
            (first, first + count - 1)
            for first, count, boot_id, boot in self._heads(0, _SLICE)
            if now - self._file.uptime(boot_id, boot) > limit
        ]
        self._give_up(old, EXPIRED)
        return len(old) == _SLICE

    def _drop(self) -> bool:
        """The oldest records go, by the time that the gateway was up: each level's lie in that order."""
        rows = [
            row for level in ("NOT IN (1, 2)", "= 1", "= 2") for row in self._heads(0, _SLICE, f"AND level {level}")
        ]
        rows.sort(key=lambda row: (self._file.uptime(*row[2:]), row[0]))
        self._give_up([(first, first + count - 1) for first, count, *_ in rows[:_SLICE]], EXPIRED)
        return bool(rows)

    def _give_up(self, spans: Sequence[tuple[int, int]], why: str) -> None:
        if spans:
            with Transaction(self._file.db):
                self._replace(spans, why)

    def _replace(self, spans: Sequence[tuple[int, int]], why: str) -> None:
        file = self._file
        skips = file.skips[EVERYBODY].copy()
        for first, last in spans:
            file.db.execute("DELETE FROM block WHERE first=?", (first,))
            if not file.is_free(first, last):
                skips.add(why, first, last)
        skips.forget(min((settled.first_missing(1) for settled in file.settled.values()), default=1))
        file.store_skips(EVERYBODY, skips)

    def _thin(self, level: int, sent: Ranges) -> bool:
        """The oldest records that were never sent and are of the level below become aggregates with new numbers."""
        blocks = self._candidates(level - 1, self._thinned[level], sent)
        if not blocks:
            return False
        self._thinned[level] = blocks[-1].first
        base = blocks[0].first >> EPOCH_BITS << EPOCH_BITS
        rows = aggregate(blocks, level, base, self._entry)
        errors = [block.anchor.error for block in blocks if block.anchor.error is not None]
        anchor = replace(blocks[0].anchor, error=max(errors, default=None))
        if 2 * len(rows) > sum(block.count for block in blocks):
            return True
        file = self._file
        with Transaction(file.db):
            # What goes first makes room for what comes.
            self._replace([(block.first, block.last) for block in blocks], THINNED)
            first = file.next
            for start in range(0, len(rows), MAX_RECORDS):
                file.insert(first + start, rows[start : start + MAX_RECORDS], anchor, level)
        file.next = first + len(rows)
        return True

    def _candidates(self, level: int, after: int, sent: Ranges) -> list[Block]:
        """Whole blocks of one boot, clock state and epoch that no platform can know, oldest first."""
        query = f"SELECT {COLUMNS} FROM block WHERE first > ? AND level = ? ORDER BY first LIMIT ?"  # noqa: S608 - a constant
        found: list[Block] = []
        for row in self._file.db.execute(query, (after, level, 2 * _SLICE)):
            block = block_of(row)
            is_known = sent.within(block.first, block.last) or any(
                settled.within(block.first, block.last) for settled in self._file.settled.values()
            )
            if is_known or block.rows is None:
                continue
            if found and _kind(found[0]) != _kind(block):
                break
            found.append(block)
        return found


def _kind(block: Block) -> tuple[object, ...]:
    return block.anchor.boot_id, block.anchor.clock, block.first >> EPOCH_BITS


def _total(skips: Skips, first: int, last: int) -> int:
    return sum(b - a + 1 for a, b, _ in skips.within(first, last))
