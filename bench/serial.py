"""What a serial frame costs: decoded per second on one core, and per frame as the number of ports grows.

The first table feeds bytes as they come over a wire (64 at a time) through framing and decoding of shipped profiles.
The second runs the driver on real ptys, one sensor each; another process sends the same total of frames whatever the
number of ports, and only the gateway's side is measured.

    python3 dev.py bench serial [--seconds 5]
"""

import argparse
import asyncio
import gc
import os
import resource
import sys
import time
import tty
from collections.abc import Mapping, Sequence

from drivers.serial import DeviceSettings, Profile, Settings, points
from drivers.serial.codec import Codec
from drivers.serial.driver import Driver
from drivers.serial.framing import Framer
from gateway import profile as profiles
from gateway.model import Device, Json, Lane, Record
from gateway.site.read import shipped_profiles
from gateway.testing import Recorder, make_link

SENSORS = (
    "nova-sds011", "plantower-pms5003", "sensirion-sps30", "tera-nextpm", "lufft-umb", "davis-vantage",
    "gill-windsonic", "vaisala-wxt530", "nmea-gnss", "omnipresense-ops24x", "sdi12-generic",
)  # fmt: skip
WANTED = 20_000
PORTS = (1, 4, 16, 64)
RATE = 3200
"""Frames per second, over all ports."""
FRAME = bytes.fromhex("aa c0 06 00 06 00 58 d9 3d ab")
SPEAK = """
import os, sys, time
fds, rate, frame = [int(fd) for fd in sys.argv[3:]], float(sys.argv[1]), bytes.fromhex(sys.argv[2])
for fd in fds:
    os.set_blocking(fd, False)
due = time.monotonic()
while True:
    for fd in fds:
        try:
            os.write(fd, frame)
        except BlockingIOError:
            pass
        due += 1 / rate
        time.sleep(max(0.0, due - time.monotonic()))
"""


def load(name: str) -> Profile:
    profile = profiles.load(shipped_profiles() / f"{name}.yaml", lambda _driver: Profile)
    assert isinstance(profile, Profile)
    return profile


def decoding(name: str, seconds: float) -> tuple[int, int, float]:
    """(bytes of a frame, values in it, frames per second of CPU)."""
    profile = load(name)
    codec, framer = Codec(profile), Framer(profile.frame)
    example = next(one for one in profile.examples if one.expect)
    stream = example.received * max(64, 4096 // len(example.received))
    chunks = [stream[at : at + 64] for at in range(0, len(stream), 64)]
    frames = values = 0
    gc.collect()
    began = time.process_time()
    while (used := time.process_time() - began) < seconds:
        for chunk in chunks:
            for frame in framer.feed(chunk):
                frames += 1
                values = len(codec.read(frame).samples)
    return len(example.received), values, frames / used


class Counting(Recorder):
    """An emit that only counts."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    async def __call__(
        self, records: Sequence[Record], *, lane: Lane = Lane.TELEMETRY, state: Mapping[str, Json] | None = None
    ) -> None:
        self.count += len(records)


async def on_ports(count: int, seconds: float) -> tuple[float, float]:
    """(frames per second that came, CPU microseconds of each)."""
    profile = load("nova-sds011")
    emit, masters, drivers = Counting(), [], []
    for number in range(count):
        master, slave = os.openpty()
        tty.setraw(slave)
        masters.append(master)
        device_id = f"lp-{number}/pm"
        settings = DeviceSettings.model_validate({"link": "air", "profile": "nova-sds011"})
        device = Device(device_id, points(device_id, profile, settings), settings=settings, profile=profile)
        link = make_link(Settings.model_validate({"driver": "serial", "port": os.ttyname(slave)}), [device], emit)
        drivers.append(Driver(link))
        os.close(slave)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(driver.run(emit)) for driver in drivers]
        await asyncio.sleep(1.0 + count / 16)
        words = [sys.executable, "-c", SPEAK, str(RATE), FRAME.hex(), *map(str, masters)]
        speaker = await asyncio.create_subprocess_exec(*words, pass_fds=masters)
        await asyncio.sleep(1.0)
        before, told = resource.getrusage(resource.RUSAGE_SELF), emit.count
        await asyncio.sleep(seconds)
        after, told = resource.getrusage(resource.RUSAGE_SELF), emit.count - told
        speaker.kill()
        await speaker.wait()
        for task in tasks:
            task.cancel()
    for master in masters:
        os.close(master)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    frames = told / len(profile.points)
    return frames / seconds, 1e6 * used / max(frames, 1)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0, help="for each row (5)")
    seconds = parser.parse_args().seconds
    print("| sensor | bytes | values | frames/s decoded per core | |")
    print("|---|--:|--:|--:|---|")
    slow = 0
    for name in SENSORS:
        length, values, rate = decoding(name, seconds / 5)
        slow += rate < WANTED
        print(f"| {name} | {length} | {values} | {rate:,.0f} | {'' if rate >= WANTED else f'under {WANTED:,}'} |")
    print("\n| ports | frames/s | µs of CPU per frame, port to emit |\n|--:|--:|--:|")
    for count in PORTS:
        rate, cost = asyncio.run(on_ports(count, seconds))
        print(f"| {count} | {rate:,.0f} | {cost:.0f} |", flush=True)
    return 1 if slow else 0


if __name__ == "__main__":
    sys.exit(main())
