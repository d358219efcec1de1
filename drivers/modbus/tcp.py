"""One Modbus TCP connection behind a guard: what pymodbus accepts is checked to the last byte, and nothing is retried.

pymodbus 3.16 takes an answer of another function, of too few registers, or of transaction 0 as success, waits a
whole time-out when the peer closes, and answers a cancelled request with the next one's reply on some
transports. So each frame passes `find_answer` before pymodbus sees it, one request is under way at a time, and
after anything but a clean answer the connection is closed: a new one cannot carry an old reply.
"""

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Sequence

from pymodbus.client import AsyncModbusTcpClient
from pymodbus.exceptions import ModbusException
from pymodbus.pdu import ModbusPDU

from drivers.modbus.frames import READ_INPUT, WRITE_ONE, NoAnswer, Refused, find_answer
from gateway.errors import DeviceError, LinkError


class Tcp:
    """Opens when first asked, and again after a failure. One task uses it."""

    def __init__(self, host: str, port: int, timeout: float) -> None:
        self.peer = f"{host}:{port}"
        self._host, self._port, self._timeout = host, port, timeout
        self._connection: _Connection | None = None
        # Failures are said in our own sentences; pymodbus would print each of them a second time.
        logging.getLogger("pymodbus").setLevel(logging.CRITICAL)

    async def open(self) -> None:
        """Connect where there is no connection. LinkError: one sentence why not."""
        if self._connection and self._connection.client.connected:
            return
        self.close()
        self._connection = connection = _Connection(self._host, self._port, self._timeout)
        opened = False
        try:
            opened = await connection.client.connect()
            _honour_cancel()
        finally:
            if not opened:
                self.close()
        if not opened:
            raise LinkError(_unreachable(self.peer, connection.why))

    def close(self) -> None:
        if self._connection:
            self._connection.client.close()
            self._connection = None

    async def read(self, unit: int, fc: int, addr: int, count: int) -> list[int]:
        """`count` registers from `addr`. NoAnswer, Refused; LinkError where there is no connection to be had."""
        await self.open()
        assert self._connection
        client = self._connection.client
        call = client.read_input_registers if fc == READ_INPUT else client.read_holding_registers
        answer = await self._answer(lambda: call(addr, count=count, device_id=unit))
        return list(answer.registers)

    async def write(self, unit: int, fc: int, addr: int, words: Sequence[int]) -> None:
        """Write registers from `addr`: function 6 or 16. Errors as in `read`."""
        await self.open()
        assert self._connection
        client = self._connection.client
        if fc == WRITE_ONE:
            await self._answer(lambda: client.write_register(addr, words[0], device_id=unit))
        else:
            await self._answer(lambda: client.write_registers(addr, list(words), device_id=unit))

    async def _answer(self, call: Callable[[], Awaitable[ModbusPDU]]) -> ModbusPDU:
        clean = False
        try:
            async with asyncio.timeout(self._timeout):
                answer = await call()
            _honour_cancel()
            clean = True
        except Refused:
            clean = True
            raise
        except TimeoutError:
            raise NoAnswer(f"no answer within {self._timeout:g} s") from None
        except ModbusException as error:
            raise NoAnswer(f"no usable answer: {error}") from None
        else:
            return answer
        finally:
            if not clean:
                self.close()


class _Connection:
    """One pymodbus client for one connection, with its bytes watched both ways."""

    def __init__(self, host: str, port: int, timeout: float) -> None:
        self.asked = b""
        self.why: OSError | None = None
        self.client = AsyncModbusTcpClient(
            host,
            port=port,
            timeout=timeout + 1,  # the guard's own time-out comes first
            retries=0,
            reconnect_delay=0,
            trace_packet=self._packet,
            trace_connect=self._connected,
        )
        create = self.client.ctx.call_create

        async def noted() -> object:
            try:
                async with asyncio.timeout(timeout):
                    return await create()
            except OSError as error:
                self.why = error
                raise

        self.client.ctx.call_create = noted

    def _packet(self, sending: bool, data: bytes) -> bytes:
        """What pymodbus sends, and what it may see of what came: the answer to the last byte, or nothing yet."""
        if sending:
            self.asked = data
            return data
        try:
            return find_answer(self.asked, data) or b""
        except DeviceError as error:
            self._fail(error)
            return b""

    def _connected(self, connected: bool) -> None:
        if not connected:
            self._fail(NoAnswer("the connection was closed without an answer"))

    def _fail(self, error: DeviceError) -> None:
        waiting = self.client.ctx.response_future
        if self.asked and not waiting.done():
            waiting.set_exception(error)


def _honour_cancel() -> None:
    """asyncio.wait_for, which pymodbus uses, drops a cancellation that arrives together with the answer."""
    task = asyncio.current_task()
    if task and task.cancelling():
        raise asyncio.CancelledError


def _unreachable(peer: str, why: OSError | None) -> str:
    match why:
        case ConnectionRefusedError():
            return f"{peer} refuses the connection. Check the port, and that Modbus TCP is switched on there."
        case socket.gaierror():
            return f"{peer}: nobody knows this name. Check `host`."
        case TimeoutError() | None:
            return f"{peer} does not answer. Check its power, its cable and its address."
        case _:
            return f"{peer} cannot be reached ({why.strerror or why}). Check the cable and the network."
