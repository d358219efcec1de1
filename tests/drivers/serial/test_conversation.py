"""Questions and answers on a wire: late answers, own echoes, breaks, and how long an answer may take."""

import asyncio
import os
import tty
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest
import serial

from drivers.serial import DeviceSettings, Profile, Settings, points, transport
from drivers.serial.codec import Heard
from drivers.serial.conversation import ALIVE, Conversation
from drivers.serial.dialogue import Meaning
from drivers.serial.sensor import Sensor
from gateway.model import Device
from gateway.testing import Recorder
from tests.drivers.serial.bus import load, true


def sensor_of(profile: Profile, address: str | None) -> Sensor:
    settings = DeviceSettings.model_validate({"link": "bus", "profile": "x-y", "address": address})
    device = Device("lp-1/x", points("lp-1/x", profile, settings), settings=settings, profile=profile)
    return Sensor(device, Recorder())


class Far:
    """The far end of the wire: what was heard there, and what is said."""

    def __init__(self, master: int) -> None:
        self._master = master
        self.heard = b""
        self._news = asyncio.Event()
        os.set_blocking(master, False)
        asyncio.get_running_loop().add_reader(master, self._hear)

    def _hear(self) -> None:
        self.heard += os.read(self._master, 4096)
        self._news.set()

    async def question(self, whole: bytes) -> None:
        """Until it was asked that."""
        while whole not in self.heard:
            self._news.clear()
            await self._news.wait()
        self.heard = b""

    def say(self, sent: bytes) -> None:
        os.write(self._master, sent)

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._master)
        os.close(self._master)


@asynccontextmanager
async def talking(
    profile: Profile, alive: Callable[[float], None] = lambda _: None, **keys: Any
) -> AsyncIterator[tuple[Conversation, Far]]:
    master, slave = os.openpty()
    tty.setraw(slave)
    far = Far(master)
    settings = Settings.model_validate({"driver": "serial", "port": os.ttyname(slave), **keys})
    try:
        async with asyncio.timeout(10), transport.opened("bus", settings, profile.line) as wire:
            yield Conversation(wire, profile, settings, alive), far
    finally:
        far.close()
        os.close(slave)


async def during(story: Coroutine[Any, Any, None], asking: Coroutine[Any, Any, Heard | None]) -> Heard:
    """What asking gives while the far end plays its story."""
    async with asyncio.TaskGroup() as group:
        group.create_task(story)
        heard = await asking
    assert heard
    return heard


def numbers(heard: Heard) -> list[float | str | None]:
    return [sample.value for sample in heard.samples.values()]


async def test_the_rest_of_a_late_answer_is_not_the_answer() -> None:
    """At 1200 baud a byte takes 8 ms: what is dropped before a question may go on behind it, and look whole."""
    profile = load("sdi12-generic")
    neighbour, command = sensor_of(profile, "2"), profile.commands["values"]

    async def story() -> None:
        for byte in b"2+3.4\r\n":
            await asyncio.sleep(0.008)
            far.say(bytes([byte]))
        await far.question(b"2D0!")
        far.say(b"2+9.9\r\n")

    async with talking(profile) as (talk, far):
        far.say(b"0+12+1")  # late, from sensor 0, and not whole yet
        assert numbers(await during(story(), talk.ask(neighbour, command))) == [9.9]


async def test_what_others_answer_is_not_the_answer() -> None:
    profile = load("sdi12-generic")

    async def story() -> None:
        await far.question(b"2D0!")
        far.say(b"0+12.5\r\n2+9.9\r\n")

    async with talking(profile) as (talk, far):
        heard = await during(story(), talk.ask(sensor_of(profile, "2"), profile.commands["values"]))
        assert numbers(heard) == [9.9]
        assert talk.evidence.refused == {"foreign": 1}


ANSWER = bytes.fromhex("01 10 01 f0 01 70 0a 02 23 10 00 64 00 16 00 00 bc 41 03 04 e4 04")


@pytest.mark.parametrize("cut", [0, 1, 8, 16])
async def test_our_own_echo_is_not_heard(cut: int) -> None:
    """Two-wire RS-485: what is sent comes back first, in as many pieces as it likes."""
    profile = load("lufft-umb")
    command = profile.commands["read_temperature"]

    async def story() -> None:
        await far.question(command.send)
        far.say(command.send[:cut])
        await asyncio.sleep(0.02)
        far.say(command.send[cut:] + ANSWER)

    async with talking(profile, echo="true") as (talk, far):
        heard = await during(story(), talk.ask(sensor_of(profile, "0x7001"), command))
        assert numbers(heard) == [23.5]
        assert not talk.evidence.refused
        assert talk.evidence.stray == 0


async def test_an_echo_that_nobody_announced_is_no_answer() -> None:
    profile = load("lufft-umb")
    profile = profile.model_copy(update={"dialogue": profile.dialogue.model_copy(update={"timeout": 0.1})})
    command = profile.commands["read_temperature"]

    async with talking(profile) as (talk, far), asyncio.TaskGroup() as group:
        asking = group.create_task(talk.ask(sensor_of(profile, "0x7001"), command))
        await far.question(command.send)
        far.say(command.send)
        assert await asking is None
        assert talk.evidence.refused == {"foreign": 1}


async def test_a_break_wakes_the_bus_before_each_question(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pty drops it, so what the port is told is looked at: low for 12 ms, high again, and only then the question."""
    loop = asyncio.get_running_loop()
    told: list[tuple[str, float]] = []

    class Recording(serial.Serial):
        def _update_break_state(self) -> None:
            told.append(("low" if self.break_condition else "high", loop.time()))

    monkeypatch.setattr(serial, "Serial", Recording)
    profile = true("sdi12-generic")

    async def story() -> None:
        await far.question(b"0M!")
        told.append(("asked", loop.time()))
        far.say(b"00002\r\n")

    async with talking(profile) as (talk, far):
        told.clear()
        await during(story(), talk.ask(sensor_of(profile, "0"), profile.commands["measure"]))
    assert [what for what, _ in told] == ["low", "high", "asked"]
    assert told[1][1] - told[0][1] >= 0.012


async def test_an_adapter_without_breaks_is_no_reason_to_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    class Without(serial.Serial):
        def _update_break_state(self) -> None:
            raise OSError(25, "Inappropriate ioctl for device")

    monkeypatch.setattr(serial, "Serial", Without)
    profile = true("sdi12-generic")

    async def story() -> None:
        await far.question(b"0D0!")
        far.say(b"0+9.9\r\n")

    async with talking(profile) as (talk, far):
        heard = await during(story(), talk.ask(sensor_of(profile, "0"), profile.commands["values"]))
        assert numbers(heard) == [9.9]


async def test_the_watchdog_is_told_how_long_a_sensor_wants_to_measure() -> None:
    promised: list[float] = []
    profile = load("sdi12-generic")

    async def story() -> None:
        await far.question(b"0M!")
        far.say(b"04512\r\n")
        await asyncio.sleep(0.05)
        far.say(b"0\r\n")

    async with talking(profile, promised.append) as (talk, far):
        heard = await during(story(), talk.ask(sensor_of(profile, "0"), profile.commands["measure"]))
    assert (heard.means, heard.wait) == (Meaning.WAIT, 451.0)
    assert max(promised) == ALIVE + 451
