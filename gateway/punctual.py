"""An event loop that wakes when a timer is due.

asyncio waits by epoll, which counts whole milliseconds, and rounds up: a short sleep ends half a millisecond late on
average. A line of RS-485 would be idle for so long before each question. select(2) counts microseconds, and takes the
descriptor of an epoll. It wakes up to `timerslack` late (prctl(2): 50 µs), which is asked to be less, too.
"""

import asyncio
import contextlib
import select
import selectors
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
SHORT = 0.1
"""Seconds; of a longer wait, a millisecond is less than one per cent."""
SLACK = 1_000
"""Nanoseconds."""


class Selector(selectors.EpollSelector):
    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is not None and 0 < timeout < SHORT:
            ready, _, _ = select.select((self,), (), (), timeout)
            if not ready:
                return []
            timeout = 0
        return super().select(timeout)


def run(main: Coroutine[Any, Any, T]) -> T:
    """As asyncio.run, on such a loop."""
    with contextlib.suppress(OSError):
        Path("/proc/self/timerslack_ns").write_text(str(SLACK))
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(Selector())) as runner:
        return runner.run(main)
