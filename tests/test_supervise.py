"""Supervision: a child runs again for ever, backs off, tells why, and the watchdog knows who is late."""

import asyncio
from itertools import islice

import pytest

from gateway.errors import DeviceError, LinkError
from gateway.supervise import LONGEST_PAUSE, Watch, pauses, supervise
from gateway.testing import jumped


class Child:
    """Fails as it is told, time after time, then runs on."""

    def __init__(self, *failures: BaseException) -> None:
        self.failures = list(failures)
        self.starts: list[float] = []
        self.said: list[str] = []
        self.steady = asyncio.Event()

    async def run(self) -> None:
        self.starts.append(asyncio.get_running_loop().time())
        if self.failures:
            raise self.failures.pop(0)
        self.steady.set()
        await asyncio.Event().wait()

    async def down(self, say: str) -> None:
        self.said.append(say)


def kept(child: Child, seconds: float = 3600) -> Watch:
    """Supervise `child` in jumped time until it is steady."""
    watch = Watch()

    async def main() -> None:
        keeper = asyncio.create_task(supervise("line", child.run, watch=watch, down=child.down))
        async with asyncio.timeout(seconds):
            await child.steady.wait()
        keeper.cancel()
        await asyncio.wait([keeper])

    jumped(main())
    return watch


def test_a_child_that_fails_runs_again_and_its_sentence_is_told() -> None:
    child = Child(LinkError("The adapter is unplugged. Plug it in."), LinkError("Again."))
    kept(child)
    assert child.said == ["The adapter is unplugged. Plug it in.", "Again."]
    assert len(child.starts) == 3


def test_a_bug_costs_one_restart_and_is_told_as_ours() -> None:
    child = Child(ZeroDivisionError(), ExceptionGroup("tasks", [LinkError("Gone."), KeyError("x")]))
    kept(child)
    assert "error of the gateway's own (ZeroDivisionError)" in child.said[0]
    assert child.said[1] == "Gone."


def test_our_errors_are_found_inside_groups() -> None:
    child = Child(ExceptionGroup("outer", [ExceptionGroup("inner", [DeviceError("The meter is asleep.")])]))
    kept(child)
    assert child.said == ["The meter is asleep."]


def test_a_cancelled_child_stays_cancelled() -> None:
    async def main() -> None:
        child = Child()
        keeper = asyncio.create_task(supervise("line", child.run, watch=Watch(), down=child.down))
        await child.steady.wait()
        keeper.cancel()
        with pytest.raises(asyncio.CancelledError):
            await keeper
        assert child.said == []

    jumped(main())


def test_it_never_gives_up_and_never_waits_longer_than_the_cap() -> None:
    child = Child(*(LinkError("Gone.") for _ in range(200)))
    kept(child, seconds=200 * LONGEST_PAUSE + 60)
    waits = [later - earlier for earlier, later in zip(child.starts, child.starts[1:], strict=False)]
    assert len(waits) == 200
    assert max(waits) <= LONGEST_PAUSE + 1
    assert waits[0] < 1 < max(waits)


def test_pauses_double_are_capped_and_differ_between_gateways() -> None:
    for number, pause in enumerate(islice(pauses(), 20)):
        whole = min(0.5 * 2**number, LONGEST_PAUSE)
        assert whole / 2 <= pause <= whole
    assert len({next(pauses()) for _ in range(50)}) > 40


def test_the_watchdog_knows_who_is_late() -> None:
    async def main() -> None:
        watch = Watch()
        watch.alive("line")(30)
        watch.alive("city")(300)
        assert watch.overdue() == []
        await asyncio.sleep(31)
        assert watch.overdue() == ["line"]
        watch.alive("line")(30)
        assert watch.overdue() == []
        await asyncio.sleep(400)
        assert watch.overdue() == ["city", "line"]
        watch.forget("line")
        assert watch.overdue() == ["city"]

    jumped(main())


def test_back_off_is_alive() -> None:
    async def main() -> None:
        watch, child = Watch(), Child(*(LinkError("Gone.") for _ in range(1000)))
        keeper = asyncio.create_task(supervise("line", child.run, watch=watch, down=child.down))
        for _ in range(500):
            await asyncio.sleep(7)
            assert watch.overdue() == []
        keeper.cancel()
        await asyncio.wait([keeper])

    jumped(main())
