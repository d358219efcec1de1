"""Commands: refused with a sentence, journalled before they are executed, never executed twice, leases that end."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import orjson

from gateway.arguments import check_arguments
from gateway.buffer import Buffer
from gateway.commands import Commands, Reach
from gateway.errors import CommandError, StorageError
from gateway.model import Argument, ClockState, Command, CommandState, Device, Lane, Reply, Verb
from gateway.supervise import Watch, supervise
from gateway.testing import LoopClock, jumped

ALLOWED = {"grid-desk": ["limit", "set", "reset"]}
LIMIT = Verb(
    "limit",
    {"amps": Argument("A", 6, 32)},
    leasable=True,
    release={"amps": 6.0},
    safe_when_lower="amps",
)
RESET = Verb("reset", {}, idempotent=False, destructive=True)
SET = Verb("set", {"value": Argument("min", 0, 60)})


class Charger:
    """A device that remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[Mapping[str, Any]] = []
        self.is_up = True
        self.trouble: CommandError | StorageError | None = None
        self.pause = 0.0
        self.device = Device("cp-1/evse", {}, {"limit": LIMIT, "reset": RESET, "set:period": SET})

    async def execute(self, command: Command) -> Reply:
        self.told.append({"do": command.do, **command.args})
        await asyncio.sleep(self.pause)
        if self.trouble:
            raise self.trouble
        return Reply(command.id, CommandState.SUCCEEDED, 0, now=command.args, proof="GetCompositeSchedule")


class Desk:
    """The gateway's command side over a real buffer, and a platform that reads the replies in it."""

    def __init__(self, folder: Path, charger: Charger) -> None:
        self.charger = charger
        self.clock = LoopClock()
        self.buffer = Buffer(folder, "cab-017", self.clock)

    async def open(self) -> None:
        await self.buffer.open()
        for lane in self.buffer.lanes.values():
            await lane.enrol({"city": "oldest"})
        reach = Reach(self.charger.device, lambda: self.charger.is_up, self.charger.execute)
        state = self.buffer.state("commands/")
        self.commands = Commands({"cp-1/evse": reach}, state.emit, state, self.clock)

    async def send(self, identity: str = "c1", *, retained: bool = False, **changes: Any) -> None:
        document = {
            "v": 1, "id": identity, "issuer": "grid-desk", "do": "limit", "on": "cp-1/evse", "args": {"amps": 16},
            "issued": self.clock.wall(), "expires": self.clock.wall() + 60_000, **changes,
        }  # fmt: skip
        await self.commands.receive(orjson.dumps(document), retained, ALLOWED)

    async def replies(self, identity: str | None = "c1") -> list[dict[str, Any]]:
        blocks = await self.buffer.lanes[Lane.EVENT].read(1, 10**9, 10**9)
        found = [row[2] for block in blocks for row in block.rows or [] if "cmd" in row[2]]
        return [reply for reply in found if identity is None or reply["cmd"] == identity]

    async def states(self, identity: str = "c1") -> list[str]:
        return [reply["state"] for reply in await self.replies(identity)]

    async def until(self, state: str, identity: str = "c1") -> dict[str, Any]:
        async with asyncio.timeout(3600 * 30):
            while state not in await self.states(identity):
                await self.buffer.lanes[Lane.EVENT].news(self.buffer.lanes[Lane.EVENT].head)
        return next(reply for reply in await self.replies(identity) if reply["state"] == state)


Act = Callable[[Desk], Awaitable[None]]


def at_the_desk(folder: Path, act: Act, charger: Charger | None = None) -> None:
    async def main() -> None:
        desk = Desk(folder, charger or Charger())
        await desk.open()
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(desk.buffer.run()), tasks.create_task(desk.commands.run())]
            await act(desk)
            for task in running:
                task.cancel()
        await desk.buffer.close()

    jumped(main())


def test_a_command_is_journalled_executed_and_answered_with_what_holds(tmp_path: Path) -> None:
    async def act(desk: Desk) -> None:
        await desk.send()
        assert await desk.states() == ["received", "accepted"], "durable when receive returns, before execution"
        done = await desk.until("succeeded")
        assert await desk.states() == ["received", "accepted", "executing", "succeeded"]
        assert done["now"] == {"amps": 16}
        assert done["proof"] == "GetCompositeSchedule"
        assert desk.charger.told == [{"do": "limit", "amps": 16}]

    at_the_desk(tmp_path, act)


def test_the_same_id_is_never_executed_twice_and_returns_what_became_of_it(tmp_path: Path) -> None:
    async def act(desk: Desk) -> None:
        await desk.send()
        await desk.send()
        await desk.until("succeeded")
        await desk.send()
        assert desk.charger.told == [{"do": "limit", "amps": 16}]
        assert (await desk.replies())[-1]["now"] == {"amps": 16}

    async def after_restart(desk: Desk) -> None:
        await desk.send()
        assert desk.charger.told == []
        assert (await desk.replies())[-1]["state"] == "succeeded"

    at_the_desk(tmp_path, act)
    at_the_desk(tmp_path, after_restart)


def refused(folder: Path, code: str, words: str, charger: Charger | None = None, **changes: Any) -> None:
    async def act(desk: Desk) -> None:
        await desk.send(**changes)
        replies = await desk.replies(None)
        assert [reply["state"] for reply in replies] == ["rejected"]
        assert replies[0]["code"] == code
        assert words in replies[0]["say"]
        assert desk.charger.told == []

    at_the_desk(folder, act, charger)


def test_a_retained_command_is_refused(tmp_path: Path) -> None:
    refused(tmp_path, "retained", "obeyed again at each connection", retained=True)


def test_an_issuer_that_is_not_on_the_list_is_refused(tmp_path: Path) -> None:
    refused(tmp_path, "not_allowed", "mallory may not limit", issuer="mallory")


def test_a_verb_that_the_issuer_may_not_use_is_refused(tmp_path: Path) -> None:
    refused(tmp_path, "not_allowed", "grid-desk may not unlock", do="unlock")


def test_an_unknown_device_is_refused(tmp_path: Path) -> None:
    refused(tmp_path, "unknown_device", "cp-9/evse is not a device", on="cp-9/evse")


def test_a_value_above_its_bound_is_refused_with_the_bounds(tmp_path: Path) -> None:
    refused(tmp_path, "above_bound", "cp-1/evse takes 6 to 32 A; 40 A was asked.", args={"amps": 40})


def test_a_value_below_its_bound_is_refused(tmp_path: Path) -> None:
    refused(tmp_path, "below_bound", "6 to 32 A; 1 A was asked.", args={"amps": 1})


def test_an_argument_that_is_no_number_is_refused(tmp_path: Path) -> None:
    refused(tmp_path, "bad_argument", "amps is a number", args={"amps": True})


def test_a_missing_and_an_unknown_argument_are_refused(tmp_path: Path) -> None:
    refused(tmp_path / "a", "missing_argument", "needs amps", args={})
    refused(tmp_path / "b", "unknown_argument", "no argument watts", args={"amps": 16, "watts": 1})


def test_an_expired_command_is_refused(tmp_path: Path) -> None:
    refused(tmp_path, "expired", "after its expiry", expires=1)


def test_a_device_that_is_down_rejects_at_once(tmp_path: Path) -> None:
    charger = Charger()
    charger.is_up = False
    refused(tmp_path, "link_down", "cannot be reached now", charger)


def test_a_lease_on_what_takes_none_is_refused(tmp_path: Path) -> None:
    refused(tmp_path, "bad_lease", "takes no lease", on="cp-1/evse/period", do="set", args={"value": 5}, lease_s=60)


def test_rubbish_is_answered_and_hurts_nobody(tmp_path: Path) -> None:
    async def act(desk: Desk) -> None:
        for rubbish in (b"", b"{", b"[]", b"null", b'{"v":1}', b'{"v":2,"id":"x"}', b"\xff" * 50, b"[" * 20_000):
            await desk.commands.receive(rubbish, retained=False, allowed=ALLOWED)
        replies = await desk.replies(None)
        assert {reply["code"] for reply in replies} == {"bad_command"}
        assert len(replies) == 8
        await desk.send()
        await desk.until("succeeded")

    at_the_desk(tmp_path, act)


def test_on_an_unsynchronised_clock_only_lowering_is_obeyed(tmp_path: Path) -> None:
    async def act(desk: Desk) -> None:
        await desk.send("high", args={"amps": 20})
        await desk.until("succeeded", "high")
        desk.clock.quality = ClockState.UNSYNCED
        await desk.send("higher", args={"amps": 25})
        assert (await desk.replies("higher"))[0]["code"] == "clock_unsynced"
        await desk.send("lower", args={"amps": 10}, expires=0)
        await desk.until("succeeded", "lower")
        await desk.send("reset", do="reset", args={})
        assert (await desk.replies("reset"))[0]["code"] == "clock_unsynced"

    at_the_desk(tmp_path, act)


def test_a_lease_ends_at_its_safe_value(tmp_path: Path) -> None:
    async def act(desk: Desk) -> None:
        loop = asyncio.get_running_loop()
        await desk.send(lease_s=900)
        done = await desk.until("succeeded")
        assert done["until"] == desk.clock.wall() + 900_000 or done["until"] > desk.clock.wall() + 890_000
        began = loop.time()
        await desk.until("expired")
        assert 890 <= loop.time() - began <= 910
        assert desk.charger.told == [{"do": "limit", "amps": 16}, {"do": "limit", "amps": 6.0}]

    at_the_desk(tmp_path, act)


def test_a_lease_ends_even_when_the_charger_does_not_answer_at_first(tmp_path: Path) -> None:
    async def act(desk: Desk) -> None:
        await desk.send(lease_s=60)
        await desk.until("succeeded")
        desk.charger.trouble = CommandError("not_connected", "cp-1 is not connected.")
        await asyncio.sleep(600)
        assert "expired" not in await desk.states()
        desk.charger.trouble = None
        await desk.until("expired")
        assert desk.charger.told[-1] == {"do": "limit", "amps": 6.0}

    at_the_desk(tmp_path, act)


def test_a_newer_setpoint_supersedes_a_lease(tmp_path: Path) -> None:
    async def act(desk: Desk) -> None:
        await desk.send("c1", lease_s=900)
        await desk.until("succeeded", "c1")
        await desk.send("c2", args={"amps": 20})
        await desk.until("succeeded", "c2")
        assert (await desk.states("c1"))[-1] == "superseded"
        await asyncio.sleep(2000)
        assert desk.charger.told[-1] == {"do": "limit", "amps": 20}, "the old lease no longer ends anything"

    at_the_desk(tmp_path, act)


def test_a_restart_ends_leases(tmp_path: Path) -> None:
    async def before(desk: Desk) -> None:
        await desk.send(lease_s=900)
        await desk.until("succeeded")

    async def after(desk: Desk) -> None:
        await desk.until("expired")
        assert desk.charger.told == [{"do": "limit", "amps": 6.0}]

    at_the_desk(tmp_path, before)
    at_the_desk(tmp_path, after)


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
    async def before(desk: Desk) -> None:
        desk.charger.pause = 50.0
        await desk.send()
        await desk.until("executing")

    async def after(desk: Desk) -> None:
        await desk.until("succeeded")
        assert desk.charger.told == [{"do": "limit", "amps": 16}]

    at_the_desk(tmp_path, before)
    at_the_desk(tmp_path, after)


def test_after_a_crash_a_command_waits_for_its_link_and_is_answered_with_what_holds(tmp_path: Path) -> None:
    async def before(desk: Desk) -> None:
        desk.charger.pause = 50.0
        await desk.send()
        await desk.until("executing")

    async def after(desk: Desk) -> None:
        desk.charger.trouble = CommandError("not_connected", "cp-1/evse is not connected; nothing was done.")
        await asyncio.sleep(20)
        assert (await desk.states())[-1] == "executing"
        desk.charger.trouble = None
        assert (await desk.until("succeeded"))["now"] == {"amps": 16}

    at_the_desk(tmp_path, before)
    at_the_desk(tmp_path, after)


def test_after_a_crash_a_device_that_stays_away_leaves_the_outcome_unknown(tmp_path: Path) -> None:
    async def before(desk: Desk) -> None:
        desk.charger.pause = 50.0
        await desk.send()
        await desk.until("executing")

    async def after(desk: Desk) -> None:
        desk.charger.trouble = CommandError("not_connected", "cp-1/evse is not connected; nothing was done.")
        failed = await desk.until("failed")
        assert failed["code"] == "unknown_outcome", "not 'nothing was done': before the crash it may have been"

    at_the_desk(tmp_path, before)
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


def test_text_and_optional_arguments() -> None:
    verb = Verb("start", {"tag": Argument(longest=4), "connector": Argument(minimum=1, optional=True)})

    def asked(**args: Any) -> str:
        try:
            check_arguments(Command("1", "a", "start", "cp-1/evse", args, 0, 1), verb)
        except CommandError as error:
            return error.code
        return ""

    assert asked(tag="04A1") == asked(tag="", connector=2) == ""
    assert asked(tag="04A1B") == asked(tag=4) == asked(tag=None) == "bad_argument"
    assert asked(connector=1) == "missing_argument"
    assert asked(tag="04A1", connector=0) == "below_bound"


def test_once_accepted_a_command_expires_by_the_boot_clock_whatever_is_done_to_the_wall_clock(tmp_path: Path) -> None:
    """Accepted before the gateway stopped, and not yet begun: its link comes up later than its time is over."""

    async def before(desk: Desk) -> None:
        desk.commands._work.put_nowait = lambda _: None  # type: ignore[method-assign] # the power fails here
        await desk.send("soon", expires=desk.clock.wall() + 60_000)
        await desk.send("late", expires=desk.clock.wall() + 600_000)

    async def after(desk: Desk) -> None:
        desk.clock.start += 365 * 86_400_000  # somebody sets the clock a year ahead
        await asyncio.sleep(0)
        await desk.until("succeeded", "soon")
        await desk.until("succeeded", "late")

    at_the_desk(tmp_path, before)
    at_the_desk(tmp_path, after)


def test_in_holdover_a_command_is_judged_with_the_clocks_error_against_it(tmp_path: Path) -> None:
    async def act(desk: Desk) -> None:
        desk.clock.quality = ClockState.HOLDOVER
        desk.clock.error = lambda: 8_000  # type: ignore[method-assign]
        await desk.send("close", expires=desk.clock.wall() + 7_000)
        assert (await desk.replies("close"))[0]["code"] == "expired"
        await desk.send("far", expires=desk.clock.wall() + 60_000)
        await desk.until("succeeded", "far")

    at_the_desk(tmp_path, act)
