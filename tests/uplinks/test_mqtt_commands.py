"""Commands over MQTT: acknowledged when they are durable, and not before."""

from __future__ import annotations

import asyncio

from gateway.errors import StorageError
from gateway.model import Receipt
from tests.brokers import Broker
from tests.platforms import running, telemetry, until
from tests.uplinks.far_side import far_side, uplink


class Journal:
    """A `Receive` that remembers; `open` is when it is done."""

    def __init__(self) -> None:
        self.got: list[tuple[bytes, bool]] = []
        self.open = asyncio.Event()
        self.open.set()

    async def __call__(self, payload: bytes, retained: bool) -> None:
        self.got.append((payload, retained))
        await self.open.wait()


async def test_commands_come_once_and_are_told_from_retained_ones(broker: Broker) -> None:
    up, journal = uplink(broker), Journal()
    async with far_side(broker) as far:
        await far.command(b"kept", retain=True)
        async with running(up, journal):
            await until(lambda: journal.got)
            await far.command(b"fresh")
            await far.command(b"retained while we listen", retain=True)
            await until(lambda: len(journal.got) == 3)
    assert journal.got == [(b"kept", True), (b"fresh", False), (b"retained while we listen", True)]
    again = Journal()
    async with far_side(broker) as far, running(uplink(broker), again):
        await far.command(b"next")
        await until(lambda: again.got)
        assert again.got == [(b"next", False)], "what was journalled does not come again"


async def test_a_command_whose_journal_was_not_durable_comes_again(broker: Broker) -> None:
    up, journal = uplink(broker), Journal()
    journal.open.clear()
    async with far_side(broker) as far:
        async with running(up, journal):
            await far.command(b"limit")
            await until(lambda: journal.got)
        again = Journal()
        async with running(uplink(broker), again):
            await until(lambda: again.got)
        assert again.got == [(b"limit", False)]
        last = Journal()
        async with running(uplink(broker), last):
            await far.command(b"after")
            await until(lambda: last.got)
            assert last.got == [(b"after", False)]


async def test_a_journal_that_fails_leaves_the_command_with_the_broker(broker: Broker) -> None:
    async def refuse(payload: bytes, retained: bool) -> None:
        raise StorageError("The disk is full.")

    up, again = uplink(broker), Journal()
    async with far_side(broker) as far:
        async with running(up, refuse), asyncio.TaskGroup() as group:
            await far.command(b"limit")
            sending = group.create_task(up.send(telemetry(1)))
            await far.answer(await far.batch(), Receipt("9f2c", ((1, 50),)))
            assert await sending, "batches go on"
        async with running(uplink(broker), again):
            await until(lambda: again.got)
    assert again.got == [(b"limit", False)]


async def test_commands_wait_in_the_broker_for_a_gateway_that_is_away(broker: Broker) -> None:
    async with far_side(broker) as far:
        async with running(uplink(broker)):
            pass
        await far.command(b"limit")
        journal = Journal()
        async with running(uplink(broker), journal):
            await until(lambda: journal.got)
    assert journal.got == [(b"limit", False)]


async def test_a_slow_journal_does_not_delay_acknowledgements(broker: Broker) -> None:
    up, journal = uplink(broker), Journal()
    journal.open.clear()
    async with far_side(broker) as far, running(up, journal), asyncio.TaskGroup() as group:
        for n in range(30):
            await far.command(b"%d" % n)
        await until(lambda: journal.got)
        sending = group.create_task(up.send(telemetry(1)))
        await far.answer(await far.batch(), Receipt("9f2c", ((1, 50),)))
        assert (await sending).accepted == ((1, 50),)
        assert len(journal.got) == 1
