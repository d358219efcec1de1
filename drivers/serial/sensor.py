"""One sensor: what is told of it and when, whether it is well, and when it rests. Pure but for the clock.

`every` (the device's, else the point's in the profile) thins what is reported: the frame nearest to each deadline
is given, or what came since combined as the point says, and any frame whose quality differs from what was last told.
Without `every` each frame is given.
"""

import math
from collections.abc import Mapping
from enum import Enum

from drivers.serial.arithmetic import none
from drivers.serial.codec import Codec, Heard, Sample
from drivers.serial.dialogue import Meaning
from drivers.serial.series import LOST, Growth, Series
from drivers.serial.settings import DeviceSettings, Profile
from gateway.model import Device, Json, Quality, Reading, Reason
from gateway.ports import State

WAKE_AGAIN = 5.0
"""Seconds after which a sensor that was woken, or told `init`, and says nothing is told once more."""


class Shift(Enum):
    """Where a sensor stands that rests between measurements."""

    ALWAYS = "always"
    """It does not rest."""
    WAKING = "waking"
    MEASURING = "measuring"
    RESTING = "resting"


class Sensor:
    """One device on the link; times are the event loop's, in seconds."""

    def __init__(self, device: Device, state: State) -> None:
        assert isinstance(device.profile, Profile)
        assert isinstance(device.settings, DeviceSettings)
        self.device, self.id = device, device.id
        self.profile: Profile = device.profile
        self.address = device.settings.address
        self.codec = Codec(self.profile)
        self.trouble: str | None = None
        """What is wrong with it: "" nothing, None not known since the gateway started."""
        self.due = 0.0
        """When it is asked next."""
        self.told_at = 0.0
        """When it last said a value, or why it has none, when asked."""
        init = self.profile.dialogue.init
        self._agreed_by = {answer for name in init for answer in self.profile.commands[name].answers}
        """The messages by which a sensor that pushes agrees to `init`: until then its values may mean anything."""
        self._is_agreed = True
        self.init_at = math.inf
        """When `init` is sent next."""
        self._warm_at = math.inf
        """Until then values are doubtful; not before a first frame."""
        self._series = {slug: self._started(slug, device.settings.every, state) for slug in self.profile.points}
        every, duty = device.settings.every or 0.0, self.profile.duty
        self._cycle = every
        self._busy = self.profile.warm_up + duty.measure if duty else 0.0
        self.shift = Shift.WAKING if duty and every >= 2 * self._busy else Shift.ALWAYS
        self._turns_at = 0.0
        self._cycle_at: float | None = None

    def _started(self, slug: str, every: float | None, state: State) -> Series:
        point, profile = self.profile.points[slug], self.profile
        # A sensor that is asked only as often as it is told needs no thinning.
        thinned = profile.mode == "push" or self._combines
        series = Series(point, (every or point.every or 0.0) if thinned else 0.0, profile.cadence)
        if point.counter:
            stood = state.get(self._key(slug))
            series.growth = Growth(point.counter, float(stood) if isinstance(stood, int | float) else None)
        return series

    @property
    def _combines(self) -> bool:
        return any(point.combine != "last" for point in self.profile.points.values())

    @property
    def name(self) -> str:
        return self.profile.title or self.profile.profile

    @property
    def period(self) -> float:
        """Seconds between two questions."""
        assert isinstance(self.device.settings, DeviceSettings)
        every = self.device.settings.every
        return every if every and not self._combines and self.shift is Shift.ALWAYS else self.profile.cadence

    def _key(self, slug: str) -> str:
        return f"{self.id}/{slug}"

    def state(self) -> dict[str, Json]:
        """Where the counters stand that have been told: committed with the readings."""
        return {
            self._key(slug): one.growth.last
            for slug, one in self._series.items()
            if one.growth and one.growth.told is not None
        }

    def opened(self) -> None:
        """The port is open: the gateway has said itself that the points of a lost link have no value."""
        for one in self._series.values():
            one.last = None
        self._warm_at = math.inf
        self._disagree()
        if self.shift is not Shift.ALWAYS:
            self.shift, self._turns_at = Shift.WAKING, 0.0

    def _disagree(self) -> None:
        self.init_at = 0.0 if self.profile.dialogue.init else math.inf
        self._is_agreed = self.profile.mode == "poll" or not self._agreed_by

    def init_sent(self, now: float) -> None:
        """Once is enough, unless an answer is still to come."""
        self.init_at = math.inf if self._is_agreed else now + WAKE_AGAIN

    def untaken(self) -> None:
        """What was handed over last was not stored."""
        for one in self._series.values():
            one.last = None
            if one.growth:
                one.growth.back()

    def taken(self) -> None:
        for one in self._series.values():
            if one.growth:
                one.growth.told = None

    # What it says

    def hear(self, heard: Heard, when: float, at: int) -> list[Reading]:
        """What a frame is worth telling; `at` is its boot clock."""
        if heard.message in self._agreed_by:
            self._is_agreed, self.init_at = True, math.inf
        if heard.means:
            return self._mean(heard.means, at)
        if self._warm_at == math.inf:
            self._warm_at = when + self.profile.warm_up
            if self.shift is Shift.WAKING:
                self.shift, self._turns_at = Shift.MEASURING, when + self._busy
        hold = self.shift is not Shift.ALWAYS
        told: dict[str, Sample] = {}
        for slug, sample in heard.samples.items():
            if not self._is_agreed:
                sample = none(Reason.CONFIG_ERROR)
            elif sample.quality is Quality.GOOD and when < self._warm_at:
                sample = Sample(sample.value, Quality.UNCERTAIN, Reason.WARMING_UP)
            series = self._series[slug]
            weight = heard.samples.get(series.point.weight) if series.point.weight else None
            length = weight.value if weight and isinstance(weight.value, int | float) else 1.0
            if (now := series.hear(sample, length, when, hold=hold)) is not None:
                told[slug] = now
        return self._as_readings(told, at)

    def _mean(self, means: Meaning, at: int) -> list[Reading]:
        match means:
            case Meaning.ASLEEP | Meaning.NOT_READY:
                self._warm_at = math.inf
                return self.lose(at, Quality.BAD, Reason.WARMING_UP)
            case Meaning.FAILED:
                return self.lose(at, Quality.BAD, Reason.DEVICE_FAILURE)
            case Meaning.RESTARTED:
                self._warm_at = math.inf
                self._disagree()
                for one in self._series.values():
                    if one.growth:
                        one.growth.restarted()
            case _:
                pass
        return []

    def lose(self, at: int, quality: Quality = LOST[0], reason: Reason = LOST[1]) -> list[Reading]:
        """No point has a value any more: what of that is news."""
        lost = {slug: Sample(None, quality, reason) for slug, one in self._series.items() if one.lose(quality, reason)}
        return self._as_readings(lost, at)

    def missed(self) -> None:
        """It was silent: what comes next may come from a start."""
        self._warm_at = math.inf

    def _as_readings(self, told: Mapping[str, Sample], at: int) -> list[Reading]:
        ids = self.device.points
        return [Reading(ids[slug].id, one.value, at, one.quality, one.reason) for slug, one in told.items()]

    # When it rests

    def turn(self, now: float, at: int) -> tuple[str, list[Reading]]:
        """What is due for its rest, `wake`, `sleep` or nothing, and what is told at the end of a measurement."""
        if now < self._turns_at:
            return "", []
        match self.shift:
            case Shift.WAKING:
                if self._cycle_at is None:
                    self._cycle_at = now
                self._turns_at = now + WAKE_AGAIN
                return "wake", []
            case Shift.MEASURING:
                told = {slug: sample for slug, one in self._series.items() if (sample := one.flush()) is not None}
                self.shift = Shift.RESTING
                cycle_at = now if self._cycle_at is None else self._cycle_at
                passed = math.floor((now - cycle_at) / self._cycle) + 1
                self._cycle_at = self._turns_at = cycle_at + passed * self._cycle
                return "sleep", self._as_readings(told, at)
            case Shift.RESTING:
                self.shift, self._warm_at = Shift.WAKING, math.inf
                self._turns_at = now + WAKE_AGAIN
                return "wake", []
            case _:
                return "", []

    @property
    def turns_at(self) -> float:
        """When `turn` has something to say next."""
        return math.inf if self.shift is Shift.ALWAYS else self._turns_at
