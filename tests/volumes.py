"""A file system of its own on a loop device, whose power can be cut. For root only."""

import fcntl
import os
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

_SHUTDOWN = 0x8004587D
"""EXT4_IOC_SHUTDOWN of the kernel's fs/ext4/ext4.h: _IOR('X', 125, __u32)."""
_NO_LOG_FLUSH = 2
"""EXT4_GOING_FLAGS_NOLOGFLUSH: not even the journal is written, as if the power were cut."""


class Volume:
    """An ext4, mounted at `top`."""

    def __init__(self, folder: Path, megabytes: int) -> None:
        self.top = folder / "volume"
        self._image = folder / "volume.img"
        self._device = ""
        self.top.mkdir()
        with self._image.open("wb") as image:
            image.truncate(megabytes * 1024 * 1024)

    def make(self) -> None:
        _run("mkfs.ext4", "-q", "-F", "-m", "0", "-b", "1024", "-J", "size=2", str(self._image))
        self._mount()

    def restart(self) -> None:
        """The power comes back: the file system is mounted anew, and replays its journal."""
        self.end()
        # A copy, because whoever has cloned our mount namespace meanwhile keeps the old device in use.
        copy = self._image.with_suffix(".copy")
        _run("cp", "--sparse=always", str(self._image), str(copy))
        copy.replace(self._image)
        self._mount()

    def _mount(self) -> None:
        self._device = _run("losetup", "--find", "--show", str(self._image))
        _run("mount", "-t", "ext4", "-o", "noatime,errors=remount-ro", self._device, str(self.top))

    def remount(self, options: str) -> None:
        _run("mount", "-o", f"remount,{options}", str(self.top))

    def cut_power(self) -> None:
        """From now on nothing reaches the disk; what is not there yet never will."""
        descriptor = os.open(self.top, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.ioctl(descriptor, _SHUTDOWN, struct.pack("I", _NO_LOG_FLUSH))
        finally:
            os.close(descriptor)

    def fail(self) -> None:
        """The kernel finds the file system broken, and makes it read-only under whoever writes."""
        Path(f"/sys/fs/ext4/{Path(self._device).name}/trigger_fs_error").write_text("1")

    def fill(self) -> Path:
        """A stranger's file that takes all the room there is."""
        stranger = self.top / "stranger"
        with stranger.open("wb", buffering=0) as file:
            for size in (65536, 1024):
                with suppress(OSError):
                    while file.write(bytes(size)):
                        pass
        os.sync()
        return stranger

    def leave(self, stranger: Path, room: int) -> None:
        """Let the stranger give so many bytes back."""
        with stranger.open("r+b") as file:
            file.truncate(stranger.stat().st_size - room)
        os.sync()

    def end(self) -> None:
        if self.top.is_mount():
            subprocess.run(["umount", "--lazy", self.top], check=False)
        if self._device:
            subprocess.run(["losetup", "--detach", self._device], check=False)


@contextmanager
def volume(folder: Path, megabytes: int) -> Iterator[Volume]:
    """A fresh volume, or a skip that says why there can be none."""
    if os.geteuid() != 0:
        pytest.skip("needs root: it mounts a file system of its own")
    volume = Volume(folder, megabytes)
    try:
        try:
            volume.make()
        except subprocess.CalledProcessError as error:
            pytest.skip(f"needs loop devices: {error.stderr}")
        yield volume
    finally:
        volume.end()


def _run(*words: str) -> str:
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()
