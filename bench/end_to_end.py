"""From poll to acknowledged delivery: what a reading costs, as the number of devices grows.

Real parts: Modbus TCP devices in a process of their own, the gateway as `lampione run` with its buffer on
disk, Mosquitto, and the reference receiver, whose acknowledgements (after its commit) end each reading's way.
Only the gateway's process is measured. Where root allows, its state lies on an ext4 file system of its own
on a loop device, so that device bytes include journal and metadata.

    python3 dev.py bench end_to_end [--seconds 20] [--only 10,50]
"""

import argparse
import asyncio
import compileall
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from gateway.cli import street
from gateway.cli.stage import Stage
from gateway.site import Credentials

ROOT = Path(__file__).resolve().parent.parent
POINTS = 20
TICK = os.sysconf("SC_CLK_TCK")
PAGE_SIZE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Street:
    """What to run: Modbus devices of 20 float32 each, `every` 1 s; the page; chargers and an air sensor beside them."""

    devices: int
    page: bool = False
    all_protocols: bool = False

    @property
    def name(self) -> str:
        return (
            f"{self.devices} devices x {POINTS}"
            + (", page" if self.page else "")
            + (", 3 protocols + page" if self.all_protocols else "")
        )


STREETS = (
    Street(10),
    Street(25),
    Street(50),
    Street(200),
    Street(10, page=True),
    Street(10, page=True, all_protocols=True),
)


PROFILE = """\
profile: bench-meter/1
driver: modbus
kind: meter
source: bench/end_to_end.py
address_base: wire
defaults: {fc: 4, type: f32, word_order: big}
line: {max_regs: 120, pairs: true}
points:
"""
EXAMPLES = "examples:\n  - regs: {4: {0: [0x45E1, 0]}}\n    expect: {v0: 7200 W}\n"
OTHER_LINKS = """\
  air: {driver: serial, port: /dev/ttyUSB0}
  cs: {driver: ocpp, listen: "127.0.0.1:0", security: 1, tags: secret}
"""
OTHER_ASSETS = """\
  lp-1: {devices: {pm: {link: air, profile: nova-sds011}}}
  cp-1: {devices: {evse: {link: cs, key: secret}}}
"""


def write_site(stage: Stage, what: Street) -> None:
    (stage.folder / "profiles").mkdir()
    points = "".join(f"  v{n}: {{addr: {2 * n}, quantity: power_active, unit: W}}\n" for n in range(POINTS))
    (stage.folder / "profiles" / "bench-meter.yaml").write_text(PROFILE + points + EXAMPLES)
    credentials = Credentials(stage.folder / "secrets")
    credentials.write("uplinks.city.password", stage.password)
    credentials.write("page.token", secrets.token_hex(16))
    credentials.write("links.cs.tags", "\n".join(street.TAGS))
    credentials.write("cp-1.evse.key", secrets.token_hex(10))
    meters = "".join(
        f"      m{n}: {{link: line, profile: bench-meter, address: {n}, every: 1s}}\n"
        for n in range(1, what.devices + 1)
    )
    others = what.all_protocols
    stage.site.write_text(
        f"version: 1\ngateway: {{id: {street.GATEWAY}, tenant: {street.TENANT}, clock: trusted}}\n"
        + ('page: {listen: "127.0.0.1:0", token: secret}\n' if what.page else "")
        + "links:\n  line: {driver: modbus, host: 127.0.0.1, port: 502}\n"
        + (OTHER_LINKS if others else "")
        + f'uplinks:\n  city: {{uplink: mqtt, url: "{stage.url}", username: {street.GATEWAY}, password: secret}}\n'
        + f"assets:\n  here:\n    devices:\n{meters}"
        + (OTHER_ASSETS if others else "")
    )


@contextmanager
def own_disk(folder: Path) -> Iterator[tuple[Path, str | None]]:
    """A folder on an ext4 of its own and the block device's name; without root, a plain folder and None."""
    mount = folder / "disk"
    mount.mkdir()
    image = folder / "disk.img"
    with image.open("wb") as file:
        file.truncate(256 * 1024 * 1024)
    mkfs, mounted = shutil.which("mkfs.ext4") or "/usr/sbin/mkfs.ext4", False
    if os.geteuid() == 0 and Path(mkfs).exists():
        subprocess.run([mkfs, "-q", str(image)], check=True)
        mounted = subprocess.run(["mount", "-o", "loop,noatime", str(image), str(mount)], check=False).returncode == 0
    device = None
    if mounted:
        device = Path(f"/sys/dev/block/{os.major(mount.stat().st_dev)}:{os.minor(mount.stat().st_dev)}").resolve().name
    try:
        yield mount, device
    finally:
        if mounted:
            subprocess.run(["umount", str(mount)], check=True)


def device_bytes(device: str | None) -> int | None:
    """Bytes written to a block device so far (Documentation/block/stat.rst: the seventh field, in sectors of 512)."""
    if device is None:
        return None
    os.sync()
    return int(Path(f"/sys/block/{device}/stat").read_text().split()[6]) * 512


def cpu_seconds(pid: int) -> float:
    """Of all threads, to the nanosecond where the kernel tells (sched-stats.rst), else by ticks, which miss much."""
    threads = Path(f"/proc/{pid}/task").glob("*/schedstat")
    nanoseconds = sum(int(thread.read_text().split()[0]) for thread in threads)
    if nanoseconds:
        return nanoseconds / 1e9
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def rss_mb(pid: int) -> float:
    """Resident memory as ps and systemd count it: 1 MB = 1024 kB."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_SIZE / 1024**2


async def measure(what: Street, seconds: float) -> dict[str, object]:
    with tempfile.TemporaryDirectory(prefix="lampione-bench-") as name, own_disk(Path(name)) as (disk, device):
        async with Stage(Path(name), state=disk / "state") as stage:
            write_site(stage, what)
            await stage.simulate()
            return await on_the_street(stage, what, seconds, device)


async def floor(devices: int, seconds: float) -> dict[str, object]:
    """The bare script of bench/_floor.py on the same devices and disk: a lower limit, not a gateway."""
    with tempfile.TemporaryDirectory(prefix="lampione-bench-") as name, own_disk(Path(name)) as (disk, device):
        async with Stage(Path(name), state=disk / "state") as stage:
            write_site(stage, Street(devices))
            await stage.simulate()
            line = json.loads(stage.running.read_text())["links"]["line"]
            script = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "bench._floor", str(line["port"]), str(devices),
                str(stage.broker.port), street.GATEWAY, stage.password, str(disk / "floor.sqlite"),
            )  # fmt: skip
            try:
                await asyncio.sleep(5)
                spent, written = cpu_seconds(script.pid), device_bytes(device)
                await asyncio.sleep(seconds)
                spent, after = cpu_seconds(script.pid) - spent, device_bytes(device)
                settled = devices * POINTS * seconds
                return {
                    "street": f"bare script, {devices} x {POINTS}",
                    "cpu_s_per_1000": round(spent / settled * 1000, 4),
                    "readings_per_s": devices * POINTS,
                    "rss_mb": round(rss_mb(script.pid), 1),
                    "device_bytes_per_reading": None
                    if after is None or written is None
                    else round((after - written) / settled, 1),
                    "first_delivered_s": None,
                    "missing": 0,
                }
            finally:
                script.terminate()
                await script.wait()


async def delivery(stage: Stage) -> None:
    """Wait for the next batch, so that a window has whole ones."""
    before = stage.platform.counts.records
    while stage.platform.counts.records == before:  # noqa: ASYNC110 - the platform has no event for it
        await asyncio.sleep(0.01)


async def on_the_street(stage: Stage, what: Street, seconds: float, device: str | None) -> dict[str, object]:
    loop = asyncio.get_running_loop()
    began = loop.time()
    await stage.run(page=False)
    assert stage.gateway
    pid = stage.gateway.pid
    await stage.until(lambda: sum(row.delivered for row in stage.platform.per_device()) > 0)
    first = loop.time() - began
    await asyncio.sleep(5)
    await delivery(stage)
    spent, written = cpu_seconds(pid), device_bytes(device)
    settled, start = stage.platform.counts.records, loop.time()
    await asyncio.sleep(seconds)
    await delivery(stage)
    spent, took = cpu_seconds(pid) - spent, loop.time() - start
    settled, after = stage.platform.counts.records - settled, device_bytes(device)
    return {
        "street": what.name,
        "cpu_s_per_1000": round(spent / settled * 1000, 4),
        "readings_per_s": round(settled / took),
        "rss_mb": round(rss_mb(pid), 1),
        "device_bytes_per_reading": None if after is None or written is None else round((after - written) / settled, 1),
        "first_delivered_s": round(first, 2),
        "missing": sum(row.missing for row in stage.platform.report()),
    }


def unit_environment() -> list[str]:
    unit = (ROOT / "systemd" / "lampione.service").read_text().splitlines()
    return [line.removeprefix("Environment=") for line in unit if line.startswith("Environment=")]


@contextmanager
def without_rich() -> Iterator[None]:
    """Hide rich, which a test dependency brings: structlog would import it, an installed gateway does not have it."""
    with tempfile.TemporaryDirectory(prefix="lampione-bench-") as name:
        (Path(name) / "rich.py").write_text("raise ImportError\n")
        os.environ["PYTHONPATH"] = os.pathsep.join((name, *filter(None, [os.environ.get("PYTHONPATH")])))
        yield


HEADS = (
    "street", "cpu_s_per_1000", "readings_per_s", "rss_mb", "device_bytes_per_reading", "first_delivered_s", "missing",
)  # fmt: skip


def line(cells: Iterable[object]) -> str:
    widths = (36, *(len(head) for head in HEADS[1:]))
    return "  ".join(
        ("n/a" if cell is None else str(cell)).rjust(width) for cell, width in zip(cells, widths, strict=True)
    )


def show(row: dict[str, object], rows: list[dict[str, object]], *, as_json: bool) -> None:
    rows.append(row)
    if not as_json:
        print(line(row[head] for head in HEADS), flush=True)


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--seconds", type=float, default=20.0, help="length of each measured window (20)")
    options.add_argument("--only", help="streets by number of devices, like 10,50")
    options.add_argument("--json", action="store_true")
    args = options.parse_args()
    # As an installed gateway is: compiled, and started with the environment of its unit.
    for package in ("gateway", "drivers"):
        compileall.compile_dir(ROOT / package, quiet=2)
    os.environ |= dict(word.split("=") for word in re.findall(r"\S+=\S+", " ".join(unit_environment())))
    wanted = {int(word) for word in args.only.split(",")} if args.only else None
    rows: list[dict[str, object]] = []
    if not args.json:
        print(line(HEADS))
    with without_rich():
        for what in STREETS:
            if wanted is None or what.devices in wanted:
                if not (what.page or what.all_protocols):
                    show(asyncio.run(floor(what.devices, args.seconds)), rows, as_json=args.json)
                show(asyncio.run(measure(what, args.seconds)), rows, as_json=args.json)
    if args.json:
        print(json.dumps(rows, indent=1))
    return 1 if any(row["missing"] for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
