"""From a name to the code behind it, and no further: a protocol's library waits until the driver is used."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from gateway import load

if TYPE_CHECKING:
    from pathlib import Path

LIBRARIES = ("pymodbus", "ocpp", "serial", "aiohttp", "aiomqtt", "paho")


def test_the_shipped_are_found_by_their_folder_or_file() -> None:
    assert {"modbus", "ocpp", "serial"} <= set(load.drivers())
    assert {"mqtt", "http", "file"} <= set(load.uplinks())


@pytest.mark.parametrize("name", load.drivers())
def test_each_driver_has_all_that_a_folder_exports(name: str) -> None:
    assert load.driver(name).Settings.model_fields["driver"]
    assert callable(load.driver_class(name))
    assert callable(load.emulator_class(name))


@pytest.mark.parametrize("name", load.uplinks())
def test_each_uplink_has_settings_and_a_class(name: str) -> None:
    assert load.uplink(name).Settings.model_fields["uplink"]
    assert callable(load.uplink(name).Uplink)


def loaded_by(program: str) -> set[str]:
    program += f"\nimport json, sys; print(json.dumps([n for n in {LIBRARIES} if n in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


def test_the_settings_side_imports_no_protocol_library() -> None:
    assert loaded_by("from gateway import load\nfor name in load.drivers(): load.driver(name)") == set()


def test_reading_a_site_imports_no_protocol_library() -> None:
    assert loaded_by("import gateway.site, gateway.cli.check, gateway.cli") == set()


@pytest.mark.parametrize(
    ("find", "name", "sentence", "fix"),
    [
        (load.driver, "modbos", "driver `modbos` is unknown; did you mean `modbus`?", "Write `modbus`."),
        (load.driver, "zigbee", "driver `zigbee` is unknown", "modbus, ocpp, serial"),
        (load.driver, "no.such.package", "`no.such.package` is no package that is installed", "Install it"),
        (load.driver, "json.decoder", "`json.decoder` is no driver: it lacks DeviceSettings", "CONTRIBUTING.md"),
        (load.uplink, "mqt", "uplink `mqt` is unknown; did you mean `mqtt`?", "Write `mqtt`."),
        (load.uplink, "_private", "unknown", "Valid here"),
        (load.driver, "..", "driver `..` is unknown", "modbus, ocpp, serial"),
        (load.driver, ".modbus", "did you mean `modbus`?", "Write `modbus`."),
        (load.driver, "modbus.", "did you mean `modbus`?", "Write `modbus`."),
        (load.driver, "a b.c", "unknown", "Valid here"),
        (load.uplink, "../mqtt", "unknown", "mqtt"),
    ],
)
def test_an_unknown_name_says_the_nearest(find: object, name: str, sentence: str, fix: str) -> None:
    with pytest.raises(LookupError) as caught:
        find(name)  # type: ignore[operator]
    assert isinstance(caught.value, load.NotFoundError)
    assert sentence in str(caught.value)
    assert fix in caught.value.fix


def test_a_package_that_lacks_its_library_says_which(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "acme_broken").mkdir()
    (tmp_path / "acme_broken" / "__init__.py").write_text("")
    (tmp_path / "acme_broken" / "lora.py").write_text("import a_library_nobody_has\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(LookupError, match="needs the Python package `a_library_nobody_has`"):
        load.driver("acme_broken.lora")
    (tmp_path / "acme_broken" / "old.py").write_text("from json import a_name_of_another_version\n")
    with pytest.raises(LookupError, match=r"`acme_broken.old` cannot be imported: .*a_name_of_another_version"):
        load.driver("acme_broken.old")
