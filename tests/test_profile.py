"""The head of a profile and the meaning of its points."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import pytest

from gateway import profile
from gateway.diagnostic import Diagnostic, DocumentError
from gateway.profile import Catalogue, Profile, ProfilePoint

if TYPE_CHECKING:
    from pathlib import Path


class Meter(Profile):
    points: Mapping[str, ProfilePoint]


HEAD = "profile: acme-m1/2\ndriver: modbus\nkind: meter\nsource: the maker\npoints:\n"


def model_of(driver: str) -> type[Profile]:
    if driver != "modbus":
        raise LookupError(f"driver `{driver}` is unknown")
    return Meter


def load(folder: Path, text: str, name: str = "acme-m1") -> Profile:
    path = folder / f"{name}.yaml"
    path.write_text(text)
    return profile.load(path, model_of)


def mistake(folder: Path, text: str, name: str = "acme-m1") -> Diagnostic:
    with pytest.raises(DocumentError) as caught:
        load(folder, text, name)
    assert len(caught.value.diagnostics) == 1, str(caught.value)
    return caught.value.diagnostics[0]


def test_a_point_is_in_its_canonical_unit(tmp_path: Path) -> None:
    made = load(
        tmp_path, HEAD + "  power: {quantity: power_active, unit: kW, phase: L1, direction: import, window: 15min}\n"
    )
    assert isinstance(made, Meter)
    written = made.points["power"]
    assert written.conversion == (1000.0, 0.0)
    point = written.point("cab/feeder", "power")
    assert (point.id, point.unit, point.phase, point.direction, point.window) == (
        "cab/feeder/power",
        "W",
        "L1",
        "import",
        900,
    )


def test_a_quantity_of_ones_own_has_its_own_unit(tmp_path: Path) -> None:
    made = load(tmp_path, HEAD + "  soil: {quantity: x_soil_moisture, unit: '%'}\n")
    assert isinstance(made, Meter)
    assert made.points["soil"].point("a/b", "soil").unit == "%"


def test_phase_n_is_a_phase_and_not_false(tmp_path: Path) -> None:
    made = load(tmp_path, HEAD + "  current_n: {quantity: current, phase: N}\n")
    assert isinstance(made, Meter)
    assert made.points["current_n"].phase == "N"


@pytest.mark.parametrize(
    ("point", "code", "column", "sentence"),
    [
        ("{quantity: voltag}", "unknown_quantity", 17, "did you mean `voltage`?"),
        ("{quantity: voltag}", "unknown_quantity", 17, "Or name it `x_voltag` with its unit."),
        ("{quantity: x_soil}", "missing_unit", 6, "needs a unit"),
        (
            "{quantity: voltage, unit: W}",
            "bad_unit",
            32,
            "voltage: `W` is not a unit of this quantity; write V, kV, mV",
        ),
        ("{quantity: voltage, phase: L4}", "unknown_word", 33, "Valid here: L1, L2, L3, N, L12, L23, L31."),
        ("{quantity: voltage, direction: imprt}", "unknown_word", 37, "did you mean `import`?"),
        ("{quantity: voltage, statistic: avg}", "unknown_word", 37, "statistic `avg` is unknown"),
        ("{quantity: voltage, uint: V}", "unknown_key", 26, "did you mean `unit`?"),
    ],
)
def test_a_point_that_means_nothing_is_refused(
    tmp_path: Path, point: str, code: str, column: int, sentence: str
) -> None:
    found = mistake(tmp_path, f"{HEAD}  p: {point}\n")
    assert (found.code, found.line, found.column) == (code, 6, column)
    assert sentence in str(found)


def test_the_head_is_checked(tmp_path: Path) -> None:
    assert mistake(tmp_path, "kind: meter\n").code == "missing_key"
    assert mistake(tmp_path, "").code == "missing_key"
    assert mistake(tmp_path, "- a list\n").code == "missing_key"
    assert mistake(tmp_path, HEAD.replace("modbus", "modbos") + "  p: {quantity: voltage}\n").code == "unknown_driver"
    assert mistake(tmp_path, HEAD.replace("acme-m1/2", "acme") + "  p: {quantity: voltage}\n").code == "bad_value"


def test_a_file_is_called_like_its_profile(tmp_path: Path) -> None:
    found = mistake(tmp_path, HEAD + "  p: {quantity: voltage}\n", "acme-m2")
    assert (found.code, found.line) == ("name_mismatch", 1)
    assert "Call the file acme-m1.yaml." in str(found)


def test_the_first_folder_wins_and_says_so(tmp_path: Path) -> None:
    own, shipped = tmp_path / "own", tmp_path / "shipped"
    for folder, names in ((own, ["acme-m1"]), (shipped, ["acme-m1", "acme-m2"])):
        folder.mkdir()
        for name in names:
            (folder / f"{name}.yaml").write_text("")
    catalogue = Catalogue([own, shipped, tmp_path / "none"])
    assert catalogue.names() == ["acme-m1", "acme-m2"]
    assert catalogue.path("acme-m1/7") == own / "acme-m1.yaml"
    assert catalogue.overrides == {"acme-m1": shipped / "acme-m1.yaml"}
    with pytest.raises(KeyError):
        catalogue.path("acme-m3")


def test_a_variant_inherits_replaces_and_removes(tmp_path: Path) -> None:
    load(tmp_path, HEAD + "  power: {quantity: power_active, unit: kW}\n  volts: {quantity: voltage}\n")
    variant = (
        "profile: acme-m2/1\ninherits: acme-m1\nnote: smaller\npoints:\n"
        "  power: {unit: W}\n  volts:\n  hertz: {quantity: frequency}\n"
    )
    made = load(tmp_path, variant, "acme-m2")
    assert isinstance(made, Meter)
    assert (made.profile, made.driver, made.kind, made.note) == ("acme-m2/1", "modbus", "meter", "smaller")
    assert {slug: (p.quantity, p.unit) for slug, p in made.points.items()} == {
        "power": ("power_active", "W"),
        "hertz": ("frequency", None),
    }
    youngest = load(tmp_path, "profile: acme-m3/1\ninherits: acme-m2\n", "acme-m3")
    assert isinstance(youngest, Meter)
    assert list(youngest.points) == list(made.points)


def test_what_inheritance_can_get_wrong(tmp_path: Path) -> None:
    found = mistake(tmp_path, "profile: acme-m1/1\ninherits: acme-m9\n")
    assert (found.code, found.line, found.column) == ("unknown_profile", 2, 11)
    (tmp_path / "acme-m2.yaml").write_text("profile: acme-m2/1\ninherits: acme-m1\n")
    found = mistake(tmp_path, "profile: acme-m1/1\ninherits: acme-m2\n")
    assert (found.code, found.line) == ("bad_inheritance", 2)
    assert "acme-m1 → acme-m2 → acme-m1" in found.why
    (tmp_path / "acme-m2.yaml").write_text(HEAD.replace("acme-m1", "acme-m2") + "  power: {quantity: power_active}\n")
    found = mistake(tmp_path, "profile: acme-m1/1\ninherits: acme-m2\npoints:\n  power: {unit: kVA}\n")
    assert (found.code, found.line, found.column) == ("bad_unit", 4, 17)
