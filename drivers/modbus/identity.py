"""Who a device is and how it is set: what it was asked, and what follows. Nothing is said of a device before.

A meter's word order and its unit of energy are settings that somebody may change at its keys while it is polled. So are
the places where a SunSpec device has its models. They are asked for at start, when it comes back, every hour, and
whenever its values are as none were before.
"""

import math
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from drivers.modbus import sunspec
from drivers.modbus.codec import Field
from drivers.modbus.identify import AS_WRITTEN, Setting, Verdict, needed, requests, serials, verdict
from drivers.modbus.kinds import Kind
from drivers.modbus.points import WordOrder
from drivers.modbus.settings import Profile
from gateway.errors import DeviceError
from gateway.model import PointId, Reading, Reason

Question = sunspec.Question
EVERY = 3600.0
"""Seconds after which a device is asked again."""
TINY, HUGE = 1e-4, 1e12
"""A float outside of these is more likely two words in the wrong order than a measurement."""
_STRANGE = (Reason.OUT_OF_RANGE, Reason.NOT_A_NUMBER)


@dataclass(frozen=True, slots=True)
class Nature:
    """What a device has said of itself."""

    verdict: Verdict
    serials: Sequence[str] = ()
    """Its number, in each word order that it may be set to; nothing: it says none."""
    place: sunspec.Place | None = None

    @property
    def is_known(self) -> bool:
        """Whether its registers mean what they are taken for."""
        return self.verdict.setting in (Setting.AS_WRITTEN, Setting.TURNED)

    @property
    def layout(self) -> tuple[WordOrder | None, sunspec.Place | None]:
        """What says where its values lie, and how."""
        return self.verdict.word_order, self.place and replace(self.place, serial=None)


async def inquire(profile: Profile, read: Callable[[Question], Awaitable[Sequence[int] | None]]) -> Nature:
    """What a device answers that is asked before its values are believed; `read` gives None where it refuses."""
    if not profile.sunspec:
        found: dict[int, dict[int, int]] = {}
        for question in requests(profile, needed(profile)):
            if (words := await read(question)) is not None:
                found.setdefault(question[0], {}).update(enumerate(words, question[1]))
        return Nature(verdict(profile, found), serials(profile, found))
    steps = sunspec.walk(profile.sunspec)
    try:
        question = next(steps)
        while True:
            question = steps.send(await read(question))
    except StopIteration as done:
        place: sunspec.Place = done.value
    if place.why_none:
        return Nature(Verdict(Setting.WRONG, f"{place.why_none}. Check that its profile fits"))
    return Nature(AS_WRITTEN, [place.serial] if place.serial else [], place)


class Identity:
    """One device's."""

    def __init__(self, profile: Profile) -> None:
        self._profile = profile
        self.is_asked = bool(profile.sunspec or needed(profile))
        """Whether there is anything to ask it."""
        self.due = -math.inf if self.is_asked else math.inf
        """When to ask next, loop time."""
        unknown = Verdict(Setting.UNKNOWN, "it was not asked yet")
        self.nature = Nature(unknown if self.is_asked else AS_WRITTEN)
        self._remarked: WordOrder | None = None
        self._strange: set[PointId] = set()

    @property
    def is_known(self) -> bool:
        """Whether its registers mean what they are taken for."""
        return self.nature.is_known

    @property
    def error(self) -> DeviceError:
        """Why nothing is said of it."""
        return DeviceError(self.nature.verdict.say, Reason.CONFIG_ERROR)

    def learn(self, nature: Nature, now: float) -> bool:
        """What it has said. Whether it is otherwise than it was known; the first answer is always news."""
        before, self.nature = self.nature, nature
        self.due = now + EVERY if self.is_known else -math.inf
        return (before.verdict.setting, before.layout) != (nature.verdict.setting, nature.layout)

    def ask_again(self) -> None:
        """It may be another device now, or set otherwise."""
        if self.is_asked:
            self.due = -math.inf

    def is_doubted(self, readings: Iterable[Reading]) -> bool:
        """Whether a value is as none of its point was before: then it is asked again before anything is said."""
        if not self.is_asked:
            return False
        read = list(readings)
        moved = (Reason.CONFIG_ERROR,) if self._profile.sunspec else ()
        strange = {one.point for one in read if _is_strange(one) or one.reason in moved}
        news = strange - self._strange
        self._strange = self._strange.difference(one.point for one in read) | strange
        return bool(news)

    def as_set(self, field: Field) -> Field:
        """A field of the profile where the device has it, in the word order that it is set to."""
        order, place = self.nature.layout
        if place:
            return sunspec.located(field, place.address, place.model, place.length)
        if order is None or field.kind is Kind.STR:
            return field
        return replace(field, low_word_first=order == "little")

    def remark(self) -> str:
        """What a technician should know of how it is set, once; or ''."""
        order, name = self.nature.verdict.word_order, self._profile.profile.partition("/")[0]
        if not self.is_known or order == self._remarked:
            return ""
        self._remarked = order
        if order is None:
            return f"sends its words in the order of profile {name} again"
        first = "low" if order == "little" else "high"
        return f"is set to send the {first} word first, otherwise than profile {name} is written; it is read so"


def _is_strange(reading: Reading) -> bool:
    value = reading.value
    if isinstance(value, float):
        return value != 0 and not TINY <= abs(value) <= HUGE
    return reading.reason in _STRANGE
