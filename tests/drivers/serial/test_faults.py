"""The eleven faults that break asyncio's serial layers, one test each: no hung loop, no busy loop, a clean re-open.

The list is that of a comparison of pyserial-asyncio, its -fast fork, serialx and pymodbus's transport on a pty.
"""

import asyncio
import contextlib
import os
import resource
import tty
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from drivers.serial import transport
from drivers.serial.settings import Line, Settings
from gateway.errors import LinkError

LINE = Line.model_validate({"baud": "9600"})


def at(port: str) -> Settings:
    return Settings.model_validate({"driver": "serial", "port": port})


def a_pty() -> tuple[int, str]:
    master, slave = os.openpty()
    tty.setraw(slave)
    name = os.ttyname(slave)
    os.close(slave)
    return master, name


@pytest.fixture
def pty() -> Iterator[tuple[int, str]]:
    master, name = a_pty()
    yield master, name
    with contextlib.suppress(OSError):
        os.close(master)


@asynccontextmanager
async def turning() -> AsyncIterator[list[float]]:
    """The longest time, in seconds, that the loop did not turn."""
    loop, longest = asyncio.get_running_loop(), [0.0]

    async def turn() -> None:
        while True:
            before = loop.time()
            await asyncio.sleep(0.01)
            longest[0] = max(longest[0], loop.time() - before)

    task = loop.create_task(turn())
    try:
        yield longest
    finally:
        task.cancel()


async def burnt(over: float) -> float:
    before = resource.getrusage(resource.RUSAGE_SELF)
    await asyncio.sleep(over)
    after = resource.getrusage(resource.RUSAGE_SELF)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


async def to_the_end(wire: transport.Wire) -> None:
    async with asyncio.timeout(20):
        while True:
            await wire.read()


async def gone(wire: transport.Wire) -> float:
    """Seconds until a read says that the wire is gone."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    with pytest.raises(LinkError):
        await to_the_end(wire)
    return loop.time() - began


async def test_01_a_hang_up_is_noticed_at_once(pty: tuple[int, str]) -> None:
    async with transport.opened("air", at(pty[1]), LINE) as wire:
        os.close(pty[0])
        assert await gone(wire) < 0.5


async def test_02_after_a_hang_up_no_loop_is_busy(pty: tuple[int, str]) -> None:
    async with transport.opened("air", at(pty[1]), LINE) as wire:
        reading = asyncio.create_task(wire.read())
        await asyncio.sleep(0.01)
        os.close(pty[0])
        with pytest.raises(LinkError):
            await reading
        assert await burnt(0.4) < 0.1


async def test_03_a_blocked_write_goes_on_when_the_peer_reads_again(pty: tuple[int, str]) -> None:
    master, name = pty
    sent = bytes(range(256)) * 200
    async with transport.opened("air", at(name), LINE) as wire, asyncio.timeout(10):
        writing = asyncio.create_task(wire.write(sent, 5))
        await asyncio.sleep(0.05)
        assert not writing.done()
        os.set_blocking(master, False)
        received = b""
        while len(received) < len(sent):
            with contextlib.suppress(BlockingIOError):
                received += os.read(master, 65536)
            await asyncio.sleep(0)
        await writing
        assert received == sent
        assert await burnt(0.3) < 0.1, "and then it is quiet"


async def test_04_a_buffer_that_is_exactly_full_hangs_no_loop(pty: tuple[int, str]) -> None:
    """pyserial's own write() never comes back here (pyserial #280)."""
    async with turning() as longest, transport.opened("air", at(pty[1]), LINE) as wire:
        for _ in range(3):
            with contextlib.suppress(LinkError):
                while True:
                    await wire.write(b"x" * 512, 0.05)
    assert longest[0] < 1.0


async def test_05_a_second_opening_is_refused(pty: tuple[int, str]) -> None:
    async with transport.opened("air", at(pty[1]), LINE):
        with pytest.raises(LinkError, match="is held by"):
            async with transport.opened("air", at(pty[1]), LINE):
                pass


async def test_06_it_opens_again_by_its_stable_name(tmp_path: Path) -> None:
    name = tmp_path / "by-id"
    for word in (b"one", b"two"):
        master, slave = a_pty()
        name.unlink(missing_ok=True)
        name.symlink_to(slave)
        async with transport.opened("air", at(str(name)), LINE) as wire, asyncio.timeout(5):
            os.write(master, word)
            assert await wire.read() == word
            os.close(master)
            await gone(wire)


async def test_07_a_read_under_way_raises_when_the_wire_goes(pty: tuple[int, str]) -> None:
    async with transport.opened("air", at(pty[1]), LINE) as wire, asyncio.timeout(5):
        reading = asyncio.create_task(wire.read())
        await asyncio.sleep(0.01)
        os.close(pty[0])
        with pytest.raises(LinkError, match="hung up"):
            await reading
        with pytest.raises(LinkError, match="hung up"):
            await wire.read()
        with pytest.raises(LinkError, match="hung up"):
            await wire.write(b"x", 1)


async def test_08_a_serial_server_is_a_wire_like_any_other(serving: Any) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readexactly(4))
        await writer.drain()

    async with (
        serving(echo) as port,
        transport.opened("air", at(f"tcp://127.0.0.1:{port}"), LINE) as wire,
        asyncio.timeout(5),
    ):
        await wire.write(b"ping", 1)
        received = b""
        while len(received) < 4:
            received += await wire.read()
        assert received == b"ping"


async def test_09_a_serial_server_that_ends_is_noticed_at_once(serving: Any) -> None:
    async def end(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with serving(end) as port, transport.opened("air", at(f"tcp://127.0.0.1:{port}"), LINE) as wire:
        assert await gone(wire) < 1


async def test_10_closing_does_not_wait_for_a_stuck_peer(pty: tuple[int, str]) -> None:
    loop = asyncio.get_running_loop()
    async with transport.opened("air", at(pty[1]), LINE) as wire:
        with pytest.raises(LinkError, match="takes no bytes"):
            await wire.write(bytes(200_000), 0.1)
        began = loop.time()
    assert loop.time() - began < 1


READER = "import os, sys; fd = os.open(sys.argv[1], os.O_RDWR | os.O_NOCTTY); print(flush=True); sys.stdin.read()"
THIEF = (
    "import os, sys; fd = os.open(sys.argv[1], os.O_RDWR | os.O_NOCTTY); print(flush=True)\nwhile True: os.read(fd, 1)"
)


@asynccontextmanager
async def another(program: str, port: str) -> AsyncIterator[int]:
    """A program that asks for no lock, as gpsd or a getty; its process id."""
    process = await asyncio.create_subprocess_exec(
        "python3", "-c", program, port, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout
    try:
        async with asyncio.timeout(10):
            await process.stdout.readline()
        yield process.pid
    finally:
        process.kill()
        await process.communicate()


async def test_11_a_second_reader_that_was_there_before_is_said(pty: tuple[int, str]) -> None:
    async with another(READER, pty[1]) as pid:
        with pytest.raises(LinkError) as raised:
            async with transport.opened("air", at(pty[1]), LINE):
                pass
    sentence = f"{pty[1]} for `air` is also read by python3 (pid {pid}): each loses bytes to the other. Stop it."
    assert str(raised.value) == sentence


async def test_11_a_second_reader_that_comes_later_is_said(pty: tuple[int, str]) -> None:
    master, name = pty
    async with transport.opened("air", at(name), LINE) as wire, another(THIEF, name) as pid:

        async def speak() -> None:
            while True:
                os.write(master, b"x")
                await asyncio.sleep(0.001)

        speaking = asyncio.create_task(speak())
        with pytest.raises(LinkError, match=rf"is also read by python3 \(pid {pid}\)"):
            await to_the_end(wire)
        speaking.cancel()
