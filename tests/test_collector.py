"""What is loaded is not looked through for ever, and what nobody can reach is still found."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import TYPE_CHECKING, cast

from gateway import collector
from gateway.cli.run import _until_told
from gateway.testing import jumped

if TYPE_CHECKING:
    import pytest

    from gateway.app import Gateway

# In a process of its own: what is frozen stays so.
SETTLED = """
import gc, weakref
from gateway import collector

class Node: pass

def ring():
    node = Node()
    node.itself = node
    return weakref.ref(node)

before = ring()
collector.settle()
assert before() is None and gc.get_freeze_count() > 1000
after = ring()
held = [[] for _ in range(20_000)]
assert after() is None
"""


def test_what_is_loaded_is_left_alone_and_rings_are_still_found() -> None:
    subprocess.run([sys.executable, "-c", SETTLED], check=True)


def test_a_gateway_settles_when_it_has_run_for_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    settled: list[float] = []

    class Running:
        def stop(self) -> None: ...

        async def run(self) -> None:
            await asyncio.sleep(3600)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        monkeypatch.setattr(collector, "settle", lambda: settled.append(loop.time() - began))
        await _until_told(cast("Gateway", Running()))

    jumped(main())
    assert [round(at) for at in settled] == [60]
