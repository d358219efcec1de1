"""What carries a line's bytes: a serial port's descriptor, or the raw TCP port of a serial server."""

import asyncio
import os
import socket
from typing import Protocol

from drivers.modbus.frames import NoAnswer
from gateway import tty
from gateway.errors import DeviceError, LinkError

ROOM = 4096
"""Bytes taken in at once."""
UNACKNOWLEDGED = 10_000
"""Milliseconds after which a serial server that takes no bytes is given up."""


class Listener(Protocol):
    """Who is told what happens on the line."""

    def hear(self, data: bytes) -> None:
        """Bytes have come."""

    def lost(self, transport: "Transport", error: DeviceError | LinkError) -> None:
        """It is gone; why."""


class Transport(Protocol):
    def write(self, data: bytes) -> None: ...

    def pause(self) -> None:
        """Read nothing until `resume`: what comes meanwhile is kept by the kernel."""

    def resume(self) -> None: ...

    def errors(self) -> int | None:
        """Framing and parity errors that the kernel has counted; None: it does not."""

    def abort(self) -> None: ...


class Device:
    """A port's descriptor, read when the loop says that it is ready."""

    def __init__(self, listener: Listener, opened: tty.Port) -> None:
        self._listener, self._port = listener, opened
        self._descriptor = opened.descriptor
        self._is_open = True
        self._counts_errors = opened.errors() is not None
        self.resume()

    def write(self, data: bytes) -> None:
        try:
            written = os.write(self._descriptor, data)
        except BlockingIOError:
            written = 0
        except OSError:
            self._give_up(self._unplugged())
            return
        if written < len(data):
            self._give_up(f"{self._port.path} takes no bytes. Unplug its adapter and plug it back.")

    def pause(self) -> None:
        if self._is_open:
            asyncio.get_running_loop().remove_reader(self._descriptor)

    def resume(self) -> None:
        if self._is_open:
            asyncio.get_running_loop().add_reader(self._descriptor, self._read)

    def errors(self) -> int | None:
        return self._port.errors() if self._counts_errors else None

    def abort(self) -> None:
        self.pause()
        self._is_open = False
        self._port.close()

    def _read(self) -> None:
        try:
            data = os.read(self._descriptor, ROOM)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self._listener.hear(data)
        else:
            self._give_up(self._unplugged())

    def _unplugged(self) -> str:
        return f"The adapter is unplugged: {self._port.path} hung up. Plug it back."

    def _give_up(self, why: str) -> None:
        self.abort()
        self._listener.lost(self, LinkError(why))


class Server(asyncio.BufferedProtocol):
    """The raw TCP port of a serial server."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._room = bytearray(ROOM)
        self._transport: asyncio.Transport

    def write(self, data: bytes) -> None:
        self._transport.write(data)

    def pause(self) -> None:
        self._transport.pause_reading()

    def resume(self) -> None:
        self._transport.resume_reading()

    def errors(self) -> int | None:
        return None

    def abort(self) -> None:
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        connection = transport.get_extra_info("socket")
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNACKNOWLEDGED)

    def get_buffer(self, sizehint: int) -> bytearray:  # noqa: ARG002 - asyncio's signature
        return self._room

    def buffer_updated(self, nbytes: int) -> None:
        self._listener.hear(bytes(self._room[:nbytes]))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        self._listener.lost(self, NoAnswer("the serial server closed the connection", "Check its power and cable."))
