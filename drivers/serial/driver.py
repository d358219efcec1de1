"""Sensors on one wire: one that pushes, or one or several that are asked."""

import asyncio
import contextlib
import math
from collections.abc import Sequence

from drivers.serial import transport
from drivers.serial.codec import Heard
from drivers.serial.conversation import ALIVE, Conversation, Evidence
from drivers.serial.dialogue import Meaning
from drivers.serial.frames import IdleFrame
from drivers.serial.sensor import Sensor, Shift
from drivers.serial.settings import Profile, Settings
from gateway import tty
from gateway.errors import CommandError, ConfigError, DeviceError, LinkError, StorageError
from gateway.model import Command, CommandState, Event, Lane, Reading, Reply
from gateway.ports import Emit, Link

AT_LEAST_EVERY = 10.0
"""Seconds after which the listening loop turns even if nothing comes, so that the watchdog knows it alive."""
_EMPTY = {Meaning.OTHER, Meaning.ACKNOWLEDGED, Meaning.READY, Meaning.NO_NEW_VALUE}
"""What says neither a value nor why there is none."""


class Driver:
    """One serial link with its sensors. ConfigError: sensors that cannot share a wire."""

    def __init__(self, link: Link) -> None:
        self._link = link
        assert isinstance(link.settings, Settings)
        self._settings: Settings = link.settings
        self._sensors = [Sensor(device, link.state) for device in link.devices]
        self._profile = _shared_profile(link.name, self._sensors, self._settings.port)
        self._talk: Conversation | None = None
        self._leaving = asyncio.Event()
        """The wire is wanted by somebody else."""
        self._turn = asyncio.Lock()
        """Whose turn it is to speak on the wire."""
        self._answered: tuple[tuple[str, ...], asyncio.Future[Heard]] | None = None
        """What an order to a sensor that pushes waits for."""
        self._read_at = 0.0
        """When the port was last empty (loop time)."""

    async def run(self, emit: Emit) -> None:
        """Listen or ask until cancelled, or until `let_go`. LinkError: the port cannot be opened or has hung up."""
        self._leaving.clear()
        self._link.alive(ALIVE)
        for sensor in self._sensors:
            sensor.opened()
        async with transport.opened(self._link.name, self._settings, self._profile.line) as wire:
            self._talk = Conversation(wire, self._profile, self._settings, self._link.alive)
            try:
                await (self._listen(self._talk, emit) if self._profile.mode == "push" else self._ask(self._talk, emit))
            finally:
                self._talk = None
                if self._answered and not self._answered[1].done():
                    self._answered[1].set_exception(CommandError("link_down", f"{self._link.name} went down."))

    def let_go(self) -> None:
        """See gateway.lending.Lendable: what is being heard or asked is finished, then `run` returns."""
        self._leaving.set()
        if self._talk and self._profile.mode == "push":
            self._talk.hurry()

    async def execute(self, command: Command) -> Reply:
        """Send one of the profile's commands. CommandError, DeviceError: it is not one, or nothing answers it."""
        sensor = next((one for one in self._sensors if one.id == command.on), None)
        told = sensor.profile.commands.get(command.do) if sensor else None
        if sensor is None or told is None or told.verb is None:
            raise CommandError("unknown_verb", f"{command.on} only speaks: it takes no `{command.do}`.")
        talk = self._talk
        if talk is None:
            raise CommandError("link_down", f"{self._link.name} is down; {command.on} cannot be reached.")
        try:
            async with self._turn:
                heard = await self._order(talk, sensor, command.do)
        except LinkError as error:
            raise CommandError("link_down", str(error)) from None
        if told.answers and heard is None:
            say = f"{command.on} was told `{command.do}` but does not answer. Look what it does before you try again."
            raise CommandError("unconfirmed", say)
        if heard and heard.means is Meaning.FAILED:
            raise DeviceError(f"{command.on} refuses `{command.do}`: {heard.say or 'it does not say why'}.")
        return Reply(
            command.id, CommandState.SUCCEEDED, self._link.clock.boot(), proof=heard.message if heard else None
        )

    async def _order(self, talk: Conversation, sensor: Sensor, name: str) -> Heard | None:
        """Say it once; where an answer is waited for, that answer, or None."""
        command = sensor.profile.commands[name]
        if self._profile.mode == "poll" and command.answers:
            return await talk.ask(sensor, command)
        answered: asyncio.Future[Heard] = asyncio.get_running_loop().create_future()
        self._answered = (command.answers, answered)
        try:
            await talk.send(sensor, command)
            if not command.answers:
                return None
            async with asyncio.timeout(sensor.profile.dialogue.timeout):
                return await answered
        except TimeoutError:
            return None
        finally:
            self._answered = None

    # A sensor that pushes

    async def _listen(self, talk: Conversation, emit: Emit) -> None:
        loop = asyncio.get_running_loop()
        sensor, silence = self._sensors[0], self._profile.silence or math.inf
        self._read_at = loop.time()
        silent_at, probed = self._read_at + silence, False
        while not self._leaving.is_set():
            self._link.alive(ALIVE)
            await self._send_what_is_due(talk, sensor, emit)
            until = min(silent_at, sensor.turns_at, sensor.init_at, loop.time() + AT_LEAST_EVERY)
            frames = await talk.frames(until)
            now = loop.time()
            if frames and await self._hear(talk, sensor, frames, now, emit):
                silent_at, probed = now + silence, False
                talk.evidence.clear()
            elif sensor.shift is Shift.RESTING:
                silent_at = now + silence
            elif now >= silent_at and self._profile.dialogue.probe and not probed:
                probed, silent_at = True, now + silence
                for name in self._profile.dialogue.probe:
                    await talk.send(sensor, self._profile.commands[name])
            elif now >= silent_at:
                await self._miss(talk.evidence, sensor, emit)
                silent_at, probed = now + silence, False
            self._read_at = now

    async def _send_what_is_due(self, talk: Conversation, sensor: Sensor, emit: Emit) -> None:
        loop = asyncio.get_running_loop()
        due, readings = sensor.turn(loop.time(), self._link.clock.boot())
        await self._give(emit, sensor, readings)
        dialogue = sensor.profile.dialogue
        names = list(dialogue.init) if loop.time() >= sensor.init_at else []
        if names:
            sensor.init_sent(loop.time())
        names += {"wake": dialogue.wake, "sleep": dialogue.sleep}.get(due, ())
        for name in names:
            async with self._turn:
                if self._profile.mode == "poll" and sensor.profile.commands[name].answers:
                    await talk.ask(sensor, sensor.profile.commands[name])
                else:
                    await talk.send(sensor, sensor.profile.commands[name])

    async def _hear(
        self, talk: Conversation, sensor: Sensor, frames: Sequence[bytes], now: float, emit: Emit
    ) -> bool:  # fmt: skip
        """Whether any of the frames says a value, or why there is none."""
        boot = self._link.clock.boot()
        readings: list[Reading] = []
        believed = False
        for newer, frame in zip(range(len(frames) - 1, -1, -1), frames, strict=True):
            heard = sensor.codec.read(frame)
            if heard.refused:
                talk.evidence.refused[heard.refused] += 1
                continue
            # Where silence is normal a sensor is asked now and then, and any answer shows that it is there.
            is_empty = not heard.samples and heard.means in _EMPTY and not self._profile.dialogue.probe
            talk.evidence.empty += is_empty
            believed |= not is_empty
            if self._answered and heard.message in self._answered[0] and not self._answered[1].done():
                self._answered[1].set_result(heard)
            await self._tell_state(emit, sensor, heard)
            # Frames that were waiting together came one cadence apart, but not before the port was last empty.
            age = min(newer * self._profile.cadence, now - self._read_at)
            readings += sensor.hear(heard, now - age, boot - round(age * 1000))
        await self._give(emit, sensor, readings)
        return believed

    # Sensors that are asked

    async def _ask(self, talk: Conversation, emit: Emit) -> None:
        loop = asyncio.get_running_loop()
        for sensor in self._sensors:
            sensor.due = sensor.told_at = loop.time()
        while not self._leaving.is_set():
            sensor = min(self._sensors, key=lambda one: min(one.due, one.turns_at))
            due = min(sensor.due, sensor.turns_at)
            nap = min(due - loop.time(), AT_LEAST_EVERY)
            self._link.alive(ALIVE + max(0.0, nap))
            if nap > 0:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(nap):
                        await self._leaving.wait()
                continue
            await self._send_what_is_due(talk, sensor, emit)
            if sensor.shift is Shift.RESTING:
                sensor.due = sensor.told_at = sensor.turns_at
                continue
            if sensor.due <= loop.time():
                await self._poll(talk, sensor, emit)
                behind = math.floor((loop.time() - sensor.due) / sensor.period) + 1
                sensor.due += behind * sensor.period

    async def _poll(self, talk: Conversation, sensor: Sensor, emit: Emit) -> None:
        talk.evidence.clear()
        heard: list[Heard] = []
        for _ in range(sensor.profile.dialogue.tries):
            async with self._turn:
                heard, is_whole = await self._round(talk, sensor)
            if is_whole or any(not sensor.profile.commands[name].idempotent for name in sensor.profile.dialogue.poll):
                break
        now, at = asyncio.get_running_loop().time(), self._link.clock.boot()
        readings: list[Reading] = []
        for one in heard:
            await self._tell_state(emit, sensor, one)
            readings += sensor.hear(one, now, at)
            talk.evidence.empty += not one.samples and one.means in _EMPTY
        if talk.evidence.empty < len(heard):
            sensor.told_at = now
        elif not heard or now - sensor.told_at > (self._profile.silence or math.inf) + sensor.period:
            await self._miss(talk.evidence, sensor, emit)
        await self._give(emit, sensor, readings)
        if any(one.means is Meaning.ASLEEP for one in heard):
            # It has just said that it sleeps: the one moment at which even a toggle is safe, and only once.
            for name in sensor.profile.dialogue.wake:
                async with self._turn:
                    await self._order(talk, sensor, name)

    async def _round(self, talk: Conversation, sensor: Sensor) -> tuple[list[Heard], bool]:
        """What was heard, and whether every question got its answer."""
        names = sensor.profile.dialogue.poll
        heard: list[Heard] = []
        for name in names:
            command = sensor.profile.commands[name]
            awaits_any = name == names[-1] and not command.answers
            if not command.answers and not awaits_any:
                await talk.send(sensor, command)
                continue
            answer = await talk.ask(sensor, command, reading=awaits_any)
            if answer is None:
                return heard, False
            if answer.means is not Meaning.WAIT:
                heard.append(answer)
        return heard, True

    # What is told

    async def _miss(self, evidence: Evidence, sensor: Sensor, emit: Emit) -> None:
        sensor.missed()
        trouble, say = evidence.sentence(self._link.name, sensor.id, sensor.name)
        if trouble != sensor.trouble:
            await self._turn_to(
                emit, sensor, trouble, Event("device_down", sensor.id, self._at(), say, evidence.more())
            )
        evidence.clear()
        await self._give(emit, sensor, sensor.lose(self._at()))

    async def _tell_state(self, emit: Emit, sensor: Sensor, heard: Heard) -> None:
        if heard.say and (heard.samples or heard.means in (Meaning.FAILED, Meaning.RESTARTED)):
            if sensor.trouble != heard.say:
                say = f"{sensor.id} says of itself: {heard.say}. Look at the sensor."
                await self._turn_to(emit, sensor, heard.say, Event("device_fault", sensor.id, self._at(), say))
        elif sensor.trouble != "" and (heard.samples or sensor.trouble in (None, "silent", "damaged", "foreign")):
            say = f"{sensor.id} sends {sensor.name} frames."
            await self._turn_to(emit, sensor, "", Event("device_up", sensor.id, self._at(), say))

    async def _turn_to(self, emit: Emit, sensor: Sensor, trouble: str, event: Event) -> None:
        # The buffer says itself that it is full or sick; what it did not take is told again.
        with contextlib.suppress(StorageError):
            await emit([event], lane=Lane.EVENT)
            sensor.trouble = trouble

    async def _give(self, emit: Emit, sensor: Sensor, readings: list[Reading]) -> None:
        if readings:
            try:
                await emit(readings, state=sensor.state() or None)
            except StorageError:
                sensor.untaken()
            else:
                sensor.taken()

    def _at(self) -> int:
        return self._link.clock.boot()


def _shared_profile(link: str, sensors: Sequence[Sensor], port: str) -> Profile:
    """The profile that all sensors of a wire have, as far as wire and frames go. ConfigError: they cannot share it."""
    names = ", ".join(one.id for one in sensors) or "none"
    if not sensors or (len(sensors) > 1 and any(one.profile.mode == "push" or not one.address for one in sensors)):
        raise ConfigError(f"`{link}` is for one sensor that pushes, not for {names}. Give each its own link.")
    first = sensors[0].profile
    if isinstance(first.frame, IdleFrame) and tty.is_server(port):
        why = f"`{link}`: only silence ends the frames of {sensors[0].name}, and a serial server makes its own."
        raise ConfigError(f"{why} Connect it to a port of the gateway.")
    for one in sensors[1:]:
        if (one.profile.line, one.profile.frame) != (first.line, first.frame):
            raise ConfigError(f"`{link}`: {names} differ in speed or frames. Give each kind its own link.")
    return first
