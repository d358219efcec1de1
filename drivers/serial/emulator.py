"""A sensor on a pty: the profile played backwards, with values from a day in a street and faults by name.

A pty carries bytes and hang-ups; it knows neither parity nor pace, so the port's arguments are tested elsewhere.
"""

import asyncio
import contextlib
import itertools
import math
import os
import random
import select
import shutil
import tempfile
import tty
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import assert_never

from drivers.serial.codec import Codec
from drivers.serial.settings import Profile, SerialPoint, Settings
from gateway.model import Device

DAY = 86_400.0
BEGINS = 8 * 3600.0
"""Seconds into the emulated day at which it starts: the morning traffic."""


class Fault(StrEnum):
    GARBAGE = "garbage"
    """Random bytes before each good frame."""
    SPLIT = "split"
    """Each good frame in several pieces."""
    MERGED = "merged"
    """Good frames two at a time."""
    CHECKSUM = "checksum"
    """Every second frame has a wrong checksum."""
    TRUNCATED = "truncated"
    """Each good frame comes directly behind the first bytes of another one."""
    SYNC_INSIDE = "sync_inside"
    """The sync's bytes stand where the first value does."""
    SILENCE = "silence"
    UNPLUG = "unplug"
    """The port hangs up and its name is gone, until the fault ends."""
    STUCK = "stuck"
    """The same values for ever."""


class Emulator:
    """The far end of one serial link. `cadence` (seconds) may be set faster than the profile's."""

    def __init__(
        self,
        settings: Settings,
        devices: Sequence[Device],
        address: str | None,
        secret: Callable[[str], str] | None = None,
    ) -> None:
        del settings, address, secret  # a pty has no line parameters, is opened by name, and needs no credential
        (self._device,) = devices
        assert isinstance(self._device.profile, Profile)
        self._profile: Profile = self._device.profile
        self._codec = Codec(self._profile)
        self._template = self._profile.examples[0].received
        self._dice = random.Random(self._device.id)
        self.cadence = self._profile.cadence
        self._fault: Fault | None = None
        self._master: int | None = None
        self._folder: Path | None = None
        self._held: list[bytes] = []
        self._frozen: dict[str, float] = {}
        self._produced = 0

    async def start(self) -> Mapping[str, str]:
        """Plug in; the port's name stays the same however often it is unplugged."""
        self._folder = Path(tempfile.mkdtemp(prefix="lampione-"))
        self._plug()
        return {"port": str(self._name)}

    async def run(self) -> None:
        """Speak at each cadence until cancelled."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        try:
            heard = False
            due = started
            while True:
                due = max(due + self.cadence, loop.time())
                await asyncio.sleep(due - loop.time())
                # Opening flushes the port: a frame counts only when somebody was there a turn ago too.
                before, heard = heard, self._is_open()
                if before and heard:
                    await self._speak(self._values(BEGINS + loop.time() - started))
        finally:
            self.close()

    def fault(self, name: str | None) -> None:
        """From the next frame on this goes wrong; None ends it. ValueError: no such fault."""
        before, self._fault = self._fault, Fault(name) if name else None
        self._held, self._frozen = [], {}
        if self._fault is Fault.UNPLUG:
            self._unplug()
        elif before is Fault.UNPLUG:
            self._plug()

    def produced(self) -> Mapping[str, int]:
        """Values in whole good frames, written while somebody had the port open."""
        return {self._device.id: self._produced}

    def close(self) -> None:
        """Unplug for good."""
        self._unplug()
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def _name(self) -> Path:
        assert self._folder is not None
        return self._folder / "port"

    def _plug(self) -> None:
        self._master, slave = os.openpty()
        os.set_blocking(self._master, False)
        tty.setraw(slave)
        self._name.symlink_to(os.ttyname(slave))
        # With nobody on the other side the pty shows a hang-up: so we know whether anybody listens.
        os.close(slave)

    def _unplug(self) -> None:
        if self._master is not None:
            self._name.unlink(missing_ok=True)
            os.close(self._master)
            self._master = None

    def _is_open(self) -> bool:
        if self._master is None:
            return False
        poll = select.poll()
        poll.register(self._master, select.POLLHUP)
        return not poll.poll(0)

    def _values(self, second: float) -> dict[str, float]:
        if self._fault is Fault.STUCK and self._frozen:
            return self._frozen
        self._frozen = {
            slug: _within(point, _level(point.quantity, second) * self._dice.uniform(0.95, 1.05))
            for slug, point in self._profile.points.items()
        }
        return self._frozen

    async def _speak(self, values: dict[str, float]) -> None:
        frame = self._codec.encode(values, self._template)
        match self._fault:
            case None | Fault.STUCK:
                self._send(frame, good=1)
            case Fault.GARBAGE:
                self._send(self._dice.randbytes(self._dice.randrange(1, 40)) + frame, good=1)
            case Fault.SPLIT:
                cuts = sorted(self._dice.sample(range(1, len(frame)), 2))
                for first, behind in itertools.pairwise([0, *cuts, len(frame)]):
                    self._send(frame[first:behind], good=int(behind == len(frame)))
                    await asyncio.sleep(self.cadence / 10)
            case Fault.MERGED:
                self._held.append(frame)
                if len(self._held) == 2:
                    self._send(b"".join(self._held), good=2)
                    self._held = []
            case Fault.CHECKSUM:
                self._held = [] if self._held else [frame]
                self._send(self._damaged(frame) if self._held else frame, good=int(not self._held))
            case Fault.TRUNCATED:
                self._send(frame[: self._dice.randrange(1, len(frame))] + frame, good=1)
            case Fault.SYNC_INSIDE:
                at, sync = min(point.at for point in self._profile.points.values()), self._profile.frame.sync
                self._send(self._codec.sealed(frame[:at] + sync + frame[at + len(sync) :]), good=1)
            case Fault.SILENCE | Fault.UNPLUG:
                pass
            case never:
                assert_never(never)

    def _damaged(self, frame: bytes) -> bytes:
        """One bit of a value is wrong; the checksum is the one of before."""
        at = min(point.at for point in self._profile.points.values())
        return frame[:at] + bytes([frame[at] ^ 0x10]) + frame[at + 1 :]

    def _send(self, sent: bytes, *, good: int) -> None:
        """As on a real wire, what nobody takes is lost."""
        with contextlib.suppress(BlockingIOError):
            if self._master is not None and os.write(self._master, sent) == len(sent):
                self._produced += good * len(self._profile.points)


def _level(quantity: str, second: float) -> float:
    """A day in a street, in the quantity's canonical unit: dust rises with the traffic of morning and evening."""
    hour = second % DAY / 3600
    rush = math.exp(-(((hour - 8.5) / 1.5) ** 2)) + math.exp(-(((hour - 18.5) / 2) ** 2))
    match quantity:
        case "pm1":
            return 6 + 9 * rush
        case "pm25":
            return 9 + 14 * rush
        case "pm10":
            return 14 + 26 * rush
        case _:
            return 10 + 5 * rush


def _within(point: SerialPoint, value: float) -> float:
    """`value` (canonical unit), or the nearest that the sensor can measure."""
    if not point.range:
        return value
    factor, offset = point.conversion
    low, high = (limit * factor + offset for limit in point.range)
    return min(max(value, low), high)
