"""A driver that is not ours, in a package beside the gateway: read, checked and said as ours are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gateway import site
from gateway.diagnostic import Diagnostic, DocumentError

if TYPE_CHECKING:
    from pathlib import Path

LORA = """
from typing import Any
from gateway.diagnostic import Mistake
from gateway.model import Point
from gateway.profile import DeviceKeys, LinkKeys, Profile

class Settings(LinkKeys):
    band: str = "EU868"

class DeviceSettings(DeviceKeys):
    eui: str

def points(device_id: str, profile: Any, settings: Any) -> dict[str, Point]:
    if settings.eui == "none":
        raise Mistake("no_eui", "an EUI is needed", "Read it off the label.", ("eui",))
    return {"rssi": Point(f"{device_id}/rssi", "rssi", "dBm")}

def verbs(profile: Any, settings: Any) -> dict[str, Any]:
    return {}

def address(settings: Any) -> str:
    return settings.eui

def self_test(profile: Any) -> list[Any]:
    return []
"""


@pytest.fixture
def lora(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A driver that is not ours, installed beside the gateway."""
    package = tmp_path / "acme_street"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "lora.py").write_text(LORA)
    monkeypatch.syspath_prepend(tmp_path)
    return "acme_street.lora"


def test_a_third_party_driver_is_loaded_by_its_dotted_name(tmp_path: Path, lora: str) -> None:
    path = tmp_path / "site.yaml"

    def read(text: str) -> site.Site:
        path.write_text(text)
        return site.load(path)

    def mistakes(text: str) -> list[Diagnostic]:
        with pytest.raises(DocumentError) as caught:
            read(text)
        return caught.value.diagnostics

    text = f"""\
version: 1
gateway: {{id: cab-1, tenant: milan}}
links: {{radio: {{driver: {lora}, band: EU433}}}}
assets: {{lp-1: {{devices: {{node: {{link: radio, eui: 0004A30B001C0530}}, far: {{link: radio, eui: 1e10}}}}}}}}
"""
    found = read(text)
    link, node = found.devices["lp-1/node"]
    assert link.driver == lora
    assert getattr(node.settings, "eui") == "0004A30B001C0530"  # noqa: B009 - the driver's own key
    assert node.points["rssi"].unit == "dBm"
    assert [one.code for one in mistakes(text.replace("1e10", "0004A30B001C0530"))] == ["duplicate_address"]
    [refused] = mistakes(text.replace("1e10", "none"))
    assert (refused.code, refused.line, refused.fix) == ("no_eui", 4, "Read it off the label.")
    assert refused.source[refused.column - 1 :].startswith("none")
