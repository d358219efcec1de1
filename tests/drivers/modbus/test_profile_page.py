"""docs/modbus-profiles.md: every row decodes, every key is explained, both whole profiles load."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from drivers import modbus
from drivers.modbus.codec import decode
from drivers.modbus.identify import Check, Verify
from drivers.modbus.kinds import Kind
from drivers.modbus.points import Counter, Defaults, ExponentScale, MappedScale, ReadPoint, Status, WritePoint
from drivers.modbus.settings import Example, Line, Refusal
from gateway import document, load
from gateway import profile as head

from .conftest import make_device, running
from .test_points import make

if TYPE_CHECKING:
    from gateway.fields import Written

MODELS = [
    modbus.Profile, Defaults, ReadPoint, WritePoint, Counter, Status, ExponentScale, MappedScale, Line, Check, Verify,
    Example, Refusal,
]  # fmt: skip
PAGE = (Path(__file__).resolve().parents[3] / "docs" / "modbus-profiles.md").read_text()
ROWS = re.findall(r"^\| `(\{addr.*)\}` \| ([0-9A-F ]+) \| (\S+) \|$", PAGE, re.MULTILINE)
BASES = re.findall(r"^\| `(\w+)` \| (\S+) \| `([0-9a-f ]+)` \|$", PAGE, re.MULTILINE)
PROFILES = [textwrap.dedent(one) for one in re.findall(r"^    profile: .*?(?=^\S|\Z)", PAGE, re.MULTILINE | re.DOTALL)]


def test_the_page_has_what_is_tested() -> None:
    assert (len(ROWS), len(BASES), len(PROFILES)) == (34, 5, 2)


@pytest.mark.parametrize(("point", "words", "value"), ROWS)
def test_every_row_comes_out(point: str, words: str, value: str) -> None:
    [(_, field)] = make(f"{point}, quantity: x_it, unit: '1'}}").fields()
    found, reason = decode(field, [int(word, 16) for word in words.split()])
    assert field.width == len(words.split())
    said = reason if found is None else found
    assert said == value if isinstance(said, str) else said == pytest.approx(float(value), rel=1e-6)


@pytest.mark.parametrize(("base", "addr", "frame"), BASES)
def test_every_address_is_that_frame(base: str, addr: str, frame: str) -> None:
    made = make(f"{{addr: {addr}, quantity: x_it, unit: '1'}}", f"address_base: {base}\n")
    assert dict(made.frames()) == {"x": frame}


@pytest.mark.parametrize("model", MODELS)
def test_every_key_is_on_the_page(model: type[Written]) -> None:
    keys = {field.alias or name for name, field in model.model_fields.items()} - set(head.Profile.model_fields)
    assert [key for key in sorted(keys) if not re.search(rf"\b{key}\b", PAGE)] == []


def test_every_type_is_on_the_page() -> None:
    assert [kind for kind in Kind if kind not in PAGE] == []


def test_the_meter_and_its_variant_prove_themselves(tmp_path: Path) -> None:
    assert len(PROFILES[0].strip().splitlines()) == 12
    for text in PROFILES:
        path = tmp_path / f"{text.split()[1].partition('/')[0]}.yaml"
        path.write_text(text)
        found = load.profile(document.read(path), path.stem)
    assert list(getattr(found, "points")) == ["voltage", "power"]  # noqa: B009 - of the driver's own model


async def test_a_meter_that_nobody_prepared_is_read_by_its_ten_lines(tmp_path: Path) -> None:
    """From the file to readings, over the wire: no line of code."""
    path = tmp_path / "acme-m1.yaml"
    path.write_text(PROFILES[0])
    meter: Any = load.profile(document.read(path), path.stem)
    head = [
        line for line in PROFILES[0].strip().splitlines() if not line.startswith(("examples", "  - regs", "    expect"))
    ]
    assert len(head) == 9
    wanted = {"voltage": 230.2, "power": -100, "energy_import": 123450}
    async with running(make_device("a/m", 1, meter)) as street:
        for slug, value in wanted.items():
            street.emulator.set("a/m", slug, value)
        await street.seen(3, "a/m")
        assert {r.point.rpartition("/")[2]: r.value for r in street.recorder.readings[:3]} == wanted
