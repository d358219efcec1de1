"""What was kept for hours comes all at once: nobody else waits for it, and none of it is taken for the present."""

from __future__ import annotations

import asyncio
import resource
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from drivers.ocpp import codec
from drivers.ocpp.driver import Driver
from gateway.buffer import Buffer
from gateway.clock import SystemClock
from gateway.model import Lane
from gateway.status import Status
from gateway.testing import LoopClock, Recorder, make_link
from tests.drivers.ocpp.chargers import Charger, Gateway, connect, gateway, make_device, make_settings

if TYPE_CHECKING:
    from pathlib import Path

HOUR = 3_600_000
QUEUED = 1000


def meter(number: int, at: int, wh: int) -> dict[str, Any]:
    sampled = [{"value": str(wh)}, {"value": str(wh % 7000), "measurand": "Power.Active.Import", "unit": "W"}]
    return {
        "connectorId": 1,
        "transactionId": number,
        "meterValue": [{"timestamp": codec.iso(at), "sampledValue": sampled}],
    }


async def test_history_is_dated_back_and_the_present_stands(session: aiohttp.ClientSession) -> None:
    recorder, clock = Recorder(), LoopClock()
    device = make_device()
    async with gateway(recorder, devices=[device]) as running:
        now = LoopClock().start + 60_000
        charger = await connect(session, running)
        start = {"connectorId": 1, "idTag": "04A1B2C3", "meterStart": 0, "timestamp": codec.iso(now - 5 * HOUR)}
        number = (await charger.ask("StartTransaction", start))["transactionId"]
        await charger.ask("MeterValues", meter(number, now, 9000))
        for minute in range(30):
            await charger.ask("MeterValues", meter(number, now - 4 * HOUR + minute * 60_000, 100 + minute))
        old = {"connectorId": 1, "status": "Charging", "errorCode": "NoError", "timestamp": codec.iso(now - HOUR)}
        await charger.ask("StatusNotification", {**old, "status": "Available", "timestamp": codec.iso(now)})
        await charger.ask("StatusNotification", old)
        # A clock that nobody has set says nothing about age.
        await charger.ask("MeterValues", meter(number, 7000, 9100))
    status = Status("cab-1", clock, {"cs": [device]}, every={})
    status.note(recorder.records)
    live = [one for one in recorder.readings if one.device_time == now and one.value == 9000]
    history = [one for one in recorder.readings if one.device_time == now - 4 * HOUR]
    assert history
    assert all(live[0].at - one.at == pytest.approx(4 * HOUR, abs=5000) for one in history)
    newest = status.last("cp-1/evse/energy_import")
    assert newest is not None
    assert newest.value == 9100
    shown = status.last("cp-1/evse/connector_status")
    assert shown is not None
    assert shown.value in ("Available", None)  # None: it has left since
    assert [one.value for one in recorder.readings if one.point.endswith("connector_status")][:2] == [
        "Available", "Charging",
    ]  # fmt: skip


@pytest.mark.slow
async def test_500_chargers_are_answered_within_a_second_while_one_tells_1000_old_messages(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 4096)), hard))
    clock, loop = SystemClock(), asyncio.get_running_loop()
    devices = [make_device(f"cp-{number}/evse") for number in range(500)]
    buffer = Buffer(tmp_path, "cab-1", clock)
    await buffer.open()
    await buffer.lanes[Lane.BILLING].enrol({"city": "oldest"})  # what nobody waits for is swept away
    buffer.know([point for device in devices for point in device.points.values()])
    state, bound = buffer.state("link/cs/"), loop.create_future()
    settings = make_settings(security="0", authorise="open", tags=None)
    link = make_link(settings, devices, Recorder())
    driver = Driver(replace(link, clock=clock, state=state, bound=bound.set_result))
    running = [asyncio.create_task(driver.run(state.emit)), asyncio.create_task(buffer.run())]
    waits: list[float] = []
    replayed = asyncio.Event()

    async def ask(charger: Charger, action: str, payload: dict[str, Any]) -> Any:
        began = loop.time()
        answer = await charger.ask(action, payload)
        waits.append(loop.time() - began)
        return answer

    async def charge(charger: Charger, number: int) -> None:
        await asyncio.sleep(number / 100)
        start = {"connectorId": 1, "idTag": f"TAG{number}", "meterStart": 0, "timestamp": codec.iso(clock.wall())}
        transaction = (await ask(charger, "StartTransaction", start))["transactionId"]
        wh = 0
        while not replayed.is_set():
            wh += 10
            await ask(charger, "MeterValues", meter(transaction, clock.wall(), wh))
            try:
                async with asyncio.timeout(5):
                    await replayed.wait()
            except TimeoutError:
                pass

    async def replay(charger: Charger) -> None:
        began = clock.wall() - 10 * HOUR
        start = {"connectorId": 1, "idTag": "OLD", "meterStart": 0, "timestamp": codec.iso(began)}
        transaction = (await ask(charger, "StartTransaction", start))["transactionId"]
        for number in range(QUEUED):
            await ask(charger, "MeterValues", meter(transaction, began + number * 30_000, number))
        stop = {"meterStop": QUEUED, "timestamp": codec.iso(began + 9 * HOUR), "transactionId": transaction}
        await ask(charger, "StopTransaction", stop)
        replayed.set()

    reached = Gateway(driver, await bound, settings, devices, [])
    try:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            chargers = [await connect(session, reached, f"/cp-{number}") for number in range(500)]
            async with asyncio.timeout(120), asyncio.TaskGroup() as group:
                group.create_task(replay(chargers[0]))
                for number, charger in enumerate(chargers[1:]):
                    group.create_task(charge(charger, number))
            for charger in chargers:
                await charger.socket.close()
        lane = buffer.lanes[Lane.BILLING]
        kept = sum(block.count for block in await lane.read(1, lane.head - 1, 10**9))
    finally:
        for task in running:
            task.cancel()
            await asyncio.wait([task])
        await buffer.close()
    assert len(waits) > QUEUED + 2 * 499
    assert kept >= 2 * QUEUED + 2 * 499
    p99 = sorted(waits)[int(len(waits) * 0.99)]
    assert p99 < 1.0, f"p99 is {p99:.2f} s"
