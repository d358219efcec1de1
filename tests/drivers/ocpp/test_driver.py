"""The listener over real sockets: who may call, what is answered, and what no frame can do to a connection."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import aiohttp
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from drivers.ocpp.driver import Driver
from gateway.errors import ConfigError, LinkError, StorageError
from gateway.model import Lane, Quality, Reason
from gateway.testing import JumpingLoop, Recorder, make_link
from tests.drivers.ocpp.chargers import KEY, SECRETS, connect, gateway, make_device, make_settings, of

if TYPE_CHECKING:
    from gateway.model import Reading

BOOT = {"chargePointVendor": "ABB", "chargePointModel": "Terra", "firmwareVersion": "1.8.21"}
STATUS = {"connectorId": 1, "status": "Charging", "errorCode": "NoError", "timestamp": "2026-11-22T10:00:00Z"}


def at(recorder: Recorder, slug: str) -> list[Reading]:
    return [reading for reading in recorder.readings if reading.point == f"cp-1/evse/{slug}"]


async def test_a_charger_calls_boots_and_leaves(session: aiohttp.ClientSession) -> None:
    recorder = Recorder()
    async with gateway(recorder) as running:
        charger = await connect(session, running)
        assert charger.socket.protocol == "ocpp1.6"
        booted = await charger.ask("BootNotification", BOOT)
        assert (booted["status"], booted["interval"]) == ("Accepted", 300)
        assert booted["currentTime"].startswith("2026-11-22T")
        assert booted["currentTime"].endswith("Z")
        assert set(await charger.ask("Heartbeat", {})) == {"currentTime"}
        assert await charger.ask("StatusNotification", STATUS) == {}
        await charger.socket.close()
        await recorder.until(lambda found: bool(of(found, "device_down")))
        await recorder.until(lambda found: len(at(found, "connector_status")) == 2)
    assert of(recorder, "device_up")[0].on == "cp-1/evse"
    more = of(recorder, "charger_booted")[0].more
    assert more == {"vendor": "ABB", "model": "Terra", "serial": None, "firmware": "1.8.21"}
    assert recorder.committed["cp-1/evse"] == {"serial": None, "firmware": "1.8.21"}, "what the inventory takes"
    assert of(recorder, "device_down")[0].say.startswith("cp-1/evse has closed its connection. ")
    known, lost = at(recorder, "connector_status")
    assert (known.value, known.device_time, known.quality) == ("Charging", 1_795_341_600_000, Quality.GOOD)
    assert (lost.value, lost.quality, lost.reason) == (None, Quality.BAD, Reason.COMM_FAILURE)
    assert of(recorder, "nonconforming") == []


@pytest.mark.parametrize("path", ["/cp-1", "/cp-1/", "//cp-1", "/ocpp/1.6//cp-1//", "/%63p%2D1", "/cp-1?x=1"])
async def test_the_identity_is_the_end_of_the_path(session: aiohttp.ClientSession, path: str) -> None:
    async with gateway(Recorder()) as running:
        charger = await connect(session, running, path)
        assert await charger.ask("Heartbeat", {})


async def test_an_identity_of_its_own(session: aiohttp.ClientSession) -> None:
    device = make_device(identity="IT*A2A*E 01/x")
    async with gateway(Recorder(), devices=[device]) as running:
        charger = await connect(session, running, "/IT%2AA2A%2AE%2001%2Fx", user="IT*A2A*E 01/x")
        assert await charger.ask("Heartbeat", {})


async def refused(session: aiohttp.ClientSession, *place: Any, **how: Any) -> int:
    with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
        await connect(session, *place, **how)
    return caught.value.status


async def test_strangers_and_wrong_keys_are_refused_and_said_once(session: aiohttp.ClientSession) -> None:
    recorder = Recorder()
    async with gateway(recorder) as running:
        for _ in range(3):
            assert await refused(session, running, "/cp-9") == 404
            assert await refused(session, running, key="wrong") == 401
        assert await refused(session, running, key=None) == 401
        assert await refused(session, running, user="cp-2") == 401
        assert await refused(session, running, "/") == 404
        charger = await connect(session, running, key=bytes.fromhex(KEY))  # the key as its bytes
        assert await charger.ask("Heartbeat", {})
    assert [event.more["identity"] for event in of(recorder, "unknown_charger")] == ["cp-9", ""]
    assert [event.say for event in of(recorder, "wrong_key")] == [
        "cp-1/evse reached us but its key is wrong. Enter the same key in the charger and here."
    ]
    assert KEY not in repr(recorder.records)


class Stored(dict[str, str]):
    """Secrets as the gateway keeps them: one that is not there is said."""

    def __missing__(self, place: str) -> str:
        raise ConfigError(f"The secret `{place}` is not set. Set it.")


async def test_a_secret_that_is_not_stored_is_said_and_costs_only_its_own(session: aiohttp.ClientSession) -> None:
    recorder = Recorder()
    devices = [make_device(), make_device("cp-2/evse")]
    async with gateway(recorder, devices=devices, secrets=Stored({"cp-1/evse.key": KEY})) as running:
        assert await refused(session, running, "/cp-2", user="cp-2") == 401
        charger = await connect(session, running)
        assert (await charger.ask("Authorize", {"idTag": "04A1B2C3"}))["idTagInfo"] == {"status": "Invalid"}
    (event,) = of(recorder, "wrong_key")
    assert event.say == "cp-2/evse reached us but has no key here. The secret `cp-2/evse.key` is not set. Set it."


async def test_without_the_subprotocol_the_socket_opens_and_is_closed(session: aiohttp.ClientSession) -> None:
    recorder = Recorder()
    async with gateway(recorder) as running:
        charger = await connect(session, running, protocols=("ocpp2.0.1",))
        assert charger.socket.protocol is None
        assert await charger.closed() == 1002
        assert of(recorder, "device_up") == []
        both = await connect(session, running, protocols=("ocpp2.0.1", "ocpp1.6"))
        assert both.socket.protocol == "ocpp1.6"


async def test_the_newest_socket_of_a_charger_wins(session: aiohttp.ClientSession) -> None:
    recorder = Recorder()
    async with gateway(recorder) as running:
        first = await connect(session, running)
        await first.ask("StatusNotification", STATUS)
        second = await connect(session, running)
        await first.closed()
        assert await second.ask("Heartbeat", {})
    assert len(of(recorder, "device_up")) == 1
    assert of(recorder, "device_down") == []


async def test_malformed_frames_are_answered_and_the_connection_lives_on(session: aiohttp.ClientSession) -> None:
    recorder = Recorder()
    frames = [
        '[2,"1",{},{}]', '[2,"1","Heartbeat"]', '[2,"1","Heartbeat",{},1]', '[2,"1","Heartbeat",{]',
        '[2,"1","Heartbeat",' + "[" * 200_000, '[2,"1","Heartbeat",{"a":' + "9" * 5000 + "}]",
    ]  # fmt: skip
    silent = [
        "",
        "not json",
        "[]",
        "null",
        '[3,"1",{}]',
        '[4,"1"]',
        '[5,"1","E","",{}]',
        "[" * 200_000,
        '[2,{},"X",{}]',
    ]
    async with gateway(recorder) as running:
        charger = await connect(session, running)
        for frame in silent:
            await charger.send(frame)
        for frame in frames:
            await charger.send(frame)
            kind, answered, code, *_ = await charger.receive()
            assert (kind, answered) == (4, "1")
            assert code in ("FormationViolation", "ProtocolError")
        await charger.send([2, "2", "MadeUp", {}])
        assert (await charger.receive())[:3] == [4, "2", "NotImplemented"]
        await charger.send([2, "3", "SignCertificate", {"csr": "x"}])
        assert (await charger.receive())[:3] == [4, "3", "NotSupported"]
        assert await charger.ask("DataTransfer", {"vendorId": "x"}) == {"status": "UnknownVendorId"}
        assert await charger.ask("FirmwareStatusNotification", {"status": "Installed"}) == {}
        assert await charger.ask("DiagnosticsStatusNotification", {"status": "Idle"}) == {}
        await charger.socket.send_bytes(b'[2,"4","Heartbeat",{}]')
        assert (await charger.receive())[:2] == [3, "4"]
    assert len(of(recorder, "firmware_status")) == 1
    assert all(event.say.startswith("cp-1/evse sent ") for event in of(recorder, "nonconforming"))


async def test_stale_answers_do_nothing(session: aiohttp.ClientSession) -> None:
    async with gateway(Recorder()) as running:
        charger = await connect(session, running)
        for number in range(90):
            await charger.send([3, f"stale-{number}", {}])
        assert await charger.ask("Heartbeat", {})


async def test_what_is_wrong_is_said_once_and_never_refused(session: aiohttp.ClientSession) -> None:
    recorder = Recorder()
    values = [
        {"value": "1", "measurand": "Made.Up"}, {"value": 2.5, "unit": "kwh"}, {"value": "x", "measurand": "Voltage"},
        {"value": "9", "measurand": "Voltage", "location": "Inlet"},
    ]  # fmt: skip
    meter = {"connectorId": "1", "meterValue": [{"timestamp": "1970-01-01T00:00:07", "sampledValue": values}]}
    async with gateway(recorder) as running:
        charger = await connect(session, running)
        for _ in range(3):
            assert await charger.ask("MeterValues", meter) == {}
        assert await charger.ask("MeterValues", {}) == {}
        assert await charger.ask("StatusNotification", {"connectorId": 1, "status": "Humming"}) == {}
        assert await charger.ask("StatusNotification", {"connectorId": 5, "status": "Available"}) == {}
        assert (await charger.ask("BootNotification", {}))["status"] == "Accepted"
    energy = at(recorder, "energy_import")
    assert [(reading.value, reading.device_time, reading.transaction) for reading in energy] == [(2500, 7000, None)] * 3
    assert [reading.value for reading in at(recorder, "voltage")] == [None] * 3
    said = [event.say for event in of(recorder, "nonconforming")]
    assert len(said) == len(set(said))
    for part in ("`Made.Up`", "`kwh`, read as kWh", "(Inlet)", "without a zone", "`Humming`", "connector 5"):
        assert sum(part in sentence for sentence in said) == 1, part
    assert {lane for lane, records, _ in recorder.calls for record in records if record in energy} == {Lane.TELEMETRY}


async def test_a_fault_is_one_sentence_and_one_action(session: aiohttp.ClientSession) -> None:
    recorder = Recorder()
    fault = {**STATUS, "status": "Faulted", "errorCode": "GroundFailure", "vendorErrorCode": "E17"}
    async with gateway(recorder) as running:
        charger = await connect(session, running)
        for status in (fault, fault, STATUS):
            await charger.ask("StatusNotification", status)
    (event,) = of(recorder, "connector_fault")
    assert event.say == (
        "cp-1/evse, connector 1 has tripped on a ground fault. Have cable and car checked before it is used again."
    )
    assert event.more["vendor_error"] == "E17"
    assert len(of(recorder, "connector_clear")) == 1


async def test_a_full_telemetry_lane_costs_no_charger_its_answer(session: aiohttp.ClientSession) -> None:
    recorder = Recorder()
    async with gateway(recorder) as running:
        charger = await connect(session, running)
        recorder.fail = StorageError("the disk is full")
        assert await charger.ask("StatusNotification", STATUS) == {}
        assert (await charger.ask("BootNotification", BOOT))["status"] == "Accepted"
        recorder.fail = None


async def test_a_full_disk_is_said_once_until_there_is_room(session: aiohttp.ClientSession) -> None:
    recorder = Recorder()
    async with gateway(recorder) as running:
        charger = await connect(session, running)
        with capture_logs() as logs:
            for fail in (StorageError("the disk is full"), None, StorageError("the disk is full")):
                recorder.fail = fail
                for status in ("Available", "Preparing", "Available"):
                    await charger.ask("StatusNotification", {**STATUS, "status": status})
            recorder.fail = None
        said = [log["what"] for log in logs if log["event"] == "not_stored"]
        assert said
        assert all(said.count(what) == 2 for what in said), said


async def test_a_flood_costs_only_its_sender(session: aiohttp.ClientSession) -> None:
    devices = [make_device(), make_device("cp-2/evse")]
    async with gateway(Recorder(), devices=devices) as running:
        flooder, other = (
            await connect(session, running),
            await connect(session, running, "/cp-2", user="cp-2", key=SECRETS["cp-2/evse.key"]),
        )
        for number in range(2000):
            await flooder.send([2, str(number), "Heartbeat", {}])
        loop = asyncio.get_running_loop()
        began = loop.time()
        for _ in range(20):
            await other.ask("Heartbeat", {})
        assert loop.time() - began < 1.0
        for number in range(120):
            assert (await flooder.receive())[:2] == [3, str(number)]
        assert loop.time() - began >= 0.3  # 100 at once, then 50 a second


def test_a_silent_charger_is_given_up_and_a_quiet_one_is_kept() -> None:
    async def watch() -> Recorder:
        recorder = Recorder()
        devices = [make_device(), make_device("cp-2/evse")]
        async with gateway(recorder, devices=devices) as running, aiohttp.ClientSession() as session:
            await connect(session, running)  # reads nothing, so its pings stay unanswered
            quiet = await connect(session, running, "/cp-2", user="cp-2", key=SECRETS["cp-2/evse.key"])
            pongs = asyncio.create_task(quiet.listen())
            await asyncio.sleep(1800)
            assert [event.on for event in of(recorder, "device_down")] == ["cp-1/evse"]
            pongs.cancel()
            await asyncio.wait([pongs])
        return recorder

    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        recorder = runner.run(watch())
    assert of(recorder, "device_down")[0].say.startswith("cp-1/evse has been silent for 120 s. ")


def test_two_devices_cannot_be_one_charger() -> None:
    devices = [make_device("cp-1/evse"), make_device("cp-1/meter")]
    with pytest.raises(ConfigError, match="both the charger `cp-1`"):
        Driver(make_link(make_settings(), devices, Recorder()))


async def test_an_address_that_is_taken_is_one_sentence() -> None:
    async with gateway(Recorder()) as running:
        with pytest.raises(LinkError, match=r"cannot listen on 127.0.0.1:\d+: .*in use"):
            async with gateway(Recorder(), make_settings(listen=running.address)):
                pass


KEYS = st.sampled_from(
    ["connectorId", "transactionId", "meterValue", "sampledValue", "timestamp", "idTag", "value", "meterStart",
     "meterStop", "status", "errorCode", "transactionData", "unit"])  # fmt: skip
FRAGMENT = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 2**40) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=10,
)
ACTION = st.sampled_from(
    ["Authorize", "BootNotification", "Heartbeat", "MeterValues", "StartTransaction", "StatusNotification",
     "StopTransaction", "DataTransfer", "FirmwareStatusNotification", "Reset", "Nonsense"])  # fmt: skip
PAYLOAD = FRAGMENT.filter(lambda value: isinstance(value, dict))
NOISE = st.text(max_size=30) | st.lists(FRAGMENT, max_size=5).map(lambda value: orjson.dumps(value).decode())


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(NOISE, ACTION, PAYLOAD), min_size=1, max_size=6))
def test_no_frame_ends_a_connection_and_every_call_is_answered(talk: list[tuple[str, str, dict[str, Any]]]) -> None:
    async def converse() -> None:
        async with gateway(Recorder()) as running, aiohttp.ClientSession() as session:
            charger = await connect(session, running)
            for number, (noise, action, payload) in enumerate(talk):
                await charger.send(noise)
                await charger.send([2, f"ours-{number}", action, payload])
                while (answer := await charger.receive())[1] != f"ours-{number}":
                    assert answer[0] in (3, 4)
                assert answer[0] == (4 if action in ("Reset", "Nonsense") else 3)

    asyncio.run(converse())
