"""What a process did to a folder, in order, as strace saw it: every change of the disk, every flush, every promise."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

_CALLS = (
    "openat,open,creat,write,pwrite64,writev,pwritev,pwritev2,fsync,fdatasync,sync_file_range,rename,renameat,"
    "renameat2,unlink,unlinkat,ftruncate,truncate,fallocate,mkdir,mkdirat,rmdir,link,linkat,symlink,symlinkat,mmap,"
    "copy_file_range,sendfile,splice"
)
_LINE = re.compile(r"(\d+) +(.*)")
_RESUMED = re.compile(r"<\.\.\. \w+ resumed>(.*)", re.DOTALL)
_CALL = re.compile(r"(\w+)\((.*)\)\s+= (-?\d+)", re.DOTALL)
_FD = r"\d+<([^>]*)>"
_TEXT = r'"((?:\\x[0-9a-f]{2})*)"'


@dataclass(frozen=True, slots=True)
class Create:
    path: str
    is_folder: bool = False


@dataclass(frozen=True, slots=True)
class Rename:
    path: str
    to: str


@dataclass(frozen=True, slots=True)
class Unlink:
    path: str


@dataclass(frozen=True, slots=True)
class Write:
    path: str
    offset: int
    content: bytes


@dataclass(frozen=True, slots=True)
class Truncate:
    """Cut or stretch to `size`; one that only stretches is `fallocate`."""

    path: str
    size: int
    only_stretches: bool = False


@dataclass(frozen=True, slots=True)
class Flush:
    """fsync or fdatasync came back: what was written to `path` before operation `began` is on the disk."""

    path: str
    began: int


@dataclass(frozen=True, slots=True)
class Said:
    line: str


Operation: TypeAlias = Create | Rename | Unlink | Write | Truncate | Flush | Said


def record(root: Path, trace: Path, *program: str | Path) -> list[Operation]:
    """Run a Python program (`"-m", module, words…`) and return what it did to what is under `root`, and said."""
    command: list[str | Path] = [
        "strace",
        "-f",
        "-y",
        "-xx",
        "-s",
        "10000000",
        "--seccomp-bpf",
        "-e",
        f"trace={_CALLS}",
        "-o",
        trace,
    ]
    command += [sys.executable, "-B", *program]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{done.stderr}\n{done.stdout[-2000:]}")
    operations = list(read(trace, str(root)))
    said = [operation.line for operation in operations if isinstance(operation, Said)]
    assert said == done.stdout.splitlines(), "the trace has every line that was said, in order"
    return operations


def read(trace: Path, root: str) -> Iterator[Operation]:
    """The operations under `root`. NotImplementedError: a call that this model does not know touched it."""
    reader = _Reader(root)
    with trace.open() as lines:
        for line in lines:
            if match := _LINE.fullmatch(line.rstrip("\n")):
                reader.take(int(match[1]), match[2])
    yield from reader.operations


class _Reader:
    """A promise counts from the moment its call began, a flush for what was written before its own began."""

    def __init__(self, root: str) -> None:
        self.operations: list[Operation] = []
        self._root = root
        self._sizes: dict[str, int] = {}
        self._begun: dict[int, tuple[str, int]] = {}

    def take(self, thread: int, text: str) -> None:
        if text.endswith("<unfinished ...>"):
            self._begun[thread] = (text.removesuffix("<unfinished ...>"), len(self.operations))
            if text.startswith("write(1<"):
                self._say(_content(text))
            return
        began = len(self.operations)
        if match := _RESUMED.match(text):
            head, began = self._begun.pop(thread)
            if head.startswith("write(1<"):
                return
            text = head + match[1]
        if not (match := _CALL.match(text)):
            return
        name, arguments, result = match[1], match[2], int(match[3])
        if result >= 0:
            self._done(name, arguments, result, began)

    def _done(self, name: str, arguments: str, result: int, began: int) -> None:
        match name:
            case "write" if re.match(r"1<", arguments):
                self._say(_content(arguments))
            case "openat":
                _, path, flags = _open_arguments(arguments)
                if self._ours(path) and "O_CREAT" in flags and path not in self._sizes:
                    self._create(path)
                if self._ours(path) and "O_TRUNC" in flags:
                    self._truncate(path, 0)
            case "write" | "pwrite64":
                path = _of_descriptor(arguments)
                if self._ours(path):
                    content = _content(arguments)[:result]
                    offset = int(arguments.rsplit(", ", 1)[1]) if name == "pwrite64" else self._sizes[path]
                    self.operations.append(Write(path, offset, content))
                    self._sizes[path] = max(self._sizes[path], offset + len(content))
            case "fsync" | "fdatasync":
                path = _of_descriptor(arguments)
                if self._ours(path):
                    self.operations.append(Flush(path, began))
            case "ftruncate":
                path = _of_descriptor(arguments)
                if self._ours(path):
                    self._truncate(path, int(arguments.rsplit(", ", 1)[1]))
            case "fallocate":
                path = _of_descriptor(arguments)
                if self._ours(path):
                    _, mode, offset, length = arguments.rsplit(", ", 3)
                    if mode != "0":
                        raise NotImplementedError(f"fallocate({arguments})")
                    self.operations.append(Truncate(path, int(offset) + int(length), only_stretches=True))
            case "mkdir":
                path = _texts(arguments)[0]
                if self._ours(path):
                    self.operations.append(Create(path, is_folder=True))
            case "unlink":
                path = _texts(arguments)[0]
                if self._ours(path):
                    self.operations.append(Unlink(path))
                    del self._sizes[path]
            case "rename":
                path, to = _texts(arguments)
                if self._ours(path) or self._ours(to):
                    self.operations.append(Rename(path, to))
                    self._sizes[to] = self._sizes.pop(path)
            case "mmap" if "MAP_PRIVATE" in arguments or "PROT_WRITE" not in arguments:
                pass
            case _ if any(map(self._ours, [*_texts(arguments), *_descriptors(arguments)])):
                raise NotImplementedError(f"{name}({arguments[:300]})")

    def _ours(self, path: str) -> bool:
        return path == self._root or path.startswith(f"{self._root}/")

    def _say(self, content: bytes) -> None:
        self.operations += [Said(line) for line in content.decode().splitlines()]

    def _create(self, path: str) -> None:
        self.operations.append(Create(path))
        self._sizes[path] = 0

    def _truncate(self, path: str, size: int) -> None:
        self.operations.append(Truncate(path, size))
        self._sizes[path] = size


def _plain(text: str) -> str:
    return os.fsdecode(bytes.fromhex(text.replace("\\x", "")))


def _descriptors(arguments: str) -> Sequence[str]:
    return [_plain(path) for path in re.findall(_FD, arguments) if path.startswith("\\x")]


def _of_descriptor(arguments: str) -> str:
    match = re.match(_FD, arguments)
    return _plain(match[1]) if match and match[1].startswith("\\x") else ""


def _texts(arguments: str) -> Sequence[str]:
    return [_plain(text) for text in re.findall(_TEXT, arguments)]


def _content(arguments: str) -> bytes:
    match = re.search(_TEXT, arguments)
    assert match, arguments[:200]
    return bytes.fromhex(match[1].replace("\\x", ""))


def _open_arguments(arguments: str) -> tuple[str, str, str]:
    match = re.match(rf"(?:AT_FDCWD|\d+)<([^>]*)>, {_TEXT}, (.*)", arguments)
    assert match, arguments[:200]
    folder = _plain(match[1])
    return folder, os.path.join(folder, _plain(match[2])), match[3]  # noqa: PTH118 - a path of the trace, not ours
