"""A sensor that pushes frames over one wire.

`every` (the device's, else the point's in the profile) thins what is reported: the frame nearest to each deadline
is given, and any frame whose quality differs from what was last told. Without `every` each frame is given.
"""

import asyncio
import contextlib
import math
from dataclasses import dataclass

from drivers.serial import transport
from drivers.serial.codec import Codec
from drivers.serial.framing import Framer
from drivers.serial.settings import DeviceSettings, Profile, Settings
from gateway.errors import CommandError, ConfigError, StorageError
from gateway.model import Command, Event, Lane, Quality, Reading, Reason, Reply
from gateway.ports import Emit, Link

AT_LEAST_EVERY = 10.0
"""Seconds after which the listening loop turns even if nothing comes, so that the watchdog knows it alive."""
ALIVE = 30.0


@dataclass(slots=True)
class _Told:
    """What was last said of a point, and when it is due again (loop time)."""

    quality: Quality
    reason: str | None
    due: float


class Driver:
    """One serial link with its one sensor. ConfigError: a link without a sensor, or with several."""

    def __init__(self, link: Link) -> None:
        if len(link.devices) != 1:
            names = ", ".join(device.id for device in link.devices) or "none"
            raise ConfigError(f"`{link.name}` is for one sensor that pushes, not for {names}. Give each its own link.")
        self._link = link
        self._device = link.devices[0]
        assert isinstance(link.settings, Settings)
        assert isinstance(self._device.profile, Profile)
        assert isinstance(self._device.settings, DeviceSettings)
        self._settings: Settings = link.settings
        self._profile: Profile = self._device.profile
        self._codec = Codec(self._profile)
        wanted = self._device.settings.every
        self._periods = {slug: wanted or point.every or 0.0 for slug, point in self._profile.points.items()}
        self._told: dict[str, _Told] = {}
        self._trouble: str | None = None
        """What is wrong with the device: "" nothing, None not known since the gateway started."""
        self._warm_at = math.inf
        """Until then values are doubtful; not before a first frame."""
        self._read_at = 0.0
        """When the port was last empty (loop time)."""

    async def run(self, emit: Emit) -> None:
        """Listen until cancelled. LinkError: the port cannot be opened or has hung up."""
        self._link.alive(ALIVE)
        # Whatever was told before, the gateway itself says that the points of a lost link have no value.
        self._told.clear()
        async with transport.opened(self._link.name, self._settings, self._profile.line) as wire:
            await self._listen(wire, emit)

    async def execute(self, command: Command) -> Reply:
        raise CommandError("unknown_verb", f"{command.on} only speaks: it takes no commands.")

    async def _listen(self, wire: transport.Wire, emit: Emit) -> None:
        loop = asyncio.get_running_loop()
        framer, silence = Framer(self._profile.frame), self._profile.silence or math.inf
        self._read_at = loop.time()
        self._warm_at = math.inf
        silent_at = self._read_at + silence
        evidence = _Evidence(framer)
        while True:
            self._link.alive(ALIVE)
            try:
                async with asyncio.timeout_at(min(silent_at, loop.time() + AT_LEAST_EVERY)):
                    received = await wire.read()
            except TimeoutError:
                received = b""
            now = loop.time()
            evidence.add(received)
            if frames := framer.feed(received):
                await self._hear(frames, now, emit)
                silent_at = now + silence
                evidence = _Evidence(framer)
            elif now >= silent_at:
                await self._miss(evidence, emit)
                silent_at = now + silence
                evidence = _Evidence(framer)
            self._read_at = now

    async def _hear(self, frames: list[bytes], now: float, emit: Emit) -> None:
        if self._trouble != "":
            say = f"{self._device.id} sends {self._name} frames."
            await self._turn(emit, "", self._event("device_up", say))
        boot = self._link.clock.boot()
        readings: list[Reading] = []
        for newer, frame in zip(range(len(frames) - 1, -1, -1), frames, strict=True):
            # Frames that were waiting together came one cadence apart, but not before the port was last empty.
            age = min(newer * self._profile.cadence, now - self._read_at)
            if self._warm_at == math.inf:
                self._warm_at = now - age + self._profile.warm_up
            readings += self._readings(frame, now - age, boot - round(age * 1000))
        await self._give(emit, readings)

    def _readings(self, frame: bytes, when: float, at: int) -> list[Reading]:
        readings = []
        for slug, sample in self._codec.decode(frame).items():
            quality, reason = sample.quality, sample.reason
            if quality is Quality.GOOD and when < self._warm_at:
                quality, reason = Quality.UNCERTAIN, Reason.WARMING_UP
            if self._is_due(slug, quality, reason, when):
                readings.append(Reading(self._device.points[slug].id, sample.value, at, quality, reason))
        return readings

    def _is_due(self, slug: str, quality: Quality, reason: str | None, when: float) -> bool:
        told, period = self._told.get(slug), self._periods[slug]
        if told is None:
            self._told[slug] = _Told(quality, reason, when + period)
            return True
        # The frame nearest to the deadline: a sensor's clock is not ours, and the next one comes a cadence later.
        early = told.due - min(self._profile.cadence, period) / 2
        is_due = when >= early
        if is_due and period:
            told.due += period * (1 + math.floor((when - early) / period))
        changed = (quality, reason) != (told.quality, told.reason)
        told.quality, told.reason = quality, reason
        return is_due or changed

    async def _miss(self, evidence: "_Evidence", emit: Emit) -> None:
        self._warm_at = math.inf
        trouble, say = evidence.sentence(self._link.name, self._device.id, self._name)
        if trouble != self._trouble:
            await self._turn(emit, trouble, self._event("device_down", say, evidence.more()))
        at, lost = self._link.clock.boot(), (Quality.BAD, Reason.COMM_FAILURE)
        readings = []
        for slug in self._profile.points:
            told = self._told.setdefault(slug, _Told(Quality.GOOD, None, 0.0))
            if (told.quality, told.reason) != lost:
                told.quality, told.reason = lost
                readings.append(Reading(self._device.points[slug].id, None, at, *lost))
        await self._give(emit, readings)

    async def _turn(self, emit: Emit, trouble: str, event: Event) -> None:
        # The buffer says itself that it is full or sick; what it did not take is told again.
        with contextlib.suppress(StorageError):
            await emit([event], lane=Lane.EVENT)
            self._trouble = trouble

    async def _give(self, emit: Emit, readings: list[Reading]) -> None:
        if readings:
            try:
                await emit(readings)
            except StorageError:
                self._told.clear()

    def _event(self, kind: str, say: str, more: dict[str, int | str] | None = None) -> Event:
        return Event(kind, self._device.id, self._link.clock.boot(), say, more or {})

    @property
    def _name(self) -> str:
        return self._profile.title or self._profile.profile


class _Evidence:
    """What came over the wire since the last good frame, or since the last sentence about it."""

    def __init__(self, framer: Framer) -> None:
        self._framer = framer
        self._stray, self._refused = framer.stray, framer.refused.copy()
        self._bytes = 0
        self._last = b""

    def add(self, received: bytes) -> None:
        self._bytes += len(received)
        self._last = (self._last + received)[-32:]

    def sentence(self, link: str, device: str, name: str) -> tuple[str, str]:
        """(which trouble it is, the sentence)."""
        if not self._bytes:
            return "silent", f"`{link}`: not one byte from {device}. Check power and the plug."
        damaged = (self._framer.refused - self._refused)["checksum"]
        if damaged:
            say = f"`{link}`: {name} frames arrive damaged ({damaged} checksum errors). Check the cable and its ground."
            return "damaged", say
        say = f"`{link}`: bytes arrive but no {name} frame: wrong sensor, speed or wiring. Compare with the profile."
        return "foreign", say

    def more(self) -> dict[str, int | str]:
        refused = {f"refused_{why}": count for why, count in (self._framer.refused - self._refused).items()}
        stray = self._framer.stray - self._stray
        return {"bytes": self._bytes, "stray": stray, **refused, "last": self._last.hex(" ")}
