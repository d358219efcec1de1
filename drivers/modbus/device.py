"""What the driver remembers of one device: when its points are due, which are bad, and since when it is silent."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from drivers.modbus.codec import Field
from drivers.modbus.plan import Block, plan
from drivers.modbus.settings import SETTING_EVERY, DeviceSettings, Profile
from gateway.errors import DeviceError
from gateway.model import Device, Quality, Reading, Reason

EVERY = 10.0
"""Seconds between polls where neither the device nor the point says otherwise."""
SILENT_SHARE = 0.05
"""All silent devices of a link together may take this part of its time."""
LONGEST_PROBE = 300.0
SAY_AGAIN = 300.0
"""Seconds after which a point that is still bad says so again."""


@dataclass(slots=True)
class Rate:
    """Points that are polled together; due on a grid from the device's start, so that nothing drifts."""

    every: float
    fields: list[tuple[str, Field]]
    due: float = -math.inf


class Polled:
    """One device on the link."""

    def __init__(self, device: Device) -> None:
        assert isinstance(device.settings, DeviceSettings)
        assert isinstance(device.profile, Profile)
        self.id = device.id
        self.unit = device.settings.address
        self.profile = device.profile
        self.settings: Mapping[str, Field] = dict(self.profile.writable())
        self.point_ids = {slug: point.id for slug, point in device.points.items()}
        self.silent = False
        self.trouble = ""
        """The event that stands for its present state: "", device_fault or device_down."""
        self._said: dict[str, tuple[str, float]] = {}
        self._refused: set[str] = set()
        self._plans: dict[tuple[float, ...], list[Block]] = {}
        self.rates = _rates(device.settings, self.profile)
        self.due = -math.inf
        """When to read it next, loop time."""
        self._origin: float | None = None
        self._worth = 0

    def take_due(self, now: float, worth: int) -> list[Block]:
        """The blocks to read now; `worth`: see plan.plan. Deadlines that were missed are not made up for."""
        if self._origin is None:
            self._origin = now
        due = [rate for rate in self.rates if rate.due <= now + 0.001]
        for rate in due:
            rate.due = self._origin + (math.floor((now + 0.001 - self._origin) / rate.every) + 1) * rate.every
        self.due = min(rate.due for rate in self.rates)
        if worth != self._worth:
            self._plans, self._worth = {}, worth
        key = tuple(rate.every for rate in due)
        if key not in self._plans:
            line = self.profile.line
            fields = [pair for rate in due for pair in rate.fields]
            self._plans[key] = plan(fields, longest=line.max_regs, hole=min(line.max_hole, worth))
        return self._plans[key]

    def good(self, slugs: Iterable[str]) -> None:
        for slug in slugs:
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

    def fall_silent(self, now: float, cost: float, silent: int) -> None:
        """Ask again so seldom that `silent` such devices, each costing `cost` seconds, leave the line to the others."""
        self.silent = True
        pause = min(LONGEST_PROBE, cost * silent / SILENT_SHARE)
        self.due = now + max(pause, self.rates[0].every)
        for rate in self.rates:
            rate.due = now

    def start_over(self) -> None:
        """The wire is new: everything is due."""
        self.due = -math.inf
        for rate in self.rates:
            rate.due = -math.inf

    def unsaid(self) -> None:
        """What was last said did not reach the buffer: say it again."""
        self._said.clear()

    def state(self) -> str:
        """Which event would describe it now: nothing, device_fault (some points refused) or device_down."""
        if self.silent or self._refused.issuperset(self.profile.points):
            return "device_down"
        return "device_fault" if self._refused else ""


def _rates(settings: DeviceSettings, profile: Profile) -> list[Rate]:
    rates: dict[float, Rate] = {}
    for slug, field in profile.fields():
        every = settings.every or profile.points[slug].every or EVERY
        rates.setdefault(every, Rate(every, [])).fields.append((slug, field))
    for slug, field in profile.writable():
        every = profile.writes[slug].every or SETTING_EVERY
        rates.setdefault(every, Rate(every, [])).fields.append((slug, field))
    return [rates[every] for every in sorted(rates)]
