"""Chargers that are not as the specification has them, on a network that loses answers: a charge is one record."""

from __future__ import annotations

from pathlib import Path

import pytest

from drivers.ocpp import scenario
from drivers.ocpp.scenario import Quirk, Scenario
from gateway.document import DocumentError
from gateway.testing import Recorder
from tests.drivers.ocpp.chargers import gateway
from tests.drivers.ocpp.emulated import emulated


def test_a_scenario_is_a_file(tmp_path: Path) -> None:
    file = tmp_path / "bad-network.yaml"
    file.write_text("quirks: [number_values, boots_once]\nlost_answers: 0.2\ndrops_every: 30s\n")
    found = scenario.read(file)
    assert found.quirks == {Quirk.NUMBER_VALUES, Quirk.BOOTS_ONCE}
    assert (found.lost_answers, found.drops_every) == (0.2, 30)
    file.write_text("quirks: [sings]\n")
    with pytest.raises(DocumentError):
        scenario.read(file)


def test_the_page_shows_a_scenario_and_every_quirk(tmp_path: Path) -> None:
    page = (Path(__file__).parents[3] / "docs" / "ocpp.md").read_text()
    shown = page.partition("```yaml\n")[2].partition("```")[0]
    file = tmp_path / "shown.yaml"
    file.write_text(shown)
    assert scenario.read(file).car is not None
    assert {line.split(":")[0] for line in shown.splitlines()} == set(Scenario.model_fields)
    assert not [quirk for quirk in Quirk if f"`{quirk}`" not in page]


async def test_all_quirks_at_once_over_a_network_that_loses_answers() -> None:
    recorder = Recorder()
    odd = Scenario.model_validate(
        {"quirks": list(Quirk), "lost_answers": 0.1, "answer_within": "100ms", "drops_every": "40s"}
    )
    async with gateway(recorder) as running, emulated(running, scenario=odd) as emulator:
        point = emulator.points["cp-1/evse"]
        await recorder.until(
            lambda found: point.lost >= 3 and sum(event.kind == "session" for event in found.events) >= 4, within=30
        )
    sessions = [event.more for event in recorder.events if event.kind == "session"]
    begun = [event.more["transaction"] for event in recorder.events if event.kind == "transaction_begin"]
    ended = [one["transaction"] for one in sessions]
    assert len(set(begun)) == len(begun)
    assert len(set(ended)) == len(ended)
    assert set(ended) <= set(begun)
    assert all(isinstance(one["energy"], int | float) for one in sessions)
    assert {one["meter_start"] for one in sessions} == {0}
    told = [(one.point, one.transaction, one.device_time) for one in recorder.readings if one.transaction]
    assert len(set(told)) == len(told)
    said = " ".join(event.say for event in recorder.events if event.kind == "nonconforming")
    for part in ("values as numbers", "read as", "unknown context", "without a zone"):
        assert part in said
