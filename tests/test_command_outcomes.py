"""What became of a command: after a crash, on a disk that refuses, from a device that says nothing."""

import asyncio
from pathlib import Path
from typing import Any

from gateway.errors import CommandError, StorageError
from gateway.model import CommandState
from gateway.supervise import Watch, supervise
from gateway.testing import jumped
from tests.desk import Charger, Desk, at_the_desk


async def left_executing(desk: Desk) -> None:
    desk.charger.pause = 50.0
    await desk.send()
    await desk.until("executing")


def test_a_crash_while_executing_never_runs_what_is_not_idempotent_again(tmp_path: Path) -> None:
    async def before(desk: Desk) -> None:
        desk.charger.pause = 50.0
        await desk.send(do="reset", args={})
        await desk.until("executing")

    async def after(desk: Desk) -> None:
        failed = await desk.until("failed")
        assert failed["code"] == "unknown_outcome"
        assert desk.charger.told == []

    at_the_desk(tmp_path, before)
    at_the_desk(tmp_path, after)


def test_a_crash_while_executing_runs_what_is_idempotent_again(tmp_path: Path) -> None:
    async def after(desk: Desk) -> None:
        await desk.until("succeeded")
        assert desk.charger.told == [{"do": "limit", "amps": 16}]

    at_the_desk(tmp_path, left_executing)
    at_the_desk(tmp_path, after)


def test_after_a_crash_a_command_waits_for_its_link_and_is_answered_with_what_holds(tmp_path: Path) -> None:
    async def after(desk: Desk) -> None:
        desk.charger.trouble = CommandError("not_connected", "cp-1/evse is not connected; nothing was done.")
        await asyncio.sleep(20)
        assert (await desk.states())[-1] == "executing"
        desk.charger.trouble = None
        assert (await desk.until("succeeded"))["now"] == {"amps": 16}

    at_the_desk(tmp_path, left_executing)
    at_the_desk(tmp_path, after)


def test_after_a_crash_a_device_that_stays_away_leaves_the_outcome_unknown(tmp_path: Path) -> None:
    async def after(desk: Desk) -> None:
        desk.charger.trouble = CommandError("not_connected", "cp-1/evse is not connected; nothing was done.")
        failed = await desk.until("failed")
        assert failed["code"] == "unknown_outcome", "not 'nothing was done': before the crash it may have been"

    at_the_desk(tmp_path, left_executing)
    at_the_desk(tmp_path, after)


def test_a_command_that_comes_while_execution_is_started_again_is_carried_out_once(tmp_path: Path) -> None:
    charger = Charger()

    async def main() -> None:
        desk = Desk(tmp_path, charger)
        await desk.open()
        async with asyncio.TaskGroup() as tasks:
            buffer = tasks.create_task(desk.buffer.run())
            for turn in range(3):
                await desk.send(f"between {turn}", do="reset", args={})
                running = tasks.create_task(desk.commands.run())
                await asyncio.sleep(0)
                await desk.send(f"after {turn}", do="reset", args={})
                for when in ("between", "after"):
                    await desk.until("succeeded", f"{when} {turn}")
                await asyncio.sleep(100)
                running.cancel()
            buffer.cancel()
        await desk.buffer.close()

    jumped(main())
    assert len(charger.told) == 6


def test_a_disk_that_refuses_the_outcome_gets_it_later_and_the_command_is_not_repeated(tmp_path: Path) -> None:
    async def act(desk: Desk) -> None:
        emit = desk.commands._emit
        refusals = 3

        async def refuse_outcomes(records: Any, **options: Any) -> None:
            nonlocal refusals
            if refusals and records[-1].state in (CommandState.SUCCEEDED, CommandState.FAILED):
                refusals -= 1
                raise StorageError("The disk is full.")
            await emit(records, **options)

        desk.commands._emit = refuse_outcomes
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(supervise("commands", desk.commands.run, watch=Watch(), down=_ignore))
            await desk.send(do="reset", args={})
            await desk.until("succeeded")
            running.cancel()
        assert refusals == 0
        assert len(desk.charger.told) == 1

    async def main() -> None:
        desk = Desk(tmp_path, Charger())
        await desk.open()
        async with asyncio.TaskGroup() as tasks:
            buffer = tasks.create_task(desk.buffer.run())
            await act(desk)
            buffer.cancel()
        await desk.buffer.close()

    jumped(main())


def test_a_driver_that_cannot_store_what_it_did_is_not_asked_to_do_it_again(tmp_path: Path) -> None:
    async def act(desk: Desk) -> None:
        desk.charger.trouble = StorageError("The disk is full.")
        await desk.send(do="reset", args={})
        failed = await desk.until("failed")
        await asyncio.sleep(600)
        assert (failed["code"], failed["say"]) == ("unknown_outcome", "The disk is full.")
        assert len(desk.charger.told) == 1

    at_the_desk(tmp_path, act)


async def _ignore(say: str) -> None:
    assert "error of the gateway's own" not in say


def test_a_charger_that_never_confirms_fails_with_unknown_outcome(tmp_path: Path) -> None:
    async def act(desk: Desk) -> None:
        desk.charger.pause = 1e6
        await desk.send()
        failed = await desk.until("failed")
        assert failed["code"] == "unknown_outcome"
        desk.charger.pause = 0
        await desk.send("c2")
        await desk.until("succeeded", "c2")

    at_the_desk(tmp_path, act)


def test_a_refusal_of_the_device_is_told_in_its_words(tmp_path: Path) -> None:
    async def act(desk: Desk) -> None:
        desk.charger.trouble = CommandError("rejected_by_charger", "cp-1 rejected the profile.")
        await desk.send()
        failed = await desk.until("failed")
        assert (failed["code"], failed["say"]) == ("rejected_by_charger", "cp-1 rejected the profile.")

    at_the_desk(tmp_path, act)
