"""Frames out of a stream of bytes that may begin anywhere and contain anything. Pure: no port, no clock.

After a bad candidate the search goes on one byte behind its beginning, so that a good frame behind a truncated
one, or behind a false sync, is never lost.
"""

from collections import Counter

from drivers.serial.settings import LENGTH_TYPES, Checksum, FixedFrame, Frame

_SIZE = {"sum8": 1, "sum16be": 2}


def checksum(rule: Checksum, frame: bytes) -> bytes:
    """The checksum as it stands in a good frame."""
    first, behind = rule.over
    size = _SIZE[rule.algorithm]
    return (sum(frame[first:behind]) & (0xFF if size == 1 else 0xFFFF)).to_bytes(size, "big")


def stands_at(rule: Checksum, frame: bytes) -> slice:
    """Where the checksum stands in `frame`."""
    start = rule.at % len(frame)
    return slice(start, start + _SIZE[rule.algorithm])


def fault(rule: Frame, frame: bytes) -> str | None:
    """Why `frame`, of the right length and with the right sync, is refused: `end`, `checksum`, or None."""
    if not frame.endswith(rule.end):
        return "end"
    if rule.checksum and frame[stands_at(rule.checksum, frame)] != checksum(rule.checksum, frame):
        return "checksum"
    return None


class Framer:
    """Takes bytes as they come, gives whole good frames, and counts what it refused: the evidence for a sentence.

    It holds less than one frame between calls.
    """

    def __init__(self, rule: Frame) -> None:
        self._rule = rule
        self._pending = bytearray()
        self.stray = 0
        """Bytes that belong to no good frame."""
        self.refused: Counter[str] = Counter()
        """Candidates refused, by `checksum`, `end` or `length`."""

    def feed(self, received: bytes) -> list[bytes]:
        """The good frames that `received` completes, oldest first."""
        pending, sync = self._pending, self._rule.sync
        pending += received
        frames: list[bytes] = []
        at = 0
        while True:
            found = pending.find(sync, at)
            if found < 0:
                found = len(pending) - self._begun(at)
            self.stray += found - at
            at = found
            length = self._length(at)
            if length is None or at + length > len(pending):
                break
            candidate = bytes(pending[at : at + length])
            refused = fault(self._rule, candidate) if length else "length"
            if refused:
                self.refused[refused] += 1
                self.stray += 1
                at += 1
            else:
                frames.append(candidate)
                at += length
        del pending[:at]
        return frames

    def _begun(self, at: int) -> int:
        """How many bytes at the end may be the beginning of a sync."""
        longest = min(len(self._rule.sync) - 1, len(self._pending) - at)
        return next((n for n in range(longest, 0, -1) if self._pending.endswith(self._rule.sync[:n])), 0)

    def _length(self, at: int) -> int | None:
        """The length of the frame that starts at `at`; None: not known yet; 0: it says an impossible one."""
        rule = self._rule
        if isinstance(rule, FixedFrame):
            return rule.length
        start = at + rule.length_at
        said = self._pending[start : start + LENGTH_TYPES[rule.length_type]]
        if len(said) < LENGTH_TYPES[rule.length_type]:
            return None
        length = int.from_bytes(said, "little" if rule.length_type.endswith("le") else "big") + rule.length_adds
        return length if rule.shortest < length <= rule.max_length else 0
