"""Commands: what is sent for each, and what is told back."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from drivers.ocpp import trace
from gateway.errors import CommandError
from gateway.testing import Recorder
from tests.drivers.ocpp.chargers import SECRETS, connect, gateway, line, make_device, order

if TYPE_CHECKING:
    import aiohttp

    from gateway.model import Command
    from tests.drivers.ocpp.chargers import Charger, Gateway


AT = "2026-11-22T10:00:00Z"


async def test_frames_are_shown_without_tags_and_keys(session: aiohttp.ClientSession) -> None:
    async with gateway(Recorder()) as running:
        charger = await connect(session, running)
        await charger.ask("Authorize", {"idTag": "04A1B2C3"})
        frames = line(running).trace.frames()
        assert frames[0].content == '[2,"m1","Authorize",{"idTag":"04A1B2C3"}]'  # byte for byte
        told = (await running.driver.execute(order("frames"))).now
        assert "04A1B2C3" not in repr(told)
    hide = trace.redacted('[3,"1",{"configurationKey":[{"key":"AuthorizationKey","value":"abc"}]}]', str)
    assert "abc" not in repr(hide)
    many = trace.Trace()
    for _ in range(100):
        many.note(trace.Frame(at=0.0, is_ours=False, content="x" * 1000))
    many.note(trace.Frame(at=0.0, is_ours=False, content="x" * 100_000))
    assert (len(many.frames()), many.too_large) == (16, 1)


async def test_commands_are_checked_sent_and_answered(session: aiohttp.ClientSession) -> None:
    cases: list[tuple[Command, str, dict[str, Any], dict[str, Any]]] = [
        (order("start", tag="04A1", connector=1), "RemoteStartTransaction", {"idTag": "04A1", "connectorId": 1},
         {"status": "Accepted"}),
        (order("stop", transaction=7), "RemoteStopTransaction", {"transactionId": 7}, {"status": "Accepted"}),
        (order("unlock", connector=1), "UnlockConnector", {"connectorId": 1}, {"status": "Unlocked"}),
        (order("reset", kind="Soft"), "Reset", {"type": "Soft"}, {"status": "Accepted"}),
        (order("availability", connector=0, kind="Inoperative"), "ChangeAvailability",
         {"connectorId": 0, "type": "Inoperative"}, {"status": "Scheduled"}),
        (order("trigger", message="MeterValues"), "TriggerMessage", {"requestedMessage": "MeterValues"},
         {"status": "Accepted"}),
        (order("change_configuration", key="HeartbeatInterval", value="60"), "ChangeConfiguration",
         {"key": "HeartbeatInterval", "value": "60"}, {"status": "RebootRequired"}),
        (order("reserve", reservation=3, connector=1, tag="04A1", until=AT), "ReserveNow",
         {"reservationId": 3, "connectorId": 1, "idTag": "04A1", "expiryDate": "2026-11-22T10:00:00.000Z"},
         {"status": "Accepted"}),
        (order("cancel_reservation", reservation=3), "CancelReservation", {"reservationId": 3},
         {"status": "Accepted"}),
        (order("clear_cache"), "ClearCache", {}, {"status": "Accepted"}),
    ]  # fmt: skip
    verbs = make_device().verbs
    async with gateway(Recorder()) as running:
        charger = await connect(session, running)
        for command, action, payload, answer in cases:
            assert command.do in verbs
            for given in (answer, {"status": "Rejected"}):
                told = asyncio.create_task(running.driver.execute(command))
                _, message_id, *rest = await charger.receive()
                assert rest == [action, payload]
                await charger.send([3, message_id, given])
                if given is answer:
                    assert (await told).now == answer
                else:
                    with pytest.raises(CommandError, match=f"answers Rejected to {action}"):
                        await told
        with pytest.raises(CommandError, match="not set by commands"):
            await running.driver.execute(order("change_configuration", key="AuthorizationKey", value="x"))


class Listed:
    """What a charger does with a local list: §5.15 of OCPP 1.6."""

    def __init__(self, version: int = 4) -> None:
        self.version, self.longest = version, 2
        self.tags: dict[str, dict[str, Any]] = {"GONE": {}}
        self.sent: list[tuple[str, int, list[str]]] = []
        self.refusing = ""

    def answer(self, action: str, payload: dict[str, Any]) -> dict[str, Any]:
        if action == "GetLocalListVersion":
            return {"listVersion": self.version}
        if action == "GetConfiguration":
            entry = {"key": "SendLocalListMaxLength", "readonly": True, "value": str(self.longest)}
            return {"configurationKey": [entry]}
        assert action == "SendLocalList"
        kind, entries = payload["updateType"], payload["localAuthorizationList"]
        self.sent.append((kind, payload["listVersion"], [entry["idTag"] for entry in entries]))
        if kind == self.refusing:
            return {"status": "Failed"}
        if kind == "Differential" and payload["listVersion"] <= self.version:
            return {"status": "VersionMismatch"}
        self.tags = {} if kind == "Full" else self.tags
        self.tags |= {entry["idTag"]: entry["idTagInfo"] for entry in entries}
        self.version = payload["listVersion"]
        return {"status": "Accepted"}


async def send_list(running: Gateway, charger: Charger, listed: Listed) -> Any:
    """The reply to one `send_local_list`, and what was sent for it."""
    listed.sent.clear()
    told = asyncio.create_task(running.driver.execute(order("send_local_list")))
    while not told.done():
        receiving = asyncio.create_task(charger.receive())
        await asyncio.wait([told, receiving], return_when=asyncio.FIRST_COMPLETED)
        if not receiving.done():
            receiving.cancel()
            break
        _, message_id, action, payload = receiving.result()
        await charger.send([3, message_id, listed.answer(action, payload)])
    return (await told).now


async def test_the_local_list_is_sent_whole_then_what_has_changed(session: aiohttp.ClientSession) -> None:
    secrets, recorder, listed = dict(SECRETS), Recorder(), Listed()
    async with gateway(recorder, secrets=secrets) as running:
        charger = await connect(session, running)
        assert await send_list(running, charger, listed) == {"version": 6, "entries": 3, "sent": 3}
        assert listed.sent == [("Full", 5, ["04A1B2C3", "04EXPIRED1"]), ("Differential", 6, ["DEADBEEF"])]
        assert {tag: info["status"] for tag, info in listed.tags.items()} == {
            "04A1B2C3": "Accepted", "04EXPIRED1": "Expired", "DEADBEEF": "Accepted",
        }  # fmt: skip
        assert await send_list(running, charger, listed) == {"version": 6, "entries": 3, "sent": 0}
        assert listed.sent == []
        secrets["tags"] = "04A1B2C3, staff\n04EXPIRED1,,2020-01-01\nDEADBEEF,,2099-12-31T00:00:00Z\nNEW1\n"
        assert await send_list(running, charger, listed) == {"version": 7, "entries": 4, "sent": 2}
        assert listed.sent == [("Differential", 7, ["04A1B2C3", "NEW1"])]
        assert listed.tags["04A1B2C3"]["parentIdTag"] == "staff"
    assert not [tag for tag in ("04A1B2C3", "NEW1") if tag in repr(recorder.committed).upper()]
    async with gateway(recorder, secrets=secrets) as running:  # known also after a restart
        charger = await connect(session, running)
        secrets["tags"] += "NEW2\n"
        assert (await send_list(running, charger, listed))["sent"] == 1
        secrets["tags"] = "NEW2\n"  # what has gone is gone there too
        assert await send_list(running, charger, listed) == {"version": listed.version, "entries": 1, "sent": 1}
        assert (listed.sent[0][0], [*listed.tags]) == ("Full", ["NEW2"])
        listed.version = 40  # somebody else was there
        await send_list(running, charger, listed)
        assert listed.sent == [("Full", 41, ["NEW2"])]


async def test_a_difference_that_is_refused_is_followed_by_the_whole_list(session: aiohttp.ClientSession) -> None:
    secrets, listed = dict(SECRETS), Listed(version=0)
    async with gateway(Recorder(), secrets=secrets) as running:
        charger = await connect(session, running)
        await send_list(running, charger, listed)
        secrets["tags"] += "NEW1\n"
        listed.refusing = "Differential"
        listed.longest = 10
        assert (await send_list(running, charger, listed))["sent"] == 4
        assert [kind for kind, *_ in listed.sent] == ["Differential", "Full"]
        assert "NEW1" in listed.tags
        secrets["tags"] = "NEW2\n"
        listed.refusing = "Full"
        with pytest.raises(CommandError, match="answers Failed to SendLocalList"):
            await send_list(running, charger, listed)
        listed.version = -1
        with pytest.raises(CommandError, match="keeps no local list"):
            await send_list(running, charger, listed)


async def answered(running: Gateway, charger: Charger, command: Command, *answers: dict[str, Any]) -> Any:
    """(the payloads that were sent, the reply's `now`)."""
    told, sent = asyncio.create_task(running.driver.execute(command)), []
    for answer in answers:
        _, message_id, _, payload = await charger.receive()
        sent.append(payload)
        await charger.send([3, message_id, answer])
    return sent, (await told).now


async def test_the_version_of_the_local_list_is_asked(session: aiohttp.ClientSession) -> None:
    async with gateway(Recorder()) as running:
        charger = await connect(session, running)
        for answer, version in (
            ({"listVersion": 0}, 0),
            ({"listVersion": -1}, -1),
            ({"listVersion": "7"}, 7),
            ({}, None),
        ):
            told = await answered(running, charger, order("local_list_version"), answer)
            assert told == ([{}], {"version": version})


async def test_the_configuration_is_told_without_keys(session: aiohttp.ClientSession) -> None:
    listed = [
        {"key": "HeartbeatInterval", "readonly": False, "value": "300"},
        {"key": "AuthorizationKey", "readonly": False, "value": "abcd"},
        {"key": "Empty", "readonly": True},
        {"key": "Long", "value": "x" * 1000},
        "no entry", {"value": "no key"},
    ]  # fmt: skip
    async with gateway(Recorder()) as running:
        charger = await connect(session, running)
        asked, told = await answered(
            running, charger, order("get_configuration"), {"configurationKey": listed, "unknownKey": None}
        )
        assert asked == [{}]
        assert told == {
            "values": {"HeartbeatInterval": "300", "AuthorizationKey": "(hidden)", "Empty": None, "Long": "x" * 500},
            "unknown": [],
        }
        one = order("get_configuration", key="Colour")
        asked, told = await answered(running, charger, one, {"unknownKey": ["Colour"]})
        assert (asked, told) == ([{"key": ["Colour"]}], {"values": {}, "unknown": ["Colour"]})


async def test_a_limit_is_cleared_and_what_then_holds_is_shown(session: aiohttp.ClientSession) -> None:
    period = {"startPeriod": 0, "limit": 6.0}
    schedule = {"status": "Accepted", "chargingSchedule": {"chargingRateUnit": "A", "chargingSchedulePeriod": [period]}}
    recorder = Recorder()
    async with gateway(recorder) as running:
        charger = await connect(session, running)
        for status in ("Accepted", "Unknown"):
            sent, told = await answered(running, charger, order("clear_limit"), {"status": status}, schedule)
            assert sent == [{"id": 2}, {"connectorId": 1, "duration": 60}]
            assert told == {"amps": 6}
        shows_none: dict[str, Any] = {"status": "Accepted"}
        _, told = await answered(running, charger, order("clear_limit"), {"status": "Accepted"}, shows_none)
        assert told == {}
        with pytest.raises(CommandError, match="answers Rejected"):
            await answered(running, charger, order("clear_limit"), {"status": "Rejected"}, schedule)
    limits = [(one.value, one.reason) for one in recorder.readings if one.point == "cp-1/evse/charging_limit"]
    assert limits[:3] == [(6, None), (6, None), (None, "idle")], "the limit that is gone does not stand"
