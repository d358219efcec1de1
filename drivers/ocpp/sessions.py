"""One charge, from its readings to the record that it is billed by. Pure.

The energy of a session is its register's end less its start, and nothing where either is not certain. Whether a
charger's register counts on for ever or anew from each start is found out by watching it, unless its profile says so:
on a lifetime register a start at 0 is no baseline (some chargers report it when they start offline).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from drivers.ocpp.meter import Measured
from drivers.ocpp.transactions import Transaction
from gateway.model import Json

MOST_GAPS = 20
"""Gaps that are listed; more are only counted."""
USUAL_MS = 300_000
"""How far readings lie apart, where it has not been seen yet."""
LEAST_GAP_MS = 60_000
_SURE = 3
RegisterKind = Literal["lifetime", "session", "unknown"]


class Progress(NamedTuple):
    """What is known of an open charge besides its start. Energy in Wh, times in UTC milliseconds of the charger."""

    readings: int = 0
    is_named: bool = False
    """The charger has used its transaction id, so it has had our answer to the start."""
    register: float | None = None
    last: int | None = None
    spacing: int | None = None
    gaps: Sequence[Json] = ()
    unlisted: int = 0
    mark: str = ""
    """The digest of the last values: the same ones again are a repetition."""

    @classmethod
    def of(cls, stored: Json) -> "Progress":
        """As `stored` was made of it; None is the beginning."""
        return cls(*stored) if isinstance(stored, list) else cls()

    def stored(self) -> Json:
        return [*self]

    def noted(self, measured: Measured, began: int | None, mark: str, *, is_named: bool) -> "Progress":
        """With what the message `mark` has told of the transaction."""
        register = self.register if measured.register is None else measured.register
        now = Progress(
            self.readings + len(measured.readings), self.is_named or is_named, register,
            began if self.last is None else self.last, self.spacing, self.gaps, self.unlisted, mark,
        )  # fmt: skip
        for time in sorted(measured.times):
            now = now.at(time)
        return now

    def ended(self, end: int | None) -> "Progress":
        """With the time between the last reading and the end looked at too."""
        return self if end is None else self.at(end, is_reading=False)

    def at(self, time: int, *, is_reading: bool = True) -> "Progress":
        """With a reading, or only the end, at `time`."""
        last, gaps, unlisted, spacing = self.last, self.gaps, self.unlisted, self.spacing
        if last is None or time <= last:
            return self._replace(last=time) if last is None else self
        apart = time - last
        if apart > LEAST_GAP_MS and apart > 3 * (spacing or USUAL_MS):
            listed = len(gaps) < MOST_GAPS
            gaps, unlisted = [*gaps, [last, time]] if listed else gaps, unlisted + (not listed)
        if is_reading:
            spacing = apart if spacing is None or apart < spacing else spacing
        return Progress(self.readings, self.is_named, self.register, time, spacing, gaps, unlisted, self.mark)


@dataclass(frozen=True, slots=True)
class Register:
    """A connector's energy register, as its starts and stops have shown it. `score` below 0: it counts per session."""

    stop: float | None = None
    score: int = 0

    @classmethod
    def of(cls, stored: Json) -> "Register":
        return cls(*stored) if isinstance(stored, Sequence) and not isinstance(stored, str) else cls()  # type: ignore[arg-type]

    def stored(self) -> Json:
        return [self.stop, self.score]

    @property
    def kind(self) -> RegisterKind:
        return "unknown" if not self.score else "lifetime" if self.score > 0 else "session"

    def begun(self, start: float | None) -> "Register":
        """With a transaction that started at `start`: at 0 after more than that, it has begun anew."""
        if start is None or not self.stop:
            return self
        step = 1 if start >= self.stop else -1
        return replace(self, score=max(-_SURE, min(_SURE, self.score + step)))


def is_no_baseline(start: float | None, register: Register, kind: RegisterKind) -> bool:
    """Whether a start at `start` cannot be where this register stood. `register` as before this start."""
    return kind == "lifetime" and start == 0 and bool(register.stop)


def energy(
    begun: Transaction | None, stop: float | None, progress: Progress, kind: RegisterKind
) -> tuple[float | None, list[Json]]:
    """(Wh or None, what is doubtful about it)."""
    if begun is None:
        return None, ["no_start"]
    if begun.meter_start is None or begun.has_no_baseline:
        return None, ["no_baseline"]
    if stop is None:
        return None, ["no_end"]
    if stop < begun.meter_start:
        return None, ["register_backwards"]
    doubts: list[Json] = []
    if progress.register is not None and progress.register > stop + 1 and kind != "session":
        doubts.append("readings_beyond_end")
    return round(stop - begun.meter_start, 3), doubts


def record(
    transaction: str,
    begun: Transaction | None,
    progress: Progress,
    kind: RegisterKind,
    *,
    begin: int | None,
    end: int | None,
    stop: float | None,
    reason: str,
    tags: Mapping[str, Json],
) -> dict[str, Json]:
    """The `more` of a `session` event: times in UTC milliseconds, energy in Wh."""
    wh, doubts = energy(begun, stop, progress, kind)
    if begin is None or end is None or end < begin:
        doubts.append("time_unknown")
    return {
        "transaction": transaction,
        "connector": begun.connector if begun else None,
        **tags,
        "begin": begin,
        "end": end,
        "energy": wh,
        "meter_start": begun.meter_start if begun else None,
        "meter_stop": stop,
        "register": kind,
        "reason": reason,
        "readings": progress.readings,
        "gaps": progress.gaps,
        "gaps_unlisted": progress.unlisted,
        "doubts": doubts,
    }
