"""Keep one child alive for ever: back off, capped and jittered, never give up; and know who is late.

The only place that catches everything: what is not one of our errors is a bug, is logged with its
traceback, and costs that one child a restart.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import structlog

from gateway.errors import LampioneError, UplinkError

FIRST_PAUSE = 0.5
LONGEST_PAUSE = 30.0
_STEADY_AFTER = 60.0
_WATCH_SLACK = 30.0

log = structlog.get_logger()


class Watch:
    """Who promised to be heard from again, and by when. A child in back-off is alive: it has its deadline too."""

    def __init__(self) -> None:
        self._deadlines: dict[str, float] = {}

    def alive(self, name: str) -> Callable[[float], None]:
        """The function by which `name` says `alive(30)`: I will call again within 30 s."""

        def alive(within: float) -> None:
            self._deadlines[name] = asyncio.get_running_loop().time() + within

        return alive

    def forget(self, name: str) -> None:
        self._deadlines.pop(name, None)

    def overdue(self) -> list[str]:
        """Names whose deadline has passed."""
        now = asyncio.get_running_loop().time()
        return sorted(name for name, deadline in self._deadlines.items() if deadline < now)


def pauses() -> Iterator[float]:
    """Seconds to wait before each next try: doubling, capped, each between half and the whole."""
    pause = FIRST_PAUSE
    while True:
        yield pause * random.uniform(0.5, 1.0)  # noqa: S311 - spreads retries, guards nothing
        pause = min(pause * 2, LONGEST_PAUSE)


async def supervise(
    name: str,
    run: Callable[[], Awaitable[None]],
    *,
    watch: Watch,
    down: Callable[[str], Awaitable[None]],
) -> None:
    """Run `run()` again whenever it ends, until cancelled. `down(sentence)` is told each time it fails."""
    loop = asyncio.get_running_loop()
    alive = watch.alive(name)
    waits = pauses()
    while True:
        started = loop.time()
        failure: BaseException | None = None
        alive(_WATCH_SLACK)
        try:
            with structlog.contextvars.bound_contextvars(child=name):
                await run()
            say = f"{name} has stopped by itself and is started again."
        except LampioneError as error:
            say, failure = str(error), error
        except BaseExceptionGroup as group:
            expected, bugs = group.split(LampioneError)
            if bugs is not None:
                if bugs.subgroup(lambda error: not isinstance(error, Exception)):
                    raise
                log.error("bug", child=name, exc_info=bugs)
            failure = _first(expected) if expected else None
            say = str(failure) if failure else _apology(name, group)
        except Exception as error:
            log.exception("bug", child=name)
            say = _apology(name, error)
        if loop.time() - started > _STEADY_AFTER:
            waits = pauses()
        await down(say)
        pause = max(next(waits), failure.pause if isinstance(failure, UplinkError) else 0.0)
        alive(pause + _WATCH_SLACK)
        await asyncio.sleep(pause)


@contextmanager
def ungrouped() -> Iterator[None]:
    """What fails in a TaskGroup comes out as itself; the first, where more do."""
    try:
        yield
    except BaseExceptionGroup as group:
        raise _first(group) from None


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _apology(name: str, error: BaseException) -> str:
    return f"{name} met an error of the gateway's own ({type(error).__name__}) and is started again. Send the log."
