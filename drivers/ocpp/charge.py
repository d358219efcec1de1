"""The physics of a charge at an emulated charger: a car, its battery, and what it is offered."""

import asyncio
import random

from drivers.ocpp.scenario import Car
from drivers.ocpp.schedules import VOLTS

RAMP = 8.0
"""Amperes per second that a car's charger rises by; down it follows at once."""
TAPERS_FROM = 80.0
"""Per cent of its battery from which a car takes less and less."""
LEAST = 6.0
"""Amperes below which nothing flows (IEC 61851-1)."""


class Charge:
    """One car at one connector."""

    def __init__(self, dice: random.Random, most: float, phases: int, began: int, car: Car | None = None) -> None:
        """At a charger with `phases` that offers `most` amperes; without a `car`, one of those on the street."""
        car = car or Car.model_construct(
            takes=dice.choice([10.0, 13.0, 16.0, 32.0]),
            phases=3 if dice.random() < 0.7 else 1,
            battery=dice.choice([28_000.0, 52_000.0, 77_000.0]),
            charged=dice.uniform(10, 70),
        )
        self._dice, self._battery = dice, car.battery
        self._supplied, self.phases = phases, min(car.phases, phases)
        self._takes, self._offered = min(most, car.takes), most
        self.soc = car.charged
        """Per cent."""
        self.began = began
        self.transaction = -1
        """As the specification has it until the gateway has answered the start."""
        self.is_accepted = True
        self.amps, self.gained = 0.0, 0.0
        self.reason = ""
        """Why it was stopped, where it was not by its driver."""
        self.stopped = asyncio.Event()

    def stop(self, reason: str) -> None:
        """The first reason stands."""
        self.reason = self.reason or reason
        self.stopped.set()

    def advance(self, seconds: float, limit: float | None) -> None:
        """Charge for `seconds` within `limit` amperes per phase."""
        self._offered = self._takes if limit is None else limit
        wanted = self._takes * min(1.0, (100.0 - self.soc) / (100.0 - TAPERS_FROM))
        room = min(wanted, self._offered)
        risen = max(self.amps, LEAST) + RAMP * seconds
        self.amps = round(min(room * self._dice.uniform(0.96, 1.0), risen), 2) if room >= LEAST else 0.0
        self.gained = self.amps * VOLTS * self.phases * seconds / 3600
        self.soc = min(100.0, self.soc + 100 * self.gained / self._battery)

    @property
    def status(self) -> str:
        """Who holds back, where nothing flows."""
        if self.amps:
            return "Charging"
        return "SuspendedEVSE" if self._offered < LEAST else "SuspendedEV"

    def samples(self, register: float) -> list[dict[str, str]]:
        """SampledValues; `register` in Wh."""
        rows = [
            ("Energy.Active.Import.Register", "", f"{register:.1f}", "Wh"),
            ("Power.Active.Import", "", f"{self.amps * VOLTS * self.phases / 1000:.3f}", "kW"),
            ("Current.Offered", "", f"{self._offered:.1f}", "A"),
            ("SoC", "", f"{self.soc:.0f}", "Percent"),
        ]
        for number, phase in enumerate(("L1", "L2", "L3")[: self._supplied]):
            amps = self.amps if number < self.phases else 0.0
            rows.append(("Current.Import", phase, f"{amps:.2f}", "A"))
            rows.append(("Voltage", f"{phase}-N", f"{self._dice.uniform(228, 233):.1f}", "V"))
        return [
            {"measurand": measurand, "value": value, "unit": unit, "context": "Sample.Periodic",
             "location": "EV" if measurand == "SoC" else "Outlet", **({"phase": phase} if phase else {})}
            for measurand, phase, value, unit in rows
        ]  # fmt: skip
