"""EV chargers that call in over OCPP 1.6J: the back office at the kerb."""

from drivers.ocpp.examples import self_test
from drivers.ocpp.settings import DeviceSettings, Profile, Settings, address, points, verbs

__all__ = ["DeviceSettings", "Profile", "Settings", "address", "points", "self_test", "verbs"]
