"""The driver against the emulator over real loopback TCP: what it says, and what no fault makes it say."""

from __future__ import annotations

import asyncio
import dataclasses
import math
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from drivers.modbus import frames
from drivers.modbus.frames import NoAnswer
from drivers.modbus.tcp import Tcp
from gateway.errors import CommandError, LinkError, StorageError
from gateway.model import Lane, Quality

from .conftest import SELF_IDENTIFYING, TRUSTED, make_device, order, running

if TYPE_CHECKING:
    from drivers.modbus.emulator import Fault

MISFRAMED: list[Fault] = [
    "truncated", "short", "long", "wrong_function", "wrong_unit", "wrong_transaction", "no_transaction", "garbage",
    "close", "silent", "late",
]  # fmt: skip


async def test_a_poll_is_one_emit_of_everything_in_canonical_units() -> None:
    async with running(make_device("lp-1/meter", 1, TRUSTED)) as street:
        street.emulator.set("lp-1/meter", "energy_import", 123456)
        await street.seen(60, "lp-1/meter")
        lane, first, _ = street.recorder.calls[0]
        assert lane is Lane.TELEMETRY
        assert {record.point for record in first} == {point.id for point in street.devices[0].points.values()}
        assert {r.value for r in street.recorder.readings if r.point.endswith("/energy_import")} == {123456}
        assert all(r.quality is Quality.GOOD and r.at >= 60_000 for r in street.recorder.readings)
        assert not street.recorder.events
        assert street.emulator.produced() == {"lp-1/meter": len(street.recorder.readings)}


async def test_a_silent_unit_leaves_its_neighbour_its_rate() -> None:
    async with running(make_device("a/m", 1), make_device("b/m", 2)) as street:
        await street.seen(40, "b/m")
        street.emulator.fault("a/m", "silent")
        await street.until(lambda r: bool(r.events))
        event = street.recorder.events[0]
        assert event.kind == "device_down"
        assert event.say.startswith("a/m (unit 1 at 127.0.0.1:")
        assert event.say.endswith("no answer within 1 s. Check its power, its unit id and its wiring.")
        loop = asyncio.get_running_loop()
        started, before = loop.time(), street.good("b/m")
        await street.seen(19 * 300, "b/m")
        polls, expected = (street.good("b/m") - before) / 19, loop.time() - started
        assert polls >= 0.94 * expected
        bad = [r for r in street.recorder.readings if r.quality is Quality.BAD]
        assert len(bad) == len(street.devices[0].points)
        assert {r.reason for r in bad} == {"comm_failure"}


async def test_a_gateway_that_waited_in_vain_says_that_the_device_is_silent() -> None:
    async with running(make_device("a/m", 1), make_device("b/m", 2)) as street:
        street.emulator.fault("a/m", "exception_11")
        await street.until(lambda r: bool(r.events))
        event = street.recorder.events[0]
        assert event.kind == "device_down"
        assert "exception 11, gateway: the device did not answer. Check its power" in event.say
        assert {r.reason for r in street.recorder.readings if r.quality is Quality.BAD} == {"comm_failure"}


async def test_a_driver_that_is_alive_says_so() -> None:
    """Each promise to the watchdog is kept, silent devices and idle hours included."""
    late: list[float] = []
    promised = math.inf

    def alive(within: float) -> None:
        nonlocal promised
        now = asyncio.get_running_loop().time()
        late.append(now - promised)
        promised = now + within

    async with running(make_device("a/m", 1, every="1h"), make_device("b/m", 2)) as street:
        street.emulator.fault("b/m", "silent")
        object.__setattr__(street.driver._link, "alive", alive)
        await asyncio.sleep(2 * 3600)
    assert len(late) > 100
    assert max(late) < 0


async def test_a_device_that_speaks_again_says_everything_at_once() -> None:
    async with running(make_device("a/m", 1)) as street:
        street.emulator.fault("a/m", "silent")
        await street.until(lambda r: bool(r.events))
        street.emulator.fault("a/m", None)
        await street.until(lambda r: len(r.events) == 2)
        back = [r.point for r in street.recorder.readings if r.quality is Quality.GOOD][:20]
        assert set(back) == {point.id for point in street.devices[0].points.values()}


@pytest.mark.parametrize("fault", MISFRAMED)
async def test_no_fault_ever_makes_a_value(fault: Fault) -> None:
    """Registers say their own address, so a value from elsewhere would show."""
    devices = [make_device("a/m", 1, SELF_IDENTIFYING), make_device("b/m", 2, SELF_IDENTIFYING)]
    async with running(*devices) as street:
        await street.seen(24, "a/m")
        street.emulator.fault("a/m", fault)
        await street.until(lambda r: bool(r.events))
        at = len(street.recorder.records)
        assert street.recorder.events[0].kind == "device_down"
        await street.seen(60, "b/m")
        assert not [r for r in street.recorder.records[at:] if getattr(r, "point", "").startswith("a/m/") and r.value]
        street.emulator.fault("a/m", None)
        await street.until(lambda r: r.events[-1].kind == "device_up")
        await street.seen(24, "a/m")
        assert street.wrong() == []


async def test_a_gateway_that_closes_idle_connections_is_no_fault() -> None:
    async with running(make_device("a/m", 1)) as street:
        await street.seen(20, "a/m")
        for writer in list(street.emulator._open):
            writer.close()
        await street.seen(60, "a/m")
        assert street.emulator.connections == 2
        assert not street.recorder.events
        assert all(r.quality is Quality.GOOD for r in street.recorder.readings)


async def test_an_endpoint_that_is_gone_is_a_link_error_and_comes_back() -> None:
    async with running(make_device("a/m", 1), make_device("b/m", 2)) as street:
        await street.seen(20, "a/m")
    for _ in range(2):
        with pytest.raises(LinkError, match=r"127\.0\.0\.1:\d+ refuses the connection\. Check the port"):
            await street.driver.run(street.recorder)
    with pytest.raises(CommandError, match="is down") as refused:
        await street.driver.execute(order("a/m/demand_period", 15))
    assert refused.value.code == "link_down"
    await street.emulator.start(street.port)
    task = asyncio.create_task(street.driver.run(street.recorder))
    await street.seen(40, "a/m")
    task.cancel()
    await asyncio.wait({task})
    await street.emulator.stop()


async def test_a_restart_of_the_gateway_box_while_polling() -> None:
    async with running(make_device("a/m", 1, SELF_IDENTIFYING)) as street:
        await street.seen(24, "a/m")
        await street.emulator.stop()
        await street.emulator.start(street.port)
        await street.seen(24, "a/m")
        assert street.wrong() == []


async def test_an_address_where_nobody_answers() -> None:
    wire = Tcp("192.0.2.1", 502, 0.05)  # TEST-NET-1, RFC 5737: no such host
    with pytest.raises(LinkError, match=r"192\.0\.2\.1:502"):
        await wire.open()


async def test_a_full_buffer_does_not_stop_the_polling() -> None:
    async with running(make_device("a/m", 1)) as street:
        street.recorder.fail = StorageError("full")
        street.emulator.fault("a/m", "exception_4")
        await street.asked(20)
        street.recorder.fail = None
        await street.until(lambda r: bool(r.events))
        assert any(r.quality is Quality.BAD for r in street.recorder.readings)


async def test_a_cancelled_request_never_answers_the_next() -> None:
    async with running(make_device("a/m", 1, SELF_IDENTIFYING), make_device("b/m", 2)) as street:
        wire = Tcp("127.0.0.1", street.port, 1.0)
        for turns in range(12):
            task = asyncio.create_task(wire.read(1, 4, 0, 4))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait({task})
            assert await wire.read(1, 4, 40, 4) == [1040, 1041, 1042, 1043]
        wire.close()


async def test_a_cancel_that_comes_with_the_answer_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """wait_for of Python 3.11, inside pymodbus, would swallow it, and the driver could not be stopped."""
    from drivers.modbus import tcp

    async with running(make_device("a/m", 1, SELF_IDENTIFYING)) as street:
        wire = Tcp("127.0.0.1", street.port, 1.0)
        await wire.open()
        task = asyncio.create_task(wire.read(1, 4, 0, 4))
        find = tcp.find_answer

        def cancel_with_it(asked: bytes, heard: bytes) -> bytes | None:
            found = find(asked, heard)
            if found and asked[10:12] == b"\0\4" and asked[8:10] == b"\0\0":
                asyncio.get_running_loop().call_soon(task.cancel)
            return found

        monkeypatch.setattr(tcp, "find_answer", cancel_with_it)
        await asyncio.wait({task}, timeout=2)
        assert task.cancelled()
        wire.close()


async def test_a_closed_connection_is_noticed_at_once() -> None:
    async with running(make_device("a/m", 1)) as street:
        street.emulator.fault("a/m", "close")
        wire = Tcp("127.0.0.1", street.port, 20.0)
        async with asyncio.timeout(2):
            with pytest.raises(NoAnswer, match="closed without an answer"):
                await wire.read(1, 4, 0, 2)


async def test_polls_keep_to_the_grid_for_an_hour_without_drift_or_burst() -> None:
    async with running(make_device("a/m", 1, every="10s")) as street:
        await street.recorder.until(lambda r: r.calls and r.calls[-1][1][0].at > 3600 * 1000, within=5000)
        times = [call[1][-1].at for call in street.recorder.calls]
        assert 354 <= len(times) <= 356
        late = sorted(min(each, 10_000 - each) for each in ((at - times[0]) % 10_000 for at in times))
        assert late[-4] <= 200  # a machine that stands still for a moment makes one late, not the next ones
        street.recorder.hold()
        await asyncio.sleep(95)
        before = len(street.recorder.calls)
        street.recorder.release()
        await asyncio.sleep(20)
        assert len(street.recorder.calls) - before <= 4


async def test_points_have_the_rates_of_the_profile_where_the_device_names_none() -> None:
    async with running(make_device("a/m", 1, every=None)) as street:
        await asyncio.sleep(125)
        counts = Counter(reading.point for reading in street.recorder.readings)
        assert counts["a/m/power"] == 13
        assert counts["a/m/energy_import"] == 3
        assert counts["a/m/demand_period"] == 1


async def test_a_point_without_a_value_says_why_each_time() -> None:
    async with running(make_device("a/m", 1)) as street:
        street.emulator.set("a/m", "power", (0x7FC0, 0x0000))
        street.emulator.set("a/m", "frequency", 500)
        await street.seen(60, "a/m")
        said = {(r.point, r.value, r.reason) for r in street.recorder.readings if r.quality is Quality.BAD}
        assert said == {("a/m/power", None, "not_a_number"), ("a/m/frequency", None, "out_of_range")}
        assert not street.recorder.events


async def test_a_gateway_one_answer_behind_is_never_believed() -> None:
    """Some gateways give the answer that came late under the transaction of the next question (evcc #21026)."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = frames.parse(await reader.readexactly(12))
        if first.addr:
            writer.write(frames.answer(first, [first.addr, first.addr + 1]))
        elif await reader.read(12):
            writer.write(frames.answer(dataclasses.replace(first, transaction=first.transaction + 1), [0, 1]))
        await reader.read()
        writer.close()
        ended.release()

    ended = asyncio.Semaphore(0)
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    wire = Tcp("127.0.0.1", server.sockets[0].getsockname()[1], 1.0)
    with pytest.raises(NoAnswer):
        await wire.read(1, 4, 0, 2)
    assert await wire.read(1, 4, 40, 2) == [40, 41]
    wire.close()
    async with asyncio.timeout(10):
        for _ in range(2):
            await ended.acquire()
    server.close()
    await server.wait_closed()
