"""Disks as a power cut may leave them, worked out from what a process had done until then.

The model is stricter than any one file system. Of what no flush covers, each write is there, absent, or torn at
512-byte sectors, in any order; a created, renamed or deleted name is on the disk only once its folder was flushed, and
until then each name may stand at any point of its own history. A file whose name is lost is lost.
"""

import itertools
import os
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TypeAlias

from tests.crash.trace import Create, Flush, Operation, Rename, Said, Truncate, Unlink, Write

SECTOR = 512
Tree: TypeAlias = Mapping[str, bytes | None]
"""What a disk holds: path -> content, None for a folder."""


class Fate(StrEnum):
    """Of everything that no flush covers."""

    NOTHING = "nothing of it"
    ALL = "all of it"
    PREFIX = "what was done up to some moment"
    NAMES = "the names and none of the bytes"
    BYTES = "the bytes and none of the names"
    ANY = "each as dice fall"


@dataclass(slots=True)
class _Node:
    """A file or a folder: what a flush has made sure of, and what came after, as (operation number, change)."""

    is_folder: bool = False
    content: bytearray = field(default_factory=bytearray)
    names: dict[str, "_Node"] = field(default_factory=dict)
    later: list[tuple[int, "_Change"]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Naming:
    """One change of a folder: names that appear, with what they name, and names that go, together or not at all."""

    come: tuple[tuple[str, _Node], ...] = ()
    go: tuple[str, ...] = ()


_Change: TypeAlias = Write | Truncate | _Naming


class Disk:
    """Takes operations one by one; `cut` at any time."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._top = _Node(is_folder=True)
        self._now: dict[str, _Node] = {root: self._top}
        self._count = 0

    def take(self, operation: Operation) -> None:
        number, self._count = self._count, self._count + 1
        match operation:
            case Create(path, is_folder):
                node = self._now[path] = _Node(is_folder)
                self._name(number, path, _Naming(come=((_last(path), node),)))
            case Unlink(path):
                del self._now[path]
                self._name(number, path, _Naming(go=(_last(path),)))
            case Rename(path, to):
                node = self._now[to] = self._now.pop(path)
                if _folder(path) != _folder(to) or node.is_folder:
                    raise NotImplementedError(f"{operation} from folder to folder")
                self._name(number, path, _Naming(come=((_last(to), node),), go=(_last(path),)))
            case Write(path) | Truncate(path):
                self._now[path].later.append((number, operation))
            case Flush(path, began):
                node = self._now[path]
                done = [change for at, change in node.later if at < began]
                node.later = node.later[len(done) :]
                for change in done:
                    _apply(node, change)
            case Said():
                pass

    def _name(self, number: int, path: str, change: _Naming) -> None:
        self._now[_folder(path)].later.append((number, change))

    def cut(self, fate: Fate, dice: random.Random) -> Tree:
        """One disk that may be found after the power comes back."""
        moment = self._count if fate is not Fate.PREFIX else self._moment(dice)
        odds = dice.choice((0.1, 0.5, 0.9))
        found: dict[str, bytes | None] = {}
        self._walk(self._root, self._top, _Survivors(fate, moment, odds, dice), found)
        return found

    def _moment(self, dice: random.Random) -> int:
        numbers = sorted(number for node in self._nodes() for number, _ in node.later)
        return dice.choice(numbers) if numbers else self._count

    def _nodes(self) -> Iterator[_Node]:
        return iter({id(node): node for node in self._now.values()}.values())

    def _walk(self, path: str, node: _Node, survivors: "_Survivors", found: dict[str, bytes | None]) -> None:
        for name, child in survivors.names(node).items():
            below = f"{path}/{name}"
            if child.is_folder:
                found[below] = None
                self._walk(below, child, survivors, found)
            else:
                found[below] = survivors.content(child)


@dataclass(frozen=True, slots=True)
class _Survivors:
    """Which changes made it."""

    fate: Fate
    moment: int
    odds: float
    dice: random.Random

    def names(self, folder: _Node) -> Mapping[str, _Node]:
        after = _Node(is_folder=True, names=dict(folder.names))
        lost: set[str] = set()
        for number, change in folder.later:
            assert isinstance(change, _Naming)
            touched = {name for name, _ in change.come} | set(change.go)
            if touched & lost or not self._keeps(number, is_name=True):
                lost |= touched
            else:
                _apply(after, change)
        return after.names

    def content(self, file: _Node) -> bytes:
        after = _Node(content=bytearray(file.content))
        changes = [change for number, change in file.later if self._keeps(number, is_name=False)]
        if self.fate is Fate.ANY and self.dice.random() < 0.5:
            self.dice.shuffle(changes)
        for change in changes:
            if isinstance(change, Write) and self._tears(change is changes[-1]):
                for part in self._sectors(change):
                    _apply(after, part)
            else:
                _apply(after, change)
        return bytes(after.content)

    def _keeps(self, number: int, *, is_name: bool) -> bool:
        match self.fate:
            case Fate.NOTHING:
                return False
            case Fate.ALL:
                return True
            case Fate.PREFIX:
                return number <= self.moment
            case Fate.NAMES:
                return is_name
            case Fate.BYTES:
                return not is_name
            case Fate.ANY:
                return self.dice.random() < self.odds

    def _tears(self, is_last: bool) -> bool:
        if self.fate is Fate.PREFIX:
            return is_last
        return self.fate is Fate.ANY and self.dice.random() < 0.3

    def _sectors(self, write: Write) -> Iterator[Write]:
        """Some of the sectors that a write touches; what lies in one sector is there as a whole or not at all."""
        start, end = write.offset, write.offset + len(write.content)
        edges = sorted({start, end, *range(-(-start // SECTOR) * SECTOR, end, SECTOR)})
        for low, high in itertools.pairwise(edges):
            if self.dice.random() < 0.5:
                yield Write(write.path, low, write.content[low - start : high - start])


def _apply(node: _Node, change: _Change) -> None:
    content = node.content
    match change:
        case Write(_, offset, new):
            if len(content) < offset:
                content.extend(bytes(offset - len(content)))
            content[offset : offset + len(new)] = new
        case Truncate(_, size, only_stretches):
            if len(content) < size:
                content.extend(bytes(size - len(content)))
            elif not only_stretches:
                del content[size:]
        case _Naming(come, go):
            for name in go:
                node.names.pop(name, None)
            node.names.update(come)


def _folder(path: str) -> str:
    return os.path.dirname(path)  # noqa: PTH120 - a path of the trace, not ours


def _last(path: str) -> str:
    return os.path.basename(path)  # noqa: PTH119


def lay_out(tree: Tree, root: str, at: Path) -> None:
    """Make what was found under `root` real under `at`."""
    for path, content in tree.items():
        here = at / path.removeprefix(f"{root}/")
        if content is None:
            here.mkdir()
        else:
            here.write_bytes(content)


def without_folder_flushes(operations: Sequence[Operation], root: str) -> list[Operation]:
    """The same work of a process that never flushes a folder."""
    folders = {root} | {change.path for change in operations if isinstance(change, Create) and change.is_folder}
    # A flush is replaced, not left out: the others count operations.
    return [Said("") if isinstance(done, Flush) and done.path in folders else done for done in operations]
