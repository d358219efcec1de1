"""What people write: profiles that prove themselves, and mistakes that are said with their fix."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from drivers import modbus
from gateway import document
from gateway.document import DocumentError

from .conftest import PROFILES, SDM630, make_device

MINIMAL: dict[str, Any] = {
    "profile": "acme-m1/1",
    "driver": "modbus",
    "kind": "meter",
    "source": "made up",
    "defaults": {"type": "u16"},
    "line": {"pairs": "false", "max_regs": "10"},
    "points": {"power": {"addr": "0x10", "quantity": "power_active", "unit": "kW", "scale": "0.1"}},
    "writes": {"limit": {"addr": "2", "quantity": "x_limit", "unit": "1", "min": "0", "max": "100"}},
    "examples": [{"regs": {"4": {"0x10": ["72"]}}, "expect": {"power": "7.2 kW"}}],
}


def test_the_shipped_profile_proves_itself() -> None:
    assert modbus.self_test(SDM630) == []


def test_an_example_that_is_wrong_fails_at_its_place() -> None:
    text = (PROFILES / "eastron-sdm630.yaml").read_text()
    text = text.replace("power: 7.2 kW", "power: 7.3 kW").replace("frequency: out_of_range", "frequency: absent")
    written = document.parse(text, "eastron-sdm630.yaml")
    found = modbus.self_test(document.check(written, modbus.Profile))
    assert found == [
        (("examples", 1, "expect", "power"), "`power` says 7200 W, the example says 7.3 kW"),
        (
            ("refusals", 1, "because", "frequency"),
            "`frequency` says no value (out_of_range); it should say no value (absent)",
        ),
    ]
    assert {("examples", 1, "expect", "power"), ("refusals", 1, "because", "frequency")} <= set(written.values)


@pytest.mark.parametrize(
    ("expect", "regs", "why"),
    [
        ({"power": "7.2 kW"}, {"4": {"0x11": ["72"]}}, "function 4 at 0x0010; register 0x0010 is not given"),
        ({"power": "7.2 kW"}, {"3": {"0x10": ["72"]}}, "register 0x0010 is not given"),
        ({"power": "7.2 V"}, {"4": {"0x10": ["72"]}}, "`V` is not a unit of this quantity"),
        ({"power": "much"}, {"4": {"0x10": ["72"]}}, "`much` is not a number with a unit"),
        ({"powr": "7.2 kW"}, {"4": {"0x10": ["72"]}}, "there is no point `powr`"),
        ({"power": "7201 W"}, {"4": {"0x10": ["72"]}}, "says 7200 W, the example says 7201 W"),
    ],
)
def test_what_an_example_can_get_wrong(expect: dict[str, str], regs: dict[str, Any], why: str) -> None:
    profile = modbus.Profile.model_validate(MINIMAL | {"examples": [{"regs": regs, "expect": expect}]})
    assert [why in said for _, said in modbus.self_test(profile)] == [True]


def test_a_refusal_that_reads_as_a_number_fails() -> None:
    refusals = [{"regs": {"4": {"0x10": ["72"]}}, "because": {"power": "absent"}}]
    profile = modbus.Profile.model_validate(MINIMAL | {"refusals": refusals})
    assert modbus.self_test(profile) == [
        (("refusals", 0, "because", "power"), "`power` says 7200; it should say no value (absent)")
    ]


def test_text_as_it_comes_from_yaml() -> None:
    profile = modbus.Profile.model_validate(MINIMAL)
    assert modbus.self_test(profile) == []
    (slug, field), = profile.fields()  # fmt: skip
    assert (slug, field.addr, field.fc, field.scale, field.factor) == ("power", 16, 4, 0.1, 1000)


@pytest.mark.parametrize(
    ("at", "value", "why"),
    [
        (("points", "power", "addr"), "0x10000", "65536 is 65536 on the wire"),
        (("points", "power", "scale"), "0", "a scale of 0"),
        (("points", "power", "scale"), "nan", "finite number"),
        (("points", "power", "range"), ["5", "1"], "is empty"),
        (("points", "power", "fc"), "2", "`2` is unknown"),
        (("points", "power", "type"), "u24", "`u24` is unknown"),
        (("points", "power", "adr"), "1", "`adr` is unknown; did you mean `addr`?"),
        (("line", "pairs"), "true", "breaks `pairs`"),
        (("line", "max_regs"), "126", "too large: at most 125"),
        (("address_base",), "zero", "`zero` is unknown"),
        (("address_base",), "modicom", "no Modicom address"),
        (("writes", "limit", "max"), None, "needs its bounds"),
        (("writes", "limit", "max"), "70000", "70000 does not fit into u16"),
        (("writes", "power"), MINIMAL["writes"]["limit"], "under `points` and under `writes`"),
        (("examples",), [], "at least 1 item"),
    ],
)
def test_mistakes_in_a_profile_are_said(at: tuple[str, ...], value: Any, why: str) -> None:
    tree = deepcopy(MINIMAL)
    inner = tree
    for key in at[:-1]:
        inner = inner.setdefault(key, {})
    inner[at[-1]] = value
    written = document.Document("acme-m1.yaml", "")
    written.tree = tree
    with pytest.raises(DocumentError) as caught:
        document.check(written, modbus.Profile)
    assert why in str(caught.value)


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        (
            {"host": "10.0.0.7", "port": "/dev/ttyUSB0"},
            "`host` is for Modbus TCP, `port: /dev/ttyUSB0` is a serial line",
        ),
        ({"host": "10.0.0.7", "port": "70000"}, "`70000` is no TCP port: 1 to 65535"),
        ({"host": "10.0.0.7", "baud": "9600"}, "Modbus TCP has no `baud`"),
        ({"host": "10.0.0.7", "ca": "ca.pem"}, "`ca` is for TLS"),
        ({"port": "/dev/ttyUSB0", "tls": "true"}, "a line has no TLS"),
        ({"host": "10.0.0.7", "tls": "true", "key": "secret"}, "`certificate` and `key` go together"),
        ({"host": "10.0.0.7", "tls": "true", "key": "hunter2"}, "a secret stands here in clear text"),
        ({"port": "tcp://moxa"}, "`tcp://moxa` does not say which host and port"),
        ({"port": "COM3"}, "`COM3` is neither a device nor a serial server"),
        ({"port": "/dev/ttyUSB0", "format": "7E1"}, "`7E1`"),
        ({"host": "10.0.0.7", "timeout": "0s"}, "too small: more than 0"),
        ({"host": "10.0.0.7", "timeout": "1"}, "has no unit of time"),
        ({}, "neither `host` nor a line's `port` says where the devices are"),
    ],
)
def test_mistakes_in_a_link_are_said(keys: dict[str, str], why: str) -> None:
    written = document.Document("site.yaml", "")
    written.tree = {"driver": "modbus", **keys}
    with pytest.raises(DocumentError) as caught:
        document.check(written, modbus.Settings)
    assert why in str(caught.value)


UNITS = [("1", True), ("247", True), ("0", True), ("255", True), ("254", True), ("248", False), ("-1", False)]


@pytest.mark.parametrize(("address", "good"), UNITS)
def test_unit_ids(address: str, good: bool) -> None:
    written = document.Document("site.yaml", "")
    written.tree = {"link": "line", "address": address}
    if good:
        assert modbus.address(document.check(written, modbus.DeviceSettings)) == address
    else:
        with pytest.raises(DocumentError):
            document.check(written, modbus.DeviceSettings)


def test_points_and_verbs_of_a_device() -> None:
    device = make_device("lp-1/meter", 1)
    energy = device.points["energy_import"]
    assert (energy.id, energy.quantity, energy.unit, energy.direction) == (
        "lp-1/meter/energy_import", "energy_active", "Wh", "import",
    )  # fmt: skip
    verb = device.verbs["set:demand_period"]
    assert (verb.name, verb.role, verb.idempotent) == ("set", "operator", True)
    assert (verb.arguments["value"].minimum, verb.arguments["value"].maximum, verb.arguments["value"].unit) == (
        0,
        60,
        "min",
    )


def test_the_settings_side_imports_no_protocol_library() -> None:
    import subprocess
    import sys

    code = "import sys, drivers.modbus; sys.exit('pymodbus' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
