"""The file uplink: whole lines, on the disk before the receipt, and nothing torn left behind."""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from gateway.batch import decode, encode
from gateway.errors import UplinkError
from gateway.model import Receipt
from gateway.uplinks import file
from tests.platforms import nothing, platform, running, telemetry

if TYPE_CHECKING:
    from collections.abc import Iterator


def uplink(path: Path, **keys: str) -> file.Uplink:
    return file.Uplink(platform(file, {"path": str(path)} | keys))


async def test_one_batch_a_line(tmp_path: Path) -> None:
    path = tmp_path / "away.jsonl"
    batches = [telemetry(1 + 50 * n) for n in range(20)]
    up = uplink(path)
    async with running(up), asyncio.TaskGroup() as group:
        sent = [group.create_task(up.send(batch)) for batch in batches]
    assert [task.result() for task in sent] == [Receipt("9f2c", (batch.span,)) for batch in batches]
    lines = path.read_bytes().splitlines()
    assert sorted(decode(line).span for line in lines) == [batch.span for batch in batches]
    assert path.stat().st_mode & 0o007 == 0, "readings are not for everybody"
    later = uplink(path)
    async with running(later):
        await later.send(telemetry(5001))
    assert path.read_bytes().splitlines()[:20] == lines


async def test_a_receipt_comes_after_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, batch = tmp_path / "away.jsonl", telemetry(1)
    synced: list[tuple[str, int]] = []
    fsync = os.fsync

    def watched(descriptor: int) -> None:
        synced.append((str(Path(f"/proc/self/fd/{descriptor}").readlink()), os.fstat(descriptor).st_size))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", watched)
    up = uplink(path)
    async with running(up):
        assert str(tmp_path) in {name for name, _ in synced}, "a new file's name is on the disk too"
        await up.send(batch)
        assert synced[-1] == (str(path), len(encode(batch)) + 1)


@pytest.mark.parametrize("whole", [0, 1, 2])
@pytest.mark.parametrize("torn", [b'{"v":1,"gw":"cab', b"x" * 200_000])
async def test_a_line_torn_by_a_power_cut_goes(tmp_path: Path, whole: int, torn: bytes) -> None:
    path = tmp_path / "away.jsonl"
    lines = [encode(telemetry(1 + 50 * n)) + b"\n" for n in range(whole)]
    path.write_bytes(b"".join(lines) + torn)
    up = uplink(path)
    async with running(up):
        assert path.read_bytes() == b"".join(lines)
        await up.send(telemetry(5001, count=1))
    assert path.read_bytes().splitlines()[:-1] == [line.rstrip(b"\n") for line in lines]


@contextmanager
def files_up_to(size: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


async def test_a_write_that_fails_half_way_leaves_no_half_line(tmp_path: Path) -> None:
    path, up = tmp_path / "away.jsonl", uplink(tmp_path / "away.jsonl")
    async with running(up):
        await up.send(telemetry(1))
        before = path.read_bytes()
        with files_up_to(len(before) + 100), pytest.raises(UplinkError, match="cannot be written"):
            await up.send(telemetry(51))
        assert path.read_bytes() == before
        assert await up.send(telemetry(51))
    assert [decode(line).span for line in path.read_bytes().splitlines()] == [(1, 50), (51, 100)]


async def test_a_full_disk_is_said(tmp_path: Path) -> None:
    up = uplink(Path("/dev/full"))
    async with running(up):
        with pytest.raises(UplinkError, match=r"^The disk that holds /dev/full is full\. Free some space\.$"):
            await up.send(telemetry(1))


async def test_why_it_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(UplinkError, match=rf"^The folder {tmp_path}/gone is not there"):
        await uplink(tmp_path / "gone" / "away.jsonl").run(nothing)
    with pytest.raises(UplinkError, match="Is a directory"):
        await uplink(tmp_path).run(nothing)
    with pytest.raises(UplinkError, match=r"^/proc/version (may not|cannot) be written"):
        await uplink(Path("/proc/version")).run(nothing)


async def test_a_file_that_was_taken_away_is_begun_anew(tmp_path: Path) -> None:
    path, up = tmp_path / "away.jsonl", uplink(tmp_path / "away.jsonl")
    async with running(up):
        await up.send(telemetry(1))
        shutil.move(path, tmp_path / "stick.jsonl")
        await up.send(telemetry(51))
    assert decode(path.read_bytes()).span == (51, 100)
    assert decode((tmp_path / "stick.jsonl").read_bytes()).span == (1, 50)


def files(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


def spans(path: Path) -> list[tuple[int, int]]:
    return [decode(line).span for line in path.read_bytes().splitlines()]


async def test_no_file_grows_beyond_its_size_and_the_oldest_goes(tmp_path: Path) -> None:
    """Three files of two batches each: of nine batches, the newest five or six are there, each once and in order."""
    path, batches = tmp_path / "away.jsonl", [telemetry(1 + 50 * n) for n in range(9)]
    size = max(len(encode(batch)) + 1 for batch in batches) * 2
    up = uplink(path, size=f"{size} B", files="3")
    async with running(up):
        for batch in batches:
            await up.send(batch)
    oldest_first = [tmp_path / "away.jsonl.2", tmp_path / "away.jsonl.1", path]
    assert files(tmp_path) == sorted(oldest_first)
    assert all(file.stat().st_size <= size for file in oldest_first)
    held = [span for file in oldest_first for span in spans(file)]
    assert held == [batch.span for batch in batches[4:]]


async def test_a_batch_larger_than_a_file_has_one_to_itself(tmp_path: Path) -> None:
    path = tmp_path / "away.jsonl"
    up = uplink(path, size="100 B", files="2")
    async with running(up):
        for first in (1, 51, 101):
            await up.send(telemetry(first))
    assert (spans(tmp_path / "away.jsonl.1"), spans(path)) == ([(51, 100)], [(101, 150)])


@pytest.mark.parametrize("missing", [1, 2, 3])
async def test_a_place_that_is_free_is_filled_before_anything_is_removed(tmp_path: Path, missing: int) -> None:
    """Somebody has taken a file away, or a power cut came between two renames."""
    path = tmp_path / "away.jsonl"
    up = uplink(path, size="100 B", files="4")
    async with running(up):
        for n in range(4):
            await up.send(telemetry(1 + 50 * n))
        taken = tmp_path / f"away.jsonl.{missing}"
        gone = spans(taken)
        taken.unlink()
        await up.send(telemetry(201))
    held = sorted(span for file in files(tmp_path) for span in spans(file))
    assert held == sorted({(1, 50), (51, 100), (101, 150), (151, 200), (201, 250)} - set(gone))
    assert spans(path) == [(201, 250)]


async def test_one_file_alone_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "away.jsonl"
    up = uplink(path, size="100 B", files="1")
    async with running(up):
        await up.send(telemetry(1))
        await up.send(telemetry(51))
    assert files(tmp_path) == [path]
    assert spans(path) == [(51, 100)]
