"""Serial sensors whose frames a profile describes: particulate, gas, weather, over a UART or a serial server."""

from drivers.serial.examples import self_test
from drivers.serial.settings import DeviceSettings, Profile, Settings, address, points, verbs

__all__ = ["DeviceSettings", "Profile", "Settings", "address", "points", "self_test", "verbs"]
