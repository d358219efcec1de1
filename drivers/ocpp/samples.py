"""SampledValues to values in canonical units, in two steps: what a value is of, and the value.

Source: OCPP 1.6 edition 2, §7.28–7.45. A charger says with every value what it is of, in the same few words each time;
what they mean is worked out once and remembered. A value that cannot be read with certainty becomes no value with its
reason. Signed values are for a court, not for arithmetic: they are handed on as they came.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from drivers.ocpp.codec import Remarks, moment, read_number, short
from gateway.model import Quality, Reason
from gateway.quantities import QUANTITIES, convert

# Measurand (§7.31) -> canonical quantity. `x_` where the vocabulary has none.
MEASURANDS = {
    "Current.Export": "current",
    "Current.Import": "current",
    "Current.Offered": "current_offered",
    "Energy.Active.Export.Register": "energy_active",
    "Energy.Active.Import.Register": "energy_active",
    "Energy.Reactive.Export.Register": "energy_reactive",
    "Energy.Reactive.Import.Register": "energy_reactive",
    "Energy.Active.Export.Interval": "x_energy_interval",
    "Energy.Active.Import.Interval": "x_energy_interval",
    "Energy.Reactive.Export.Interval": "x_reactive_interval",
    "Energy.Reactive.Import.Interval": "x_reactive_interval",
    "Frequency": "frequency",
    "Power.Active.Export": "power_active",
    "Power.Active.Import": "power_active",
    "Power.Factor": "power_factor",
    "Power.Offered": "power_offered",
    "Power.Reactive.Export": "power_reactive",
    "Power.Reactive.Import": "power_reactive",
    "RPM": "x_fan_speed",
    "SoC": "state_of_charge",
    "Temperature": "temperature",
    "Voltage": "voltage",
}
_OWN_UNITS = {"x_energy_interval": "Wh", "x_reactive_interval": "varh", "x_fan_speed": "1/min"}
DEFAULT_MEASURAND = "Energy.Active.Import.Register"
# Where a measurand is taken when the charger does not say (§7.29 says Outlet, which these cannot mean).
DEFAULT_LOCATION = {"RPM": "Body", "SoC": "EV", "Temperature": "Body"}
LOCATIONS = ("Body", "Cable", "EV", "Inlet", "Outlet")
# Phase (§7.35) -> canonical phase; against neutral is the phase itself.
PHASES = {
    "L1": "L1", "L2": "L2", "L3": "L3", "N": "N", "L1-N": "L1", "L2-N": "L2", "L3-N": "L3",
    "L1-L2": "L12", "L2-L3": "L23", "L3-L1": "L31",
}  # fmt: skip
CONTEXTS = {
    "Sample.Periodic": None,
    "Sample.Clock": "clock_aligned",
    "Transaction.Begin": "transaction_begin",
    "Transaction.End": "transaction_end",
    "Interruption.Begin": "interruption_begin",
    "Interruption.End": "interruption_end",
    "Trigger": "trigger",
    "Other": "other",
}
# Unit (§7.45), small letters -> as `quantities.convert` knows it. `Celcius` is the specification's own slip.
UNITS = {
    "wh": "Wh", "kwh": "kWh", "varh": "varh", "kvarh": "kvarh", "w": "W", "kw": "kW", "va": "VA", "kva": "kVA",
    "var": "var", "kvar": "kvar", "a": "A", "v": "V", "celsius": "degC", "celcius": "degC", "fahrenheit": "degF",
    "k": "K", "percent": "%", "%": "%", "hz": "Hz", "hertz": "Hz",
}  # fmt: skip
_SPELLED = {"Wh", "kWh", "varh", "kvarh", "W", "kW", "VA", "kVA", "var", "kvar", "A", "V", "Celsius", "Celcius",
            "Fahrenheit", "K", "Percent"}  # fmt: skip
MOST_SIGNED = 16_384
"""Characters of a signed value; those seen have a few thousand."""
REMEMBERED = 1024


class Route(NamedTuple):
    """What a value is of, before it has a point."""

    measurand: str
    phase: str | None
    location: str
    context: str | None


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """What the words of a sampledValue mean. `route` None: it is left out. `factor` None: the unit is none of its."""

    measurand: str
    route: Route | None = None
    factor: float | None = None
    offset: float = 0.0
    is_signed: bool = False
    remarks: tuple[str, ...] = ()


class Sample(NamedTuple):
    """One value in the canonical unit of its quantity. `value` None: no value, and `reason` says why. `time`: the
    charger's, UTC milliseconds.
    """

    route: Route
    value: float | None
    time: int | None
    quality: Quality = Quality.GOOD
    reason: str | None = None


REGISTER = frozenset(Route(DEFAULT_MEASURAND, None, "Outlet", context) for context in CONTEXTS.values())
"""The energy that has flowed to the car."""


class Signed(NamedTuple):
    """A sampledValue with signed data, and its time stamp, as they came."""

    written: Mapping[str, Any]
    timestamp: object


_known: dict[tuple[object, ...], Series] = {}


def samples(meter_values: object, remarks: Remarks) -> Iterator[Sample | Signed]:
    """Every sampledValue of a `meterValue` or `transactionData` list, in order."""
    for entry in _objects(meter_values, "meterValue", remarks):
        time = moment(entry.get("timestamp"), remarks)
        for sampled in _objects(entry.get("sampledValue"), "sampledValue", remarks):
            get = sampled.get
            words = (get("measurand"), get("phase"), get("location"), get("context"), get("unit"), get("format"))
            try:
                series = _known.get(words) or _series(words)
            except TypeError:  # a list or an object where a word should be
                series = _series(words)
            if series.remarks:
                remarks += series.remarks
            if series.is_signed:
                if isinstance(get("value"), str) and len(sampled["value"]) <= MOST_SIGNED:
                    yield Signed(sampled, entry.get("timestamp"))
                else:
                    remarks.append(f"signed data for {series.measurand} that is no text or has no end; it is left out")
            elif series.route:
                yield _sample(series, series.route, get("value"), time, remarks)


def _sample(series: Series, route: Route, written: object, time: int | None, remarks: Remarks) -> Sample:
    value = read_number(written)
    if value is None:
        remarks.append(f"`{short(written)}` as the value of {series.measurand}")
        return Sample(route, None, time, Quality.BAD, Reason.NOT_A_NUMBER)
    if type(written) is not str:
        remarks.append("values as numbers instead of text")
    if series.factor is None:
        return Sample(route, None, time, Quality.BAD, Reason.CONFIG_ERROR)
    if series.factor != 1 or series.offset:
        value = round(value * series.factor + series.offset, 6)
    return Sample(route, value, time)


def _objects(value: object, name: str, remarks: Remarks) -> list[Mapping[str, Any]]:
    entries: Sequence[Any] = value if isinstance(value, list) else [value]
    if not isinstance(value, list) or not value:
        remarks.append(f"`{name}` that is no list, or empty")
    return [entry for entry in entries if isinstance(entry, dict)]


def _series(words: tuple[object, ...]) -> Series:
    """What these words mean, remembered where they may be some of the specification's."""
    # A word that is too long or no text is still told apart, and stays short.
    clean = [None if word is None else short(word) or None for word in words]
    series = _meaning(*clean)
    if clean == list(words):
        if len(_known) >= REMEMBERED:
            _known.clear()
        _known[words] = series
    return series


def _meaning(
    measurand: str | None, phase: str | None, location: str | None, context: str | None, unit: str | None,
    format_: str | None,
) -> Series:  # fmt: skip
    measurand = measurand or DEFAULT_MEASURAND
    if format_ not in (None, "Raw"):
        return Series(measurand, is_signed=True)
    if measurand not in MEASURANDS:
        return Series(measurand, remarks=(f"the unknown measurand `{measurand}`; it is left out",))
    if phase is not None and phase not in PHASES:
        return Series(measurand, remarks=(f"the unknown phase `{phase}`; its value is left out",))
    location = location or DEFAULT_LOCATION.get(measurand, "Outlet")
    if location not in LOCATIONS:
        return Series(measurand, remarks=(f"the unknown location `{location}`; its value is left out",))
    remarks = []
    context = context or "Sample.Periodic"
    if context not in CONTEXTS:
        remarks.append(f"the unknown context `{context}`")
        context = "Other"
    factor, offset = _conversion(measurand, unit, remarks)
    where = "EV" if measurand == "SoC" else location  # only the car has a state of charge
    route = Route(measurand, PHASES[phase] if phase else None, where, CONTEXTS[context])
    return Series(measurand, route, factor, offset, remarks=tuple(remarks))


def _conversion(measurand: str, unit: str | None, remarks: list[str]) -> tuple[float | None, float]:
    """(factor, offset) into the canonical unit; a factor of None where the unit is none of this measurand's."""
    name = MEASURANDS[measurand]
    usual = QUANTITIES[name].unit if name in QUANTITIES else _OWN_UNITS[name]
    if usual == "1/min" or (unit is None and usual in ("1", "Hz", "Wh", "varh")):
        return 1.0, 0.0
    if unit is None:
        remarks.append(f"{measurand} without a unit; it is taken as {usual}")
        return 1.0, 0.0
    known = UNITS.get(unit.casefold())
    if usual == "1":  # a power factor in percent would be a factor of 100
        known = "1" if known is None and unit in ("1", "-") else known
    try:
        factor, offset = convert(known or "?", usual)
    except ValueError:
        remarks.append(f"the unit `{unit}` for {measurand}, which is none of its units")
        return None, 0.0
    if unit not in _SPELLED and usual not in ("Hz", "1"):
        remarks.append(f"the unit `{unit}`, read as {known}")
    return factor, offset
