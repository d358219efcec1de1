"""What a port is called, why it does not open, and what is not loaded without one."""

from __future__ import annotations

import asyncio
import errno
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from gateway import tty
from gateway.diagnostic import Mistake
from gateway.errors import LinkError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("port", ["/dev/serial/by-id/usb-FTDI_A1", "tcp://127.0.0.1:4001", "tcp://[::1]:4001"])
def test_a_port_is_a_device_or_a_serial_server(port: str) -> None:
    assert tty.checked(port) == port
    assert tty.is_server(port) == port.startswith("tcp")


@pytest.mark.parametrize("port", ["COM3", "tcp://pole", "tcp://:4001", "tcp://pole:99999", "tcp://pole:1/x"])
def test_anything_else_is_a_mistake(port: str) -> None:
    with pytest.raises(Mistake) as raised:
        tty.checked(port)
    assert raised.value.code == "bad_port"
    assert "/dev/serial/by-id/" in raised.value.fix


def test_sentences_that_root_never_sees(tmp_path: Path) -> None:
    file = str(tmp_path / "ttyUSB0")
    for error, sentence in (
        (PermissionError(errno.EACCES, "no"), "Type `sudo usermod -aG dialout "),
        (OSError(errno.EIO, "io"), "Unplug its adapter and plug it back."),
        (ValueError("Invalid baud rate: 12345"), "cannot be set to 12345 Bd, 8N1. Choose a speed"),
        (OSError(errno.ENODEV, "gone"), "Plug it in."),
    ):
        assert sentence in tty.why_not_open("air", file, error, "12345 Bd, 8N1")


async def test_a_serial_server_that_nobody_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    async def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", unknown)
    with pytest.raises(LinkError, match=r"has no address: tcp://pole:4001\. Check the name\."):
        await tty.connected("air", "tcp://pole:4001", asyncio.Protocol)


def test_modbus_tcp_alone_loads_nothing_of_serial_ports() -> None:
    """Memory: a gateway whose meters speak TCP does not pay for pyserial."""
    program = """
import sys
from drivers import modbus
from drivers.modbus.driver import Driver
from gateway.testing import Recorder, make_link
Driver(make_link(modbus.Settings.model_validate({"driver": "modbus", "host": "h"}), [], Recorder()))
print(sorted({"serial", "termios", "drivers.modbus.line"} & set(sys.modules)))
"""
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert loaded == "[]\n"
