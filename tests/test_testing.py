"""The jumping loop: days pass in seconds, and never over work that is under way."""

import asyncio
import time
from pathlib import Path

import pytest

from gateway.buffer import Buffer
from gateway.model import Event, Lane
from gateway.testing import JumpingLoop, LoopClock, jumped


def test_an_idle_day_takes_no_time() -> None:
    async def main() -> float:
        began = asyncio.get_running_loop().time()
        await asyncio.sleep(86_400)
        return asyncio.get_running_loop().time() - began

    started = time.monotonic()
    assert jumped(main()) == pytest.approx(86_400, abs=1)
    assert time.monotonic() - started < 5


def test_time_never_jumps_while_a_thread_works() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        rung: list[float] = []
        loop.call_later(3600, lambda: rung.append(loop.time()))
        began = loop.time()
        await asyncio.gather(*(asyncio.to_thread(time.sleep, seconds) for seconds in (0.02, 0.1)))
        assert rung == [], "the longest job ends first, an hour's timer after it"
        assert loop.time() - began < 60
        await asyncio.sleep(3601)
        assert len(rung) == 1

    jumped(main())


def test_time_never_jumps_over_a_commit(tmp_path: Path) -> None:
    """A card that takes 0.1 s for each commit; the lane's own timers, seconds to minutes away, wait for it."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, JumpingLoop)
        buffer = Buffer(tmp_path, "cab-017", LoopClock())
        await buffer.open()
        lane = buffer.lanes[Lane.EVENT]
        commit = lane._file.commit

        def slow(group: object) -> int:
            time.sleep(0.1)
            return commit(group)  # type: ignore[arg-type]

        lane._file.commit = slow  # type: ignore[method-assign]
        running = loop.create_task(buffer.run())
        for number in range(3):
            began = loop.time()
            await buffer.emit([Event("told", "cab-017", 0, str(number))], lane=Lane.EVENT)
            assert 0.1 <= loop.time() - began < 0.9, "the commit took what it takes, and nothing passed meanwhile"
            await asyncio.sleep(600)
        running.cancel()
        await asyncio.wait([running])
        await buffer.close()

    jumped(main())


def test_bytes_under_way_are_not_overtaken_by_a_time_out() -> None:
    async def main() -> None:
        async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while line := await reader.readline():
                writer.write(line)
            writer.close()

        async with await asyncio.start_server(echo, "127.0.0.1", 0) as server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            for number in range(500):
                writer.write(b"%d\n" % number)
                async with asyncio.timeout(0.5):
                    assert await reader.readline() == b"%d\n" % number
                await asyncio.sleep(60)
            writer.close()
            await writer.wait_closed()

    jumped(main())
