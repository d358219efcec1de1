"""A charger's meter values as readings of its points, at the time at which they were measured.

A charger that comes back tells what it kept: hundreds of values that were true hours ago. They are dated back on the
boot clock, so that nobody who looks at the newest reading takes them for the present (OCPP 1.6 §3.7).
"""

from dataclasses import dataclass, field
from typing import NamedTuple

from drivers.ocpp.codec import Remarks, short
from drivers.ocpp.samples import REGISTER, Route, Signed, samples
from drivers.ocpp.settings import DeviceSettings, Profile, slug_at
from gateway.model import ClockState, Device, Json, Point, PointId, Quality, Reading, Reason
from gateway.ports import Clock

LATE_MS = 60_000
"""A value that is older is history."""
UNSET_MS = 30 * 24 * 3600 * 1000
"""A time stamp that is further back is that of a clock which nobody has set (1970, 2000); its value is taken as new."""
OF_A_CHARGE = ("current", "current_offered", "power_active", "power_factor", "power_offered", "power_reactive",
               "state_of_charge")  # fmt: skip
"""Quantities that are told only while a car charges."""
_SIGNED = ("value", "format", "context", "measurand", "phase", "location", "unit")


@dataclass(slots=True)
class Measured:
    """What a message has told: the readings, what a charge's record needs of them, and what is signed, as it came."""

    readings: list[Reading] = field(default_factory=list)
    times: list[int] = field(default_factory=list)
    """At which they were measured, UTC milliseconds of the charger, as far as it said; one after another differ."""
    register: float | None = None
    """The last of the energy that has flowed to the car, Wh."""
    signed: list[dict[str, Json]] = field(default_factory=list)


class _Place(NamedTuple):
    """Where a value goes at a connector."""

    point: PointId
    context: str | None
    is_register: bool


class Meter:
    """The points of one charger, and which of them have a value now."""

    def __init__(self, device: Device, clock: Clock) -> None:
        assert isinstance(device.settings, DeviceSettings)
        assert isinstance(device.profile, Profile)
        self._points, self._routes, self._unmeasured = device.points, device.profile.routes, device.profile.unmeasured
        self._clock, self._connectors = clock, device.settings.connectors
        self._places: dict[int, dict[Route, _Place | None]] = {}
        self.known: set[PointId] = set()

    def age(self, time: int | None) -> int:
        """Milliseconds since `time` (UTC) where that makes it history, else 0."""
        if time is None or self._clock.state() is ClockState.UNSYNCED:
            return 0
        age = self._clock.wall() - time
        return age if LATE_MS < age < UNSET_MS else 0

    def read(self, connector: int, meter_values: object, transaction: str | None, remarks: Remarks) -> Measured:
        """What a `meterValue` or `transactionData` list tells."""
        measured, now = Measured(), self._clock.boot()
        places, readings, known = self._places_at(connector), measured.readings, self.known
        dated, at = None, now
        for sample in samples(meter_values, remarks):
            if isinstance(sample, Signed):
                measured.signed.append(_as_it_came(sample))
                continue
            route, value, time, quality, reason = sample
            try:
                place = places[route]
            except KeyError:
                place = places[route] = self._place(route, connector)
            if place is None:
                phase = f" of {route.phase}" if route.phase else ""
                where = f"at connector {connector} ({route.location})"
                remarks.append(f"{route.measurand}{phase} {where}, for which there is no point; it is left out")
                continue
            if time != dated:
                dated, at = time, now - self.age(time)
                if time is not None:
                    measured.times.append(time)
            point, context, is_register = place
            if value is not None:
                known.add(point)
                if is_register:
                    measured.register = value
            readings.append(Reading(point, value, at, quality, reason, time, context, transaction))
        return measured

    def _places_at(self, connector: int) -> dict[Route, _Place | None]:
        places = self._places.get(connector)
        if places is None:
            places = {}
            if 0 <= connector <= self._connectors:  # what a charger makes up is not remembered
                self._places[connector] = places
        return places

    def _place(self, route: Route, connector: int) -> _Place | None:
        point = self._points.get(slug_at(self._routes.get(route, ""), connector))
        return _Place(point.id, route.context, route in REGISTER) if point else None

    def state(
        self,
        quantity: str,
        connector: int,
        value: float | str | None,
        time: int | None = None,
        context: str | None = None,
    ) -> Reading | None:
        """What is known without a measurand: a status, the limit. None where there is no such point; a `value` of None
        is a status that nobody knows, or that no limit is known to hold.
        """
        point = self._unmeasured_at(quantity, connector)
        if point is None:
            return None
        at = self._clock.boot() - self.age(time)
        if value is None:
            reason = Reason.IDLE if quantity == "charging_limit" else Reason.OUT_OF_RANGE
            return Reading(point.id, None, at, Quality.BAD, reason, time, context)
        self.known.add(point.id)
        return Reading(point.id, value, at, device_time=time, context=context)

    def idle(self, connector: int, time: int | None) -> list[Reading]:
        """No value any more for what only a charge has: it ended at `time`, and nothing more will be told of it."""
        at = self._clock.boot() - self.age(time)
        slugs = {slug_at(slug, connector) for slug in self._routes.values()}
        points = [point for slug in sorted(slugs) if (point := self._points.get(slug))]
        return [
            Reading(point.id, None, at, Quality.BAD, Reason.IDLE, time)
            for point in points
            if point.id in self.known and point.quantity in OF_A_CHARGE
        ]

    def lost(self) -> list[Reading]:
        """No value any more for what had one: the charger is gone."""
        at = self._clock.boot()
        lost = [Reading(point, None, at, Quality.BAD, Reason.COMM_FAILURE) for point in sorted(self.known)]
        self.known.clear()
        return lost

    def _unmeasured_at(self, quantity: str, connector: int) -> Point | None:
        """`device_status` is the charger's own, at connector 0; all else is a connector's."""
        slug = self._unmeasured.get(quantity)
        if slug is None or (connector == 0) != (quantity == "device_status"):
            return None
        return self._points.get(slug_at(slug, max(1, connector)))


def _as_it_came(signed: Signed) -> dict[str, Json]:
    """The specification's own keys, whatever is text: the value whole, of the others enough to be known again."""
    sampled = signed.written
    kept: dict[str, Json] = {key: short(sampled[key]) for key in _SIGNED if isinstance(sampled.get(key), str)}
    return kept | {"value": sampled["value"], "timestamp": short(signed.timestamp)}
