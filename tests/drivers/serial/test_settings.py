"""What people write, and what they are told when it is wrong: place, reason, fix."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from drivers.serial import DeviceSettings, Profile, Settings, points, verbs
from gateway import document
from gateway.document import Diagnostic, DocumentError

SHIPPED = Path(__file__).resolve().parents[3] / "config" / "profiles" / "nova-sds011.yaml"


def told(model: Any, text: str) -> Diagnostic:
    with pytest.raises(DocumentError) as raised:
        document.check(document.parse(text, "x.yaml"), model)
    (mistake,) = raised.value.diagnostics
    return mistake


@pytest.mark.parametrize(
    "port",
    ["/dev/serial/by-id/usb-FTDI_A1", "/dev/ttyS0", "tcp://127.0.0.1:4001", "tcp://[::1]:4001", "tcp://pole-7:23/"],
)
def test_ports(port: str) -> None:
    assert Settings.model_validate({"driver": "serial", "port": port}).port == port


@pytest.mark.parametrize(
    "port", ["ttyUSB0", "COM3", "tcp://pole", "tcp://:4001", "tcp://pole:port", "tcp://pole:99999"]
)
def test_what_is_no_port(port: str) -> None:
    mistake = told(Settings, f"driver: serial\nport: {port}\n")
    assert (mistake.code, mistake.line, mistake.column) == ("bad_port", 2, 7)
    assert "/dev/serial/by-id/" in mistake.fix


@pytest.mark.parametrize(
    ("key", "value"), [("baud", "0"), ("baud", "fast"), ("format", "8X1"), ("format", "9N1"), ("format", "8N3")]
)
def test_line_parameters(key: str, value: str) -> None:
    mistake = told(Settings, f"driver: serial\nport: /dev/ttyS0\n{key}: {value}\n")
    assert mistake.line == 3


def test_a_serial_server_keeps_its_own_speed() -> None:
    assert told(Settings, "driver: serial\nport: tcp://pole:4001\nbaud: 9600\n").code == "not_our_line"


def test_a_sensor_needs_a_profile() -> None:
    assert told(DeviceSettings, "link: air\n").code == "missing_key"


Change = Callable[[dict[str, Any]], Any]


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        (lambda tree: tree["points"]["pm10"].update(at="9"), "outside_frame", "`pm10` ends at byte 11"),
        (lambda tree: tree["points"]["pm10"].update(scale="0"), "bad_scale", "makes every value 0"),
        (lambda tree: tree["points"]["pm10"].update(type="u12"), "unknown_word", "`u12` is unknown"),
        (lambda tree: tree["points"]["pm10"].update(sclae="1"), "unknown_key", "did you mean `scale`"),
        (lambda tree: tree["frame"].update(sync="aa c"), "bad_hex", "`aa c` is not bytes"),
        (lambda tree: tree["frame"].update(length="2"), "bad_frame", "do not fit into 2 bytes"),
        (lambda tree: tree["frame"]["checksum"].update(at="10"), "bad_frame", "outside the 10 bytes"),
        (lambda tree: tree["frame"]["checksum"].update(algorithm="sum9"), "unknown_word", "did you mean `sum8`"),
        (lambda tree: tree["frame"].update(type="fixd"), "bad_value", "fixd"),
        (lambda tree: tree.update(cadence="0s"), "bad_value", "0s"),
        (lambda tree: tree["examples"][0]["expect"].update(pm25="much"), "bad_expectation", "`much` is not what"),
        (lambda tree: tree["refusals"][0].update(why="because"), "unknown_word", "`because` is unknown"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_profile_is_said(change: Change, code: str, said: str) -> None:
    tree = copy.deepcopy(yaml.load(SHIPPED.read_text(), yaml.BaseLoader))
    change(tree)
    mistake = told(Profile, json.dumps(tree, indent=1))
    assert mistake.code == code
    assert said in mistake.why
    assert mistake.line > 1


def test_the_points_of_a_device(sds011: Profile) -> None:
    settings = DeviceSettings.model_validate({"link": "air", "profile": "nova-sds011"})
    named = points("lp-1/pm", sds011, settings)
    assert [(point.id, point.quantity, point.unit) for point in named.values()] == [
        ("lp-1/pm/pm25", "pm25", "ug/m3"),
        ("lp-1/pm/pm10", "pm10", "ug/m3"),
    ]
    assert verbs(sds011, settings) == {}


def test_the_models_have_a_schema_for_editors() -> None:
    for model in (Settings, DeviceSettings, Profile):
        assert model.model_json_schema()["type"] == "object"
    frame = Profile.model_json_schema()["$defs"]["FixedFrame"]["properties"]
    assert frame["sync"]["type"] == "string"
