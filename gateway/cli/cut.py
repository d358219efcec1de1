"""A cable that can be cut: a TCP relay on loopback between a gateway and its platform."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit, urlunsplit


class Cut:
    """Relays connections to `url` until `open`ed; then those that stand are reset and new ones refused."""

    def __init__(self, url: str) -> None:
        self._far = urlsplit(url)
        self._port = 0
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    @classmethod
    @asynccontextmanager
    async def before(cls, url: str) -> "AsyncIterator[Cut]":
        cut = cls(url)
        await cut.close()
        try:
            yield cut
        finally:
            await cut.open()

    @property
    def url(self) -> str:
        """`url` through the cable."""
        return urlunsplit(self._far._replace(netloc=f"127.0.0.1:{self._port}"))

    @property
    def is_open(self) -> bool:
        return self._server is None

    async def close(self) -> None:
        """Join the cable."""
        if self._server is None:
            self._server = await asyncio.start_server(self._relay, "127.0.0.1", self._port, reuse_address=True)
            self._port = self._server.sockets[0].getsockname()[1]

    async def open(self) -> None:
        """Cut it."""
        if self._server is not None:
            server, self._server = self._server, None
            server.close()
            for writer in list(self._writers):
                writer.transport.abort()
            await server.wait_closed()

    async def _relay(self, near_reader: asyncio.StreamReader, near: asyncio.StreamWriter) -> None:
        self._writers.add(near)
        try:
            far_reader, far = await asyncio.open_connection(self._far.hostname, self._far.port)
        except OSError:
            near.transport.abort()
            self._writers.discard(near)
            return
        self._writers.add(far)
        try:
            async with asyncio.TaskGroup() as ways:
                ways.create_task(_pump(near_reader, far))
                ways.create_task(_pump(far_reader, near))
        except* OSError:
            pass
        finally:
            for writer in (near, far):
                writer.transport.abort()
                self._writers.discard(writer)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while chunk := await reader.read(64 * 1024):
        writer.write(chunk)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()
