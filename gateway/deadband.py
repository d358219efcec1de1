"""Which readings are worth storing: those that say something new, and one now and then although nothing changes.

The last value per point, which the page shows, is not thinned. A change of quality always goes.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from gateway.diagnostic import Mistake, unknown
from gateway.model import Device, Json, Lane, Point, PointId, Reading, Record
from gateway.ports import Emit
from gateway.profile import DeviceKeys, SendKeys
from gateway.quantities import QUANTITIES, convert

_NOISE = 1e-9
"""Part of a change that binary fractions may swallow."""


@dataclass(frozen=True, slots=True)
class Rule:
    """`change` in the point's unit: 0 is any. `at_least`: milliseconds after which a reading goes anyway, or None."""

    change: float
    at_least: float | None

    def passes(self, last: Reading, new: Reading) -> bool:
        if (new.quality, new.reason) != (last.quality, last.reason) or new.context or new.transaction:
            return True
        if self.at_least is not None and new.at - last.at >= self.at_least:
            return True
        a, b = last.value, new.value
        if not self.change or not isinstance(a, int | float) or not isinstance(b, int | float):
            return a != b
        return abs(b - a) >= self.change * (1 - _NOISE)


class Deadband:
    """What was last stored of each point that has a rule."""

    def __init__(self, rules: Mapping[PointId, Rule]) -> None:
        self._rules = rules
        self._last: dict[PointId, Reading] = {}

    def new(self, records: Sequence[Record]) -> Sequence[Record]:
        """Those of `records` that are to be stored."""
        return [record for record in records if not isinstance(record, Reading) or self._is_new(record)]

    def stored(self, records: Iterable[Record]) -> None:
        """These are in the buffer."""
        for record in records:
            if isinstance(record, Reading) and record.point in self._rules:
                self._last[record.point] = record

    def _is_new(self, reading: Reading) -> bool:
        rule, last = self._rules.get(reading.point), self._last.get(reading.point)
        return rule is None or last is None or rule.passes(last, reading)


def thinned(emit: Emit, devices: Iterable[Device], note: Callable[[Sequence[Record]], None]) -> Emit:
    """`emit` for what the site finds new of all that `devices` say; `note` is told everything, once it is accepted."""
    found: dict[PointId, Rule] = {}
    for device in devices:
        if isinstance(device.settings, DeviceKeys):
            found |= rules(device.settings, device.points)
    deadband = Deadband(found) if found else None

    async def emit_new(
        records: Sequence[Record], *, lane: Lane = Lane.TELEMETRY, state: Mapping[str, Json] | None = None
    ) -> None:
        new = deadband.new(records) if deadband else records
        if new or state:
            await emit(new, lane=lane, state=state)
        if deadband:
            deadband.stored(new)
        note(records)

    return emit_new


def rules(keys: DeviceKeys, points: Mapping[str, Point]) -> dict[PointId, Rule]:
    """By point: what the site says of it, else of its quantity, else of the device. Mistake: nonsense."""
    for slug in keys.points:
        if slug not in points:
            why, fix = unknown(slug, sorted(points))
            raise Mistake("unknown_point", f"point {why}", fix, ("points", slug))
    known = {*QUANTITIES, *(point.quantity for point in points.values())}
    for quantity in keys.quantities:
        if quantity not in known:
            why, fix = unknown(quantity, sorted(known))
            raise Mistake("unknown_quantity", f"quantity {why}", fix, ("quantities", quantity))
    found = {}
    for slug, point in points.items():
        for at, told in (
            (("points", slug), keys.points.get(slug)),
            (("quantities", point.quantity), keys.quantities.get(point.quantity)),
            ((), keys),
        ):
            if told and told.send:
                found[point.id] = _rule(told.send, point, (*at, "send"))
                break
    return found


def _rule(send: SendKeys, point: Point, at: tuple[str, ...]) -> Rule:
    change = 0.0
    if send.change:
        number, unit = send.change
        try:
            change = abs(number * convert(unit, point.unit)[0])
        except ValueError as error:
            raise Mistake(
                "bad_unit", f"{point.quantity}: {error}", f"Write it in {point.unit}.", (*at, "change")
            ) from None
    return Rule(change, None if send.at_least is None else send.at_least * 1000)
