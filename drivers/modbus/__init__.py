"""Modbus: meters and other register devices, behind Modbus TCP."""

from drivers.modbus.settings import (
    DeviceSettings,
    Profile,
    Settings,
    address,
    points,
    self_test,
    verbs,
)

__all__ = ["DeviceSettings", "Profile", "Settings", "address", "points", "self_test", "verbs"]
