"""Modbus: meters and other register devices, behind Modbus TCP."""

from drivers.modbus.examples import self_test
from drivers.modbus.settings import (
    DeviceSettings,
    Profile,
    Settings,
    address,
    points,
    verbs,
)

__all__ = ["DeviceSettings", "Profile", "Settings", "address", "points", "self_test", "verbs"]
