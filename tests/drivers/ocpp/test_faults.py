"""The field's fault table, row by row: what breaks other back offices must not break this one.

Each row was reproduced on the `ocpp` package 2.1.0, or is reported of a charger; here it is a call that is answered and
a connection that lives on.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

from drivers.ocpp import connection
from drivers.ocpp.connection import ANSWER_WITHIN, GoneError, RefusedError
from gateway.errors import StorageError
from gateway.testing import JumpingLoop, LoopClock, Recorder
from tests.drivers.ocpp.chargers import KEY, connect, gateway, limit, line, of, order

if TYPE_CHECKING:
    import aiohttp


AT = "2026-11-22T10:00:00Z"


def sampled(**sample: Any) -> dict[str, Any]:
    return {"connectorId": 1, "meterValue": [{"timestamp": AT, "sampledValue": [sample]}]}


NO_ANSWER_OWED = ["not json", "[2", "[" * 200_000, '[3,"x",{}]', '[4,"x"]', '[9,"x"]', '[5,"x","E","",{}]',
                  '[6,"x","NotifyPeriodicEventStream",{}]']  # fmt: skip
ERROR_OWED = ['[2,"1",{},{}]', '[2,"1","Heartbeat",{"a":' + "9" * 5000 + "}]", '[2,"1","Heartbeat"]',
              '[2,"1","Heartbeat",{},1]', '[2,"1","Heartbeat",{"a":' + "[" * 5000, '[2,"1","MadeUp",{}]',
              '[2,"1","SignCertificate",{"csr":"x"}]']  # fmt: skip


@pytest.mark.parametrize("frame", [*NO_ANSWER_OWED, *ERROR_OWED])
async def test_one_frame_kills_no_connection(session: aiohttp.ClientSession, frame: str) -> None:
    async with gateway(Recorder()) as running:
        charger = await connect(session, running)
        await charger.send(frame)
        if frame in ERROR_OWED:
            assert (await charger.receive())[:2] == [4, "1"]
        assert await charger.ask("Heartbeat", {})


@pytest.mark.parametrize("frame", ['[5,"x","FormationViolation","no",{}]', '[6,"x","NotifyPeriodicEventStream",{}]'])
async def test_later_message_types_are_said_not_lost(session: aiohttp.ClientSession, frame: str) -> None:
    recorder = Recorder()
    async with gateway(recorder) as running:
        charger = await connect(session, running)
        await charger.send(frame)
        await charger.ask("Heartbeat", {})
    assert len(of(recorder, "nonconforming")) == 1


async def test_a_call_of_ours_does_not_wait_for_an_answer_of_ours(session: aiohttp.ClientSession) -> None:
    """The package's reader is blocked while it handles: a call from there always times out."""
    recorder = Recorder()
    async with gateway(recorder) as running:
        charger = await connect(session, running)
        recorder.hold()
        await charger.send([2, "m", "StartTransaction", {"connectorId": 1, "idTag": "A", "meterStart": 0}])
        call = asyncio.create_task(line(running).call("TriggerMessage", {"requestedMessage": "Heartbeat"}))
        _, message_id, *_ = await charger.receive()
        await charger.send([3, message_id, {"status": "Accepted"}])
        assert await call == {"status": "Accepted"}
        recorder.release()
        assert (await charger.receive())[:2] == [3, "m"]


async def test_answers_to_nothing_are_counted_and_kept_nowhere(
    session: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "BURST", 1e6)
    async with gateway(Recorder()) as running:
        charger = await connect(session, running)
        for number in range(3000):
            await charger.send([3, f"stale-{number}", {}])
        call = asyncio.create_task(line(running).call("ClearCache", {}))
        _, message_id, *_ = await charger.receive()
        await charger.send([3, message_id, {"status": "Accepted"}])
        assert await call == {"status": "Accepted"}
        assert line(running).unsolicited == 3000


async def test_a_callerror_is_an_error_also_with_a_code_of_its_maker(session: aiohttp.ClientSession) -> None:
    async with gateway(Recorder()) as running:
        charger = await connect(session, running)
        call = asyncio.create_task(line(running).call("ClearCache", {}))
        _, message_id, *_ = await charger.receive()
        await charger.send([4, message_id, "VendorOwnError", "no", {}])
        with pytest.raises(RefusedError, match="VendorOwnError: no"):
            await call


async def test_the_content_of_a_data_transfer_is_not_touched(session: aiohttp.ClientSession) -> None:
    content = '{"fooBar":1,"URL":"x","inner_key":{"aB":"é"}}'
    async with gateway(Recorder()) as running:
        charger = await connect(session, running)
        sent = asyncio.create_task(running.driver.execute(order("data_transfer", vendor="V", content=content)))
        _, message_id, action, payload = await charger.receive()
        assert (action, payload) == ("DataTransfer", {"vendorId": "V", "data": content})
        await charger.send([3, message_id, {"status": "Accepted", "data": content}])
        assert (await sent).now == {"status": "Accepted", "content": content}


async def test_a_limit_with_hundredths_is_sent_with_tenths(session: aiohttp.ClientSession) -> None:
    async with gateway(Recorder()) as running:
        charger = await connect(session, running)
        told = asyncio.create_task(running.driver.execute(limit(10.75)))
        for answer in ({"unknownKey": []}, {"status": "Accepted"}):
            _, message_id, action, payload = await charger.receive()
            await charger.send([3, message_id, answer])
        assert action == "SetChargingProfile"
        assert payload["csChargingProfiles"]["chargingSchedule"]["chargingSchedulePeriod"][0]["limit"] == 10.7
        _, message_id, *_ = await charger.receive()
        await charger.send([4, message_id, "NotSupported", "", {}])
        assert (await told).now == {"amps": 10.7}


def test_deadlines_do_not_follow_the_wall_clock() -> None:
    async def wait() -> float:
        import aiohttp

        async with gateway(Recorder()) as running, aiohttp.ClientSession() as session:
            charger = await connect(session, running)
            clock = running.driver._link.clock
            assert isinstance(clock, LoopClock)
            began = asyncio.get_running_loop().time()
            call = asyncio.create_task(line(running).call("ClearCache", {}))
            await charger.receive()
            clock.start += 10 * 365 * 24 * 3_600_000  # NTP
            with pytest.raises(GoneError):
                await call
            return asyncio.get_running_loop().time() - began

    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        assert runner.run(wait()) == pytest.approx(ANSWER_WITHIN, abs=1)


async def test_no_frame_tag_or_key_is_logged(session: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture) -> None:
    recorder = Recorder()
    caplog.set_level("DEBUG")
    with capture_logs() as logs:
        async with gateway(recorder) as running:
            charger = await connect(session, running)
            for tag in ("04A1B2C3", "STRANGER1"):
                await charger.ask("Authorize", {"idTag": tag})
                await charger.ask("StartTransaction", {"connectorId": 1, "idTag": tag, "meterStart": "x"})
            await charger.send('[2,"x","Authorize",{"idTag":"04A1B2C3"')
            recorder.fail = StorageError("the disk is full")
            await charger.send([2, "y", "StartTransaction", {"idTag": "STRANGER1"}])
            await charger.closed()
            recorder.fail = None
    said = repr(logs) + caplog.text + repr(recorder.records)
    for secret in ("04A1B2C3", "STRANGER1", KEY):
        assert secret.casefold() not in said.casefold()


START = {"connectorId": 1, "idTag": "04A1B2C3", "meterStart": 0, "timestamp": AT}
TOLERATED: list[tuple[str, dict[str, Any]]] = [
    ("MeterValues", sampled(value=17)),
    ("MeterValues", sampled(value="1", unit="kwh")),
    ("MeterValues", sampled(value="1", measurand="Made.Up")),
    ("MeterValues", sampled(value="1", context="Alfen")),
    ("MeterValues", sampled(value="50", measurand="Frequency", unit="Hz")),
    ("MeterValues", sampled(value="1", phase="")),
    ("MeterValues", {"connectorId": 1, "meterValue": [{"timestamp": AT, "sampledValue": []}]}),
    ("MeterValues", {**sampled(value="1"), "transactionId": None}),
    ("MeterValues", {**sampled(value="1"), "extraKey": 1}),
    ("MeterValues", {}),
    ("StartTransaction", {**START, "idTag": "x" * 36}),
    ("StartTransaction", {**START, "meterStart": 1.0}),
    ("StartTransaction", {**START, "timestamp": "yesterday"}),
    ("StartTransaction", {}),
    ("StatusNotification", {"connectorId": 1, "errorCode": "Error", "status": "Faulted"}),
    ("StatusNotification", {"connectorId": "1", "status": "Available", "timestamp": ""}),
    ("StopTransaction", {"transactionId": -1, "meterStop": 1, "timestamp": AT}),
    ("StopTransaction", {"transactionId": None, "meterStop": "1", "timestamp": AT, "reason": "Bored"}),
    ("StopTransaction", {}),
    ("BootNotification", {"chargePointModel": None}),
    ("Authorize", {}),
]


@pytest.mark.parametrize(("action", "payload"), TOLERATED)
async def test_what_breaks_the_schema_is_answered_by_the_schema(
    session: aiohttp.ClientSession, action: str, payload: dict[str, Any]
) -> None:
    from ocpp.messages import MessageType, get_validator

    async with gateway(Recorder()) as running:
        charger = await connect(session, running)
        answer = await charger.ask(action, payload)
    get_validator(MessageType.CallResult, action, "1.6").validate(answer)


async def test_a_charger_that_does_not_wait_for_its_boot_is_answered_in_order(session: aiohttp.ClientSession) -> None:
    """VCP tells its status before it has been told that it may."""
    async with gateway(Recorder()) as running:
        charger = await connect(session, running)
        status = {"connectorId": 1, "errorCode": "NoError", "status": "Available"}
        await charger.send([2, "1", "BootNotification", {"chargePointVendor": "V", "chargePointModel": "M"}])
        await charger.send([2, "2", "StatusNotification", status])
        await charger.send([2, "3", "Heartbeat", {}])
        assert [(await charger.receive())[:2] for _ in range(3)] == [[3, "1"], [3, "2"], [3, "3"]]


async def test_a_value_after_the_stop_belongs_to_its_charge_and_makes_no_other(session: aiohttp.ClientSession) -> None:
    """Ocular sends its closing value last."""
    recorder = Recorder()
    async with gateway(recorder) as running:
        charger = await connect(session, running)
        number = (await charger.ask("StartTransaction", START))["transactionId"]
        await charger.ask("StopTransaction", {"transactionId": number, "meterStop": 900, "timestamp": AT})
        await charger.ask("MeterValues", {**sampled(value="900", context="Transaction.End"), "transactionId": number})
    assert len(of(recorder, "session")) == 1
    (value,) = [one for one in recorder.readings if one.value == 900]
    assert (value.transaction, value.context) == (str(number), "transaction_end")


async def test_the_answer_to_a_start_was_lost_for_good(session: aiohttp.ClientSession) -> None:
    """The charger says -1 from then on; there is one charge that it can be."""
    recorder = Recorder()
    async with gateway(recorder) as running:
        charger = await connect(session, running)
        number = (await charger.ask("StartTransaction", START))["transactionId"]
        await charger.ask("MeterValues", {**sampled(value="500"), "transactionId": -1})
        stop = {"transactionId": -1, "meterStop": 900, "timestamp": "2026-11-22T11:00:00Z", "idTag": "04A1B2C3"}
        await charger.ask("StopTransaction", stop)
        await charger.ask("Heartbeat", {})
        await charger.ask("StopTransaction", stop)
    (event,) = of(recorder, "session")
    assert (event.more["transaction"], event.more["energy"], event.more["readings"]) == (str(number), 900, 1)


async def test_a_stop_that_nobody_knows_is_one_record_however_often_it_comes(session: aiohttp.ClientSession) -> None:
    recorder = Recorder()
    async with gateway(recorder) as running:
        charger = await connect(session, running)
        for number in (-1, -1, 4711, -1, 4711):
            await charger.ask("StopTransaction", {"transactionId": number, "meterStop": 1, "timestamp": AT})
    assert [event.more["transaction"] for event in of(recorder, "session")] == ["-1", "4711"]
    assert of(recorder, "session")[0].more["doubts"] == ["no_start", "time_unknown"]


def test_a_charger_that_does_not_boot_again_is_asked_who_it_is_and_kept_safe() -> None:
    async def back() -> tuple[list[str], Recorder]:
        import aiohttp

        recorder, asked = Recorder(), []
        async with gateway(recorder) as running, aiohttp.ClientSession() as session:
            charger = await connect(session, running)
            while "SetChargingProfile" not in asked:
                _, message_id, action, payload = await charger.socket.receive_json()
                asked.append(action if action != "TriggerMessage" else payload["requestedMessage"])
                status = {} if action == "GetConfiguration" else {"status": "Accepted"}
                await charger.send([3, message_id, status])
            await recorder.until(lambda found: bool(of(found, "safe_share")))
            profile = payload["csChargingProfiles"]
            assert (profile["stackLevel"], profile["chargingProfilePurpose"]) == (0, "TxDefaultProfile")
            assert "duration" not in profile["chargingSchedule"]
        return asked, recorder

    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        asked, recorder = runner.run(back())
    assert asked == ["BootNotification", "StatusNotification", "GetConfiguration", "SetChargingProfile"]
    assert recorder.committed["base/cp-1/evse"] == 6
