"""A real port under a line: how it is set, that it goes and comes back, who else has it, and what its kernel counts."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import re
import socket
import struct
import sys
import tty as terminal
from pathlib import Path
from typing import Any

import pytest

from drivers.modbus.frames import NoAnswer
from drivers.modbus.line import Line
from gateway import tty
from gateway.errors import LinkError
from gateway.supervise import Watch, supervise

from .conftest import SELF_IDENTIFYING, Street, make_device, make_settings


@pytest.mark.parametrize(("away", "refusals"), [(0.1, []), (5.0, ["Not allowed yet."]), (7200.0, ["Not allowed yet."])])
async def test_unplugged_and_back_under_the_same_name(
    away: float, refusals: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The device file is a new one, whose rights come a moment later; the name in /dev/serial/by-id is the same."""
    street = Street([make_device("a/m", 1, SELF_IDENTIFYING)], wire="pty")
    await street.start()
    said: list[str] = []

    async def down(sentence: str) -> None:
        said.append(sentence)

    driving = supervise("line", lambda: street.driver.run(street.recorder), watch=Watch(), down=down)
    task, loop, opened = asyncio.create_task(driving), asyncio.get_running_loop(), tty.opened

    def opened_later(*how: Any) -> tty.Port:
        if late:
            raise LinkError(late.pop())
        return opened(*how)

    try:
        await street.seen(24, "a/m")
        street.emulator.fault("a/m", "unplug")
        await asyncio.sleep(away)
        late, plugged = [*refusals], loop.time()
        monkeypatch.setattr(tty, "opened", opened_later)
        street.emulator.fault("a/m", None)
        await street.seen(12, "a/m")
        assert loop.time() - plugged <= 3
        assert re.fullmatch(r"The adapter is unplugged: .*/port hung up\. Plug it back\.", said[0])
        assert said[1:] == refusals
        assert street.wrong() == []
    finally:
        task.cancel()
        await asyncio.wait({task})
        await street.emulator.stop()


async def test_a_port_is_set_as_the_site_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pty knows neither speed nor parity: what a real port would be told is seen here."""
    told: list[tuple[Any, ...]] = []

    def opened(*how: Any) -> tty.Port:
        told.append(how)
        raise LinkError("seen")

    monkeypatch.setattr(tty, "opened", opened)
    line = Line("line", make_settings({"port": "/dev/ttyUSB0", "baud": "19200", "format": "8E1"}), {})
    with pytest.raises(LinkError, match="seen"):
        await line.open()
    assert told == [("line", "/dev/ttyUSB0", 19200, "8E1")]


async def why_not(where: str) -> str:
    line = Line("line", make_settings({"port": where}), {})
    with pytest.raises(LinkError) as refused:
        await line.open()
    return str(refused.value)


async def test_why_a_port_cannot_be_had(tmp_path: Path) -> None:
    missing = "The adapter for `line` is not there: /dev/ttyUSB7 does not exist. Plug it in."
    assert await why_not("/dev/ttyUSB7") == missing
    assert "is not a serial port" in await why_not(str(tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as server:
        free = server.getsockname()[1]
    said = f"The serial server for `line` cannot be reached: tcp://127.0.0.1:{free}: Connection refused."
    assert (await why_not(f"tcp://127.0.0.1:{free}")).startswith(said)


async def test_who_holds_the_port() -> None:
    master, slave = pty.openpty()
    terminal.setraw(slave)
    name = os.ttyname(slave)
    hold = "import sys, time; f = open(sys.argv[1], 'rb'); print(1, flush=True); time.sleep(60)"
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", hold, name, stdout=-1)
    try:
        assert process.stdout
        await process.stdout.readline()
        said = await why_not(name)
        assert f"{name} for `line` is also read by python" in said
        assert said.endswith(f"(pid {process.pid}): each loses bytes to the other. Stop it.")
    finally:
        process.kill()
        await process.wait()
        os.close(master)
        os.close(slave)


async def test_the_kernel_counts_bytes_at_another_parity(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pty has no such counters: what a real port's kernel would say is put in its place."""
    counts = iter([10, 10, 14])
    real = fcntl.ioctl

    def ioctl(fd: int, request: int, *room: Any) -> Any:
        if request != 0x545D:
            return real(fd, request, *room)
        return struct.pack("20i", *[0] * 6, 3, 0, next(counts), *[0] * 11)

    monkeypatch.setattr(fcntl, "ioctl", ioctl)
    street = Street([make_device("a/m", 1, SELF_IDENTIFYING)], wire="pty")
    await street.start()
    line = Line("line", street.settings, {})
    try:
        street.emulator.fault("a/m", "crc")
        with pytest.raises(NoAnswer, match="another speed or parity, the adapter counts framing or parity errors"):
            await line.read(1, 4, 0, 4)
    finally:
        monkeypatch.undo()
        line.close()
        await street.emulator.stop()
