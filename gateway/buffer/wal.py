"""SQLite's log, before SQLite reads it: a flipped bit in it must not look like a torn end.

SQLite takes the first frame whose checksum is wrong for the end of the log, as it is after a power cut, and forgets
what was committed behind it. The checksum, two sums over words with carries, tells more: which bits could have been
flipped. Format: https://www.sqlite.org/fileformat2.html#the_write_ahead_log
"""

import os
import struct
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

_HEAD = 24
"""Magic number, version, page size, number of the checkpoint, two salts; the checksum of these follows."""
_START = _HEAD + 8
_FRAME = 24
"""Page, pages in the file after a commit or 0, two salts, checksum of the first two and the page; the page follows."""
_COVERED = 8
_TWO = struct.Struct(">2I")
_IS_LITTLE = sys.byteorder == "little"
_PAIRS = struct.Struct("<2I" if _IS_LITTLE else ">2I")
_FIXED = struct.Struct(">3I")
_MAGIC = 0x377F0682 if _IS_LITTLE else 0x377F0683
_VERSION = 3007000
_WORD = 0xFFFFFFFF

Sums: TypeAlias = tuple[int, int]


class Log:
    """The content of a log file. `page`: bytes of a page."""

    def __init__(self, path: Path, page: int) -> None:
        self._path, self._page = path, page
        self._raw = bytearray(path.read_bytes())
        self._size = _FRAME + page
        self._changed: list[tuple[int, bytes]] = []
        self._is_damaged = False

    def mend(self) -> bool:
        """Make SQLite read all that was committed, the file on the disk too; where a bit of a page was flipped and none
        can say which, the page has its own ways to tell. False, and nothing done, where more than that is damaged.
        """
        self._walk()
        if not self._is_damaged:
            self._store()
        return not self._is_damaged

    def splice(self) -> None:
        """As `mend`, of a log that is damaged."""
        self._walk()
        self._store()

    def _walk(self) -> None:
        was = now = self._mend_head()
        for at in range(_START, len(self._raw) - self._size + 1, self._size):
            if was is None or now is None:
                return
            content, was = self._mend_frame(at, was)
            if was is not None:
                now = checksum(content, now)
                self._replace(at, content[:_COVERED] + self._salts + _TWO.pack(*now) + content[_COVERED:])

    def _mend_head(self) -> Sums | None:
        """Its checksum; None where there is no log, or none that could be read."""
        if len(self._raw) < _START + self._size:
            return None
        content, stored, first = bytes(self._raw[:_HEAD]), self._sums(_HEAD), self._content(_START)
        found = checksum(content, (0, 0))
        if found == stored:
            return stored
        for mended, sums in ((content, found), *_mended(content, (0, 0), stored)):
            follows = checksum(first, sums) == self._sums(_START + 16) and self._is_live(_START, mended[16:])
            if follows and mended.startswith(_FIXED.pack(_MAGIC, _VERSION, self._page)):
                self._replace(0, mended + _TWO.pack(*sums))
                return sums
        return None

    def _mend_frame(self, at: int, was: Sums) -> tuple[bytes, Sums | None]:
        """(what its checksum covers, the checksum as it was written); None at the end of the log."""
        content, stored, after = self._content(at), self._sums(at + 16), at + self._size
        found = checksum(content, was)
        stray = (int.from_bytes(self._raw[at + 8 : at + 16]) ^ int.from_bytes(self._salts)).bit_count()
        if stray == 0 or (stray == 1 and found == stored):
            has_next = self._is_live(after, self._salts)
            if found == stored or (has_next and checksum(self._content(after), found) == self._sums(after + 16)):
                return content, found
            repairs = _mended(content, was, stored)
            may_be_sums = not has_next and _bits(found, stored) == 1
            if len(repairs) == 1 and not may_be_sums:
                return repairs[0]
            if repairs or may_be_sums:
                self._is_damaged |= any(mended[:_COVERED] != content[:_COVERED] for mended, _ in repairs)
                return content, stored
        if not self._is_committed(after):
            return content, None
        self._is_damaged = True
        return content, stored

    def _is_committed(self, after: int) -> bool:
        """Whether behind what does not read there is a commit, and then another: none begins before the one in front
        of it is flushed.
        """
        readable = [
            at
            for at in range(after, len(self._raw) - self._size + 1, self._size)
            if self._is_live(at, self._salts)
            and checksum(self._content(at), self._sums(at - self._size + 16)) == self._sums(at + 16)
        ]
        return any(any(self._raw[at + 4 : at + 8]) for at in readable[:-1])

    def _is_live(self, at: int, salts: bytes) -> bool:
        return at + self._size <= len(self._raw) and self._raw[at + 8 : at + 16] == salts

    def _content(self, at: int) -> bytes:
        return bytes(self._raw[at : at + _COVERED] + self._raw[at + _FRAME : at + self._size])

    @property
    def _salts(self) -> bytes:
        """Of the log; the frames of one that was there before have others."""
        return bytes(self._raw[16:24])

    def _sums(self, at: int) -> Sums:
        a, b = _TWO.unpack_from(self._raw, at)
        return a, b

    def _replace(self, at: int, content: bytes) -> None:
        if self._raw[at : at + len(content)] != content:
            self._raw[at : at + len(content)] = content
            self._changed.append((at, content))

    def _store(self) -> None:
        if self._changed:
            with self._path.open("r+b", buffering=0) as file:
                for at, content in self._changed:
                    file.seek(at)
                    file.write(content)
                os.fsync(file.fileno())


def checksum(content: bytes, seed: Sums) -> Sums:
    a, b = seed
    for one, two in _PAIRS.iter_unpack(content):
        a = a + one + b & _WORD
        b = b + two + a & _WORD
    return a, b


def _bits(one: Sums, other: Sums) -> int:
    return sum((a ^ b).bit_count() for a, b in zip(one, other, strict=True))


def _mended(content: bytes, seed: Sums, stored: Sums) -> Sequence[tuple[bytes, Sums]]:
    """(content, its checksum) for each bit of `content` whose flip makes its checksum the stored one.

    A flip adds or takes a power of two in one word; each pair of words behind it carries that on as Fibonacci's numbers
    do. These repeat in their last digits, so for flips of a word's high bits there is more than one answer.
    """
    found = checksum(content, seed)
    off = found[0] - stored[0] & _WORD, found[1] - stored[1] & _WORD
    answers: list[tuple[bytes, Sums]] = []
    first, second = (1, 1), (0, 1)
    for place in range(len(content) - 8, -1, -8):
        for word, (a, b) in ((place, first), (place + 4, second)):
            for bit in range(32):
                if (a << bit & _WORD, b << bit & _WORD) in (off, (-off[0] & _WORD, -off[1] & _WORD)):
                    flipped = bytearray(content)
                    flipped[word + (bit // 8 if _IS_LITTLE else 3 - bit // 8)] ^= 1 << bit % 8
                    if checksum(bytes(flipped), seed) == stored:
                        answers.append((bytes(flipped), stored))
        first, second = _carried(first), _carried(second)
    return answers


def _carried(off: Sums) -> Sums:
    a = off[0] + off[1] & _WORD
    return a, off[1] + a & _WORD
