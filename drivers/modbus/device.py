"""What the driver remembers of one device: when its points are due, which are bad, and since when it is silent."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from drivers.modbus.codec import Field
from drivers.modbus.counters import Counters
from drivers.modbus.identity import Identity
from drivers.modbus.lesson import Lesson
from drivers.modbus.plan import Block, Named, plan
from drivers.modbus.settings import SETTING_EVERY, DeviceSettings, Profile
from drivers.modbus.trail import Trail
from gateway.errors import DeviceError
from gateway.model import Device, Quality, Reading, Reason
from gateway.ports import State

EVERY = 10.0
"""Seconds between polls where neither the device nor the point says otherwise."""
SILENT_SHARE = 0.05
"""All silent devices of a link together may take this part of its time."""
LONGEST_PROBE = 300.0
SAY_AGAIN = 300.0
"""Seconds after which a point that is still bad says so again, and a refused register is asked for again."""


@dataclass(slots=True)
class Rate:
    """Points that are polled together; due on a grid from the device's start, so that nothing drifts."""

    every: float
    fields: list[Named]
    due: float = -math.inf


class Polled:
    """One device on the link."""

    def __init__(self, device: Device, state: State) -> None:
        assert isinstance(device.settings, DeviceSettings)
        assert isinstance(device.profile, Profile)
        self.id = device.id
        self.unit = device.settings.address
        self.profile = device.profile
        self.identity = Identity(self.profile)
        self.counters = Counters.of(device.id, self.profile.points, state.get(device.id))
        self.settings: Mapping[str, Field] = dict(self.profile.writable())
        self.point_ids = {slug: point.id for slug, point in device.points.items()}
        self.silent = False
        self.trouble = ""
        """The event that stands for its present state: "", device_fault or device_down."""
        self.lesson = Lesson()
        self.rates = _rates(device.settings, self.profile)
        self.due = -math.inf
        """When to read it next, loop time."""
        self._limits = self.profile.limits()
        self._fields = [pair for rate in self.rates for pair in rate.fields]
        self.trail = Trail(self._limits, () if self.profile.sunspec else self._fields)
        self._said: dict[str, tuple[str, float]] = {}
        self._refused: set[str] = set()
        self._excluded: dict[str, float] = {}
        """Fields that no request holds, and until when: the device does not have them."""
        self._plans: dict[tuple[float, ...], Sequence[Block]] = {}
        self._worth = 0

    def turn(self) -> None:
        """Read and write in the word order that the device is set to."""
        written = (*self.profile.fields(), *self.profile.writable())
        fields = {slug: self.identity.as_set(field) for slug, field in written}
        self.settings = {slug: fields[slug] for slug in self.settings}
        for rate in self.rates:
            rate.fields = [(slug, fields[slug]) for slug, _ in rate.fields]
        self._fields = [pair for rate in self.rates for pair in rate.fields]
        self._exclude(self._excluded)

    def take_due(self, now: float, began: float) -> list[Rate]:
        """What to read now. Deadlines are counted from `began`; those that were missed are not made up for."""
        due = [rate for rate in self.rates if rate.due <= now + 0.001]
        for rate in due:
            rate.due = began + (math.floor((now + 0.001 - began) / rate.every) + 1) * rate.every
        self.due = min(rate.due for rate in self.rates)
        if any(until <= now for until in self._excluded.values()):
            self._exclude({slug: until for slug, until in self._excluded.items() if until > now})
        self.lesson = Lesson()
        return due

    def blocks(self, due: Iterable[Rate], worth: int) -> Sequence[Block]:
        """The questions that read it; `worth`: see plan.plan."""
        if worth != self._worth:
            self._plans, self._worth = {}, worth
        key = tuple(rate.every for rate in due)
        if key not in self._plans:
            fields = [pair for rate in due for pair in rate.fields if pair[0] not in self._excluded]
            self._plans[key] = self.trail.ordered(plan(fields, self._limits, worth))
        return self._plans[key]

    def refuses_more(self, block: Block, asked: Block) -> None:
        """`block` was refused in a longer request."""
        self.lesson.refused_more(block, asked, self._limits)
        self.trail.shorten()

    def learn(self, now: float) -> None:
        """The poll is over."""
        excluded = self._excluded | dict.fromkeys(self.lesson.culprits, now + SAY_AGAIN)
        if self.lesson.learn(self._limits) or excluded != self._excluded:
            self._exclude(excluded)

    def _exclude(self, excluded: dict[str, float]) -> None:
        self._excluded, self._plans = excluded, {}
        lacking = tuple((field.fc, field.addr, field.end - 1) for slug, field in self._fields if slug in excluded)
        self._limits.forbidden = (*self.profile.limits().forbidden, *lacking)
        if self.identity.is_known or not self.profile.sunspec:  # else nobody knows where they are
            self.trail.leads([pair for pair in self._fields if pair[0] not in excluded])

    def good(self, block: Block) -> None:
        """What it holds has values."""
        if self._said or self._refused:
            for slug in block.slugs:
                self._said.pop(slug, None)
                self._refused.discard(slug)

    def bad(self, slugs: Iterable[str], error: DeviceError, now: float, at: int) -> list[Reading]:
        """Readings without a value, for those that have not said so lately."""
        readings = []
        for slug in slugs:
            if error.reason == Reason.COMM_FAILURE:
                self._refused.discard(slug)
            else:
                self._refused.add(slug)
            reason, since = self._said.get(slug, ("", -math.inf))
            if reason != error.reason or now - since >= SAY_AGAIN:
                self._said[slug] = (error.reason, now)
                readings.append(Reading(self.point_ids[slug], None, at, Quality.BAD, error.reason))
        return readings

    def fall_silent(self, now: float, cost: float, silent: int, others: int) -> None:
        """Ask again so seldom that `silent` such devices, each costing `cost` seconds, leave the line to `others`."""
        self.silent = True
        self._exclude({})  # what comes back may be another device
        self.identity.ask_again()
        share = SILENT_SHARE if others else 1.0
        self.due = now + max(min(LONGEST_PROBE, cost * silent / share), self.rates[0].every)
        for rate in self.rates:
            rate.due = now

    def start_over(self) -> None:
        """The wire is new: everything is due."""
        self.identity.ask_again()
        self.trail.start_over()
        self.due = -math.inf
        for rate in self.rates:
            rate.due = -math.inf

    def unsaid(self) -> None:
        """What was last said did not reach the buffer: say it again."""
        self._said.clear()

    def state(self) -> str:
        """Which event would describe it now: nothing, device_fault (some points refused) or device_down."""
        if self.silent or (self.identity.is_known and self._refused.issuperset(self.profile.points)):
            return "device_down"
        return "device_fault" if self._refused else ""


def _rates(settings: DeviceSettings, profile: Profile) -> list[Rate]:
    rates: dict[float, Rate] = {}
    for slug, field in (*profile.fields(), *profile.writable()):
        rate = _every(slug, settings, profile)
        rates.setdefault(rate, Rate(rate, [])).fields.append((slug, field))
    return [rates[every] for every in sorted(rates)]


def _every(slug: str, settings: DeviceSettings, profile: Profile) -> float:
    """Seconds between polls: what the site says of the point, its quantity or the device, else the profile."""
    place = profile.points.get(slug) or profile.writes[slug]
    for told in (settings.points.get(slug), settings.quantities.get(place.quantity)):
        if told and told.every:
            return told.every
    if slug in profile.writes:
        return place.every or SETTING_EVERY
    return settings.every or place.every or EVERY
