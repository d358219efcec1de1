"""One emulated sensor: which of its profile's frames it sends, with which values, and what it answers."""

import random
from collections.abc import Sequence

from drivers.serial.codec import Codec, Heard
from drivers.serial.dialogue import Meaning
from drivers.serial.framing import Framer
from drivers.serial.layouts import Binary
from drivers.serial.point import SerialPoint
from drivers.serial.scenario import Scenario, level
from drivers.serial.settings import DeviceSettings, Profile
from gateway.model import Device, Quality


class Played:
    """Frames here are as a framer gives them: without delimiters, not stuffed."""

    def __init__(self, device: Device) -> None:
        assert isinstance(device.profile, Profile)
        assert isinstance(device.settings, DeviceSettings)
        self.device = device
        self.profile: Profile = device.profile
        self._address = device.settings.address
        self._codec = Codec(self.profile)
        self._dice = random.Random(device.id)  # noqa: S311 - made-up readings need no secret dice
        self.asleep = False
        self.produced = 0
        self._frozen: dict[str, float | str] = {}
        self._examples: dict[str, list[tuple[bytes, Heard]]] = {}
        for example in self.profile.examples:
            frame = self._whole(example.received)
            heard = self._codec.read(frame)
            self._examples.setdefault(heard.message, []).append((frame, heard))
        self._templates = self._chosen()
        self._sends = {
            name: self._codec.addressed(one.send, self._address) for name, one in self.profile.commands.items()
        }

    def _whole(self, received: bytes) -> bytes:
        framer = Framer(self.profile.frame)
        return (framer.feed(received) + framer.idle())[0]

    def _chosen(self) -> list[bytes]:
        """As few examples as say something good of all the points that any of them does."""
        chosen: list[bytes] = []
        said: set[str] = set()
        readings = [one for name in self.profile.readings for one in self._examples.get(name, ())]
        for frame, heard in sorted(readings, key=lambda one: -len(_good(one[1]))):
            if not _good(heard) <= said or not chosen:
                chosen.append(frame)
                said |= _good(heard)
        return chosen

    def thaw(self) -> None:
        self._frozen = {}

    def count(self, frame: bytes) -> None:
        self.produced += sum(sample.value is not None for sample in self._codec.decode(frame).values())

    def readings(self, scenario: Scenario, second: float, stuck: bool) -> list[bytes]:
        """One frame of each kind, with the values of now."""
        if not (stuck and self._frozen):
            self._frozen = self._values(scenario, second)
        return [self._filled(template) for template in self._templates]

    def _filled(self, template: bytes) -> bytes:
        frame = self._codec.answering(template, self._address)
        for slug, value in self._frozen.items():
            try:
                filled = self._codec.encode({slug: value}, frame)
            except ValueError:
                continue
            # What the sensor could not say of itself stays as the example has it.
            samples = self._codec.decode(filled)
            if slug in samples and samples[slug].quality is Quality.GOOD:
                frame = filled
        return frame

    def _values(self, scenario: Scenario, second: float) -> dict[str, float | str]:
        values: dict[str, float | str] = {}
        for slug, point in self.profile.points.items():
            now = level(scenario, point.quantity, second)
            if now is not None:
                noise = 1.0 if point.counter else self._dice.uniform(0.95, 1.05)
                values[slug] = _within(point, now * noise)
        return values

    # What it is asked

    def asked(self, received: bytes) -> tuple[str, int] | None:
        """(the command that `received` starts with, its length)."""
        known = [(name, len(sent)) for name, sent in self._sends.items() if received.startswith(sent)]
        return max(known, key=lambda one: one[1], default=None)

    def may_ask(self, received: bytes) -> bool:
        """Whether `received` may be the beginning of a command."""
        return any(sent.startswith(received) for sent in self._sends.values())

    def answers(self, name: str, scenario: Scenario, second: float, stuck: bool) -> list[bytes]:
        """What it says to a command."""
        dialogue, command = self.profile.dialogue, self.profile.commands[name]
        wakes = name in dialogue.wake
        if self.asleep and not wakes:
            return self._meaning([Meaning.ASLEEP])
        if wakes or name in dialogue.sleep:
            self.asleep = not wakes
        frames = self.readings(scenario, second, stuck)
        if not command.answers:
            return frames[:1] if dialogue.poll and name == dialogue.poll[-1] else []
        for message in command.answers:
            if message in self.profile.readings:
                return [frame for frame in frames if self._codec.read(frame).message == message][:1]
            if message in self._examples:
                frame, heard = self._examples[message][0]
                ready = self._meaning([Meaning.READY]) if heard.means is Meaning.WAIT else []
                return [self._codec.answering(frame, self._address), *ready]
        return []

    def _meaning(self, wanted: Sequence[Meaning]) -> list[bytes]:
        found = [frame for kind in self._examples.values() for frame, heard in kind if heard.means in wanted]
        return [self._codec.answering(frame, self._address) for frame in found[:1]]

    # What goes wrong

    def starting(self, frame: bytes) -> list[bytes]:
        """What it says while it starts."""
        said = self._meaning([Meaning.NOT_READY, Meaning.RESTARTED])
        if said:
            return said
        zeros: dict[str, float | str] = dict.fromkeys(self.profile.points, 0.0)
        for slug, value in zeros.items():
            try:
                frame = self._codec.encode({slug: value}, frame)
            except ValueError:
                continue
        return [frame]

    def damaged(self, sent: bytes) -> bytes:
        """One bit of a value is wrong, as the wire carries it; text gets a byte that is none."""
        middle = len(sent) // 2
        is_binary = isinstance(self.profile.layout_of(self._codec.read(self._whole(sent)).message), Binary)
        return sent[:middle] + (bytes([sent[middle] ^ 0x10]) if is_binary else b"\xff") + sent[middle + 1 :]

    def with_inside(self, frame: bytes, mark: bytes) -> bytes:
        """`mark` stands where the first value does."""
        at = min(place for point in self.profile.points.values() for place in point.places if isinstance(place, int))
        return self._codec.sealed(frame[:at] + mark + frame[at + len(mark) :])


def _good(heard: Heard) -> set[str]:
    return {slug for slug, sample in heard.samples.items() if sample.quality is Quality.GOOD}


def _within(point: SerialPoint, value: float) -> float:
    """`value` (canonical unit), or the nearest that the sensor can measure."""
    if not point.range:
        return value
    factor, offset = point.conversion
    low, high = (limit * factor + offset for limit in point.range)
    return min(max(value, low), high)
