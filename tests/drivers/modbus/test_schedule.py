"""When what is asked: on time for a week, everybody in turn, orders first, the silent hardly ever."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from bench.modbus import EASTRON, SLOW, legal, optimum
from drivers import modbus
from drivers.modbus.frames import NoAnswer
from drivers.modbus.line import Line
from drivers.modbus.tcp import Tcp
from gateway.errors import CommandError
from gateway.model import CommandState, Device
from gateway.testing import Recorder

from .conftest import SELF_IDENTIFYING, TRUSTED, WIRES, make_device, make_settings, order, running

SLOW_LINE = {"port": "tcp://127.0.0.1:1", "baud": "9600"}


def polls(recorder: Recorder, device: str, point: str) -> int:
    return sum(reading.point == f"{device}/{point}" for reading in recorder.readings)


def with_keys(device: Device, **keys: Any) -> Device:
    written = {"link": "line", "address": device.settings.address, **keys}  # type: ignore[attr-defined]
    settings = modbus.DeviceSettings.model_validate(written)
    return Device(device.id, device.points, device.verbs, settings, device.profile)


async def test_a_point_has_the_interval_of_the_site_then_of_its_quantity_then_of_the_device() -> None:
    keys = {"every": "10s", "quantities": {"voltage": {"every": "5s"}}, "points": {"voltage_l2": {"every": "20s"}}}
    async with running(with_keys(make_device("a/m", 1), **keys)) as street:
        await asyncio.sleep(60.5)
        counts = {slug: polls(street.recorder, "a/m", slug) for slug in ("voltage_l1", "voltage_l2", "power")}
    assert counts == {"voltage_l1": 13, "voltage_l2": 4, "power": 7}


async def test_a_setting_is_read_as_often_as_the_site_says() -> None:
    keys = {"every": "10s", "points": {"demand_period": {"every": "30s"}}}
    async with running(with_keys(make_device("a/m", 1), **keys)) as street:
        await asyncio.sleep(60.5)
        assert polls(street.recorder, "a/m", "demand_period") == 3


async def test_a_week_of_polling_does_not_drift() -> None:
    async with running(make_device("a/m", 1, SELF_IDENTIFYING, every="10min")) as street:
        await asyncio.sleep(7 * 86_400 + 1)
        at = [reading.at for reading in street.recorder.readings if reading.point == "a/m/r0"]
        assert len(at) == 7 * 144 + 1
        assert max(abs((each - at[0]) - n * 600_000) for n, each in enumerate(at)) <= 100
        assert street.wrong() == []


@pytest.mark.slow
async def test_a_week_of_polling_every_ten_seconds_does_not_drift() -> None:
    async with running(make_device("a/m", 1, SELF_IDENTIFYING, every="10s"), wire="rtu-over-tcp") as street:
        await asyncio.sleep(7 * 86_400 + 1)
        at = [reading.at for reading in street.recorder.readings if reading.point == "a/m/r0"]
        assert len(at) == 7 * 8640 + 1
        # The first waits until nothing may come that somebody else has asked for.
        late = sorted(abs((each - at[1]) - n * 10_000) for n, each in enumerate(at[1:]))
        assert late[-60] <= 100  # a machine that stands still for a moment makes one late, not the next ones
        assert street.wrong() == []
        assert not street.recorder.events


async def test_thirty_two_meters_on_one_slow_line_share_it_fairly_and_fully(monkeypatch: pytest.MonkeyPatch) -> None:
    """More is wanted than 9600 Bd carry: nobody starves, and the line is never idle longer than it must be."""
    monkeypatch.setitem(WIRES, "slow", SLOW_LINE)
    async with running(*(make_device(f"m{n}/m", n) for n in range(1, 33)), wire="slow") as street:
        await street.seen(120, "m32/m")  # all were read twice, every turnaround is measured
        loop, bus = asyncio.get_running_loop(), street.emulator.bus
        assert bus
        legal, answer = 0.0, street.emulator._spoilt

        def counted(frame: bytes) -> Any:
            nonlocal legal
            asked = int.from_bytes(frame[10:12], "big")
            legal += (8 + 5 + 2 * asked) * street.settings.character + bus.turnaround + 0.06
            return answer(frame)

        monkeypatch.setattr(street.emulator, "_spoilt", counted)
        started, before = loop.time(), Counter(r.point.partition("/")[0] for r in street.recorder.readings)
        await asyncio.sleep(120)
        used = legal / (loop.time() - started)
        after = Counter(r.point.partition("/")[0] for r in street.recorder.readings)
        each = [after[name] - before[name] for name in after]
        assert 0.95 <= used <= 1.02
        assert len(each) == 32
        per_poll = len(street.devices[0].points) - 1
        assert max(each) - min(each) <= 2 * per_poll
        assert not street.recorder.events


@pytest.mark.parametrize("baud", [9600, 19200, 115200])
async def test_the_cycle_of_an_sdm630_is_near_the_least_and_far_from_point_by_point(
    baud: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """40 ms to an answer, 60 ms of silence before a question; against every cut there is."""
    monkeypatch.setitem(WIRES, "line", {"port": "tcp://127.0.0.1:1", "baud": str(baud)})
    async with running(make_device("a/m", 1, TRUSTED, "10ms"), wire="line") as street:
        bus, fields = street.emulator.bus, [field for _, field in TRUSTED.fields()]
        assert bus
        bus.turnaround = SLOW

        def cost(count: int) -> float:
            return legal(count, baud, SLOW, EASTRON)

        await street.seen(100, "a/m")  # the turnaround is measured
        loop, polls = asyncio.get_running_loop(), 20
        started = loop.time()
        await street.seen(polls * len(fields), "a/m")
        takes = (loop.time() - started) / polls
    assert takes <= 1.15 * optimum(fields, TRUSTED.line.max_regs, cost)
    assert 5 * takes <= sum(cost(field.width) for field in fields)


async def test_what_is_due_together_costs_one_waking(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(*(make_device(f"m{n}/m", n, SELF_IDENTIFYING, every="10s") for n in range(1, 6))) as street:
        await street.seen(12, "m5/m")
        nap, naps = street.driver._nap, 0

        async def counted(until: float) -> None:
            nonlocal naps
            naps += 1
            await nap(until)

        monkeypatch.setattr(street.driver, "_nap", counted)
        await asyncio.sleep(600)
        assert 59 <= naps <= 61


async def test_an_order_is_carried_out_first_however_much_is_to_be_polled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(WIRES, "slow", SLOW_LINE)
    async with running(*(make_device(f"m{n}/m", n) for n in range(1, 33)), wire="slow") as street:
        await street.seen(60, "m2/m")
        loop = asyncio.get_running_loop()
        for turn in range(5):
            await asyncio.sleep(0.37 * turn)
            started = loop.time()
            await street.driver.execute(order("m30/m/demand_period", 15))
            assert loop.time() - started < 0.8  # the question under way, the write, the proof


async def test_a_flood_of_orders_does_not_stop_the_polling() -> None:
    both = [make_device("a/m", 1, SELF_IDENTIFYING), make_device("b/m", 2, SELF_IDENTIFYING)]
    async with running(*both, wire="rtu-over-tcp") as street:
        await street.seen(24, "a/m")

        async def insist() -> None:
            while True:
                await street.driver.execute(order("a/m/target", 5))

        insisting = [asyncio.create_task(insist()) for _ in range(5)]
        await street.seen(120, "b/m", within=30)
        for task in insisting:
            task.cancel()
        await asyncio.wait(insisting)


async def test_two_hundred_meters_behind_one_tcp_endpoint_are_read_on_time() -> None:
    async with running(*(make_device(f"m{n}/m", n, SELF_IDENTIFYING, "10s") for n in range(1, 201))) as street:
        await asyncio.sleep(31)
        counts = [polls(street.recorder, device.id, "r40") for device in street.devices]
        assert min(counts) >= 3  # at 0, 10, 20 and 30 s; the machine's own time counts here, too
        assert max(counts) <= 4
        assert street.wrong() == []
        assert not street.recorder.events


@pytest.mark.parametrize("wire", ["tcp", "rtu-over-tcp"])
async def test_one_silent_device_of_five_costs_the_others_little_and_other_links_nothing(wire: str) -> None:
    """The healthy ones keep 95 % of their readings (ThingsBoard gateway 24 %, Node-RED 32 %)."""
    five = [make_device(f"d{n}/m", n, SELF_IDENTIFYING) for n in range(1, 6)]
    async with running(*five, wire=wire) as street, running(make_device("e/m", 1, SELF_IDENTIFYING)) as other:
        await street.seen(24, "d5/m")
        street.emulator.fault("d1/m", "silent")
        await street.until(lambda r: bool(r.events))
        before = {n: polls(street.recorder, f"d{n}/m", "r0") for n in range(2, 6)}
        elsewhere = polls(other.recorder, "e/m", "r0")
        await asyncio.sleep(200)  # probes in it
        for n, had in before.items():
            assert polls(street.recorder, f"d{n}/m", "r0") - had >= 0.95 * 200
        assert polls(other.recorder, "e/m", "r0") - elsewhere >= 199
        assert street.wrong() == []


async def test_a_line_on_which_all_are_silent_is_looked_at_often_and_is_back_at_once() -> None:
    """There is nobody to be spared; and where one speaks again, the others are asked."""
    three = [make_device(f"d{n}/m", n, SELF_IDENTIFYING) for n in range(1, 4)]
    async with running(*three, wire="rtu-over-tcp") as street:
        await street.seen(24, "d3/m")
        for device in three:
            street.emulator.fault(device.id, "silent")
        await asyncio.sleep(1200)
        for device in three:
            street.emulator.fault(device.id, None)
        loop = asyncio.get_running_loop()
        mended = loop.time()
        for device in three:
            await street.until(lambda r, on=device.id: any(e.kind == "device_up" and e.on == on for e in r.events))  # type: ignore[misc]
        assert loop.time() - mended < 30


async def test_a_lost_answer_is_noticed_soon_and_costs_no_value() -> None:
    """The unit answered within milliseconds so far: nobody waits a whole time-out for it."""
    async with running(make_device("a/m", 1, SELF_IDENTIFYING), timeout="10s") as street:
        await street.seen(24, "a/m")
        loop = asyncio.get_running_loop()
        street.emulator.fault("a/m", "silent")
        await street.asked(1)
        started = loop.time()
        street.emulator.fault("a/m", None)
        await street.seen(24, "a/m")
        assert loop.time() - started < 4
        assert not street.recorder.events


async def test_a_device_that_becomes_slow_is_given_its_time() -> None:
    async with running(make_device("a/m", 1, SELF_IDENTIFYING), timeout="3s", wire="rtu-over-tcp") as street:
        await street.seen(24, "a/m")
        assert street.emulator.bus
        street.emulator.bus.turnaround = 1.5
        await street.seen(120, "a/m")
        assert not street.recorder.events


async def test_a_dry_run_says_what_would_be_sent_and_sends_nothing() -> None:
    async with running(make_device("a/m", 1)) as street:
        await street.seen(20, "a/m")
        command = order("a/m/demand_period", 15)
        object.__setattr__(command, "args", {"value": 15, "dry_run": "yes"})
        reply = await street.driver.execute(command)
        assert reply.state is CommandState.SUCCEEDED
        assert reply.now == {"value": 60, "frame": "01 10 00 02 00 02 04 41 70 00 00"}
        assert reply.proof == "dry_run"
        assert street.emulator._by_id["a/m"].stored["demand_period"] == (0x4270, 0x0000)
        object.__setattr__(command, "args", {"value": 61, "dry_run": "yes"})
        with pytest.raises(CommandError, match="takes 0 to 60 min"):
            await street.driver.execute(command)


def broadcasting() -> modbus.Profile:
    target = SELF_IDENTIFYING.writes["target"].model_copy(update={"broadcast": True})
    return SELF_IDENTIFYING.model_copy(update={"writes": {"target": target}})


async def test_a_broadcast_reaches_all_and_is_proved_on_the_one() -> None:
    profile = broadcasting()
    async with running(make_device("a/m", 1, profile), make_device("b/m", 2, profile), wire="rtu-over-tcp") as street:
        await street.seen(12, "a/m")
        loop = asyncio.get_running_loop()
        started = loop.time()
        reply = await street.driver.execute(order("a/m/target", 15))
        assert (reply.now, reply.proof) == ({"value": 15}, "readback")
        assert {unit.stored["target"] for unit in street.emulator._by_id.values()} == {(15,)}
        assert 0.1 <= loop.time() - started < 0.5
        await street.seen(24, "b/m")
        assert not street.recorder.events


async def test_nobody_is_told_for_all_unless_the_profile_says_so() -> None:
    async with running(make_device("a/m", 1, SELF_IDENTIFYING), make_device("b/m", 2, SELF_IDENTIFYING)) as street:
        await street.seen(12, "a/m")
        await street.driver.execute(order("a/m/target", 15))
        assert street.emulator._by_id["b/m"].stored["target"] == (100,)


async def test_unit_0_on_a_line_is_nobody_who_could_be_asked() -> None:
    line = Line("line", make_settings(SLOW_LINE), {})
    with pytest.raises(NoAnswer, match="unit 0 is everybody") as failed:
        await line.read(0, 4, 0, 2)
    assert failed.value.fix == "Write its own address, 1 to 247."


async def test_a_device_that_speaks_tcp_itself_may_be_unit_0() -> None:
    async with running(make_device("a/m", 0, SELF_IDENTIFYING)) as street:
        await street.seen(12, "a/m")
        tcp = Tcp("127.0.0.1", street.port, 1.0)
        assert await tcp.read(0, 4, 40, 2) == [40, 41]
        tcp.close()


async def test_points_that_answer_only_alone_and_forbidden_registers() -> None:
    points = dict(SELF_IDENTIFYING.points)
    points["r3"] = points["r3"].model_copy(update={"alone": True})
    del points["r42"]
    line = SELF_IDENTIFYING.line.model_copy(update={"max_hole": 5, "forbidden": {4: [(42, 42)]}})
    profile = SELF_IDENTIFYING.model_copy(update={"points": points, "line": line})
    async with running(make_device("a/m", 1, profile)) as street:
        asked: set[tuple[int, int]] = set()
        answer = street.emulator._spoilt

        def noted(frame: bytes) -> Any:
            if frame[7] == 4:
                asked.add((int.from_bytes(frame[8:10], "big"), int.from_bytes(frame[10:12], "big")))
            return answer(frame)

        street.emulator._spoilt = noted  # type: ignore[method-assign]
        await street.seen(110, "a/m")
        assert not street.recorder.events
        assert (3, 1) in asked
        assert all(addr == 3 or not addr <= 3 < addr + count for addr, count in asked)
        assert not any(addr <= 42 < addr + count for addr, count in asked)
