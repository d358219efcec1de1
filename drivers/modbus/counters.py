"""Counters over time: a wrap, a reset and another meter are told apart, across restarts of the gateway, too.

What is published is the counter as it stands. Who subtracts two of its values has to know what lies between them:

- it wrapped: the value is good, and a `counter_wrapped` event says so;
- somebody set it back: the first value after that is uncertain (counter_reset), and a `counter_reset` event says from
  where. A single value below the last one is no value (counter_reset) until the next one bears it out;
- the meter is another one (serial number): the first value of each of its counters is uncertain, higher or lower, and
  one `meter_exchanged` event says where the old counters stood.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from drivers.modbus.points import Place
from gateway.model import DeviceId, Event, Json, PointId, Quality, Reading, Reason
from gateway.quantities import QUANTITIES, Kind


@dataclass(slots=True)
class _Counter:
    slug: str
    unit: str
    wraps_at: float
    """Canonical; 0: nobody knows."""
    may_fall: bool = False
    """It may be a balance: a total of a quantity that has directions, of which it names none."""
    last: float | None = None
    fallen: float | None = None
    """A value below `last` that nothing has borne out yet."""
    is_new: bool = False
    """The next value is another meter's."""

    def stands_at(self, value: float) -> bool:
        """Whether that is no news."""
        return value == self.last and self.fallen is None and not self.is_new


@dataclass(slots=True)
class Counters:
    """One device's. `judge`, then `keep` once it is told; what was not told is judged again."""

    device: DeviceId
    serial: str | None
    _counters: dict[PointId, _Counter]
    _kept: Json = None
    _exchanged: Event | None = None
    _is_met: bool = False
    """Its number was not known before."""
    _judged: dict[PointId, _Counter] = field(default_factory=dict)

    @classmethod
    def of(cls, device: DeviceId, places: Mapping[str, Place], state: Json) -> "Counters":
        """Those of a profile's points, where they stood when they were last told: `state`, as `keep` gave it."""
        known = state if isinstance(state, Mapping) else {}
        stood = known.get("last")
        anew = known.get("new")
        serial = known.get("serial")
        counters = {}
        for slug, place in places.items():
            quantity = QUANTITIES.get(place.quantity)
            if not place.counter and not (quantity and quantity.kind is Kind.COUNTER):
                continue
            wraps = place.counter.wraps_at if place.counter else None
            last = stood.get(slug) if isinstance(stood, Mapping) else None
            counters[f"{device}/{slug}"] = _Counter(
                slug,
                place.canonical_unit,
                (wraps or 0.0) * place.conversion[0],
                bool(quantity and quantity.direction and not place.direction and not place.counter),
                last if isinstance(last, int | float) else None,
                is_new=isinstance(anew, Sequence) and slug in anew,
            )
        return cls(device, serial if isinstance(serial, str) else None, counters, state)

    def is_other(self, serials: Sequence[str]) -> bool:
        """Whether these, its number in each word order that it may be set to, are another meter's."""
        return bool(serials) and self.serial is not None and self.serial not in serials

    def meet(self, serials: Sequence[str], at: int) -> None:
        """It says its number."""
        if self.is_other(serials):
            stood = {each.slug: each.last for each in self._counters.values() if each.last is not None}
            say = f"{self.device} is another meter now: its number is {serials[0]}, it was {self.serial}."
            more: dict[str, Json] = {"from": self.serial, "to": serials[0], "stood": dict(stood)}
            self._exchanged = Event("meter_exchanged", self.device, at, say, more)
            for each in self._counters.values():
                each.is_new, each.last, each.fallen = each.is_new or each.last is not None, None, None
        if serials and self.serial not in serials:
            self.serial, self._is_met = serials[0], True

    def has_fallen(self, readings: Iterable[Reading]) -> bool:
        """Whether one of them is below where it stood: the meter may be set otherwise, or be another one."""
        return any(
            isinstance(one.value, int | float) and counter.last is not None and one.value < counter.last
            for one in readings
            if (counter := self._counters.get(one.point)) and counter.fallen is None and not counter.may_fall
        )

    def judge(self, readings: Sequence[Reading]) -> tuple[list[Reading], list[Event]]:
        """The readings as they are to be told, and what has happened."""
        told, events = [], [self._exchanged] if self._exchanged else []
        self._judged = {}
        for reading in readings:
            counter = self._counters.get(reading.point)
            if counter and isinstance(reading.value, int | float) and not counter.stands_at(reading.value):
                self._judged[reading.point], reading, event = _judge(counter, reading, reading.value, self.device)
                events += [event] if event else []
            told.append(reading)
        return told, events

    def keep(self) -> dict[str, Json]:
        """What was judged is to be told: where the counters stand then, for `emit(…, state=…)`; {}: as before."""
        if not self._judged and not self._is_met:
            return {}
        counters = [*(self._counters | self._judged).values()]
        state: dict[str, Json] = {
            "serial": self.serial,
            "last": {each.slug: each.last for each in counters if each.last is not None},
            "new": [each.slug for each in counters if each.is_new],
        }
        return {} if state == self._kept else {self.device: state}

    def kept(self) -> None:
        """It was told."""
        self._kept = self.keep().get(self.device, self._kept)
        self._counters |= self._judged
        self._judged, self._exchanged, self._is_met = {}, None, False


def _judge(
    counter: _Counter, reading: Reading, value: float, device: DeviceId
) -> tuple[_Counter, Reading, Event | None]:
    stands = replace(counter, last=value, fallen=None, is_new=False)
    if counter.is_new:
        return stands, reading._replace(quality=Quality.UNCERTAIN, reason=Reason.COUNTER_RESET), None
    last = counter.last
    if last is None or value >= last or counter.may_fall:
        return stands, reading, None
    more: dict[str, Json] = {"point": counter.slug, "from": last, "to": value}
    span = f"from {last:.15g} to {value:.15g} {counter.unit}"
    if counter.wraps_at and last - value > counter.wraps_at / 2:
        say = f"{reading.point} is full and began again, {span}."
        return stands, reading, Event("counter_wrapped", device, reading.at, say, more)
    if counter.fallen is None or value < counter.fallen:
        doubted = replace(counter, fallen=value)
        return doubted, reading._replace(value=None, quality=Quality.BAD, reason=Reason.COUNTER_RESET), None
    say = f"{reading.point} was set back, {span}."
    event = Event("counter_reset", device, reading.at, say, more)
    return stands, reading._replace(quality=Quality.UNCERTAIN, reason=Reason.COUNTER_RESET), event
