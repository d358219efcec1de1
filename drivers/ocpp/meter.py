"""A charger's meter values as readings of its points, at the time at which they were measured.

A charger that comes back tells what it kept: hundreds of values that were true hours ago. They are dated back on the
boot clock, so that nobody who looks at the newest reading takes them for the present (OCPP 1.6 §3.7).
"""

from drivers.ocpp import codec
from drivers.ocpp.codec import Remarks, Sample
from drivers.ocpp.settings import DeviceSettings, Profile, routed, routes
from gateway.model import ClockState, Device, PointId, Quality, Reading, Reason
from gateway.ports import Clock

LATE_MS = 60_000
"""A value that is older is history."""
UNSET_MS = 30 * 24 * 3600 * 1000
"""A time stamp that is further back is that of a clock which nobody has set (1970, 2000); its value is taken as new."""


class Meter:
    """The points of one charger, and which of them have a value now."""

    def __init__(self, device: Device, clock: Clock) -> None:
        assert isinstance(device.settings, DeviceSettings)
        assert isinstance(device.profile, Profile)
        self._routes = routes(device.id, device.profile, device.settings)
        self._clock = clock
        self.known: set[PointId] = set()

    def age(self, time: int | None) -> int:
        """Milliseconds since `time` (UTC) where that makes it history, else 0."""
        if time is None or self._clock.state() is ClockState.UNSYNCED:
            return 0
        age = self._clock.wall() - time
        return age if LATE_MS < age < UNSET_MS else 0

    def read(
        self, connector: int, meter_values: object, transaction: str | None, remarks: Remarks
    ) -> tuple[list[Reading], list[Sample]]:
        """The readings of a `meterValue` or `transactionData` list, and the samples that they were made of."""
        now = self._clock.boot()
        readings, samples = [], []
        dated: int | None = None
        at = now
        for sample in codec.samples(meter_values, remarks):
            point = routed(self._routes, connector, sample.measurand, sample.phase, sample.location, sample.context)
            if point is None:
                phase = f" of {sample.phase}" if sample.phase else ""
                where = f"at connector {connector} ({sample.location})"
                remarks.append(f"{sample.measurand}{phase} {where}, for which there is no point; it is left out")
                continue
            if sample.quality is Quality.GOOD:
                self.known.add(point)
            if sample.time != dated:
                dated, at = sample.time, now - self.age(sample.time)
            samples.append(sample)
            readings.append(
                Reading(
                    point, sample.value, at, sample.quality, sample.reason, sample.time, sample.context, transaction
                )
            )
        return readings, samples

    def state(
        self,
        quantity: str,
        connector: int,
        value: float | str | None,
        time: int | None = None,
        context: str | None = None,
    ) -> Reading | None:
        """What is known without a measurand: a status, the limit. None where there is no such point; a `value` of None
        is one that nobody knows.
        """
        point = self._routes.get((connector, quantity, None, None, None))
        if point is None:
            return None
        at = self._clock.boot() - self.age(time)
        if value is None:
            return Reading(point, None, at, Quality.BAD, Reason.OUT_OF_RANGE, time, context)
        self.known.add(point)
        return Reading(point, value, at, device_time=time, context=context)

    def lost(self) -> list[Reading]:
        """No value any more for what had one: the charger is gone."""
        at = self._clock.boot()
        lost = [Reading(point, None, at, Quality.BAD, Reason.COMM_FAILURE) for point in sorted(self.known)]
        self.known.clear()
        return lost
