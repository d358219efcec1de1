"""One point over time: what is told of it and when, averages, growth of counters, values that stand still. Pure."""

import math
from dataclasses import dataclass, field

from drivers.serial.arithmetic import Sample
from drivers.serial.point import Counter, SerialPoint
from gateway.model import Quality, Reason

LOST = (Quality.BAD, Reason.COMM_FAILURE)


@dataclass(slots=True)
class Growth:
    """By how much a counter grew since it was last told. `last`: where it stood; None: not known."""

    rule: Counter
    last: float | None
    grown: float = 0.0
    is_sure: bool = True
    told: tuple[float, bool] | None = None
    """What was handed over and may have to be taken back."""

    def add(self, value: float) -> None:
        last, wraps = self.last, self.rule.wraps
        if last is None:
            self.is_sure = False
            self.grown = math.nan
        elif value >= last:
            self.grown += value - last
        elif wraps and last - value > wraps / 2:
            self.grown += value + wraps - last
        else:
            self.restarted()
            self.grown += value
        self.last = value

    def restarted(self) -> None:
        """The sensor counts from 0 again; what it counted before and was not told is lost."""
        self.last, self.is_sure = 0.0, False

    def take(self) -> Sample:
        """What is told now."""
        self.told = self.grown, self.is_sure
        grown, sure = round(self.grown, 9), self.is_sure
        self.grown, self.is_sure = 0.0, True
        if math.isnan(grown):
            return Sample(None, Quality.BAD, Reason.COUNTER_RESET)
        return Sample(grown) if sure else Sample(grown, Quality.UNCERTAIN, Reason.COUNTER_RESET)

    def back(self) -> None:
        """What was told last was not taken."""
        if self.told:
            self.grown, self.is_sure = self.grown + self.told[0], self.is_sure and self.told[1]
            self.told = None


@dataclass(slots=True)
class Series:
    """One point. Times are the event loop's, in seconds."""

    point: SerialPoint
    period: float
    """Seconds between two values that are told; 0: every one."""
    cadence: float
    growth: Growth | None = None
    last: tuple[Quality, str | None] | None = None
    """Quality and reason that were told last."""
    due: float = 0.0
    _is_held: bool = False
    _values: list[tuple[float, float]] = field(default_factory=list)
    _sample: Sample | None = None
    _same: tuple[float | str | None, float] = (None, 0.0)

    def hear(self, sample: Sample, weight: float, when: float, *, hold: bool = False) -> Sample | None:
        """A new sample; what is to be told now, if anything. `hold`: nothing, `flush` will ask for the mean of all."""
        sample = self._moving(sample, when)
        quality, self._is_held = (sample.quality, sample.reason), hold
        if self.growth and isinstance(sample.value, int | float):
            self.growth.add(sample.value)
        if hold and self._sample and _rank(sample) < _rank(self._sample):
            return None
        if self._sample and quality != (self._sample.quality, self._sample.reason):
            self._values.clear()
        self._sample = sample
        if isinstance(sample.value, int | float):
            self._values.append((sample.value, weight))
        if hold:
            return None
        if self.last is None:
            self.due = when + self.period
            return self.flush()
        # The frame nearest to the deadline: a sensor's clock is not ours, and the next one comes a cadence later.
        early = self.due - min(self.cadence, self.period) / 2
        is_due = when >= early
        if is_due and self.period:
            self.due += self.period * (1 + math.floor((when - early) / self.period))
        return self.flush() if is_due or quality != self._told_quality() else None

    def flush(self) -> Sample | None:
        """What there is to tell since the last time; None: nothing."""
        sample, values = self._sample, self._values
        if sample is None:
            return None
        self.last = (sample.quality, sample.reason)
        if self.growth and sample.value is not None:
            grown = self.growth.take()
            # Doubt about the counter is doubt about its growth.
            sample = sample._replace(value=grown.value) if grown.quality is Quality.GOOD else grown
        elif values and (self._is_held or self.point.combine != "last"):
            value = combined(self.point.combine, values)
            sample = Sample(None, Quality.BAD, Reason.ABSENT) if value is None else sample._replace(value=value)
        self._values, self._sample = [], None
        return sample

    def lose(self, quality: Quality, reason: str) -> bool:
        """It has no value any more; whether that is news."""
        is_news = self.last != (quality, reason)
        self.last, self._values, self._sample = (quality, reason), [], None
        return is_news

    def _told_quality(self) -> tuple[Quality, str | None]:
        return self.last or (Quality.GOOD, None)

    def _moving(self, sample: Sample, when: float) -> Sample:
        """Doubtful, if it has stood still for too long."""
        if self.point.stuck is None or sample.value is None:
            return sample
        if sample.value != self._same[0]:
            self._same = (sample.value, when)
        if when - self._same[1] > self.point.stuck and sample.quality is Quality.GOOD:
            return Sample(sample.value, Quality.UNCERTAIN, Reason.STALE)
        return sample


_RANKS = {Quality.GOOD: 2, Quality.UNCERTAIN: 1, Quality.BAD: 0}


def _rank(sample: Sample) -> int:
    return _RANKS[sample.quality]


def combined(how: str, values: list[tuple[float, float]]) -> float | None:
    """The mean of (value, weight): plain, of the energy behind dB, or of vectors; None: there is none, as for vectors
    that cancel out."""
    try:
        mean = _mean(how, values)
    except (OverflowError, ValueError):
        return None
    return mean if mean is not None and math.isfinite(mean) else None


def _mean(how: str, values: list[tuple[float, float]]) -> float | None:
    match how:
        case "energy":
            return round(10 * math.log10(sum(10 ** (value / 10) for value, _ in values) / len(values)), 6)
        case "vector":
            east = sum(weight * math.sin(math.radians(value)) for value, weight in values)
            north = sum(weight * math.cos(math.radians(value)) for value, weight in values)
            if math.hypot(east, north) < 1e-9:
                return None
            return round(math.degrees(math.atan2(east, north)) % 360, 6) % 360
        case _:
            return float(f"{sum(value for value, _ in values) / len(values):.12g}")
