"""One lane on disk: a SQLite file with one exclusive connection, used by one thread only.

Measured choices (DECISIONS.md): WAL kept and grown beforehand, `synchronous=FULL`, 1 KB pages, one row
a block of records, settlements written in the transaction of the next commit. Nothing here is async.
"""

import secrets
import shutil
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from gateway.buffer.block import COLUMNS, COUNT, INSERT, MAX_RECORDS, Anchor, Block, block_of, columns
from gateway.buffer.connection import PAGE, Transaction, connect, lenient, look_before
from gateway.buffer.deadletters import DeadLetters
from gateway.buffer.epoch import EPOCH_BITS, Epoch
from gateway.buffer.facts import Facts, Kind
from gateway.buffer.fault import Damaged, Full, Unwritable, fault
from gateway.buffer.group import Group
from gateway.buffer.resume import Past, Remains, resume
from gateway.buffer.salvage import Salvaged, quarantine, rebuild, unfinished
from gateway.errors import StorageError
from gateway.model import Receipt
from gateway.ranges import Ranges, Span

_FROM = "FROM block WHERE first >= coalesce((SELECT max(first) FROM block WHERE first <= ?), 0) AND first <= ?"


class LaneFile(Facts):
    """All of it raises StorageError (`buffer.fault`) when SQLite cannot do what was asked.

    `path` None is a lane in memory. `machine` says whose records these are: on another one a new epoch begins.
    `past` is what the lane knew before a fault.
    """

    def __init__(
        self,
        path: Path | None,
        *,
        grow: int,
        max_bytes: int,
        machine: str = "",
        past: Past | None = None,
        keep_settled: bool = False,
    ) -> None:
        self.path = path
        self.max_bytes, self._reserve = max_bytes, grow
        self.keep_settled = keep_settled
        self.quarantined: Path | None = None
        """Where an unreadable file was moved at the start, to be told as an event."""
        self.salvaged = Salvaged()
        self._connect = partial(connect, grow=grow, max_bytes=max_bytes)
        try:
            self._open_or_salvage(machine, past)
        except OSError as error:
            raise Unwritable(f"the buffer {path} cannot be opened: {error}") from error
        self._grow()

    @classmethod
    def look(cls, path: Path) -> "LaneFile":
        """A file that no gateway has open, as it lies there: for `lampione buffer`."""
        file = cls.__new__(cls)
        file.path, file.keep_settled = path, True
        file.max_bytes = 0
        try:
            look_before(path)
            file.db = sqlite3.connect(path, isolation_level=None)
            file.db.text_factory = lenient
            file.db.execute("PRAGMA locking_mode=EXCLUSIVE")
            file.load()
            file.dead = DeadLetters(file.db)
            file.next = file.end_of_records()
        except sqlite3.Error as error:
            raise fault(f"{path} cannot be read", error) from error
        return file

    def _open_or_salvage(self, machine: str, past: Past | None) -> None:
        self.quarantined = unfinished(self.path) if self.path else None
        try:
            self._open(machine, past)
        except Damaged:
            assert self.path is not None, "memory has no file to be damaged"
            self.quarantined = quarantine(self.path)
            self._open(machine, past)

    def _open(self, machine: str, past: Past | None) -> None:
        if self.path and self.quarantined:
            self.salvaged = rebuild(self.path, self.quarantined, self._connect)
        self.db = self._connect(self.path)
        self.dead = DeadLetters(self.db)
        try:
            with Transaction(self.db):
                self.load()
                floor = resume(self, past, self.end_of_records()) if past else 1
                ended = self.end_of_records()
                now = self.epochs[-1] if self.epochs else None
                if now is None or now.machine != machine or now.last or self.quarantined or floor > ended:
                    self._begin_epoch(machine, max(ended, floor))
                else:
                    self.next = ended
        except StorageError:
            self.abandon()
            raise

    def end_of_records(self) -> int:
        """The position after the last that was given out. Damaged where the last block does not tell."""
        row = self.db.execute(f"SELECT {COLUMNS} FROM block ORDER BY first DESC LIMIT 1").fetchone()  # noqa: S608 - a constant
        last = block_of(row) if row else None
        if last and last.rows is None:
            raise Damaged(f"the buffer {self.path} does not say where its records end")
        ends = [spans.spans()[-1][1] + 1 for spans in self.settled.values() if spans]
        return max(self.noted, last.last + 1 if last else 1, *ends, 1)

    def _begin_epoch(self, machine: str, beyond: int) -> None:
        """New records lie in an epoch of their own, above `beyond`; what lies between is nobody's."""
        is_first = not self.epochs and beyond <= 1
        number = 0 if is_first else max([beyond >> EPOCH_BITS, *(epoch.number for epoch in self.epochs)]) + 1
        if self.epochs and self.epochs[-1].last is None:
            last = min(beyond, self.epochs[-1].base + (1 << EPOCH_BITS)) - 1
            self.store_epoch(replace(self.epochs[-1], last=last))
        self.store_epoch(Epoch(number, secrets.token_hex(4), machine, None))
        self.next = self.epochs[-1].base + 1
        for uplink in self.settled:
            self._settle_gaps(uplink)
            self.store_settled(uplink)

    def _settle_gaps(self, uplink: str) -> None:
        """No record lies between the epochs: a range that is still to be sent never spans two of them."""
        above = 1
        for epoch in self.epochs:
            if epoch.base + 1 > above:
                self.settled[uplink].add(above, epoch.base)
            above = (epoch.last or epoch.base) + 1

    @property
    def epoch(self) -> str:
        return self.epochs[-1].id

    def _grow(self) -> None:
        """Grow the log now and keep a reserve of pages: each later growth would cost the file system's journal.

        A full disk is no reason not to start; on one that is nearly full the log would stay full of the reserve.
        """
        with suppress(Full, OSError):
            if self.path and shutil.disk_usage(self.path.parent).free < 8 * self._reserve:
                return
            with Transaction(self.db):
                self.db.execute("DELETE FROM ballast")
                self.db.execute("INSERT INTO ballast VALUES(zeroblob(?))", (min(self._reserve, self.max_bytes // 4),))

    def limit(self, max_bytes: int, more: int | None) -> None:
        """Let the file grow to `max_bytes`, or by `more` at most: SQLite then refuses before the disk does, and can
        still delete.
        """
        before = self.max_bytes
        size = int(self.db.execute("PRAGMA page_count").fetchone()[0]) * PAGE
        self.max_bytes = max_bytes if more is None else min(max_bytes, size + more)
        self.db.execute(f"PRAGMA max_page_count={self.max_bytes // PAGE}")
        if more is None and before < max_bytes:
            self._grow()

    def release_reserve(self) -> None:
        """Give the reserve's pages, and the log's, to what must be written now. StorageError: it cannot be had."""
        try:
            self.db.execute("PRAGMA wal_checkpoint(RESTART)")
        except sqlite3.Error as error:
            raise fault("could not empty its log", error) from error
        with Transaction(self.db):
            self.db.execute("DELETE FROM ballast")

    def uplinks(self, wanted: Mapping[str, str]) -> None:
        """Enrol the uplinks that take this lane (name -> 'oldest' | 'now'); those gone stop holding rows."""
        with Transaction(self.db):
            self.store_next(self.next)
            for gone in set(self.settled) - set(wanted):
                self.forget_uplink(gone)
            for name, start in wanted.items():
                if name not in self.settled:
                    oldest = self.db.execute("SELECT min(first) FROM block").fetchone()[0] or self.next
                    # After damage nobody knows who was there: what may be new may be old and forgotten.
                    below = self.next if start == "now" and not self.quarantined else oldest
                    self.settled[name] = Ranges([(1, below - 1)] if below > 1 else [])
                    self._settle_gaps(name)
                    self.store_settled(name)
            if wanted:
                self._delete_settled(1, self.next)

    def commit(self, group: Group) -> int:
        """Make `group` durable in one transaction and return the position after its last record."""
        first = self.next
        with Transaction(self.db):
            # What goes first makes room for what comes.
            settled = self._settle(group.receipts)
            origins = self._note_boot(group.anchor)
            for number, entry in group.points:
                self.store_point(number, entry)
            for start in range(0, len(group.rows), MAX_RECORDS):
                assert group.anchor is not None, "a group with rows has its anchor"
                self.insert(first + start, group.rows[start : start + MAX_RECORDS], group.anchor)
            for key, value in group.state.items():
                self.store_state(key, value)
        self.settled = settled
        self.origins |= origins
        self.next = first + len(group.rows)
        return self.next

    def _note_boot(self, anchor: Anchor | None) -> dict[str, int]:
        """The origin of a boot that is new. Ages count the time that the gateway was up: no wall clock can make records
        old.
        """
        if anchor is None or anchor.boot_id in self.origins:
            return {}
        row = self.db.execute(
            f"SELECT {COLUMNS} FROM block WHERE level = 0 ORDER BY first DESC LIMIT 1"  # noqa: S608 - a constant
        ).fetchone()
        newest = block_of(row).anchor if row else None
        up = self.uptime(newest.boot_id, newest.boot) if newest else 0
        origin = max(0, up) - anchor.boot
        self.put(Kind.BOOT, anchor.boot_id, origin)
        return {anchor.boot_id: origin}

    def uptime(self, boot_id: str, boot: int) -> int:
        """Milliseconds for which gateways of this file had been up at `boot` of that boot."""
        return self.origins.get(boot_id, 0) + boot

    def insert(self, first: int, rows: Sequence[Any], anchor: Anchor, level: int = 0) -> None:
        """One block, within the caller's transaction."""
        self.db.execute(INSERT, columns(first, rows, anchor, level))

    def _settle(self, receipts: Sequence[tuple[str, Receipt]]) -> dict[str, Ranges]:
        """Move the uplinks' ranges and delete what all have settled; the result holds once this is committed."""
        before, touched = self.settled, set[str]()
        self.settled = {name: Ranges(spans) for name, spans in before.items()} if receipts else before
        bases = {epoch.id: epoch.base for epoch in self.epochs}
        low, high = self.next, 0
        for uplink, receipt in receipts:
            spans, base = self.settled.get(uplink), bases.get(receipt.epoch)
            if spans is None or base is None:
                continue
            touched.add(uplink)
            done: list[Span] = list(receipt.accepted)
            for seq, reason, retryable in receipt.rejected:
                if not retryable:
                    done.append((seq, seq))
                    self._bury(uplink, receipt.epoch, base, seq, reason)
            for first, last in done:
                spans.add(base + first, min(base + last, self.next - 1))
                low, high = min(low, base + first), max(high, base + last)
        for uplink in touched:
            self.store_settled(uplink)
        if high:
            self._delete_settled(low, high)
        after, self.settled = self.settled, before
        return after

    def _bury(self, uplink: str, epoch: str, base: int, seq: int, reason: str) -> None:
        for block in self._blocks(base + seq, base + seq):
            row = block.rows[base + seq - block.first] if block.rows else None
            self.dead.bury(uplink, epoch, seq, block.anchor, row, self.points, reason)

    def is_free(self, first: int, last: int) -> bool:
        """Whether nobody waits for any of first..last."""
        return not any(
            _total(self.skipped(uplink, a, b)) <= b - a
            for uplink, spans in self.settled.items()
            for a, b in spans.missing(first, last)
        )

    def _delete_settled(self, low: int, high: int) -> None:
        if self.keep_settled:
            return
        rows = self.db.execute(f"SELECT first, {COUNT} {_FROM}", (low, high)).fetchall()
        done = [(first,) for first, count in rows if self.is_free(first, first + count - 1)]
        self.db.executemany("DELETE FROM block WHERE first=?", done)

    def read(self, first: int, last: int, max_bytes: int) -> list[Block]:
        """Blocks that touch first..last, in order, until their JSON passes `max_bytes` (one at least)."""
        blocks: list[Block] = []
        try:
            for block in self._blocks(first, last):
                blocks.append(block)
                max_bytes -= block.size
                if max_bytes <= 0:
                    break
        except sqlite3.Error as error:
            raise fault(f"{self.path} cannot be read", error) from error
        return blocks

    def _blocks(self, first: int, last: int) -> Iterator[Block]:
        for row in self.db.execute(f"SELECT {COLUMNS} {_FROM} ORDER BY first", (first, last)):
            block = block_of(row)
            if block.rows is None:
                block = replace(block, count=self._reach(block.first))
            if block.last >= first:
                yield block

    def _reach(self, first: int) -> int:
        """How many records a block has that does not tell: up to the next one."""
        after = self.db.execute("SELECT min(first) FROM block WHERE first > ?", (first,)).fetchone()[0] or self.next
        return max(1, min(after - first, MAX_RECORDS))

    def check(self, after: int, size: int) -> tuple[int | None, int]:
        """Read blocks above `after` until `size` bytes are read: (position to go on from or None, blocks found bad).

        Damaged where SQLite itself stumbles.
        """
        blocks = self.read(after + 1, self.next, size)
        bad = sum(block.rows is None for block in blocks)
        return (blocks[-1].last if blocks else None), bad

    def remains(self) -> Remains:
        """What is to be taken over by the file that this lane in memory stood in for."""
        now = self.epochs[-1]
        rows = [
            row
            for row in self.db.execute(f"SELECT {COLUMNS} FROM block")  # noqa: S608 - a constant
            if not self.is_free(row[0], row[0] + row[1] - 1)
        ]
        settled = {name: Ranges(spans.within(now.base + 1, self.next - 1)) for name, spans in self.settled.items()}
        return Remains(now, self.next - 1, rows, settled, self.skips)

    def waiting(self) -> int:
        """Records that some uplink is still to get; with no uplink at all, the records held."""
        if not self.settled:
            held: int = self.db.execute("SELECT coalesce(sum(count), 0) FROM block").fetchone()[0]
            return held
        return max(self.claim(uplink) for uplink in self.settled)

    def claim(self, uplink: str) -> int:
        """Records that this uplink is still to get."""
        missing = self.settled[uplink].missing(1, self.next - 1)
        return sum(b - a + 1 - _total(self.skipped(uplink, a, b)) for a, b in missing)

    def used(self) -> int:
        """Bytes of the pages in use, the reserve not counted."""
        pages = (
            self.db.execute("PRAGMA page_count").fetchone()[0] - self.db.execute("PRAGMA freelist_count").fetchone()[0]
        )
        reserve = self.db.execute("SELECT coalesce(sum(length(body)), 0) FROM ballast").fetchone()[0]
        return int(pages * PAGE - reserve)

    def depth(self) -> tuple[int, int, int | None]:
        """(records that wait, bytes in use, UTC ms of the oldest that waits or None)."""
        try:
            waiting = self.waiting()
            firsts = [spans.first_missing(1) for spans in self.settled.values()] or [1]
            oldest = self.db.execute(
                f"SELECT CAST(wall AS INTEGER) {_FROM} ORDER BY first LIMIT 1", (min(firsts), self.next)
            ).fetchone()
            return waiting, self.used(), oldest[0] if oldest and waiting else None
        except sqlite3.Error as error:
            raise fault(f"{self.path} cannot be read", error) from error

    def abandon(self) -> None:
        """After a fault: nothing more is asked of this connection."""
        with suppress(sqlite3.Error):
            self.db.close()

    def close(self) -> None:
        with suppress(StorageError), Transaction(self.db):
            self.store_next(self.next)
        self.db.close()


def _total(skipped: Sequence[tuple[int, int, str]]) -> int:
    return sum(b - a + 1 for a, b, _ in skipped)
