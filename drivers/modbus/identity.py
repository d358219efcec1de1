"""Who a device is and how it is set: what it was asked, and what follows. Nothing is said of a device before.

A meter's word order and its unit of energy are settings that somebody may change at its keys while it is polled. They
are asked for at start, when it comes back, every hour, and whenever its values are as none were before.
"""

import math
from collections.abc import Iterable
from dataclasses import replace

from drivers.modbus.codec import Field
from drivers.modbus.identify import AS_WRITTEN, Bank, Setting, Verdict, needed, requests, serials, verdict
from drivers.modbus.kinds import Kind
from drivers.modbus.points import WordOrder
from drivers.modbus.settings import Profile
from gateway.errors import DeviceError
from gateway.model import PointId, Reading, Reason

EVERY = 3600.0
"""Seconds after which a device is asked again."""
TINY, HUGE = 1e-4, 1e12
"""A float outside of these is more likely two words in the wrong order than a measurement."""
_STRANGE = (Reason.OUT_OF_RANGE, Reason.NOT_A_NUMBER)


class Identity:
    """One device's."""

    def __init__(self, profile: Profile) -> None:
        self._profile = profile
        self.questions = requests(profile, needed(profile))
        """(function, address, count) of what it is asked."""
        self.due = -math.inf if self.questions else math.inf
        """When to ask next, loop time."""
        self._verdict = Verdict(Setting.UNKNOWN, "it was not asked yet") if self.questions else AS_WRITTEN
        self.serials: tuple[str, ...] = ()
        """Its number, in each word order that it may be set to; nothing: it says none."""
        self._strange: set[PointId] = set()

    @property
    def is_known(self) -> bool:
        """Whether its registers mean what they are taken for."""
        return self._verdict.setting in (Setting.AS_WRITTEN, Setting.TURNED)

    @property
    def word_order(self) -> WordOrder | None:
        """That of all its values; None: as the profile says of each."""
        return self._verdict.word_order

    @property
    def error(self) -> DeviceError:
        """Why nothing is said of it."""
        return DeviceError(self._verdict.say, Reason.CONFIG_ERROR)

    def learn(self, bank: Bank, now: float) -> bool:
        """Its answers. Whether it is otherwise than it was known; the first answer is always news."""
        before, self._verdict = self._verdict, verdict(self._profile, bank)
        self.serials = serials(self._profile, bank)
        self.due = now + EVERY if self.is_known else -math.inf
        return (before.setting, before.word_order) != (self._verdict.setting, self._verdict.word_order)

    def ask_again(self) -> None:
        """It may be another device now, or set otherwise."""
        if self.questions:
            self.due = -math.inf

    def is_doubted(self, readings: Iterable[Reading]) -> bool:
        """Whether a value is as none of its point was before: then it is asked again before anything is said."""
        if not self.questions:
            return False
        read = list(readings)
        strange = {one.point for one in read if _is_strange(one)}
        news = strange - self._strange
        self._strange = self._strange.difference(one.point for one in read) | strange
        return bool(news)

    def as_set(self, field: Field) -> Field:
        """A field of the profile in the word order that the device is set to."""
        if self.word_order is None or field.kind is Kind.STR:
            return field
        return replace(field, low_word_first=self.word_order == "little")

    @property
    def remark(self) -> str:
        """What a technician should know of the word order."""
        name = self._profile.profile.partition("/")[0]
        if self.word_order is None:
            return f"sends its words in the order of profile {name} again"
        first = "low" if self.word_order == "little" else "high"
        return f"is set to send the {first} word first, otherwise than profile {name} is written; it is read so"


def _is_strange(reading: Reading) -> bool:
    value = reading.value
    if isinstance(value, float):
        return value != 0 and not TINY <= abs(value) <= HUGE
    return reading.reason in _STRANGE
