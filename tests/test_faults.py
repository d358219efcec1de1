"""The fault proxy does what it says, or the system tests behind it would show nothing."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from tests.faults import Fault, FaultProxy

PUBLISH, PUBACK = b"\x30\x05hello", b"\x40\x02\x00\x07"
LONG = b"\x30\x80\x10" + bytes(range(256)) * 8


@pytest.fixture
async def proxy() -> AsyncIterator[FaultProxy]:
    """Before a server that answers with what it was sent."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while chunk := await reader.read(4096):
                writer.write(chunk)
        except OSError:
            pass
        writer.transport.abort()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with FaultProxy.before(f"mqtt://127.0.0.1:{port}") as proxy:
        proxy.delay, proxy.rate = 0.1, 20_000
        yield proxy
    server.close()
    await server.wait_closed()


class Client:
    """One connection through the proxy."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def of(cls, proxy: FaultProxy) -> "Client":
        return cls(*await asyncio.open_connection("127.0.0.1", int(proxy.url.rpartition(":")[2])))

    async def ask(self, packet: bytes, within: float = 5.0) -> bytes:
        """As many bytes as were sent. TimeoutError: silence. IncompleteReadError: the other half is closed."""
        self.writer.write(packet)
        async with asyncio.timeout(within):
            return await self.reader.readexactly(len(packet))

    def close(self) -> None:
        self.writer.transport.abort()


@pytest.fixture
async def client(proxy: FaultProxy) -> AsyncIterator[Client]:
    client = await Client.of(proxy)
    assert await client.ask(PUBLISH) == PUBLISH
    yield client
    client.close()


async def test_a_delay_is_late_and_no_slower(proxy: FaultProxy, client: Client) -> None:
    await proxy.have(Fault.DELAY)
    began = time.monotonic()
    for _ in range(5):
        client.writer.write(PUBLISH)
        await asyncio.sleep(0.01)
    assert await client.reader.readexactly(5 * len(PUBLISH)) == PUBLISH * 5
    assert 2 * proxy.delay <= time.monotonic() - began < 5 * 2 * proxy.delay


async def test_a_trickle_is_slow_and_whole(proxy: FaultProxy, client: Client) -> None:
    await proxy.have(Fault.TRICKLE)
    began = time.monotonic()
    assert await client.ask(LONG) == LONG
    assert time.monotonic() - began >= len(LONG) / proxy.rate


async def test_what_a_black_hole_has_had_is_gone_for_ever(proxy: FaultProxy, client: Client) -> None:
    await proxy.have(Fault.BLACK_HOLE)
    fresh = await Client.of(proxy)
    for each in (client, fresh):
        with pytest.raises(TimeoutError):
            await each.ask(PUBLISH, within=0.1)
    await proxy.have(Fault.NONE)
    for each in (client, fresh):
        with pytest.raises(TimeoutError):
            await each.ask(PUBLISH, within=0.1)
    fresh.close()
    later = await Client.of(proxy)
    assert await later.ask(PUBLISH) == PUBLISH
    later.close()


async def test_a_reset_is_one_now_and_for_new_connections(proxy: FaultProxy, client: Client) -> None:
    await proxy.have(Fault.RESET)
    with pytest.raises(ConnectionResetError):
        await client.ask(PUBLISH)
    with pytest.raises(ConnectionResetError):
        await (await Client.of(proxy)).ask(PUBLISH)


async def test_a_refused_connection_is_refused(proxy: FaultProxy, client: Client) -> None:
    await proxy.have(Fault.REFUSE)
    with pytest.raises(ConnectionResetError):
        await client.ask(PUBLISH)
    with pytest.raises(ConnectionRefusedError):
        await Client.of(proxy)
    await proxy.have(Fault.NONE)
    again = await Client.of(proxy)
    assert await again.ask(PUBLISH) == PUBLISH
    again.close()


async def test_a_half_closed_connection_still_listens(proxy: FaultProxy, client: Client) -> None:
    await proxy.have(Fault.HALF_CLOSE)
    assert await client.reader.read() == b""
    client.writer.write(PUBLISH)
    await client.writer.drain()


async def test_only_a_puback_is_swallowed_however_the_bytes_come(proxy: FaultProxy, client: Client) -> None:
    await proxy.have(Fault.SWALLOW_PUBACK)
    for byte in PUBACK + LONG + PUBACK + PUBLISH:
        client.writer.write(bytes([byte]))
        await client.writer.drain()
    async with asyncio.timeout(5):
        assert await client.reader.readexactly(len(LONG + PUBLISH)) == LONG + PUBLISH
    assert proxy.swallowed == 2
    await proxy.have(Fault.NONE)
    assert await client.ask(PUBACK) == PUBACK
