"""What a meter says is held against what mains can be, without any meter."""

from __future__ import annotations

import pytest

from gateway.cli.plausible import judge
from gateway.model import Point

POINTS = {
    **{f"v{n}": Point(f"a/m/v{n}", "voltage", "V", phase=f"L{n}") for n in (1, 2, 3)},
    **{f"p{n}": Point(f"a/m/p{n}", "power_active", "W", phase=f"L{n}") for n in (1, 2, 3)},
    "p": Point("a/m/p", "power_active", "W"),
    "f": Point("a/m/f", "frequency", "Hz"),
}
FINE = {"v1": 230.0, "v2": 231.0, "v3": 229.0, "p1": 1000.0, "p2": 500.0, "p3": 0.0, "p": 1500.0, "f": 50.01}


@pytest.mark.parametrize(
    ("said", "say"),
    [
        ({"v2": 0.3}, "Feeder L2 has no voltage (0.3 V). Check its fuse and its tap."),
        ({"v1": 23.0, "v2": 23.1, "v3": 22.9}, "Feeder L1 says 23 V, which no mains has. Choose another profile."),
        ({"v1": 2300.0}, "Feeder L1 says 2300 V, which no mains has. Choose another profile."),
        ({"f": 5000.0}, "Feeder says 5000 Hz, which no grid has. Choose another profile."),
        ({"p": 1.5}, "Feeder: the phases make 1500 W, the total says 1.5 W. Choose another profile."),
        ({"p2": -500.0, "p": 500.0}, "Feeder L2 power is negative while importing. Turn its clamp round."),
        (
            {"p1": -1000.0, "p2": -500.0, "p": -1500.0},
            "Feeder says that all its power goes out (-1500 W). If nothing feeds in here, turn its clamps round.",
        ),
    ],
)
def test_what_cannot_be_is_said_with_one_action(said: dict[str, float], say: str) -> None:
    verdict = judge("Feeder", POINTS, FINE | said)
    assert say in verdict.wrong
    assert verdict.confidence(0.9) == 0.45


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"p1": 10.0, "p2": -10.0, "p3": 0.0, "p": 0.0},  # noise on an idle line has any sign
        {"p1": 3000.0, "p2": -1000.0, "p3": -2500.0, "p": -500.0},  # one phase draws while the sun feeds in
        {"p1": 1000.0, "p2": 500.0, "p3": 0.0, "p": 1540.0},  # read one after the other
    ],
)
def test_what_can_be_is_not_called_wrong(said: dict[str, float]) -> None:
    verdict = judge("Feeder", POINTS, FINE | said)
    assert verdict.wrong == []
    assert verdict.checks == 6
    assert verdict.confidence(0.5) == 0.75


def test_what_is_not_said_is_not_judged() -> None:
    verdict = judge("Feeder", POINTS, {"p1": 5.0})
    assert (verdict.checks, verdict.wrong, verdict.confidence(0.5)) == (0, [], 0.5)
