"""Timers on a punctual loop: never early, and not late by what epoll rounds up."""

from __future__ import annotations

import asyncio
import socket

from gateway import punctual


def test_a_short_sleep_ends_on_time() -> None:
    """epoll would make 2 ms of each; the best of many shows what the loop does, the others what the machine does."""

    async def late(seconds: float) -> float:
        loop = asyncio.get_running_loop()
        due = loop.time() + seconds
        await asyncio.sleep(seconds)
        return loop.time() - due

    async def main() -> list[float]:
        return [await late(0.0013) for _ in range(30)]

    found = punctual.run(main())
    assert min(found) >= 0
    assert min(found) < 0.0005


def test_what_is_ready_ends_a_short_wait() -> None:
    async def main() -> list[str]:
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        happened: list[str] = []
        done = loop.create_future()
        loop.add_reader(ours, lambda: happened.append(ours.recv(9).decode()))
        loop.call_later(0.09, done.set_result, None)
        await loop.run_in_executor(None, theirs.send, b"heard")
        await done
        happened.append("timer")
        loop.remove_reader(ours)
        ours.close()
        theirs.close()
        return happened

    assert punctual.run(main()) == ["heard", "timer"]
