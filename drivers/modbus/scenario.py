"""A plausible electrical day for one emulated device: what each quantity is now, consistent with the others.

Voltages wander about 230 V, the load follows a daily curve with noise, P, Q, S, I and the power factor agree, and
counters are the integral of what was drawn: they only rise.
"""

import math
import random
from collections.abc import Mapping

from gateway.quantities import QUANTITIES, Kind

DAY = 86400.0
PHASES = ("L1", "L2", "L3")
TAN_PHI = 0.25


class Day:
    """Values in canonical units at `advance(now)`; `now` in seconds, never backwards. `seed` tells devices apart."""

    def __init__(self, seed: str, now: float) -> None:
        self._random = random.Random(seed)  # noqa: S311 - made-up readings
        self._now = now
        self._shift = self._random.uniform(0, DAY)
        self._size = self._random.uniform(1500, 9000)
        self._noise = dict.fromkeys(PHASES, 0.0)
        self._volts = dict.fromkeys(PHASES, 230.0)
        self._watts = dict.fromkeys(PHASES, 0.0)
        self.frequency = 50.0
        self._energy = {phase: self._random.uniform(1e5, 4e7) for phase in PHASES}
        self._other: dict[str, float] = {}
        self.advance(now)

    def advance(self, now: float) -> None:
        """Move on to `now`."""
        passed = max(0.0, now - self._now)
        self._now = now
        daily = 0.55 + 0.45 * math.sin(2 * math.pi * (now + self._shift) / DAY)
        for phase in PHASES:
            self._energy[phase] += self._watts[phase] * passed / 3600
            self._noise[phase] = 0.95 * self._noise[phase] + self._random.gauss(0, 0.02)
            self._watts[phase] = max(5.0, self._size * (daily + self._noise[phase]))
            self._volts[phase] += 0.1 * (230.0 - self._volts[phase]) + self._random.gauss(0, 0.3)
        self.frequency += 0.2 * (50.0 - self.frequency) + self._random.gauss(0, 0.005)

    def value(self, quantity: str, phase: str | None, direction: str | None) -> float:
        """One quantity now. A quantity that it knows nothing of rises or wanders by itself."""
        if phase in PHASES:
            watts, volts, energy = self._watts[phase], self._volts[phase], self._energy[phase]
        else:
            watts, energy = sum(self._watts.values()), sum(self._energy.values())
            volts = sum(self._volts.values()) / 3
        apparent = watts * math.hypot(1, TAN_PHI)
        known: Mapping[str, float] = {
            "voltage": volts,
            "voltage_phase_to_phase": volts * math.sqrt(3),
            "current": self._neutral() if phase == "N" else apparent / volts,
            "power_active": watts,
            "power_reactive": watts * TAN_PHI,
            "power_apparent": apparent,
            "power_factor": watts / apparent,
            "frequency": self.frequency,
            "energy_active": 0.0 if direction == "export" else energy,
            "energy_reactive": 0.0 if direction == "export" else energy * TAN_PHI,
            "x_status": 0.0,
            "energy_apparent": energy * math.hypot(1, TAN_PHI),
        }
        if quantity in known:
            return known[quantity]
        last = self._other.get(quantity, 20.0)
        rises = quantity in QUANTITIES and QUANTITIES[quantity].kind is Kind.COUNTER
        self._other[quantity] = last + (
            self._random.random() if rises else 0.1 * (20 - last) + self._random.gauss(0, 0.2)
        )
        return self._other[quantity]

    def _neutral(self) -> float:
        """The magnitude of the sum of three currents 120 degrees apart."""
        one, two, three = (self._watts[p] * math.hypot(1, TAN_PHI) / self._volts[p] for p in PHASES)
        return math.sqrt(max(0.0, one**2 + two**2 + three**2 - one * two - two * three - three * one))
