"""A memory card whose flushes take 200 ms: the event loop never waits for it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.crash import lag

pytestmark = [pytest.mark.needs("gcc"), pytest.mark.fault]
TRIES = 3


@pytest.fixture
def preload(tmp_path: Path) -> dict[str, str]:
    """The environment in which flushes are slow."""
    library = tmp_path / "slow_flush.so"
    source = Path(__file__).with_name("slow_flush.c")
    subprocess.run(["gcc", "-shared", "-fPIC", "-O2", "-Wall", "-Werror", "-o", library, source], check=True)
    return os.environ | {"LD_PRELOAD": str(library)}


def measured(folder: Path, environment: dict[str, str], *words: str) -> dict[str, Any]:
    command = [sys.executable, "-m", lag.__name__, folder, *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_the_event_loop_never_waits_for_a_slow_disk(tmp_path: Path, preload: dict[str, str]) -> None:
    """A busy machine makes a loop late now and then, a flush in it does every time: the best of a few tries counts."""
    tries = [measured(tmp_path / "first", preload)]
    while tries[-1]["lag_ms"] >= 50 and len(tries) < TRIES:
        tries.append(measured(tmp_path / f"try-{len(tries)}", preload))
    assert min(found["lag_ms"] for found in tries) < 50, tries
    for found in tries:
        assert found["slow_flushes"] >= 3 * 8, "each lane waited for its own flushes"
        assert found["committed"]["billing"] >= 40, "what waits together is committed together"
        assert found["committed"]["telemetry"] >= 500, found


def test_a_loop_that_waits_for_the_disk_is_noticed(tmp_path: Path, preload: dict[str, str]) -> None:
    found = measured(tmp_path / "control", preload, "--in-loop")
    assert found["lag_ms"] >= lag.DELAY_MS, found
