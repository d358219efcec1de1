"""The wire: how it is opened, what it says when it is not there, and that a hang-up costs nothing."""

import asyncio
import contextlib
import os
import resource
import socket
import termios
import tty
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import serial

from drivers.serial import transport
from drivers.serial.settings import Line, Settings
from gateway.errors import LinkError

LINE = Line.model_validate({"baud": "9600", "format": "8N1"})


def at(port: str, **keys: str) -> Settings:
    return Settings.model_validate({"driver": "serial", "port": port, **keys})


@pytest.fixture
def pty() -> Iterator[tuple[int, str]]:
    master, slave = os.openpty()
    tty.setraw(slave)
    name = os.ttyname(slave)
    os.close(slave)
    yield master, name
    with contextlib.suppress(OSError):  # a test may have unplugged it
        os.close(master)


async def refused(settings: Settings) -> str:
    with pytest.raises(LinkError) as raised:
        async with transport.opened("air", settings, LINE):
            pass
    return str(raised.value)


@pytest.mark.parametrize(("keys", "speed"), [({}, termios.B9600), ({"baud": "19200"}, termios.B19200)])
async def test_the_speed_is_the_profiles_unless_the_site_says_another(
    pty: tuple[int, str], keys: dict[str, str], speed: int
) -> None:
    master, name = pty
    async with transport.opened("air", at(name, **keys), LINE):
        mode = termios.tcgetattr(master)
    assert mode[4:6] == [speed, speed]
    # With 0 an empty port would read as b"", as a hang-up does, whenever another program was faster.
    assert mode[6][termios.VMIN] == 1


@pytest.mark.parametrize(("line_format", "checked"), [("7E1", True), ("8O1", True), ("8N1", False)])
async def test_a_byte_that_fails_its_parity_is_no_byte_of_a_value(
    pty: tuple[int, str], line_format: str, checked: bool
) -> None:
    """All that protects an SDI-12 answer without a checksum. A pty has no parity: what the port is told is seen."""
    master, name = pty
    async with transport.opened("air", at(name, format=line_format), LINE):
        mode = termios.tcgetattr(master)
    assert bool(mode[0] & termios.INPCK) is checked
    assert not mode[0] & (termios.IGNPAR | termios.PARMRK), "it is neither left out, nor marked by another byte"


async def test_the_arguments_of_the_port(pty: tuple[int, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A pty forces 8 bits without parity: what a real port would be told is seen only here."""
    asked: list[dict[str, Any]] = []

    class Recording(serial.Serial):
        def __init__(self, **arguments: Any) -> None:
            asked.append(arguments)
            super().__init__(**arguments)

    monkeypatch.setattr(serial, "Serial", Recording)
    async with transport.opened("air", at(pty[1]), LINE):
        pass
    async with transport.opened("air", at(pty[1], baud="4800", format="7E2"), LINE):
        pass
    async with transport.opened("air", at(pty[1]), LINE.model_copy(update={"flow": "rts_cts"})):
        pass
    async with transport.opened("air", at(pty[1]), LINE.model_copy(update={"flow": "xon_xoff"})):
        pass
    shown = [(one["baudrate"], one["bytesize"], one["parity"], one["stopbits"], one["exclusive"]) for one in asked]
    assert shown == [(9600, 8, "N", 1, True), (4800, 7, "E", 2, True), *[(9600, 8, "N", 1, True)] * 2]
    assert [(one["rtscts"], one["xonxoff"]) for one in asked] == [(False, False)] * 2 + [(True, False), (False, True)]


async def test_bytes_go_both_ways(pty: tuple[int, str]) -> None:
    master, name = pty
    async with transport.opened("air", at(name), LINE) as wire, asyncio.timeout(5):
        os.write(master, b"\x00\x03\x04\x11\x13\x0a\x0d\xff")
        assert await wire.read() == b"\x00\x03\x04\x11\x13\x0a\x0d\xff"
        await wire.write(b"\x0a\x0d\x11", 1)
        assert os.read(master, 10) == b"\x0a\x0d\x11"


async def test_what_came_before_we_opened_is_not_ours(pty: tuple[int, str]) -> None:
    master, name = pty
    os.write(master, b"old")
    async with transport.opened("air", at(name), LINE) as wire, asyncio.timeout(5):
        os.write(master, b"new")
        assert await wire.read() == b"new"


async def test_a_blocked_write_gives_up_at_its_deadline(pty: tuple[int, str]) -> None:
    """pyserial's own write() never comes back from this, and close() would wait half a minute."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    with pytest.raises(LinkError, match="takes no bytes"):
        async with transport.opened("air", at(pty[1]), LINE) as wire:
            await wire.write(bytes(1_000_000), 0.2)
    assert loop.time() - began < 1


async def test_a_port_that_is_not_there() -> None:
    path = "/dev/serial/by-id/usb-1a86_USB_Serial-if00-port0"
    said = await refused(at(path))
    assert said == f"The adapter for `air` is not there: {path} does not exist. Plug it in."


async def test_a_port_that_somebody_holds(pty: tuple[int, str]) -> None:
    program = (
        "import sys, serial; port = serial.Serial(sys.argv[1], exclusive=True); print(flush=True); sys.stdin.read()"
    )
    holder = await asyncio.create_subprocess_exec(
        "python3", "-c", program, pty[1], stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert holder.stdout
    async with asyncio.timeout(10):
        await holder.stdout.readline()
    said = await refused(at(pty[1]))
    assert said == f"{pty[1]} for `air` is held by python3 (pid {holder.pid}). Stop it."
    await holder.communicate(b"")


async def test_a_port_that_another_link_holds(pty: tuple[int, str]) -> None:
    async with transport.opened("one", at(pty[1]), LINE):
        assert f"held by another link of this gateway (pid {os.getpid()})" in await refused(at(pty[1]))


@pytest.mark.parametrize("path", ["/dev/null", "/tmp"])
async def test_what_is_no_port(path: str) -> None:
    assert await refused(at(path)) == (
        f"{path} for `air` is not a serial port. Write one that `ls /dev/serial/by-id` shows."
    )


async def burnt(over: float) -> float:
    """CPU seconds that this process uses while it waits."""
    before = resource.getrusage(resource.RUSAGE_SELF)
    await asyncio.sleep(over)
    after = resource.getrusage(resource.RUSAGE_SELF)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


async def to_the_end(wire: transport.Wire) -> None:
    async with asyncio.timeout(5):
        while True:
            await wire.read()


async def test_a_hang_up_is_said_and_costs_no_time(pty: tuple[int, str]) -> None:
    master, name = pty
    async with transport.opened("air", at(name), LINE) as wire:
        os.write(master, b"last words")
        await asyncio.sleep(0.01)
        os.close(master)
        with pytest.raises(LinkError, match=r"is unplugged: .* hung up\. Plug it back"):
            await to_the_end(wire)
        assert await burnt(0.3) < 0.1


def descriptors() -> set[str]:
    return {path.name for path in Path("/proc/self/fd").iterdir()}


async def test_a_descriptor_is_closed_when_done(pty: tuple[int, str]) -> None:
    before = descriptors()
    for _ in range(3):
        async with transport.opened("air", at(pty[1]), LINE):
            pass
    assert descriptors() == before


async def test_a_serial_server_that_trickles(serving: Any) -> None:
    async def trickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for byte in b"trickle":
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0.002)
        assert await reader.readexactly(2) == b"ok"

    async with (
        serving(trickle) as port,
        asyncio.timeout(5),
        transport.opened("air", at(f"tcp://127.0.0.1:{port}"), LINE) as wire,
    ):
        assert isinstance(wire, transport.StreamWire)
        link = wire._writer.get_extra_info("socket")
        assert link.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        received = b""
        while len(received) < 7:
            received += await wire.read()
        assert received == b"trickle"
        await wire.write(b"ok", 1)
        with pytest.raises(LinkError, match=r"closed the connection: tcp://127.0.0.1:"):
            await wire.read()


async def test_a_serial_server_that_is_not_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    said = await refused(at(f"tcp://127.0.0.1:{port}"))
    assert said == (
        f"The serial server for `air` cannot be reached: tcp://127.0.0.1:{port}: Connection refused. "
        "Check its power and its port."
    )
