"""Batches as JSON lines in files of bounded size: one batch a line, on the disk before its receipt.

For commissioning without a platform, and for carrying readings away on a stick. Lines are the same JSON
that goes over MQTT and HTTP; every line stands alone. A full file becomes `path.1`, that one `path.2`, and so on.
"""

import asyncio
import errno
import os
import threading
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import structlog
from pydantic import Field

from gateway.batch import Batch, encode
from gateway.durable import flush_names
from gateway.errors import UplinkError
from gateway.fields import Size, Whole
from gateway.model import Receipt
from gateway.ports import Platform, Receive
from gateway.uplinks import UplinkKeys, beating

log = structlog.get_logger()


class Settings(UplinkKeys):
    """An uplink into `files` files of `size` at most, `path` the newest; whoever wants to keep them moves them away."""

    path: Path
    size: Size = 16 * 1024 * 1024
    """No file grows beyond it."""
    files: Annotated[Whole, Field(ge=1, le=1000)] = 16
    """Beyond these the oldest is removed: nobody has taken it away, and the disk is not only ours."""


class Uplink:
    """A `gateway.ports.Uplink` that appends to `path`. It takes no commands."""

    window = 1

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        settings: Settings = platform.settings
        self._path, self._size = settings.path, settings.size
        self._names = [self._path, *(Path(f"{self._path}.{number}") for number in range(1, settings.files))]
        self._open = asyncio.Event()
        # A lock of the threads, not of the tasks: a cancelled task leaves its thread writing.
        self._turn = threading.Lock()

    async def ready(self) -> None:
        """Return as soon as batches can be sent."""
        await self._open.wait()

    async def run(self, receive: Receive) -> None:  # noqa: ARG002 - a file gives no commands
        """Until cancelled. UplinkError where the file cannot be written."""
        await self._write(b"")
        with beating(self._platform):
            self._open.set()
            try:
                await asyncio.Event().wait()
            finally:
                self._open.clear()

    async def send(self, batch: Batch) -> Receipt:
        """Append and fsync. UplinkError: the file holds no part of the batch."""
        await self._write(encode(batch) + b"\n")
        return Receipt(batch.epoch, (batch.span,))

    async def _write(self, line: bytes) -> None:
        try:
            await asyncio.to_thread(self._append, line)
        except OSError as error:
            raise UplinkError(_why(error, self._path)) from None

    def _append(self, line: bytes) -> None:
        with self._turn:
            if self._is_full(len(line)):
                self._shift()
            is_new = not self._path.exists()
            flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
            descriptor = os.open(self._path, flags, 0o640)
            try:
                end = _whole_lines(descriptor)
                try:
                    _write_all(descriptor, line)
                    if line:
                        os.fsync(descriptor)
                except OSError:
                    # Where even this fails, the next turn cuts the torn line off.
                    with suppress(OSError):
                        os.ftruncate(descriptor, end)
                    raise
            finally:
                os.close(descriptor)
            if is_new:
                flush_names(self._path.parent)

    def _is_full(self, more: int) -> bool:
        try:
            size = self._path.stat().st_size
        except FileNotFoundError:
            return False
        return size > 0 and size + more > self._size

    def _shift(self) -> None:
        """Each file takes the place of the next older one, up to a place that is free: somebody took it away."""
        free = next((number for number, name in enumerate(self._names) if not name.exists()), None)
        if free is None:
            free = len(self._names) - 1
            log.warning("oldest_batches_removed", uplink=self._platform.name, file=str(self._names[free]))
            self._names[free].unlink()
        for number in range(free, 0, -1):
            self._names[number - 1].rename(self._names[number])
        flush_names(self._path.parent)


def _write_all(descriptor: int, line: bytes) -> None:
    rest = memoryview(line)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _whole_lines(descriptor: int) -> int:
    """The size of the file, less a last line that a power cut has torn: nobody was told that it is there."""
    size = end = os.lseek(descriptor, 0, os.SEEK_END)
    while end > 0:
        start = max(0, end - 65536)
        newline = os.pread(descriptor, end - start, start).rfind(b"\n")
        end = start + newline + 1
        if newline >= 0:
            break
    if end < size:
        os.ftruncate(descriptor, end)
    return end


def _why(error: OSError, path: Path) -> str:
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT:
            return f"The disk that holds {path} is full. Free some space."
        case errno.ENOENT:
            return f"The folder {path.parent} is not there. Make it, or correct `path`."
        case errno.EACCES | errno.EPERM:
            return f"{path} may not be written. Give the gateway's user the right to."
        case errno.EROFS:
            return f"The disk that holds {path} is read-only. Check it, or choose another `path`."
        case _:
            return f"{path} cannot be written: {error.strerror}. Check the disk."
