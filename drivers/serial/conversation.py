"""A wire as frames: what is heard of the sensors on it, and questions with their answers."""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence

from drivers.serial.codec import Heard
from drivers.serial.dialogue import Command, Meaning
from drivers.serial.framing import QUIET, Framer
from drivers.serial.sensor import Sensor
from drivers.serial.settings import Profile, Settings
from drivers.serial.transport import Wire

WRITE_WITHIN = 5.0
NOW = 0.001
"""Seconds that are enough to find what is there already."""
ALIVE = 30.0
"""Seconds that may pass beside what is waited for, before the watchdog takes the driver for dead."""
_ENDS = {Meaning.ASLEEP, Meaning.NOT_READY, Meaning.NO_NEW_VALUE, Meaning.FAILED, Meaning.RESTARTED, Meaning.WAIT}


class Evidence:
    """What came over the wire since the last good frame, or since the last sentence about it."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.bytes, self.stray, self.empty, self.last = 0, 0, 0, b""
        self.refused: Counter[str] = Counter()

    def add(self, received: bytes) -> None:
        self.bytes += len(received)
        self.last = (self.last + received)[-32:]

    def sentence(self, link: str, device: str, name: str) -> tuple[str, str]:
        """(which trouble it is, the sentence)."""
        if not self.bytes:
            return "silent", f"`{link}`: not one byte from {device}. Check power and the plug."
        damaged = self.refused["checksum"]
        if damaged:
            say = f"`{link}`: {name} frames arrive damaged ({damaged} checksum errors). Check the cable and its ground."
            return "damaged", say
        if self.empty:
            return "empty", f"`{link}`: {name} frames arrive, but none with values. Set the sensor as its profile says."
        say = f"`{link}`: bytes arrive but no {name} frame: wrong sensor, speed or wiring. Compare with the profile."
        return "foreign", say

    def more(self) -> dict[str, int | str]:
        refused = {f"refused_{why}": count for why, count in self.refused.items()}
        empty = {"empty": self.empty} if self.empty else {}
        return {"bytes": self.bytes, "stray": self.stray, **empty, **refused, "last": self.last.hex(" ")}


class Conversation:
    """One open wire. Frames of one profile; on a shared wire all sensors have the same framing."""

    def __init__(self, wire: Wire, profile: Profile, settings: Settings, alive: Callable[[float], None]) -> None:
        self._wire, self._profile, self._settings, self._alive = wire, profile, settings, alive
        self._framer = Framer(profile.frame, joining=profile.mode == "push")
        self._echo = b""
        self._quiet_at = 0.0
        """When the wire may be spoken on."""
        self._listening: asyncio.Timeout | None = None
        self.evidence = Evidence()

    async def frames(self, until: float) -> list[bytes]:
        """Good frames as soon as there are any; none: it is `until` (loop time), or bytes came that are none yet."""
        loop, framer = asyncio.get_running_loop(), self._framer
        deadline = until if framer.gap is None else min(until, loop.time() + framer.gap)
        try:
            async with asyncio.timeout_at(deadline) as self._listening:
                received = self._heard(await self._wire.read())
        except TimeoutError:
            return self._framed(framer.idle) if framer.gap is not None and deadline < until else []
        finally:
            self._listening = None
        self._quiet_at = max(self._quiet_at, loop.time() + self._profile.dialogue.gap)
        self.evidence.add(received)
        return self._framed(lambda: framer.feed(received))

    def hurry(self) -> None:
        """Who waits for frames waits no longer."""
        if self._listening and not self._listening.expired():
            self._listening.reschedule(asyncio.get_running_loop().time())

    def _framed(self, take: Callable[[], list[bytes]]) -> list[bytes]:
        stray, refused = self._framer.stray, self._framer.refused.copy()
        frames = take()
        self.evidence.stray += self._framer.stray - stray
        self.evidence.refused += self._framer.refused - refused
        return frames

    def _heard(self, received: bytes) -> bytes:
        """Without our own words, where the adapter hears them."""
        same = 0
        while same < min(len(self._echo), len(received)) and self._echo[same] == received[same]:
            same += 1
        self._echo = self._echo[same:] if same == len(received) else b""
        return received[same:]

    async def send(self, sensor: Sensor, command: Command) -> None:
        """Say it, when the wire is free. LinkError: it could not be said."""
        loop = asyncio.get_running_loop()
        pause = max(0.0, self._quiet_at - loop.time())
        self._alive(ALIVE + pause + self._profile.dialogue.timeout)
        await asyncio.sleep(pause)
        if self._profile.line.wakes:
            await self._wire.wake(self._profile.line.wakes)
        sent = sensor.codec.addressed(command.send, sensor.address)
        await self._wire.write(sent, WRITE_WITHIN)
        self._echo = sent if self._settings.echo else b""
        self._quiet_at = loop.time() + max(command.wait, self._profile.dialogue.gap)

    async def ask(self, sensor: Sensor, command: Command, *, reading: bool = False) -> Heard | None:
        """The answer to a command; None: none came in time. `reading`: any reading is one. Others' frames are not."""
        self._alive(ALIVE + 2 * self._profile.dialogue.timeout)
        await self._drop()
        await self.send(sensor, command)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._profile.dialogue.timeout
        while loop.time() < deadline:
            frames = await self.frames(deadline)
            for number, frame in enumerate(frames, 1):
                if not sensor.codec.is_from(frame, sensor.address):
                    self.evidence.refused["foreign"] += 1
                    continue
                heard = sensor.codec.read(frame)
                if heard.refused:
                    self.evidence.refused[heard.refused] += 1
                    continue
                if heard.message in command.answers or (reading and heard.samples) or heard.means in _ENDS:
                    if heard.means is Meaning.WAIT and not self._is_ready(sensor, frames[number:]):
                        await self._wait(sensor, heard.wait)
                    return heard
        return None

    async def _wait(self, sensor: Sensor, seconds: float) -> None:
        """Until the sensor says that it is ready, or the time it asked for is over."""
        loop = asyncio.get_running_loop()
        over = loop.time() + seconds
        self._alive(ALIVE + seconds)
        while loop.time() < over:
            if self._is_ready(sensor, await self.frames(over)):
                return

    def _is_ready(self, sensor: Sensor, frames: Sequence[bytes]) -> bool:
        codec = sensor.codec
        return any(codec.is_from(one, sensor.address) and codec.read(one).means is Meaning.READY for one in frames)

    async def _drop(self) -> None:
        """A late answer to an earlier question must not pass for the answer to this one."""
        loop = asyncio.get_running_loop()
        over = loop.time() + self._profile.dialogue.timeout
        # One that has begun comes byte by byte: its rest must not stand before the answer.
        quiet = QUIET if self._framer.has_begun else NOW
        while loop.time() < over:
            try:
                async with asyncio.timeout(quiet):
                    self.evidence.add(await self._wire.read())
            except TimeoutError:
                break
            quiet = QUIET
        self._framer = Framer(self._profile.frame)
