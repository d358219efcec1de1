"""Commands: refused with a sentence, journalled before they are executed, judged by a clock that is vouched for."""

import asyncio
from pathlib import Path
from typing import Any

from gateway.arguments import check_arguments
from gateway.errors import CommandError
from gateway.model import Argument, ClockState, Command, Verb
from tests.desk import ALLOWED, Charger, Desk, at_the_desk


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
