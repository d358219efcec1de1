"""What others decode of the same bytes: pynmea2 and pypms."""

from pathlib import Path
from typing import Any

import pynmea2
import pytest
import yaml
from pms import SensorWarmingUp, WrongMessageChecksum
from pms.core import Sensor as PypmsSensor

from drivers.serial import Profile
from drivers.serial.codec import Codec
from drivers.serial.framing import Framer
from gateway import profile as profiles

PROFILES = Path(__file__).resolve().parents[3] / "config" / "profiles"
SENSORS: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("sensors.yaml").read_text())


def ours(name: str, stream: bytes) -> dict[str, Any]:
    profile = profiles.load(PROFILES / f"{name}.yaml", lambda _driver: Profile)
    assert isinstance(profile, Profile)
    (frame,) = Framer(profile.frame).feed(stream)
    return {slug: sample.value for slug, sample in Codec(profile).decode(frame).items()}


def lines(*names: str) -> list[Any]:
    rows = [(name, row["text"]) for name in names for row in SENSORS[name]["readings"]]
    return [pytest.param(*row, id=row[1].strip()) for row in rows]


@pytest.mark.parametrize(("name", "text"), lines("nmea-gnss", "gill-windsonic-nmea", "vaisala-wxt530-nmea"))
def test_pynmea2_reads_the_same(name: str, text: str) -> None:
    values, theirs = ours(name, text.encode()), pynmea2.parse(text, check=True)
    match theirs.sentence_type:
        case "GGA" | "RMC" if theirs.is_valid:
            assert values["latitude"] == pytest.approx(theirs.latitude, abs=1e-9)
            assert values["longitude"] == pytest.approx(theirs.longitude, abs=1e-9)
            if theirs.sentence_type == "GGA":
                assert values["altitude"] == theirs.altitude
                assert values["satellites"] == int(theirs.num_sats)
                assert values["hdop"] == float(theirs.horizontal_dil)
        case "RMC":
            assert theirs.latitude == 0.0, "pynmea2 puts a receiver without a fix into the Gulf of Guinea"
            assert values["latitude"] is None
        case "MWV":
            assert (values["wind_direction"], values["wind_speed"]) == (
                float(theirs.wind_angle),
                float(theirs.wind_speed),
            )
        case "XDR":
            found = {(one.type, one.id): float(one.value) for one in map(theirs.get_transducer, range(4))}
            assert values["heater_temperature"] == found["C", "2"]
            assert values["supply_voltage"] == found["U", "1"]
            assert values["reference_voltage"] == found["U", "2"]
        case other:
            pytest.fail(f"{other} is not compared")


PYPMS = {
    "nova-sds011": ("SDS01x", {"pm25": "pm25", "pm10": "pm10"}),
    "plantower-pms5003": ("PMSx003", {"pm1": "pm01", "pm25": "pm25", "pm10": "pm10"}),
    "plantower-pms5003t": ("PMS5003T", {"pm25": "pm25", "temperature": "temp", "humidity": "rhum"}),
    "sensirion-sps30": ("SPS30", {"pm1": "pm01", "pm25": "pm25", "pm4": "pm04", "pm10": "pm10", "n0_5": "n0_5"}),
    "honeywell-hpma115c0": ("HPMA115C0", {"pm1": "pm01", "pm25": "pm25", "pm4": "pm04", "pm10": "pm10"}),
    "winsen-mhz19": ("MHZ19B", {"co2": "CO2"}),
}


@pytest.mark.parametrize(
    ("name", "row"),
    [
        pytest.param(name, row, id=f"{name}-{number}")
        for name in PYPMS
        for number, row in enumerate(SENSORS[name]["readings"])
        if row["origin"] == "capture"
    ],
)
def test_pypms_reads_the_same(name: str, row: dict[str, Any]) -> None:
    model, names = PYPMS[name]
    stream = bytes.fromhex(row["hex"])
    theirs, values = PypmsSensor[model].decode(stream), ours(name, stream)
    for slug, attribute in names.items():
        assert values[slug] == pytest.approx(getattr(theirs, attribute), rel=1e-6), slug


def test_where_pypms_is_wrong_we_are_not() -> None:
    """Zero in clean air, a checksum of 00, and an escaped escape: dropped, refused and misread there."""
    clean = bytes.fromhex("aa c0 00 00 00 00 58 d9 31 ab")
    with pytest.raises(SensorWarmingUp):
        PypmsSensor["SDS01x"].decode(clean)
    assert ours("nova-sds011", clean) == {"pm25": 0.0, "pm10": 0.0}
    zero = bytes.fromhex("ff 86 02 60 18 00 00 00 00")
    with pytest.raises(WrongMessageChecksum):
        PypmsSensor["MHZ19B"].decode(zero)
    assert ours("winsen-mhz19", zero)["co2"] == 608
