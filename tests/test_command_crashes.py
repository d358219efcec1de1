"""A gateway that dies at any moment of a command's life, for real: never carried out twice, always answered.

The process under test is a fork that ends itself between two steps of its tasks, one step later each time.
"""

import asyncio
import os
import sys
import traceback
from collections.abc import Awaitable, Callable, Coroutine, Generator, Sequence
from pathlib import Path
from typing import Any

import pytest

from gateway.model import Command, CommandState, Lane, Reply
from gateway.testing import JumpingLoop
from tests.test_commands import Charger, Desk

pytestmark = [pytest.mark.fault, pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")]

ENDS = {CommandState.REJECTED, CommandState.SUCCEEDED, CommandState.FAILED, CommandState.EXPIRED}
_DIED, _LIVED = 7, 0

Act = Callable[[Desk], Awaitable[None]]


class Notebook(Charger):
    """A device that lives on when the gateway dies: what it was told stands in a file."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.file = file
        self.pause = 0.5

    async def execute(self, command: Command) -> Reply:
        _note(self.file, f"{command.do} {command.args.get('amps', '')}".strip())
        return await super().execute(command)


class Steps(Coroutine[Any, Any, Any]):
    """A coroutine that reports before and after each of its steps."""

    def __init__(self, inner: Coroutine[Any, Any, Any], step: Callable[[], None]) -> None:
        self._inner, self._step = inner, step

    def send(self, value: Any) -> Any:
        self._step()
        try:
            return self._inner.send(value)
        finally:
            self._step()

    def throw(self, *error: Any) -> Any:
        return self._inner.throw(*error)

    def close(self) -> None:
        self._inner.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._inner.__await__()


def _note(file: Path, line: str) -> None:
    with file.open("a") as notes:
        notes.write(f"{line}\n")


def noted(file: Path) -> list[str]:
    return file.read_text().splitlines() if file.exists() else []


def live(folder: Path, act: Act, step: Callable[[], None]) -> None:
    """One life of the gateway; the steps of all tasks that have to do with commands are told to `step`."""

    def counted(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> "asyncio.Task[Any]":
        mine = "Commands." in getattr(coroutine, "__qualname__", "") or coroutine.__name__ == "act"
        return asyncio.Task(Steps(coroutine, step) if mine else coroutine, loop=loop, **options)

    async def main() -> None:
        desk = Desk(folder / "buffer", Notebook(folder / "told"))
        await desk.open()
        asyncio.get_running_loop().set_task_factory(counted)
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(desk.buffer.run()), tasks.create_task(desk.commands.run())]
            await tasks.create_task(act(desk))
            for task in running:
                task.cancel()
        await desk.buffer.close()

    with asyncio.Runner(loop_factory=lambda: JumpingLoop(0.0)) as runner:
        runner.run(main())


def dies(folder: Path, act: Act, at: int) -> bool:
    """Whether a life ended at its step number `at`, counted from 0; otherwise it was over before."""
    child = os.fork()
    if child == 0:
        left = [at]

        def step() -> None:
            if left[0] == 0:
                os._exit(_DIED)
            left[0] -= 1

        code = 1
        try:
            live(folder, act, step)
            code = _LIVED
        finally:
            if code != _LIVED:
                traceback.print_exc()
                sys.stderr.flush()
            os._exit(code)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in (_DIED, _LIVED), "the gateway met an error of its own"
    return code == _DIED


def order(folder: Path, **document: Any) -> Act:
    """The broker gives a command until it is acknowledged, and somebody waits for what becomes of it."""

    async def act(desk: Desk) -> None:
        if "acknowledged" not in noted(folder / "broker"):
            await desk.send(issued=0, expires=2_000_000_000_000, **document)
            _note(folder / "broker", "acknowledged")
        async with asyncio.timeout(7200):
            lane = desk.buffer.lanes[Lane.EVENT]
            while not ENDS & set(await desk.states()):
                await lane.news(lane.head)
            await asyncio.sleep(100)
        (folder / "states").write_text("\n".join(await desk.states()))

    return act


def ends(folder: Path) -> list[str]:
    """The states of the command that say how it ended, in order."""
    return [state for state in noted(folder / "states") if state in ENDS]


def lives(tmp_path: Path, document: dict[str, Any], recovery_dies_at: Sequence[int] = ()) -> list[tuple[Path, int]]:
    """One folder for each moment of death, after the gateway has started again and had its time."""
    folders: list[tuple[Path, int]] = []
    for moment in range(1000):
        folder = tmp_path / str(moment)
        folder.mkdir()
        act = order(folder, **document)
        if not dies(folder, act, moment):
            break
        for again in recovery_dies_at:
            dies(folder, act, again)
        assert not dies(folder, act, 10**9)
        folders.append((folder, moment))
    return folders


def test_what_could_do_harm_twice_is_carried_out_at_most_once_and_always_answered(tmp_path: Path) -> None:
    outcomes: set[tuple[str, int]] = set()
    folders = lives(tmp_path, {"do": "reset", "args": {}})
    for folder, moment in folders:
        told, said = noted(folder / "told"), ends(folder)
        assert len(set(said)) == 1, f"dead at step {moment}: {said}"
        outcomes.add((said[0], len(told)))
    assert len(folders) > 15
    assert outcomes == {("succeeded", 1), ("failed", 1), ("failed", 0)}


def test_what_may_be_repeated_is_carried_out_and_answered_whenever_the_gateway_dies(tmp_path: Path) -> None:
    for folder, moment in lives(tmp_path, {"do": "limit", "args": {"amps": 16}}):
        told, said = noted(folder / "told"), ends(folder)
        assert told in (["limit 16"], ["limit 16"] * 2), f"dead at step {moment}"
        assert set(said) == {"succeeded"}, f"dead at step {moment}"


@pytest.mark.slow
def test_a_lease_ends_whenever_the_gateway_dies(tmp_path: Path) -> None:
    for folder, moment in lives(tmp_path, {"do": "limit", "args": {"amps": 16}, "lease_s": 60}):
        assert noted(folder / "told")[-1] == "limit 6.0", f"dead at step {moment}"
        assert ends(folder)[-1] == "expired", f"dead at step {moment}"


@pytest.mark.slow
def test_a_recovery_that_dies_too_recovers(tmp_path: Path) -> None:
    for folder, moment in lives(tmp_path, {"do": "reset", "args": {}}, recovery_dies_at=(3, 6)):
        assert len(noted(folder / "told")) <= 1, f"dead at step {moment}"
        assert len(set(ends(folder))) == 1, f"dead at step {moment}"
