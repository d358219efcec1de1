"""What every test folder shares: --all, the `slow` and `needs` marks, and a time budget."""

from __future__ import annotations

import logging
import os
import time
from collections import Counter
from typing import TYPE_CHECKING

import pytest
import structlog

import dev

if TYPE_CHECKING:
    from collections.abc import Iterator

# A plain `pytest` finds the same mosquitto and lampione as `dev.py test`.
os.environ["PATH"] = dev.environment()["PATH"]

BUDGET = "the time budget was nearly used up"
_ROOM_FOR_SLOW = 0.3
"""Share of the budget that must be left for a slow test to start: the longest takes five minutes."""
SKIPPED = pytest.StashKey[Counter[str]]()
STARTED = pytest.StashKey[float]()


@pytest.fixture(autouse=True)
def _logs_as_imported() -> Iterator[None]:
    """A test that sets up logging, by calling the command line, leaves none of it to the next."""
    handlers, level = logging.root.handlers[:], logging.root.level
    yield
    structlog.reset_defaults()
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("lampione")
    group.addoption("--all", action="store_true", help="slow tests too; a missing system program fails its tests")
    group.addoption("--budget", type=float, metavar="SECONDS", help="stop, and fail, when the run takes longer")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[SKIPPED] = Counter()
    config.stash[STARTED] = time.monotonic()


def pytest_report_header() -> list[str]:
    return [
        f"missing program: {name} (sudo apt install {packages})"
        for name in dev.PROGRAMS
        if (packages := dev.missing(name))
    ]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        for program in (name for mark in item.iter_markers("needs") for name in mark.args):
            if program not in dev.PROGRAMS:
                raise pytest.UsageError(f"{item.nodeid} needs {program!r}, which PROGRAMS in dev.py does not know")
    slow = [item for item in items if item.get_closest_marker("slow")]
    quick = [item for item in items if not item.get_closest_marker("slow")]
    if config.getoption("all") or config.getoption("markexpr"):
        items[:] = quick + slow
        return
    items[:] = quick
    config.hook.pytest_deselected(items=slow)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("slow") and _is_used_up(item.config, 1 - _ROOM_FOR_SLOW):
        item.config.stash[SKIPPED][BUDGET] += 1
        pytest.skip("the time budget leaves no room for it")
    for program in (name for mark in item.iter_markers("needs") for name in mark.args):
        if packages := dev.missing(program):
            if item.config.getoption("all"):
                pytest.fail(f"needs {program}. Type: sudo apt install {packages}", pytrace=False)
            item.config.stash[SKIPPED][program] += 1
            pytest.skip(f"needs {program}")


def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    if nextitem and not nextitem.get_closest_marker("slow") and _is_used_up(item.config, 1):
        budget = item.config.getoption("budget")
        item.session.shouldfail = f"the time budget of {budget:.0f} s is used up; {nextitem.nodeid} was next"


def _is_used_up(config: pytest.Config, share: float) -> bool:
    budget = config.getoption("budget")
    return bool(budget) and time.monotonic() - config.stash[STARTED] > budget * share


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for program, count in sorted(config.stash[SKIPPED].items()):
        tests = "1 test" if count == 1 else f"{count} tests"
        why = f"{program} is missing (sudo apt install {dev.missing(program)})" if program != BUDGET else program
        terminalreporter.write_line(f"{tests} skipped: {why}")
