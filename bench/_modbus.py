"""The two ends of a wire, each a process of its own, for bench/modbus.py: who answers, and who asks.

python -m bench._modbus --far tcp LISTENER | --far pty MASTER BAUD SECONDS
python -m bench._modbus --client NAME WHERE BAUD COUNT SECONDS     prints transactions, seconds and CPU seconds
"""

import asyncio
import os
import resource
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence

from drivers import modbus
from drivers.modbus import frames, rtu
from drivers.modbus.driver import Driver
from drivers.modbus.line import FAST, Line
from drivers.modbus.tcp import Tcp
from gateway import profile as profiles
from gateway import punctual
from gateway.model import Device, Json, Lane, Record
from gateway.testing import Recorder, make_link

PIECE = 16
"""Bytes after which a UART hands over what it has."""
LATE = 300e-6
"""Seconds that a process may wake up late."""
Figures = tuple[int, float, float]
"""Transactions, seconds, CPU seconds."""
MAIN = 0x4E
"""Before this address an SDM630 has what everybody reads."""


def character(baud: int) -> float:
    return 10 / baud


# The far end


def serve(listener: int) -> None:
    """Modbus TCP: every register holds its own address."""
    with socket.socket(fileno=listener) as listening:
        while True:
            connection, _ = listening.accept()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            heard = b""
            with connection:
                while more := _received(connection):
                    heard += more
                    while frame := frames.cut(heard):
                        heard = heard[len(frame) :]
                        asked = frames.parse(frame)
                        connection.sendall(
                            frames.answer(asked, [n & 0x7FF for n in range(asked.addr, asked.addr + asked.count)])
                        )


def _received(connection: socket.socket) -> bytes:
    try:
        return connection.recv(4096)
    except ConnectionResetError:  # the client is done
        return b""


def play(master: int, baud: int, thinks: float) -> None:
    """The far end of a line: bytes come in pieces, each when its last byte has travelled."""
    os.set_blocking(master, True)
    heard = b""
    while True:
        try:
            heard += os.read(master, 256)
        except OSError:  # nobody has opened it yet
            time.sleep(0.001)
            continue
        question, heard = rtu.cut_question(heard)
        if question is None:
            continue
        due = time.monotonic() + len(question) * character(baud) + thinks
        asked = frames.parse(rtu.unseal(question))
        answer = rtu.seal(frames.answer(asked, [n & 0x7FF for n in range(asked.addr, asked.addr + asked.count)]))
        for at in range(0, len(answer), PIECE):
            piece = answer[at : at + PIECE]
            due += len(piece) * character(baud)
            wait_until(due)
            os.write(master, piece)


def wait_until(due: float) -> None:
    """To the microsecond: how late this process wakes up is not the client's doing."""
    time.sleep(max(0.0, due - time.monotonic() - LATE))
    while time.monotonic() < due:
        pass


# The clients, each in a process of its own


class Counting(Recorder):
    """An emit that only counts."""

    count = 0

    async def __call__(
        self, records: Sequence[Record], *, lane: Lane = Lane.TELEMETRY, state: Mapping[str, Json] | None = None
    ) -> None:
        self.count += len(records)


def settings(where: str, baud: int) -> modbus.Settings:
    keys = {"host": "127.0.0.1", "port": where} if where.isdigit() else {"port": where, "baud": str(baud)}
    return modbus.Settings.model_validate({"driver": "modbus", "timeout": "2s", **keys})


def meters(count: int, end: int = 0x10000) -> list[Device]:
    """SDM630s that are polled as fast as the wire allows; nothing is asked but their points before `end`."""
    profile = profiles.load(profiles.shipped_profiles() / "eastron-sdm630.yaml", lambda _: modbus.Profile)
    profile = profile.model_copy(update={"match": (), "verify": (), "serial_number": None, "writes": {}})
    assert isinstance(profile, modbus.Profile)
    before = {slug: place for slug, place in profile.points.items() if place.addr < end}
    profile = profile.model_copy(update={"points": before})
    found = []
    for unit in range(1, count + 1):
        keys = modbus.DeviceSettings.model_validate({"link": "line", "address": unit, "every": "1ms"})
        points = modbus.points(f"m{unit}/m", profile, keys)
        found.append(Device(f"m{unit}/m", points, modbus.verbs(profile, keys), keys, profile))
    return found


async def ours(where: str, baud: int, count: int, seconds: float) -> Figures:
    """The wire alone: one block, again and again."""
    made = settings(where, baud)
    wire = Tcp(*made.endpoint, made.timeout) if made.host else Line("line", made, {})
    await wire.read(1, 4, 0, count)
    return await measured(seconds, lambda: wire.read(1, 4, 0, count))


async def driver(where: str, baud: int, count: int, seconds: float, end: int = 0x10000) -> Figures:
    """`count` meters, whole: scheduled, planned, decoded, handed over. Transactions are questions."""
    emit = Counting()
    polling = Driver(make_link(settings(where, baud), meters(count, end), emit))
    asked = 0
    read = polling._wire.read

    async def counted(unit: int, fc: int, addr: int, count: int) -> list[int]:
        nonlocal asked
        asked += 1
        return await read(unit, fc, addr, count)

    polling._wire.read = counted  # type: ignore[method-assign]
    task = asyncio.create_task(polling.run(emit))
    while asked < 4 * count:  # noqa: ASYNC110 - the turnarounds are measured
        await asyncio.sleep(0.05)
    before, began, used = asked, time.monotonic(), cpu()
    await asyncio.sleep(seconds)
    figures = asked - before, time.monotonic() - began, cpu() - used
    task.cancel()
    await asyncio.wait({task})
    return figures


async def cycle(where: str, baud: int, count: int, seconds: float) -> Figures:
    """The same, for what everybody reads."""
    return await driver(where, baud, count, seconds, MAIN)


async def pymodbus(where: str, baud: int, count: int, seconds: float) -> Figures:
    from pymodbus.client import AsyncModbusSerialClient, AsyncModbusTcpClient

    client = (
        AsyncModbusTcpClient("127.0.0.1", port=int(where))
        if where.isdigit()
        else AsyncModbusSerialClient(where, baudrate=baud)
    )
    await client.connect()
    gap = 0.0 if where.isdigit() else 3.5 * character(baud) if baud <= 19200 else FAST

    async def once() -> None:
        if gap:  # it keeps none by itself
            await asyncio.sleep(gap)
        answer = await client.read_input_registers(0, count=count, device_id=1)
        assert len(answer.registers) == count

    await once()
    return await measured(seconds, once)


async def measured(seconds: float, once: Callable[[], object]) -> Figures:
    done, began, used = 0, time.monotonic(), cpu()
    while time.monotonic() - began < seconds:
        try:
            await once()  # type: ignore[misc]
        except frames.NoAnswer:  # this machine stood still for a moment
            continue
        done += 1
    return done, time.monotonic() - began, cpu() - used


def cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


CLIENTS = {"ours": ours, "driver": driver, "cycle": cycle, "pymodbus": pymodbus}
"""Ours run on the loop that `lampione run` has."""


if __name__ == "__main__":
    what, *words = sys.argv[1:]
    if what == "--far":
        print("ready", flush=True)
        serve(int(words[1])) if words[0] == "tcp" else play(int(words[1]), int(words[2]), float(words[3]))
    else:
        run = asyncio.run if words[0] == "pymodbus" else punctual.run
        print(*run(CLIENTS[words[0]](words[1], int(words[2]), int(words[3]), float(words[4]))))
