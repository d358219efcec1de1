#!/usr/bin/env python3
"""What the buffer costs: bytes and flushes on the device per commit, CPU per reading, readings/s of many producers.

    python bench/buffer.py            as root, bytes and flushes are counted on an ext4 of its own (loop device)
    python bench/buffer.py --here     without it: CPU and rates only, in the temporary folder

Aims: 7 KB a commit of one reading, 13 KB of 100, 1.1 flushes a commit, 3 us CPU a reading, 100,000 readings/s.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.buffer import Buffer
from gateway.clock import SystemClock
from gateway.model import Lane, Point, Reading, Receipt

if TYPE_CHECKING:
    from collections.abc import Iterator

POINTS = [Point(f"here/feeder/p{n}", "power_active", "W") for n in range(500)]
COMMITS = 300
SECTOR = 512


@contextmanager
def own_disk(folder: Path) -> Iterator[tuple[Path, Path]]:
    """(mount point, its device's `stat` in /sys) of a fresh ext4."""
    image, mount = folder / "image", folder / "mount"
    mount.mkdir()
    with image.open("wb") as file:
        file.truncate(512 * 1024 * 1024)
    subprocess.run(["mkfs.ext4", "-q", "-F", image], check=True)
    loop = subprocess.run(["losetup", "-f", "--show", image], check=True, capture_output=True, text=True).stdout.strip()
    try:
        subprocess.run(["mount", "-o", "noatime", loop, mount], check=True)
        try:
            yield mount, Path("/sys/block") / Path(loop).name / "stat"
        finally:
            subprocess.run(["umount", mount], check=True)
    finally:
        subprocess.run(["losetup", "-d", loop], check=True)


def counters(stat: Path) -> tuple[int, int]:
    """(bytes written, flushes) since the device is there."""
    fields = [int(field) for field in stat.read_text().split()]
    return fields[6] * SECTOR, fields[15]


async def opened(folder: Path) -> Buffer:
    buffer = Buffer(folder, "bench", SystemClock(trusted=True), commit_every=3600)
    await buffer.open()
    buffer.know(POINTS)
    for lane in buffer.lanes.values():
        await lane.enrol({"city": "oldest"})
    return buffer


async def commits(folder: Path, size: int, stat: Path | None) -> str:
    """Append and settle `size` readings a commit, as a steady gateway does."""
    buffer = await opened(folder / f"by-{size}")
    lane = buffer.lanes[Lane.TELEMETRY]
    async with asyncio.TaskGroup() as tasks:
        writer = tasks.create_task(buffer.run())
        for _ in range(2):
            given = [
                [Reading(point.id, 2310.5 + n, n * 1000 + place) for place, point in enumerate(POINTS[:size])]
                for n in range(COMMITS)
            ]
            os.sync()
            before, cpu = counters(stat) if stat else (0, 0), time.process_time()
            for readings in given:
                await buffer.emit(readings)
                await lane.flush()
                lane.settle("city", Receipt(lane.epoch, ((lane.committed - size + 1, lane.committed),)))
        cpu = (time.process_time() - cpu) / COMMITS
        after = counters(stat) if stat else (0, 0)
        writer.cancel()
    await buffer.close()
    line = f"{size:4} readings a commit: {cpu * 1e6 / size:7.2f} us CPU a reading"
    if stat:
        line += (
            f", {(after[0] - before[0]) / COMMITS:8,.0f} B and {(after[1] - before[1]) / COMMITS:.2f} flushes a commit"
        )
    return line


async def producers(folder: Path, count: int = 100, calls: int = 20, size: int = 100) -> str:
    """Readings/s of `count` producers, each waiting until what it gave is on the disk."""
    buffer = await opened(folder / "producers")
    readings = [Reading(point.id, 2310.5, 1000) for point in POINTS[:size]]

    async def produce() -> None:
        for _ in range(calls):
            await buffer.emit(readings, lane=Lane.BILLING)

    async with asyncio.TaskGroup() as tasks:
        writer = tasks.create_task(buffer.run())
        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for _ in range(count):
                group.create_task(produce())
        took = time.monotonic() - began
        writer.cancel()
    await buffer.close()
    return f"{count} producers of {size} each: {count * calls * size / took:,.0f} readings/s, each on the disk"


async def measure(folder: Path, stat: Path | None) -> None:
    for size in (1, 100, 500):
        print(await commits(folder, size, stat), flush=True)
    print(await producers(folder), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--here", action="store_true", help="no disk of its own")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if args.here or os.geteuid() != 0:
            asyncio.run(measure(Path(folder), None))
            return
        with own_disk(Path(folder)) as (mount, stat):
            asyncio.run(measure(mount, stat))


if __name__ == "__main__":
    main()
