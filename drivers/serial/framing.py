"""Frames out of a stream of bytes that may begin anywhere and contain anything. Pure: no port, no clock.

After a bad candidate the search goes on one byte behind its beginning, so that a good frame behind a truncated
one, or behind a false sync, is never lost. Lines without a start mark, and frames that only silence ends, have no
second beginning inside: of these a bad one is left as a whole.
"""

from collections import Counter
from typing import NamedTuple, assert_never

from drivers.serial import checksum
from drivers.serial.frames import (
    LENGTH_TYPES,
    DelimitedFrame,
    DispatchedFrame,
    FixedFrame,
    Frame,
    IdleFrame,
    LengthPrefixedFrame,
    StuffedFrame,
    SyncedFrame,
    joins_blind,
    joins_halves,
)

QUIET = 0.1
"""Seconds of silence after which a frame is looked for behind one that is not complete."""
STALL = 1.0
"""Seconds of silence inside a frame after which its rest is not waited for, where two halves may pass for one."""


class _Cut(NamedTuple):
    """What stands at a beginning: so many bytes, which are a frame, or refused for a reason, or nothing at all."""

    length: int
    frame: bytes | None = None
    refused: str | None = None


def fault(rule: Frame, frame: bytes) -> str | None:
    """Why `frame`, found where it should be, is refused: `end`, `checksum`, or None."""
    if isinstance(rule, SyncedFrame) and not frame.endswith(rule.end):
        return "end"
    if rule.checksum and not checksum.is_good(rule.checksum, frame):
        return "checksum"
    if isinstance(rule, StuffedFrame) and rule.length_at is not None:
        said = _said(frame, rule.length_at, rule.length_type)
        return None if said is not None and said + rule.length_adds == len(frame) else "length"
    return None


def _said(frame: bytes | bytearray, at: int, kind: str) -> int | None:
    """The length that stands `at`; None: the frame ends before."""
    said = frame[at : at + LENGTH_TYPES[kind]]
    if len(said) < LENGTH_TYPES[kind]:
        return None
    return int.from_bytes(said, "little" if kind.endswith("le") else "big")


def wrapped(rule: Frame, content: bytes) -> bytes:
    """`content` as it goes over the wire, its checksum made good: what a framer takes apart again."""
    content = checksum.sealed(rule.checksum, content)
    match rule:
        case DelimitedFrame():
            return rule.start + content + rule.end
        case StuffedFrame():
            sent = {meant[0]: rule.escape + code for code, meant in rule.escapes.items()}
            return rule.delimiter + b"".join(sent.get(byte, bytes([byte])) for byte in content) + rule.delimiter
        case _:
            return content


class Framer:
    """Takes bytes as they come, gives whole good frames, and counts what it refused: the evidence for a sentence.

    It holds less than one frame between calls. `joining`: it starts in the middle of a stream, and gives nothing
    that may be the rest of a frame that had begun before.
    """

    def __init__(self, rule: Frame, *, joining: bool = False) -> None:
        self._rule = rule
        self._pending = bytearray()
        self._skipping = joining and joins_blind(rule)
        """What comes next, up to an end, is the rest of a frame."""
        self._lock = rule.lock if joining and isinstance(rule, SyncedFrame) else 1
        self._run: list[bytes] = []
        self._locked = self._lock == 1
        self._looked = False
        """Whether a good frame was already looked for behind the one that is not complete."""
        self.stray = 0
        """Bytes that belong to no good frame."""
        self.refused: Counter[str] = Counter()
        """Candidates refused, by `checksum`, `end`, `length` or `escape`."""

    @property
    def gap(self) -> float | None:
        """Seconds of silence after which `idle` is to be called; None where silence means nothing now."""
        if isinstance(self._rule, IdleFrame):
            return self._rule.gap if self._pending or self._skipping else None
        if not self._pending:
            return None
        if not self._looked and isinstance(self._rule, LengthPrefixedFrame | DispatchedFrame):
            return QUIET
        return STALL if joins_halves(self._rule) and not self._skipping else None

    @property
    def has_begun(self) -> bool:
        """Whether bytes came that may be the beginning of a frame."""
        return bool(self._pending)

    def feed(self, received: bytes) -> list[bytes]:
        """The good frames that `received` completes, oldest first."""
        pending = self._pending
        pending += received
        self._looked = False
        frames: list[bytes] = []
        at = 0
        while True:
            begun = self._begin(at)
            if begun > at:
                self._stray(begun - at)
                at = begun
            cut = self._cut(at)
            if cut is None:
                break
            at += cut.length
            if cut.refused:
                self.refused[cut.refused] += 1
                self._stray(cut.length)
            elif cut.frame is not None:
                self._give(cut.frame, frames)
        del pending[:at]
        return frames

    def idle(self) -> list[bytes]:
        """The frame that a silence of `gap` ends; or those that stand behind a false length, which still waits."""
        rule, content = self._rule, bytes(self._pending)
        if not isinstance(rule, IdleFrame):
            if self.gap == QUIET:
                return self._behind_a_false_start()
            if self.gap == STALL:
                self._refuse_half()
            return []
        self._pending.clear()
        skipped, self._skipping = self._skipping, False
        if not content or skipped:
            self.stray += len(content)
            return []
        why = "length" if len(content) < rule.min_length else fault(rule, content)
        if why:
            self.refused[why] += 1
            self.stray += len(content)
            return []
        return [content]

    def _behind_a_false_start(self) -> list[bytes]:
        """Only if there is a good frame behind the first byte is that one known to be false."""
        rest, passed, refused = bytes(self._pending), 0, Counter[str]()
        while rest:
            inner = Framer(self._rule)
            found = inner.feed(rest[1:])
            passed += 1 + inner.stray
            refused += inner.refused + Counter(length=1)
            if found:
                self._stray(passed)
                self.refused += refused
                self._pending = inner._pending
                frames: list[bytes] = []
                for frame in found:
                    self._give(frame, frames)
                return frames
            rest = bytes(inner._pending)
        self._looked = True
        return []

    def _refuse_half(self) -> None:
        self.refused["end"] += 1
        self._stray(len(self._pending))
        self._pending.clear()
        # What comes of it later, up to its end, is its rest.
        self._skipping = joins_blind(self._rule)

    def _stray(self, count: int) -> None:
        self.stray += count
        if self._lock > 1:
            self.stray += sum(map(len, self._run))
            self._run.clear()
            self._locked = False

    def _give(self, frame: bytes, frames: list[bytes]) -> None:
        if self._locked:
            frames.append(frame)
            return
        self._run.append(frame)
        if len(self._run) >= self._lock:
            self._locked = True
            frames += self._run
            self._run.clear()

    def _begin(self, at: int) -> int:
        """Where the next candidate starts, at or behind `at`; else what may be the start of one at the end."""
        match self._rule:
            case DelimitedFrame() as rule if self._skipping:
                found = self._pending.find(rule.end, at)
                if found < 0:
                    return len(self._pending) - self._begun(rule.end, at)
                self._skipping = False
                return found + len(rule.end)
            case DelimitedFrame(start=mark):
                pass
            case StuffedFrame(delimiter=mark):
                pass
            case IdleFrame():
                return at
            case rule:
                mark = rule.sync
        found = self._pending.find(mark, at)
        return found if found >= 0 else len(self._pending) - self._begun(mark, at)

    def _begun(self, mark: bytes, at: int) -> int:
        """How many bytes at the end may be the beginning of `mark`."""
        longest = min(len(mark) - 1, len(self._pending) - at)
        return next((n for n in range(longest, 0, -1) if self._pending.endswith(mark[:n])), 0)

    def _cut(self, at: int) -> _Cut | None:
        """What stands at `at`, or None: more bytes are needed to know."""
        match self._rule:
            case DelimitedFrame() as rule:
                return None if self._skipping else self._line(rule, at)
            case StuffedFrame() as rule:
                return self._stuffed(rule, at)
            case IdleFrame() as rule:
                if len(self._pending) - at <= rule.max_length:
                    return None
                self._skipping = True
                return _Cut(len(self._pending) - at, refused="length")
            case rule:
                return self._synced(rule, at)

    def _synced(self, rule: SyncedFrame, at: int) -> _Cut | None:
        length = self._length(rule, at)
        if length == 0:
            return _Cut(1, refused="length")
        if length is None or at + length > len(self._pending):
            return None
        frame = bytes(self._pending[at : at + length])
        why = fault(rule, frame)
        return _Cut(1, refused=why) if why else _Cut(length, frame)

    def _length(self, rule: SyncedFrame, at: int) -> int | None:
        """The length of the frame that starts at `at`; None: not known yet; 0: it says an impossible one."""
        match rule:
            case FixedFrame():
                return rule.length
            case DispatchedFrame():
                where = at + rule.id_at
                return rule.lengths.get(self._pending[where], 0) if where < len(self._pending) else None
            case LengthPrefixedFrame():
                said = _said(self._pending, at + rule.length_at, rule.length_type)
                if said is None:
                    return None
                length = said + rule.length_adds
                return length if rule.shortest < length <= rule.max_length else 0
            case never:
                assert_never(never)

    def _line(self, rule: DelimitedFrame, at: int) -> _Cut | None:
        first, limit = at + len(rule.start), at + rule.max_length
        behind = self._pending.find(rule.end, first, limit)
        if behind < 0:
            return None if len(self._pending) <= limit else self._too_long(rule, at)
        whole = behind + len(rule.end) - at
        again = self._pending.rfind(rule.start, first, behind) if rule.start else -1
        if again >= 0:
            # The start mark stands nowhere inside a line; an xor over both halves may well look right.
            return _Cut(again - at, refused="end")
        frame = bytes(self._pending[first:behind])
        if not frame.strip():
            return _Cut(whole)
        why = fault(rule, frame)
        return _Cut(1 if rule.start and why else whole, None if why else frame, why)

    def _too_long(self, rule: DelimitedFrame, at: int) -> _Cut:
        if rule.start:
            return _Cut(1, refused="length")
        # Without a start mark it has no second beginning: its rest must not pass for a line.
        behind = self._pending.find(rule.end, at)
        self._skipping = behind < 0
        last = len(self._pending) - self._begun(rule.end, at) if behind < 0 else behind + len(rule.end)
        return _Cut(last - at, refused="length")

    def _stuffed(self, rule: StuffedFrame, at: int) -> _Cut | None:
        if at >= len(self._pending):
            return None
        behind = self._pending.find(rule.delimiter, at + 1)
        if behind < 0:
            too_long = len(self._pending) - at > 2 * rule.max_length
            return _Cut(len(self._pending) - at, refused="length") if too_long else None
        # The closing delimiter stays: where one was lost, it is the next frame's opening one.
        length = behind - at
        if length == 1:
            return _Cut(1)
        frame = _unstuffed(rule, self._pending[at + 1 : behind])
        why = "escape" if frame is None else "length" if len(frame) > rule.max_length else fault(rule, frame)
        return _Cut(length, None if why else frame, why)


def _unstuffed(rule: StuffedFrame, stuffed: bytearray) -> bytes | None:
    """In one pass: replacing escapes one after another would read `7d 5d 31` wrong. None: an escape for nothing."""
    first, *rest = bytes(stuffed).split(rule.escape)
    parts = [first]
    for part in rest:
        meant = rule.escapes.get(part[:1])
        if meant is None:
            return None
        parts += [meant, part[1:]]
    return b"".join(parts)
