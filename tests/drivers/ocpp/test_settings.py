"""What people write, and what they are told when it cannot be so."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from drivers import ocpp
from drivers.ocpp.samples import Route
from gateway.document import Mistake
from tests.drivers.ocpp.chargers import GENERIC, make_device, make_settings


def mistake(model: Any, **keys: Any) -> Mistake:
    with pytest.raises(ValidationError) as caught:
        model.model_validate(keys)
    (error,) = caught.value.errors()
    raised = error["ctx"]["error"]
    assert isinstance(raised, Mistake)
    return raised


@pytest.mark.parametrize(
    ("keys", "code"),
    [
        ({"listen": "8443"}, "bad_listen"),
        ({"listen": "street:8443"}, "bad_listen"),
        ({"listen": "127.0.0.1:99999"}, "bad_listen"),
        ({"listen": "0.0.0.0:8443", "security": "1"}, "unguarded_listener"),
        ({"listen": "192.168.1.4:8443", "security": "0"}, "unguarded_listener"),
        ({"listen": "[::]:8443", "security": "0"}, "unguarded_listener"),
        ({"listen": "0.0.0.0:8443"}, "missing_key"),
        ({"listen": "127.0.0.1:8443", "security": "1", "tags": "04A1B2C3"}, "clear_text_secret"),
    ],
)
def test_a_listener_that_cannot_be(keys: dict[str, str], code: str) -> None:
    assert mistake(ocpp.Settings, driver="ocpp", **keys).code == code


@pytest.mark.parametrize(
    ("keys", "code"),
    [
        ({"max_current": "5 A"}, "out_of_range"),
        ({"max_current": "16"}, "bad_amount"),
        ({"safe_current": "3 A"}, "out_of_range"),
        ({"safe_current": "40 A"}, "out_of_range"),
        ({"key": "0011223344556677"}, "clear_text_secret"),
    ],
)
def test_a_charger_that_cannot_be(keys: dict[str, str], code: str) -> None:
    assert mistake(ocpp.DeviceSettings, link="cs", **keys).code == code


def test_a_listener_for_the_street_and_one_for_this_machine() -> None:
    street = make_settings(listen="[::]:8443", security="2", certificate="secret", key="secret")
    assert street.authorise == "list"
    assert make_settings(listen="[::1]:0", security="0").security == "0"


@pytest.mark.parametrize(
    ("point", "code"),
    [
        ({"quantity": "current"}, "missing_key"),
        ({"quantity": "current", "measurand": "Current.Imort"}, "unknown_word"),
        ({"quantity": "current", "measurand": "Voltage"}, "unknown_quantity"),
        ({"quantity": "current", "measurand": "Current.Import", "unit": "mA"}, "bad_unit"),
        ({"quantity": "temperature", "measurand": "Temperature", "location": "Roof"}, "unknown_word"),
    ],
)
def test_a_point_that_cannot_be(point: dict[str, str], code: str) -> None:
    head = {"profile": "maker-model/1", "driver": "ocpp", "kind": "charger", "source": "none"}
    assert mistake(ocpp.Profile, **head, points={"p": point}).code == code


def test_every_connector_has_its_points() -> None:
    device = make_device(connectors="2")
    assert isinstance(GENERIC, ocpp.Profile)
    assert device.points["power_active"].part is None
    assert device.points["power_active-2"].part == "2"
    assert device.points["power_active-2"].id == "cp-1/evse/power_active-2"
    assert "status-2" not in device.points
    assert len(device.points) == 2 * len(GENERIC.points) - 1


def test_every_value_has_one_series() -> None:
    assert isinstance(GENERIC, ocpp.Profile)
    where = GENERIC.routes
    assert where[Route("Voltage", "L1", "Outlet", None)] == "voltage_l1"
    assert where[Route("Voltage", "L1", "Outlet", "transaction_end")] == "voltage_l1"
    assert where[Route("Voltage", "L1", "Outlet", "clock_aligned")] == "voltage_l1_clock"
    assert where[Route("SoC", None, "EV", "clock_aligned")] == "state_of_charge"
    assert GENERIC.unmeasured["device_status"] == "status"
    assert {*where.values(), *GENERIC.unmeasured.values()} == set(GENERIC.points)


def test_the_address_of_a_charger_is_its_identity() -> None:
    assert ocpp.address(ocpp.DeviceSettings(link="cs", identity="IT01")) == "IT01"
    assert ocpp.address(ocpp.DeviceSettings(link="cs")) is None
