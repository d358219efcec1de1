"""What a charger costs: CPU per durable MeterValues, memory per socket, beside the bare `ocpp` package in one run.

Each server is a process of its own; the chargers are in this one. Ours is the driver on a real buffer: each answer
means that the values are on disk, with the state that makes them known again. Bare is the package's ChargePoint on
the same aiohttp sockets, which checks the message against its schema, answers it and keeps nothing. Times are CPU
seconds of the server's process, all threads; memory is resident set, per socket that has booted and is idle.

    python3 dev.py bench ocpp [--sockets 500] [--chargers 60] [--messages 50]
"""

import argparse
import asyncio
import contextlib
import json
import logging
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from gateway import collector

START = {"connectorId": 1, "idTag": "04A1B2C3", "meterStart": 1000, "timestamp": "2026-11-22T10:00:00Z"}
PAGE = os.sysconf("SC_PAGE_SIZE")
SERVERS = {
    "lampione, durable": "ours",
    "ocpp package, nothing kept": "bare",
}


def meter_values(number: int, transaction: int) -> dict[str, Any]:
    """Nine samples, about 1.3 kB, no two alike."""
    sampled = [
        {"value": f"{1000 + number}.0", "measurand": "Energy.Active.Import.Register", "unit": "Wh"},
        {"value": f"{7000 + number % 100}.0", "measurand": "Power.Active.Import", "unit": "W"},
        {"value": "64", "measurand": "SoC", "unit": "Percent", "location": "EV"},
    ]
    for phase in ("L1", "L2", "L3"):
        sampled.append({"value": "15.9", "measurand": "Current.Import", "unit": "A", "phase": phase})
        sampled.append({"value": "231.2", "measurand": "Voltage", "unit": "V", "phase": f"{phase}-N"})
    for sample in sampled:
        sample.setdefault("location", "Outlet")
        sample |= {"context": "Sample.Periodic", "format": "Raw"}
    at = f"2026-11-22T{10 + number // 3600:02}:{number // 60 % 60:02}:{number % 60:02}Z"
    return {"connectorId": 1, "transactionId": transaction, "meterValue": [{"timestamp": at, "sampledValue": sampled}]}


def spent() -> str:
    """CPU seconds and resident bytes of this process."""
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * PAGE
    return json.dumps([time.process_time(), resident])


async def tell(address: str) -> None:
    """Say where we listen, then what was spent each time that a line comes in; end with the input.

    Ours or the bare package: as `lampione run` is after its first minute.
    """
    collector.settle()
    print(address, flush=True)
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while await reader.readline():
        print(spent(), flush=True)


async def ours(sockets: int) -> None:
    """The driver of a site with so many chargers, on a buffer on disk."""
    from drivers import ocpp
    from drivers.ocpp.driver import Driver
    from gateway import profile
    from gateway.buffer import Buffer
    from gateway.clock import SystemClock
    from gateway.model import Device
    from gateway.ports import Link
    from gateway.site.read import shipped_profiles

    generic = profile.load(shipped_profiles() / "ocpp-generic.yaml", lambda _: ocpp.Profile)
    assert isinstance(generic, ocpp.Profile)
    settings = ocpp.DeviceSettings.model_validate({"link": "cs"})
    names = [f"cp-{number}/evse" for number in range(sockets)]
    devices = [Device(name, ocpp.points(name, generic, settings), {}, settings, generic) for name in names]
    clock = SystemClock()
    with tempfile.TemporaryDirectory(dir=os.environ.get("LAMPIONE_BENCH_DIR")) as folder:
        buffer = Buffer(Path(folder), "cab-1", clock)
        await buffer.open()
        buffer.know([point for device in devices for point in device.points.values()])
        state, bound = buffer.state("link/cs/"), asyncio.get_running_loop().create_future()
        listen = {"driver": "ocpp", "listen": "127.0.0.1:0", "security": "0", "authorise": "open"}
        link = Link(
            name="cs", settings=ocpp.Settings.model_validate(listen), devices=devices, clock=clock, state=state,
            alive=lambda _within: None, bound=bound.set_result, secret=str,
        )  # fmt: skip
        running = [asyncio.create_task(Driver(link).run(state.emit)), asyncio.create_task(buffer.run())]
        await tell(await bound)
        for task in running:
            task.cancel()
            await asyncio.wait([task])
        await buffer.close()


async def bare(_sockets: int) -> None:
    """The package's own loop, as its documentation has it."""
    from ocpp.routing import on  # type: ignore[import-untyped]
    from ocpp.v16 import ChargePoint, call_result  # type: ignore[import-untyped]

    logging.getLogger("ocpp").setLevel(logging.WARNING)  # frames at INFO would be its greatest cost

    class Wire:
        def __init__(self, socket: web.WebSocketResponse) -> None:
            self._socket = socket

        async def send(self, frame: str) -> None:
            await self._socket.send_str(frame)

        async def recv(self) -> str:
            return await self._socket.receive_str()

    class Point(ChargePoint):  # type: ignore[misc]
        @on("BootNotification")
        def boot(self, **_: Any) -> Any:
            return call_result.BootNotification(current_time="2026-11-22T10:00:00Z", interval=300, status="Accepted")

        @on("StartTransaction")
        def start_transaction(self, **_: Any) -> Any:
            return call_result.StartTransaction(transaction_id=1, id_tag_info={"status": "Accepted"})

        @on("MeterValues")
        def meter(self, **_: Any) -> Any:
            return call_result.MeterValues()

    async def serve(request: web.BaseRequest) -> web.StreamResponse:
        socket = web.WebSocketResponse(protocols=("ocpp1.6",), compress=False)
        await socket.prepare(request)
        with contextlib.suppress(TypeError):  # how receive_str says that the socket is closed
            await Point(request.path, Wire(socket)).start()
        return socket

    server = await asyncio.get_running_loop().create_server(web.Server(serve, access_log=None), "127.0.0.1", 0)
    await tell(f"127.0.0.1:{server.sockets[0].getsockname()[1]}")
    server.close()


class Server:
    """One server in its own process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def line(self) -> str:
        assert self._process.stdout
        return (await self._process.stdout.readline()).decode().strip()

    async def spent(self) -> tuple[float, int]:
        """CPU seconds, resident bytes."""
        assert self._process.stdin
        self._process.stdin.write(b"\n")
        seconds, resident = json.loads(await self.line())
        return seconds, resident


@contextlib.asynccontextmanager
async def started(kind: str, sockets: int) -> AsyncIterator[tuple[Server, str]]:
    command = [sys.executable, "-m", "bench.ocpp", "--serve", kind, "--sockets", str(sockets)]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe)
    server = Server(process)
    try:
        yield server, await server.line()
    finally:
        assert process.stdin
        process.stdin.close()
        await process.wait()


async def ask(socket: aiohttp.ClientWebSocketResponse, number: int, action: str, payload: dict[str, Any]) -> Any:
    """The answer to one call; a call of the server's own is not supported here."""
    await socket.send_json([2, str(number), action, payload])
    while True:
        answer = await socket.receive_json()
        if answer[0] == 2:
            await socket.send_json([4, answer[1], "NotSupported", "", {}])
        elif answer[1] == str(number):
            assert answer[0] == 3, answer
            return answer[2]


async def measure(kind: str, sockets: int, chargers: int, messages: int) -> tuple[float, float, float]:
    """(CPU ms per MeterValues, p99 of an answer in ms, KiB per idle socket)."""
    loop = asyncio.get_running_loop()
    boot = {"chargePointVendor": "V", "chargePointModel": "M"}
    waits: list[float] = []
    async with (
        started(kind, sockets) as (server, address),
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session,
    ):

        async def call_in(number: int) -> aiohttp.ClientWebSocketResponse:
            url = f"ws://{address}/cp-{number}"
            socket = await session.ws_connect(url, protocols=["ocpp1.6"], compress=0, autoping=True)
            await ask(socket, 0, "BootNotification", boot)
            return socket

        async def charge(socket: aiohttp.ClientWebSocketResponse) -> None:
            transaction = (await ask(socket, 0, "StartTransaction", START))["transactionId"]
            for number in range(1, messages + 1):
                began = loop.time()
                await ask(socket, number, "MeterValues", meter_values(number, transaction))
                waits.append(loop.time() - began)

        # The first ones pay for what is loaded once.
        first = [await call_in(number) for number in range(chargers)]
        await together(charge, first[:2])
        _, before = await server.spent()
        rest = [await call_in(number) for number in range(chargers, sockets)]
        _, after = await server.spent()
        per_socket = (after - before) / max(1, len(rest)) / 1024
        waits.clear()
        began, _ = await server.spent()
        await together(charge, first[2:])
        ended, _ = await server.spent()
        for socket in [*first, *rest]:
            await socket.close()
    return (ended - began) * 1000 / len(waits), sorted(waits)[int(len(waits) * 0.99)] * 1000, per_socket


async def together(act: Callable[[Any], Any], each: list[Any]) -> None:
    async with asyncio.TaskGroup() as group:
        for one in each:
            group.create_task(act(one))


async def compare(sockets: int, chargers: int, messages: int) -> None:
    print(f"{'server':28} {'CPU ms/MeterValues':>20} {'p99 answer ms':>15} {'KiB/socket':>12}")
    for name, kind in SERVERS.items():
        cpu, p99, memory = await measure(kind, sockets, chargers, messages)
        print(f"{name:28} {cpu:>20.3f} {p99:>15.1f} {memory:>12.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sockets", type=int, default=500)
    parser.add_argument("--chargers", type=int, default=60)
    parser.add_argument("--messages", type=int, default=50)
    parser.add_argument("--serve", choices=SERVERS.values(), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.serve:
        asyncio.run({"ours": ours, "bare": bare}[chosen.serve](chosen.sockets))
    else:
        asyncio.run(compare(chosen.sockets, chosen.chargers, chosen.messages))


if __name__ == "__main__":
    main()
