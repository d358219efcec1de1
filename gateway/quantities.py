"""The canonical quantities: the only vocabulary of what is measured, and in which unit.

Source: the table follows the Smart Data Models and OCPP 1.6 measurands; `ucum` codes were checked with a
UCUM parser, `rec20` against UN/ECE Recommendation 20. var and dB(A) have no UCUM code: the weighting
lives in the quantity's name. Power is one signed point (import positive); energy is two counters.
A quantity that is not here needs a name that starts with `x_` and its own UCUM unit.
"""

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    GAUGE = "gauge"
    COUNTER = "counter"
    STATE = "state"


PHASES = ("L1", "L2", "L3", "N", "L12", "L23", "L31")
DIRECTIONS = ("import", "export")
STATISTICS = ("last", "mean", "min", "max", "sum")


@dataclass(frozen=True, slots=True)
class Quantity:
    """`rec20_scale`: value in the Rec 20 unit = canonical value * rec20_scale."""

    name: str
    kind: Kind
    unit: str
    ucum: str
    rec20: str
    phase: bool = False
    direction: bool = False
    rec20_scale: float = 1.0


_TABLE = (
    Quantity("power_active", Kind.GAUGE, "W", "W", "WTT", phase=True, direction=True),
    Quantity("power_reactive", Kind.GAUGE, "var", "", "D44", phase=True, direction=True),
    Quantity("power_apparent", Kind.GAUGE, "VA", "V.A", "D46", phase=True),
    Quantity("power_factor", Kind.GAUGE, "1", "1", "C62", phase=True),
    Quantity("voltage", Kind.GAUGE, "V", "V", "VLT", phase=True),
    Quantity("voltage_phase_to_phase", Kind.GAUGE, "V", "V", "VLT", phase=True),
    Quantity("current", Kind.GAUGE, "A", "A", "AMP", phase=True, direction=True),
    Quantity("frequency", Kind.GAUGE, "Hz", "Hz", "HTZ"),
    Quantity("thd_voltage", Kind.GAUGE, "%", "%", "P1", phase=True),
    Quantity("thd_current", Kind.GAUGE, "%", "%", "P1", phase=True),
    Quantity("energy_active", Kind.COUNTER, "Wh", "W.h", "WHR", phase=True, direction=True),
    Quantity("energy_reactive", Kind.COUNTER, "varh", "", "K3", phase=True, direction=True, rec20_scale=0.001),
    Quantity("energy_apparent", Kind.COUNTER, "VAh", "V.A.h", "C79", phase=True, direction=True, rec20_scale=0.001),
    Quantity("current_offered", Kind.GAUGE, "A", "A", "AMP"),
    Quantity("power_offered", Kind.GAUGE, "W", "W", "WTT"),
    Quantity("state_of_charge", Kind.GAUGE, "%", "%", "P1"),
    Quantity("temperature", Kind.GAUGE, "Cel", "Cel", "CEL"),
    Quantity("relative_humidity", Kind.GAUGE, "%", "%", "P1"),
    Quantity("air_pressure", Kind.GAUGE, "hPa", "hPa", "A97"),
    Quantity("wind_speed", Kind.GAUGE, "m/s", "m/s", "MTS"),
    Quantity("wind_direction", Kind.GAUGE, "deg", "deg", "DD"),
    Quantity("precipitation", Kind.GAUGE, "mm", "mm", "MMT"),
    Quantity("solar_irradiance", Kind.GAUGE, "W/m2", "W/m2", "D54"),
    Quantity("illuminance", Kind.GAUGE, "lx", "lx", "LUX"),
    Quantity("pm1", Kind.GAUGE, "ug/m3", "ug/m3", "GQ"),
    Quantity("pm25", Kind.GAUGE, "ug/m3", "ug/m3", "GQ"),
    Quantity("pm10", Kind.GAUGE, "ug/m3", "ug/m3", "GQ"),
    Quantity("no2", Kind.GAUGE, "ug/m3", "ug/m3", "GQ"),
    Quantity("o3", Kind.GAUGE, "ug/m3", "ug/m3", "GQ"),
    Quantity("so2", Kind.GAUGE, "ug/m3", "ug/m3", "GQ"),
    Quantity("co", Kind.GAUGE, "ug/m3", "ug/m3", "GQ"),
    Quantity("co2", Kind.GAUGE, "ppm", "[ppm]", "59"),
    Quantity("noise_laeq", Kind.GAUGE, "dB", "dB", "2N"),
    Quantity("noise_lamax", Kind.GAUGE, "dB", "dB", "2N"),
    Quantity("noise_las", Kind.GAUGE, "dB", "dB", "2N"),
    Quantity("dimming_level", Kind.GAUGE, "%", "%", "P1"),
    Quantity("lamp_power_state", Kind.STATE, "enum", "", ""),
    Quantity("lamp_fault", Kind.STATE, "enum", "", ""),
    Quantity("motion_count", Kind.COUNTER, "1", "1", "C62"),
    Quantity("traffic_intensity", Kind.GAUGE, "1", "1", "C62"),
    Quantity("vehicle_speed_avg", Kind.GAUGE, "km/h", "km/h", "KMH"),
    Quantity("pedestrian_count", Kind.GAUGE, "1", "1", "C62"),
    Quantity("parking_occupancy", Kind.STATE, "enum", "", ""),
    Quantity("parking_free_spots", Kind.GAUGE, "1", "1", "C62"),
    Quantity("bikes_available", Kind.GAUGE, "1", "1", "C62"),
    Quantity("docks_free", Kind.GAUGE, "1", "1", "C62"),
    Quantity("docks_out_of_service", Kind.GAUGE, "1", "1", "C62"),
    Quantity("connector_status", Kind.STATE, "enum", "", ""),
    Quantity("connectors_available", Kind.GAUGE, "1", "1", "C62"),
    Quantity("battery_level", Kind.GAUGE, "%", "%", "P1"),
    Quantity("rssi", Kind.GAUGE, "dBm", "", "DBM"),
    Quantity("rain_intensity", Kind.GAUGE, "mm/h", "mm/h", "H67"),
    Quantity("burning_hours", Kind.COUNTER, "h", "h", "HUR"),
    Quantity("charging_limit", Kind.GAUGE, "A", "A", "AMP", phase=True),
    Quantity("demand_period", Kind.GAUGE, "min", "min", "MIN"),
    Quantity("device_status", Kind.STATE, "enum", "", ""),
)

QUANTITIES = {quantity.name: quantity for quantity in _TABLE}

# Unit as makers write it -> (canonical unit, factor, offset): canonical = value * factor + offset.
_CONVERSIONS: dict[str, tuple[str, float, float]] = {
    "kW": ("W", 1e3, 0), "MW": ("W", 1e6, 0), "mW": ("W", 1e-3, 0),
    "kvar": ("var", 1e3, 0), "kVA": ("VA", 1e3, 0),
    "kWh": ("Wh", 1e3, 0), "MWh": ("Wh", 1e6, 0), "kvarh": ("varh", 1e3, 0), "kVAh": ("VAh", 1e3, 0),
    "mV": ("V", 1e-3, 0), "kV": ("V", 1e3, 0), "mA": ("A", 1e-3, 0), "kA": ("A", 1e3, 0),
    "mHz": ("Hz", 1e-3, 0),
    "K": ("Cel", 1, -273.15), "degF": ("Cel", 5 / 9, -160 / 9), "degC": ("Cel", 1, 0), "°C": ("Cel", 1, 0),
    "Pa": ("hPa", 1e-2, 0), "kPa": ("hPa", 10, 0), "mbar": ("hPa", 1, 0), "bar": ("hPa", 1e3, 0),
    "mmHg": ("hPa", 1.333223874, 0), "inHg": ("hPa", 33.86388640, 0),
    "km/h": ("m/s", 1 / 3.6, 0), "kn": ("m/s", 1852 / 3600, 0),
    "mph": ("m/s", 0.44704, 0), "ft/min": ("m/s", 0.00508, 0), "in": ("mm", 25.4, 0), "in/h": ("mm/h", 25.4, 0),
    "mg/m3": ("ug/m3", 1e3, 0), "µg/m3": ("ug/m3", 1, 0),
    "dB(A)": ("dB", 1, 0), "min": ("min", 1, 0), "°": ("deg", 1, 0), "dBA": ("dB", 1, 0),
}  # fmt: skip


def convert(unit: str, quantity_unit: str) -> tuple[float, float]:
    """(factor, offset) from `unit` to a quantity's canonical unit. ValueError says what would fit."""
    if unit == quantity_unit:
        return 1.0, 0.0
    canonical, factor, offset = _CONVERSIONS.get(unit, ("", 0.0, 0.0))
    if canonical != quantity_unit:
        known = sorted(u for u, (c, _, _) in _CONVERSIONS.items() if c == quantity_unit != u)
        raise ValueError(f"`{unit}` is not a unit of this quantity; write {', '.join([quantity_unit, *known])}")
    return factor, offset
