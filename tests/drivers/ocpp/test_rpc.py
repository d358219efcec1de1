"""Frames of OCPP-J 1.6. The faults are those that end the `ocpp` package's connection task (2.1.0), and their kin."""

from __future__ import annotations

import json

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.ocpp import rpc
from drivers.ocpp.rpc import Call, CallError, CallResult, Malformed

# OCPP-J 1.6 §4.2.1, §4.2.2: the specification's own frames.
BOOT = '[2,"19223201","BootNotification",{"chargePointVendor": "VendorX", "chargePointModel": "SingleSocketCharger"}]'
BOOTED = '[3, "19223201",{"status":"Accepted", "currentTime":"2013-02-01T20:53:32.486Z", "heartbeatInterval":300}]'


def test_the_specifications_own_frames() -> None:
    boot = Call(
        "19223201", "BootNotification", {"chargePointVendor": "VendorX", "chargePointModel": "SingleSocketCharger"}
    )
    assert rpc.parse(BOOT) == boot
    assert rpc.parse(BOOT.encode()) == boot
    answer = rpc.parse(BOOTED)
    assert isinstance(answer, CallResult)
    assert answer.payload["status"] == "Accepted"
    assert rpc.parse('[4,"7","NotSupported","no such thing",{"a":1}]') == CallError(
        "7", "NotSupported", "no such thing"
    )


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        ('[2,"1",{},{}]', "FormationViolation"),  # the action is not text
        ('[2,"1","Heartbeat"]', "ProtocolError"),
        ('[2,"1"]', "ProtocolError"),
        ('[2,"1","Heartbeat",{},{}]', "FormationViolation"),
        ('[2,"1","Heartbeat",[]]', "FormationViolation"),
        ('[2,"1","Heartbeat",{"a":}]', "FormationViolation"),
        ('[2,"1","Heartbeat",{"a":' + "9" * 5000 + "}]", "FormationViolation"),
        ('[2,"1","Heartbeat",' + "[" * 200_000, "FormationViolation"),
        ('[2,"1","Heartbeat",{"a":' + "[" * 300 + "]" * 300 + "}]", "FormationViolation"),
        ('\ufeff[2,"1","Heartbeat",{]', "FormationViolation"),
        (b'[2,"1","Heartbeat",{"a":"\xff"}]', "FormationViolation"),
    ],
)
def test_a_bad_call_with_a_readable_id_is_answered(frame: str | bytes, code: str) -> None:
    parsed = rpc.parse(frame)
    assert isinstance(parsed, Malformed)
    assert parsed.answer
    kind, answered, said, _, details = orjson.loads(parsed.answer)
    assert (kind, answered, said, details) == (4, "1", code, {})


@pytest.mark.parametrize(
    "frame",
    [
        "", " ", "null", "{}", "[]", "[2]", "17", '"x"', "[2,null,\"Heartbeat\",{}]", '[2,"","Heartbeat",{}]',
        '[2,["1"],"Heartbeat",{}]', '[true,"1","Heartbeat",{}]', '[1,"1","Heartbeat",{}]', '[7,"1","X","Y",{}]',
        '[6,"1","X",[]]', '[6,"1",5,{}]', '[6,"1"]', '[5]',
        '["2","1","Heartbeat",{}]', "[" * 200_000, "9" * 5000, '[2,"1', '[3,"1",{', "\x00",
        '[2,"' + "x" * 300 + '","Heartbeat",{}]', '[2,"1","Heartbeat",{}]'.ljust(rpc.MAX_FRAME + 1),
    ],
)  # fmt: skip
def test_what_nobody_waits_for_is_dropped(frame: str) -> None:
    parsed = rpc.parse(frame)
    assert isinstance(parsed, Malformed)
    assert parsed.answer is None
    assert parsed.why


def test_later_message_types_are_read_and_a_later_version_is_answered_also_without_an_id() -> None:
    assert rpc.parse('[5,"1","FormationViolation","no","x"]') == rpc.CallResultError("1", "FormationViolation", "no")
    assert rpc.parse('[6,"1","NotifyPeriodicEventStream",{"id":1}]') == rpc.Send(
        "1", "NotifyPeriodicEventStream", {"id": 1}
    )
    nameless = rpc.parse("[2,", unreadable="-1")
    assert isinstance(nameless, Malformed)
    assert nameless.answer is not None
    assert orjson.loads(nameless.answer)[:3] == [4, "-1", "RpcFrameworkError"]
    named = rpc.parse('[2,"7","X"]', unreadable="-1")
    assert isinstance(named, Malformed)
    assert orjson.loads(named.answer or "")[1] == "7"


def test_what_is_only_untidy_is_taken() -> None:
    assert rpc.parse('\ufeff[2,"1","Heartbeat",{}]') == Call("1", "Heartbeat", {})
    assert rpc.parse('[2,17,"Heartbeat",null]') == Call(17, "Heartbeat", {})
    assert rpc.parse('[4,"1"]') == CallError("1", "GenericError", "")
    assert rpc.parse('[4,"1","InternalError"]') == CallError("1", "InternalError", "")
    assert rpc.parse('[4,"1",7,null]') == CallError("1", "GenericError", "")
    assert rpc.parse('[3,"1"]') == CallResult("1", {})


def test_one_call_in_flight_and_unsolicited_answers_mean_nothing() -> None:
    outbound = rpc.Outbound("7-")
    assert rpc.parse(outbound.begin("Reset", {"type": "Soft"})) == Call("7-1", "Reset", {"type": "Soft"})
    for stale in range(10_000):
        assert not outbound.settles(CallResult(f"old-{stale}", {}))
    assert outbound.unsolicited == 10_000
    assert outbound.settles(CallResult("7-1", {}))
    assert not outbound.settles(CallResult("7-1", {}))
    outbound.begin("Reset", {"type": "Soft"})
    outbound.give_up()
    assert not outbound.settles(CallError("7-2", "GenericError", ""))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@given(st.one_of(st.text(), st.binary(), st.lists(JSON, max_size=6).map(json.dumps)))
def test_whatever_comes_in_something_comes_out(frame: str | bytes) -> None:
    parsed = rpc.parse(frame)
    assert isinstance(parsed, Call | CallResult | CallError | Malformed)
    if isinstance(parsed, Malformed) and parsed.answer:
        assert orjson.loads(parsed.answer)[0] == 4


@given(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=36),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), st.integers(-(2**53), 2**53) | st.booleans()),
)
def test_a_call_survives_the_wire(message_id: str, action: str, payload: dict[str, int]) -> None:
    frame = rpc.call(message_id, action, payload)
    assert rpc.parse(frame) == Call(message_id, action, payload)
    for end in range(len(frame)):
        assert not isinstance(rpc.parse(frame[:end]), Call)
