"""Sensors on a pty: their profiles' dialogues played backwards, with values from a scenario and faults by name.

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
from pathlib import Path
from typing import assert_never

from drivers.serial.frames import DelimitedFrame, IdleFrame, SyncedFrame
from drivers.serial.framing import wrapped
from drivers.serial.played import Played
from drivers.serial.scenario import Fault, Play, Scenario
from drivers.serial.settings import Settings
from gateway.model import Device

TICK = 0.02
"""Seconds between two looks whether somebody is there: without, a pty's descriptor cannot be waited for."""


class Emulator:
    """The far end of one serial link. `cadence` (seconds) may be set faster than the profile's."""

    def __init__(
        self,
        settings: Settings,
        devices: Sequence[Device],
        address: str | None,
        secret: Callable[[str], str] | None = None,
        scenario: Play | None = None,
    ) -> None:
        del settings, address, secret  # a pty has no line parameters, is opened by name, and needs no credential
        self._played = [Played(device) for device in devices]
        self._first = self._played[0]
        self._frame = self._first.profile.frame
        self._dice = random.Random(self._first.device.id)
        self.cadence = self._first.profile.cadence
        self._play = scenario or Play()
        self.scenario: Scenario = self._play.hours
        self._fault: Fault | None = None
        self._master: int | None = None
        self._folder: Path | None = None
        self._held: list[tuple[Played, bytes]] = []
        self._asked = b""
        self._news = asyncio.Event()

    async def start(self) -> Mapping[str, str]:
        """Plug in; the port's name stays the same however often it is unplugged."""
        self._folder = Path(tempfile.mkdtemp(prefix="lampione-"))
        self._plug()
        if self._play.fault:
            self.fault(self._play.fault)
        return {"port": str(self._name)}

    async def run(self) -> None:
        """Speak at each cadence, or when asked, until cancelled."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        pushes = self._first.profile.mode == "push"
        listens = not pushes or bool(self._first.profile.commands)
        try:
            heard = False
            due = started
            while True:
                due = max(due + self.cadence, loop.time()) if pushes else math.inf
                while listens and loop.time() < due:
                    await self._hears(due)
                    await self._answer(loop.time() - started)
                await asyncio.sleep(due - loop.time())
                # Opening flushes the port: a frame counts only when somebody was there a turn ago too.
                before, heard = heard, self._is_open()
                if before and heard and not self._first.asleep:
                    for frame in self._first.readings(self.scenario, loop.time() - started, self._is_stuck):
                        await self._speak(self._first, frame)
        finally:
            self.close()

    def fault(self, name: str | None) -> None:
        """From the next frame on this goes wrong; None ends it. ValueError: no such fault."""
        before, self._fault = self._fault, Fault(name) if name else None
        self._held = []
        for one in self._played:
            one.thaw()
        if self._fault is Fault.UNPLUG:
            self._unplug()
        elif before is Fault.UNPLUG:
            self._plug()

    def produced(self) -> Mapping[str, int]:
        """Values in whole good frames, written while somebody had the port open."""
        return {one.device.id: one.produced for one in self._played}

    def close(self) -> None:
        """Unplug for good."""
        self._unplug()
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def _name(self) -> Path:
        assert self._folder is not None
        return self._folder / "port"

    @property
    def _is_stuck(self) -> bool:
        return self._fault is Fault.STUCK

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
            with contextlib.suppress(RuntimeError):  # no loop: it is closed for good
                asyncio.get_running_loop().remove_reader(self._master)
            self._news.set()
            os.close(self._master)
            self._master = None

    def _is_open(self) -> bool:
        if self._master is None:
            return False
        poll = select.poll()
        poll.register(self._master, select.POLLHUP)
        return not any(event & select.POLLHUP for _, event in poll.poll(0))

    async def _hears(self, until: float) -> None:
        """Until the gateway says something, or it is `until` (loop time)."""
        loop = asyncio.get_running_loop()
        if self._master is None or not self._is_open():
            await asyncio.sleep(min(TICK, max(0.0, until - loop.time())))
            return
        self._news.clear()
        master = self._master
        loop.add_reader(master, self._news.set)
        try:
            async with asyncio.timeout_at(None if until == math.inf else until):
                await self._news.wait()
        except TimeoutError:
            pass
        finally:
            if self._master == master:
                loop.remove_reader(master)

    async def _answer(self, second: float) -> None:
        """What the gateway has asked since, answered by the sensor that it asked."""
        with contextlib.suppress(OSError):
            if self._master is not None:
                self._asked = (self._asked + os.read(self._master, 4096))[-1024:]
        while self._asked:
            for one in self._played:
                found = one.asked(self._asked)
                if found is not None:
                    name, length = found
                    self._asked = self._asked[length:]
                    for frame in one.answers(name, self.scenario, second, self._is_stuck):
                        await self._speak(one, frame)
                    break
            else:
                if not any(one.may_ask(self._asked) for one in self._played):
                    self._asked = self._asked[1:]
                    continue
                return

    async def _speak(self, played: Played, frame: bytes) -> None:
        """`frame` is unwrapped."""
        sent = wrapped(self._frame, frame)
        # Where nothing but its end marks a frame, what comes before has to end too.
        parted = isinstance(self._frame, DelimitedFrame) and not self._frame.start
        end = self._frame.end if isinstance(self._frame, DelimitedFrame) and parted else b""
        match self._fault:
            case None | Fault.STUCK:
                self._send(sent, (played, frame))
            case Fault.GARBAGE if not isinstance(self._frame, IdleFrame):
                self._send(self._dice.randbytes(self._dice.randrange(1, 40)) + end + sent, (played, frame))
            case Fault.SPLIT if not isinstance(self._frame, IdleFrame):
                cuts = sorted(self._dice.sample(range(1, len(sent)), 2))
                for first, behind in itertools.pairwise([0, *cuts, len(sent)]):
                    self._send(sent[first:behind], *([(played, frame)] if behind == len(sent) else []))
                    await asyncio.sleep(min(self.cadence, 1.0) / 10)
            case Fault.MERGED if not isinstance(self._frame, IdleFrame) and played.profile.mode == "push":
                self._held.append((played, frame))
                if len(self._held) == 2:
                    self._send(b"".join(wrapped(self._frame, one) for _, one in self._held), *self._held)
                    self._held = []
            case Fault.CHECKSUM:
                self._held = [] if self._held else [(played, frame)]
                if self._held:
                    self._send(played.damaged(sent))
                else:
                    self._send(sent, (played, frame))
            case Fault.TRUNCATED if not isinstance(self._frame, IdleFrame):
                self._send(sent[: self._dice.randrange(1, len(sent))] + end + sent, (played, frame))
            case Fault.SYNC_INSIDE:
                if isinstance(self._frame, SyncedFrame):
                    self._send(wrapped(self._frame, played.with_inside(frame, self._frame.sync)))
                else:
                    self._send(sent[: len(sent) // 2] + end + sent, (played, frame))
            case Fault.WARM_UP:
                for one in played.starting(frame):
                    self._send(wrapped(self._frame, one))
            case Fault.SILENCE | Fault.UNPLUG:
                pass
            case Fault.GARBAGE | Fault.SPLIT | Fault.MERGED | Fault.TRUNCATED:
                self._send(sent, (played, frame))
            case never:
                assert_never(never)

    def _send(self, sent: bytes, *good: tuple[Played, bytes]) -> None:
        """As on a real wire, what nobody takes is lost."""
        with contextlib.suppress(BlockingIOError):
            if self._master is not None and os.write(self._master, sent) == len(sent):
                for played, frame in good:
                    played.count(frame)
