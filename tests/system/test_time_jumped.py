"""A street whose time jumps: outages, power cuts and clocks that are wrong at boot, for a day and for a week.

Everything is the real thing but the passing of time: the gateway on its site file, a Modbus meter and a charger over
loopback sockets, the reference receiver over HTTP. Each boot has a clock of its own that starts somewhere, drifts, and
is set late, or never. A power cut is the disk as it lay at that moment, and a gateway that starts on it.
"""

from __future__ import annotations

import asyncio
import gc
import os
import random
import shutil
import socket
import sqlite3
import tempfile
import time
from array import array
from collections import Counter
from contextlib import closing, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from drivers.modbus.emulator import Emulator as ModbusEmulator
from drivers.ocpp.emulator import Emulator as OcppEmulator
from gateway.app import Gateway
from gateway.clock import RealMachine, SystemClock
from gateway.model import Lane
from gateway.receiver import HttpIn, Receiver, report
from gateway.site import Credentials, resolver
from gateway.site.read import load as read_site
from gateway.steps import SetAlarm
from gateway.testing import JumpingLoop, LoopMachine

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.site import Site

HOUR, DAY = 3600.0, 86_400.0
YEARS_1970 = -2_531_779_200_000
SITE = """\
version: 1
gateway: {{id: cab-017, tenant: milan}}
buffer: {{commit_every: 1s}}
links:
  meters: {{driver: modbus, host: 127.0.0.1, port: {modbus}}}
  chargers: {{driver: ocpp, listen: "127.0.0.1:{ocpp}", security: 1, tags: secret}}
uplinks:
  city: {{uplink: http, url: "http://127.0.0.1:{city}", token: secret}}
  utility: {{uplink: http, url: "http://127.0.0.1:{utility}", token: secret, lanes: [telemetry], keep: {keep}}}
assets:
  here: {{devices: {{meter-1: {{link: meters, profile: eastron-sdm630, address: 1, every: 5min}}}}}}
  cp-1: {{fed_by: here/meter-1, devices: {{evse: {{link: chargers, profile: ocpp-generic, key: secret}}}}}}
"""
GATEWAY_TOKEN = "a-token-of-this-gateway"


@dataclass
class Story:
    """What happened, so that it can be compared with what the platform holds."""

    dice: random.Random
    scale: float
    """How long boots and outages last: 1 is hours."""
    true: dict[Lane, array[int]] = field(default_factory=lambda: {lane: array("q") for lane in Lane})
    """UTC of every accepted record, in the order of its lane's seqs."""
    boots: Counter[str] = field(default_factory=Counter)
    clocks: Counter[str] = field(default_factory=Counter)
    """Records by what the platform says of their time."""
    memory: list[int] = field(default_factory=list)
    """Bytes of this process after each boot."""


@pytest.fixture
def memory_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where there is such a place: a week of flushes to a disk is slow, and not what is tested."""
    try:
        folder = tempfile.TemporaryDirectory(dir="/dev/shm")
    except OSError:
        yield tmp_path
        return
    with folder as name:
        yield Path(name)


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


class Street:
    """The site, its emulated devices, and two platforms: `city` comes and goes, `utility` is dead to the end."""

    def __init__(self, folder: Path, story: Story) -> None:
        self.folder, self.story = folder, story
        self.modbus, self.ocpp, *self.platforms = free_ports(4)
        credentials = self.credentials = Credentials(folder / "secrets")
        for name in ("uplinks.city.token", "uplinks.utility.token"):
            credentials.write(name, GATEWAY_TOKEN)
        credentials.write("links.chargers.tags", "04A1B200\n04A1B201")
        credentials.write("cp-1.evse.key", "00112233445566778899")
        self.disks = 0

    def site(self) -> Site:
        path = self.folder / "site.yaml"
        city, utility = self.platforms
        keep = f"{max(2, round(30 * self.story.scale))} KB"
        path.write_text(SITE.format(modbus=self.modbus, ocpp=self.ocpp, city=city, utility=utility, keep=keep))
        return read_site(path)

    async def emulate(self, tasks: asyncio.TaskGroup) -> list[asyncio.Task[None]]:
        """The far ends, for the whole story."""
        site = self.site()
        meters, chargers = site.links["meters"], site.links["chargers"]
        emulated = ModbusEmulator(meters.settings, meters.devices, None)
        self.modbus = int((await emulated.start())["port"])
        secret = resolver(site, "links.chargers", self.credentials)
        called = OcppEmulator(chargers.settings, chargers.devices, f"127.0.0.1:{self.ocpp}", secret, pace=1 / 300)
        return [tasks.create_task(each.run()) for each in (emulated, called)]

    def platform(self, number: int) -> Receiver:
        where = HttpIn({"cab-017": GATEWAY_TOKEN}, port=self.platforms[number])
        return Receiver(self.folder / f"platform-{number}.sqlite", http=where)

    def boot(self, machine: LoopMachine) -> Gateway:
        gateway = Gateway(self.site(), self.disk, self.credentials, clock=SystemClock(machine))
        for lane in gateway.buffer.lanes.values():
            self._listen(gateway, lane.lane, machine)
        return gateway

    @property
    def disk(self) -> Path:
        folder = self.folder / f"disk-{self.disks}"
        folder.mkdir(exist_ok=True, mode=0o700)
        return folder

    def _listen(self, gateway: Gateway, name: Lane, machine: LoopMachine) -> None:
        """Note the true time of every record that is accepted, in order; what was not committed is forgotten again."""
        lane, known = gateway.buffer.lanes[name], self.story.true[name]
        append, open_ = lane.append, lane.open

        async def noted(records: Any, state: Any = None) -> None:
            known.extend(machine.true_at(record.at) for record in records)
            await append(records, state)

        async def opened() -> None:
            await open_()
            del known[lane.head - 1 :]

        lane.append, lane.open = noted, opened  # type: ignore[method-assign]

    async def fail(self, run: asyncio.Task[None]) -> None:
        """The power fails: what was on the disk is what the next boot finds."""
        loop = asyncio.get_running_loop()
        assert isinstance(loop, JumpingLoop)
        while loop._jobs:  # noqa: ASYNC110 - the loop counts its jobs, and tells nobody
            await asyncio.sleep(0)
        old = self.disk
        self.disks += 1
        shutil.copytree(old, self.disk, dirs_exist_ok=True, ignore=shutil.ignore_patterns("control.sock"))
        run.cancel()
        with suppress(asyncio.CancelledError):
            await run
        shutil.rmtree(old)


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


async def keep_time(machine: LoopMachine, dice: random.Random, reach: float, scale: float) -> None:
    """An NTP client: from `reach` seconds on it sets the clock every half hour, but while its network is away."""
    await asyncio.sleep(reach)
    while True:
        machine.synchronise()
        away = dice.random() < 0.05
        await asyncio.sleep(dice.uniform(2, 20) * HOUR * scale if away else 1800)


async def come_and_go(street: Street, dice: random.Random, scale: float) -> None:
    """The platform of the city: hours there, minutes to hours not."""
    while True:
        run = asyncio.create_task(street.platform(0).run())
        try:
            await asyncio.sleep(dice.uniform(2, 20) * HOUR * scale)
        finally:
            run.cancel()
            await asyncio.wait([run])
        await asyncio.sleep(dice.choice([60, 1200, 5 * HOUR * scale, 14 * HOUR * scale]))


async def live(street: Street, seconds: float) -> None:
    """Boot after boot, until the time is over."""
    loop, dice, story = asyncio.get_running_loop(), street.story.dice, street.story
    scale = story.scale
    ends = loop.time() + seconds
    while (left := ends - loop.time()) > 0:
        number = sum(story.boots.values())
        machine = LoopMachine(
            f"boot{number:04}",
            ahead=dice.choice([YEARS_1970, -3_600_000, -900_000, -40 * 86_400_000, 5 * 86_400_000]),
            drift=dice.uniform(-50, 50),
        )
        reach = dice.choice([5.0, 90.0, 1.5 * HOUR * scale, 30 * DAY])
        story.boots["never set" if reach > DAY else "set late" if reach > 90 else "set"] += 1
        clock = asyncio.create_task(keep_time(machine, dice, reach, scale))
        gateway = street.boot(machine)
        run = asyncio.create_task(gateway.run())
        lasts = min(left, dice.uniform(0.5, 16) * HOUR * scale)
        if dice.random() < 0.5:
            await asyncio.sleep(lasts / 2)
            machine.step(dice.choice([-3_600_000, 3_600_000, 400 * 86_400_000]))  # somebody sets it by hand
            await asyncio.sleep(lasts / 2)
        else:
            await asyncio.sleep(lasts)
        assert not run.done(), "a gateway never gives up"
        if dice.random() < 0.5:
            gateway.stop()
            await run
        else:
            await street.fail(run)
        clock.cancel()
        await asyncio.wait([clock])
        gc.collect()
        story.memory.append(resident())
        await asyncio.sleep(dice.uniform(1, 600))


async def settle(street: Street) -> None:
    """Both platforms are there, the devices are not asked any more, and the last boot has its time: all that waits
    goes out.
    """
    runs = [asyncio.create_task(street.platform(number).run()) for number in (0, 1)]
    machine = LoopMachine("thelast0")
    machine.synchronise()
    gateway = street.boot(machine)
    run = asyncio.create_task(gateway.run())
    async with asyncio.timeout(2 * HOUR):
        await asyncio.sleep(1200)
        gateway.stop()
        await run
    for each in runs:
        each.cancel()
    await asyncio.wait(runs)


class Row(NamedTuple):
    at: int
    clock: str
    error: int | None


def rows(path: Path) -> dict[Lane, dict[int, Row]]:
    """What a platform holds, by lane and seq."""
    found: dict[Lane, dict[int, Row]] = {lane: {} for lane in Lane}
    with closing(sqlite3.connect(path)) as db:
        for table in ("reading", "event"):
            query = f"SELECT lane, seq, time, clock, error FROM {table} JOIN stream ON stream.id = stream"  # noqa: S608
            for lane, seq, *row in db.execute(query):
                assert seq not in found[Lane(lane)], "the street has one epoch, so a seq is one record"
                found[Lane(lane)][seq] = Row(*row)
    return found


def undated(path: Path) -> Iterator[tuple[Lane, str, int, int]]:
    """(lane, boot, its offset, seq) of every record whose boot was never synchronised."""
    with closing(sqlite3.connect(path)) as db:
        spans = "SELECT lane, boot, ahead, first, last FROM unsynced JOIN stream ON stream.id = stream"
        for lane, boot, ahead, first, last in db.execute(spans):
            for seq in range(first, last + 1):
                yield Lane(lane), boot, ahead, seq


def play(folder: Path, days: float, scale: float, seed: int, monkeypatch: pytest.MonkeyPatch) -> Story:
    """Live through `days`, then compare."""
    monkeypatch.setenv("TZ", "Europe/Rome")
    time.tzset()
    for name in ("wall", "boot"):  # the chargers' and the platforms' own clocks are right
        monkeypatch.setattr(RealMachine, name, staticmethod(LoopMachine.true))
    # The kernel's alarm rings for the machine's clock, not for this one; a jumping loop would wait for it each time.
    monkeypatch.setattr(SetAlarm, "armed", lambda _: nullcontext())
    story = Story(random.Random(seed), scale)
    street = Street(folder, story)

    async def main() -> None:
        async with asyncio.TaskGroup() as tasks:
            others = await street.emulate(tasks)
            others.append(tasks.create_task(come_and_go(street, random.Random(seed + 1), scale)))
            await live(street, days * DAY)
            others[-1].cancel()
            await asyncio.wait(others[-1:])
            await settle(street)
            for each in others:
                each.cancel()

    with asyncio.Runner(loop_factory=lambda: JumpingLoop(0.001)) as runner:
        runner.run(main())
    check(folder, story)
    return story


def check(folder: Path, story: Story) -> None:
    path = folder / "platform-0.sqlite"
    held = rows(path)
    for stream in report.streams(path):
        known = story.true[Lane(stream.lane)]
        assert (stream.missing, stream.to_come, stream.skipped, stream.rejected) == (0, 0, {}, {}), stream
        assert stream.received == len(known) == len(held[Lane(stream.lane)]), "every accepted record is there, once"
        assert sorted(held[Lane(stream.lane)]) == list(range(1, len(known) + 1))
    (bounded,) = report.streams(folder / "platform-1.sqlite")
    assert (bounded.missing, bounded.to_come) == (0, 0)
    assert bounded.skipped["expired"] > 0, "its bound forced a gap, and the gap is told"
    assert bounded.received + bounded.skipped["expired"] == len(story.true[Lane.TELEMETRY])
    for lane, known in story.true.items():
        for seq, row in held[lane].items():
            story.clocks[row.clock] += 1
            if row.clock != "unsynced":
                off = abs(row.at - known[seq - 1])
                assert row.error is not None
                assert off <= row.error, f"{lane} {seq} is {off} ms off; {row.error} ms were stated ({row.clock})"
    offsets: dict[str, list[int]] = {}
    for lane, boot, ahead, seq in undated(path):
        row = held[lane][seq]
        assert row.clock == "unsynced"
        offsets.setdefault(boot, []).append(story.true[lane][seq - 1] - (row.at - ahead))
    assert sum(map(len, offsets.values())) == story.clocks["unsynced"]
    for boot, found in offsets.items():
        assert max(found) - min(found) <= 16 * HOUR * 0.1, f"{boot}: an anchor would date them all, within 100 ppm"


def is_flat(memory: list[int]) -> bool:
    """From the end of the first third on."""
    third = len(memory) // 3
    return max(memory[2 * third :]) - max(memory[:third]) < 16 * 1024 * 1024


def test_six_jumped_hours_of_power_cuts_outages_and_wrong_clocks(
    memory_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    story = play(memory_disk, 0.25, 1 / 12, 11, monkeypatch)
    assert {"synced", "corrected", "unsynced"} <= set(story.clocks)
    assert set(story.boots) == {"set", "set late", "never set"}


@pytest.mark.slow  # six hours of the same take ten seconds, above
def test_a_jumped_week_of_power_cuts_outages_and_wrong_clocks(
    memory_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    story = play(memory_disk, 7, 1, 5, monkeypatch)
    assert set(story.clocks) == {"synced", "holdover", "corrected", "unsynced"}
    assert set(story.boots) == {"set", "set late", "never set"}
    assert is_flat(story.memory), story.memory
