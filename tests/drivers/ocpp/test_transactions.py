"""Acknowledged means durable: what belongs to a transaction is answered when it is on disk, once, and for ever."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.ocpp import transactions
from drivers.ocpp.transactions import MOST_OPEN, NEXT, REMEMBERED, Clue, Ids, Ledger, Transaction
from gateway.errors import StorageError
from gateway.model import Lane, Reading
from gateway.testing import Recorder
from tests.drivers.ocpp.chargers import SECRETS, Charger, connect, gateway, make_device, make_settings, of

if TYPE_CHECKING:
    import aiohttp


START = {"connectorId": 1, "idTag": "04A1B2C3", "meterStart": 1000, "timestamp": "2026-11-22T10:00:00Z"}
STOP = {"meterStop": 8500, "timestamp": "2026-11-22T11:00:00Z", "idTag": "04A1B2C3", "reason": "EVDisconnected"}


def meter(transaction: object, wh: int = 2000, minute: int = 5) -> dict[str, Any]:
    value = {"timestamp": f"2026-11-22T10:{minute:02}:00Z", "sampledValue": [{"value": str(wh)}]}
    return {"connectorId": 1, "transactionId": transaction, "meterValue": [value]}


def energy(recorder: Recorder) -> list[Reading]:
    return [one for one in recorder.readings if one.point == "cp-1/evse/energy_import" and one.value is not None]


async def test_a_charge_is_one_record_of_its_begin_and_one_of_its_end(session: aiohttp.ClientSession) -> None:
    recorder = Recorder()
    async with gateway(recorder) as running:
        charger = await connect(session, running)
        begun = await charger.ask("StartTransaction", START)
        number = begun["transactionId"]
        assert number > 0
        assert begun["idTagInfo"] == {"status": "Accepted", "parentIdTag": "family"}
        assert await charger.ask("MeterValues", meter(number)) == {}
        last = [
            {
                "timestamp": "2026-11-22T11:00:00Z",
                "sampledValue": [{"value": "8.5", "unit": "kWh", "context": "Transaction.End"}],
            }
        ]
        ended = await charger.ask("StopTransaction", {**STOP, "transactionId": number, "transactionData": last})
        assert ended == {"idTagInfo": {"status": "Accepted", "parentIdTag": "family"}}
    (begin,), (end,) = of(recorder, "transaction_begin"), of(recorder, "session")
    tag = begin.more["tag"]
    assert begin.more == {
        "transaction": str(number), "connector": 1, "tag": tag, "meter_start": 1000, "authorised": "Accepted",
    }  # fmt: skip
    assert end.more == {
        "transaction": str(number), "connector": 1, "tag": tag, "meter_start": 1000, "meter_stop": 8500, "energy": 7500,
        "begin": 1_795_341_600_000, "end": 1_795_345_200_000, "reason": "EVDisconnected", "readings": 2,
        "gaps": [[1_795_341_900_000, 1_795_345_200_000]],
        "gaps_unlisted": 0, "register": "unknown", "doubts": [],
    }  # fmt: skip
    assert end.say == "cp-1/evse has ended charging: 7.500 kWh."
    assert (begin.device_time, end.device_time) == (1_795_341_600_000, 1_795_345_200_000)
    assert [(one.value, one.context, one.transaction) for one in energy(recorder)] == [
        (2000, None, str(number)),
        (8500, "transaction_end", str(number)),
    ]
    billed = [record for lane, records, _ in recorder.calls if lane is Lane.BILLING for record in records]
    assert billed == [begin, *energy(recorder)[:1], *energy(recorder)[1:], end]


async def quiet(charger: Charger) -> bool:
    """No frame comes for a while."""
    try:
        async with asyncio.timeout(0.05):
            await charger.socket.receive()
    except TimeoutError:
        return True
    return False


@pytest.mark.parametrize("action", ["StartTransaction", "MeterValues", "StopTransaction"])
async def test_no_answer_before_the_record_is_on_disk(session: aiohttp.ClientSession, action: str) -> None:
    recorder = Recorder()
    payload = {"StartTransaction": START, "MeterValues": meter(7), "StopTransaction": {**STOP, "transactionId": 7}}
    async with gateway(recorder) as running:
        charger = await connect(session, running)
        recorder.hold()
        await charger.send([2, "1", action, payload[action]])
        assert await quiet(charger)
        assert recorder.calls[1:] == []
        recorder.release()
        assert (await charger.receive())[:2] == [3, "1"]
        assert recorder.calls[-1][0] is Lane.BILLING
        assert recorder.calls[-1][2]


@pytest.mark.parametrize("action", ["StartTransaction", "MeterValues", "StopTransaction"])
async def test_a_disk_that_fails_means_no_answer_and_a_closed_socket(
    session: aiohttp.ClientSession, action: str
) -> None:
    recorder = Recorder()
    payload = {"StartTransaction": START, "MeterValues": meter(7), "StopTransaction": {**STOP, "transactionId": 7}}
    async with gateway(recorder) as running:
        charger = await connect(session, running)
        recorder.fail = StorageError("the disk is full")
        await charger.send([2, "1", action, payload[action]])
        await charger.send([2, "2", action, payload[action]])
        assert await charger.closed() == 1013
        assert not [lane for lane, _, _ in recorder.calls if lane is Lane.BILLING]
        recorder.fail = None
        again = await connect(session, running)
        await again.ask(action, payload[action])
        assert len([lane for lane, _, _ in recorder.calls if lane is Lane.BILLING]) == 1


async def test_a_start_that_comes_again_is_the_same_transaction(session: aiohttp.ClientSession) -> None:
    recorder = Recorder()
    async with gateway(recorder) as running:
        charger = await connect(session, running)
        first = await charger.ask("StartTransaction", START)
        assert await charger.ask("StartTransaction", START) == first  # under a new message id
        other = await charger.ask("StartTransaction", {**START, "timestamp": "2026-11-22T10:00:01Z"})
        assert other["transactionId"] != first["transactionId"]
        await charger.ask("MeterValues", meter(first["transactionId"]))
        await charger.ask("MeterValues", meter(first["transactionId"]))
        stop = {**STOP, "transactionId": first["transactionId"]}
        assert await charger.ask("StopTransaction", stop) == await charger.ask("StopTransaction", stop)
        assert await charger.ask("StartTransaction", START) == first
    async with gateway(recorder) as running:  # and after a restart
        charger = await connect(session, running)
        assert await charger.ask("StartTransaction", START) == first
        await charger.ask("StopTransaction", stop)
        third = await charger.ask("StartTransaction", {**START, "timestamp": "2026-11-22T12:00:00Z"})
    numbers = [event.more["transaction"] for event in of(recorder, "transaction_begin")]
    assert numbers == [str(one["transactionId"]) for one in (first, other, third)]
    assert numbers == [str(first["transactionId"] + step) for step in range(3)]
    assert len(of(recorder, "session")) == 1
    assert len(energy(recorder)) == 1
    tags = {event.more["tag"] for event in of(recorder, "transaction_begin")}
    assert len(tags) == 1  # the key of the pseudonyms is kept too


async def test_a_lost_answer_while_the_disk_is_slow_does_not_make_two(session: aiohttp.ClientSession) -> None:
    recorder = Recorder()
    async with gateway(recorder) as running:
        first = await connect(session, running)
        recorder.hold()
        await first.send([2, "1", "StartTransaction", START])
        await asyncio.sleep(0.02)
        await first.socket.close()
        second = await connect(session, running)
        await second.send([2, "9", "StartTransaction", START])
        recorder.release()
        answer = await second.receive()
    (begin,) = of(recorder, "transaction_begin")
    assert answer[:2] == [3, "9"]
    assert str(answer[2]["transactionId"]) == begin.more["transaction"]


async def test_two_chargers_at_once_have_two_ids(session: aiohttp.ClientSession) -> None:
    recorder = Recorder()
    devices = [make_device(), make_device("cp-2/evse")]
    async with gateway(recorder, devices=devices) as running:
        one = await connect(session, running)
        two = await connect(session, running, "/cp-2", user="cp-2", key=SECRETS["cp-2/evse.key"])
        recorder.hold()
        for charger in (one, two):
            await charger.send([2, "1", "StartTransaction", START])
        await asyncio.sleep(0.02)
        recorder.release()
        numbers = [(await charger.receive())[2]["transactionId"] for charger in (one, two)]
    assert numbers[0] != numbers[1]
    assert recorder.committed[NEXT] == max(numbers) + 1


@pytest.mark.parametrize("number", [-1, 0, None, 4711, "17", "x", 2**40])
async def test_ids_that_we_never_gave_are_acknowledged_and_kept(session: aiohttp.ClientSession, number: object) -> None:
    recorder = Recorder()
    async with gateway(recorder) as running:
        charger = await connect(session, running)
        assert await charger.ask("StopTransaction", {"transactionId": number, "meterStop": 5, "timestamp": "x"}) == {}
        assert await charger.ask("MeterValues", meter(number)) == {}
    (end,) = of(recorder, "session")
    name = "unknown" if number in (None, "x") else str(number)
    assert (end.more["transaction"], end.more["energy"], end.more["meter_stop"]) == (name, None, 5)
    assert [one.transaction for one in energy(recorder)] == [None if number is None else name]


async def test_who_may_charge_is_known_without_anybody_upstream(session: aiohttp.ClientSession) -> None:
    recorder = Recorder()
    async with gateway(recorder) as running:
        charger = await connect(session, running)
        told = {tag: (await charger.ask("Authorize", {"idTag": tag}))["idTagInfo"] for tag in
                ("04A1B2C3", "04a1b2c3", "04EXPIRED1", "DEADBEEF", "STRANGER", "")}  # fmt: skip
        begun = await charger.ask("StartTransaction", {**START, "idTag": "STRANGER"})
    assert {tag: info["status"] for tag, info in told.items()} == {
        "04A1B2C3": "Accepted", "04a1b2c3": "Accepted", "04EXPIRED1": "Expired", "DEADBEEF": "Accepted",
        "STRANGER": "Invalid", "": "Invalid",
    }  # fmt: skip
    assert told["DEADBEEF"]["expiryDate"] == "2099-12-31T00:00:00.000Z"
    assert begun["idTagInfo"] == {"status": "Invalid"}
    assert begun["transactionId"] > 0  # it is recorded all the same
    said = repr(recorder.records) + repr(recorder.calls)
    assert not [tag for tag in ("STRANGER", "04A1B2C3", "DEADBEEF") if tag.casefold() in said.casefold()]


async def test_an_open_site_takes_everybody_and_a_missing_list_nobody(session: aiohttp.ClientSession) -> None:
    async with gateway(Recorder(), make_settings(authorise="open", tags=None)) as running:
        charger = await connect(session, running)
        assert (await charger.ask("Authorize", {"idTag": "X"}))["idTagInfo"] == {"status": "Accepted"}
    async with gateway(Recorder(), make_settings(tags=None)) as running:
        charger = await connect(session, running)
        assert (await charger.ask("Authorize", {"idTag": "X"}))["idTagInfo"] == {"status": "Invalid"}


async def test_a_nameless_stop_that_comes_again_ends_nobody_elses_charge(session: aiohttp.ClientSession) -> None:
    """The answers to both starts were lost, and that to the first stop too."""
    recorder = Recorder()
    async with gateway(recorder, devices=[make_device(connectors=2)]) as running:
        charger = await connect(session, running)
        first = await charger.ask("StartTransaction", START)
        stop = {**STOP, "transactionId": -1}
        await charger.ask("StopTransaction", stop)
        second = await charger.ask("StartTransaction", {**START, "connectorId": 2})
        for _ in range(2):
            await charger.ask("Heartbeat", {})
            await charger.ask("StopTransaction", stop)
        assert [event.more["transaction"] for event in of(recorder, "session")] == [str(first["transactionId"])]
        later = {**stop, "timestamp": "2026-11-22T11:30:00Z"}
        await charger.ask("StopTransaction", later)
    assert [event.more["transaction"] for event in of(recorder, "session")] == [
        str(one["transactionId"]) for one in (first, second)
    ]


@pytest.mark.parametrize(
    "other",
    [
        {"timestamp": "2026-11-22T09:59:58Z"},
        {"meterStop": 999},
        {"idTag": "DEADBEEF"},
        {"transactionData": [{"timestamp": "2026-11-22T08:00:00Z", "sampledValue": [{"value": "1"}]}]},
    ],
)
async def test_a_nameless_stop_whose_own_start_was_lost_ends_no_other_charge(
    session: aiohttp.ClientSession, other: dict[str, Any]
) -> None:
    """No charge ends before it began, and no register runs backwards while it lasts."""
    recorder = Recorder()
    async with gateway(recorder, devices=[make_device(connectors=2)]) as running:
        charger = await connect(session, running)
        number = (await charger.ask("StartTransaction", START))["transactionId"]
        await charger.ask("StopTransaction", {**STOP, "transactionId": -1, **other})
        await charger.ask("MeterValues", meter(-1, 1500))
        await charger.ask("StopTransaction", {**STOP, "transactionId": -1})
    strange, own = of(recorder, "session")
    assert (strange.more["transaction"], strange.more["energy"]) == ("-1", None)
    assert "no_start" in str(strange.more["doubts"])
    assert (own.more["transaction"], own.more["energy"], own.more["readings"]) == (str(number), 7500, 1)


async def test_of_two_nameless_charges_a_stop_ends_the_one_that_it_can_be(session: aiohttp.ClientSession) -> None:
    recorder = Recorder()
    async with gateway(recorder, devices=[make_device(connectors=2)]) as running:
        charger = await connect(session, running)
        first = (await charger.ask("StartTransaction", START))["transactionId"]
        await charger.ask("StartTransaction", {**START, "connectorId": 2, "meterStart": 70_000})
        early = {**meter(-1), "meterValue": [{**meter(-1)["meterValue"][0], "timestamp": "2026-11-22T09:00:00Z"}]}
        await charger.ask("MeterValues", early)
        await charger.ask("StopTransaction", {**STOP, "transactionId": -1})
    (ended,) = of(recorder, "session")
    assert (ended.more["transaction"], ended.more["energy"]) == (str(first), 7500)
    assert [one.transaction for one in energy(recorder)] == ["-1"], "told of a time before it began"


@pytest.mark.parametrize(
    ("fits", "began", "time", "is_undated"),
    [
        (True, "2026-11-22T10:00:00.900Z", 1_795_341_600_000, False),  # one time is cut to seconds, the other is not
        (False, "2026-11-22T10:00:02Z", 1_795_341_600_000, False),
        (True, "2026-11-22T10:00:02Z", 1_795_341_600_000, True),  # it began by a clock that nobody had set
        (True, "yesterday", 1_795_341_600_000, False),
        (True, "2026-11-22T10:00:02Z", None, False),
    ],
)
def test_only_what_is_certain_tells_two_charges_apart(
    fits: bool, began: str, time: int | None, is_undated: bool
) -> None:
    one = Transaction(1, 1, "tag", None, began, is_undated=is_undated)
    assert Clue(None, (), time, 0.0).fits(one) is fits


async def test_values_that_come_again_are_known_whatever_came_between(session: aiohttp.ClientSession) -> None:
    recorder = Recorder()
    async with gateway(recorder, devices=[make_device(connectors=2)]) as running:
        charger = await connect(session, running)
        first = (await charger.ask("StartTransaction", START))["transactionId"]
        second = (await charger.ask("StartTransaction", {**START, "connectorId": 2}))["transactionId"]
        for _ in range(2):
            await charger.ask("MeterValues", meter(first, 2000))
            await charger.ask("MeterValues", {**meter(second, 3000), "connectorId": 2})
            await charger.ask("MeterValues", meter(4711, 4000))
    kept = [one for one in recorder.readings if one.transaction and one.value is not None]
    assert [one.value for one in kept] == [2000, 3000, 4000]


async def test_a_stop_before_its_start_is_acknowledged_and_both_are_recorded(session: aiohttp.ClientSession) -> None:
    recorder = Recorder()
    async with gateway(recorder) as running:
        charger = await connect(session, running)
        assert await charger.ask("StopTransaction", {**STOP, "transactionId": 0})
        begun = await charger.ask("StartTransaction", START)
        assert await charger.ask("StopTransaction", {**STOP, "transactionId": begun["transactionId"]})
    assert [event.more["transaction"] for event in of(recorder, "session")] == ["0", str(begun["transactionId"])]
    assert [event.more["energy"] for event in of(recorder, "session")] == [None, 7500]


async def test_a_charge_whose_stop_never_comes_is_recorded_when_there_is_no_more_room(
    session: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transactions, "MOST_OPEN", 3)
    recorder, numbers = Recorder(), []
    async with gateway(recorder) as running:
        charger = await connect(session, running)
        for hour in range(5):
            start = {**START, "meterStart": 1000 * hour, "timestamp": f"2026-11-22T{hour:02}:00:00Z"}
            numbers.append((await charger.ask("StartTransaction", start))["transactionId"])
            value = {"timestamp": f"2026-11-22T{hour:02}:20:00Z", "sampledValue": [{"value": str(1000 * hour + 700)}]}
            meter_values = {"connectorId": 1, "transactionId": numbers[-1], "meterValue": [value]}
            await charger.ask("MeterValues", meter_values)
        late = {"transactionId": numbers[0], "meterStop": 900, "timestamp": "2026-11-22T06:00:00Z"}
        await charger.ask("StopTransaction", late)
        await charger.ask("StopTransaction", late)
    given_up, other, told = of(recorder, "session")
    assert (given_up.more["transaction"], given_up.more["reason"]) == (str(numbers[0]), "NeverEnded")
    assert (given_up.more["energy"], given_up.more["readings"]) == (700, 1), "as far as its values reach"
    assert given_up.more["end"] == 1_795_306_800_000  # 00:20, its last value
    assert other.more["transaction"] == str(numbers[1])
    assert (told.more["transaction"], told.more["meter_stop"]) == (str(numbers[0]), 900), "what comes late is kept too"
    assert [one.id for one in running.driver._chargers["cp-1"].open_transactions()] == numbers[2:]


def started(number: int, **other: Any) -> Transaction:
    return Transaction(number, 1, "tag", 0, f"2026-11-22T10:00:{number % 60:02}.{number}Z", **other)


def test_the_state_is_bounded_and_keeps_what_is_open() -> None:
    recorder = Recorder()
    ledger = Ledger("cp-1/evse", recorder)
    recorder.committed |= ledger.begin(started(1))[0]
    for number in range(2, 200):
        recorder.committed |= ledger.begin(started(number))[0]
        recorder.committed |= ledger.end(started(number))
    assert ledger.by_id(1) == started(1)
    assert len(ledger.known()) == REMEMBERED + 1
    for number in range(200, 400):
        recorder.committed |= ledger.begin(started(number))[0]
    assert len(ledger.known()) == REMEMBERED + MOST_OPEN


@given(st.lists(st.booleans(), max_size=30), st.integers(1, 2**31 - 1))
def test_ids_are_positive_and_never_given_twice(restarts: list[bool], first: int) -> None:
    recorder = Recorder.__new__(Recorder)
    recorder.committed = {NEXT: first}
    ids, given_out = Ids(recorder), []
    for is_restart in restarts:
        number, state = ids.take()
        recorder.committed |= state
        given_out.append(number)
        ids = Ids(recorder) if is_restart else ids
    assert len(set(given_out)) == len(given_out)
    assert all(0 < number < 2**31 for number in given_out)
