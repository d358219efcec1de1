"""Driver and emulated sensor over a pty: what arrives, what never does, and what is said."""

import asyncio
import resource
from typing import Any

import pytest

from drivers.serial import Profile, Settings, address
from drivers.serial.driver import Driver
from drivers.serial.emulator import Emulator, Fault
from gateway.errors import CommandError, ConfigError
from gateway.model import Command, Lane, Quality, Reading, Reason
from gateway.testing import JumpingLoop, Recorder, make_link


def good(recorder: Recorder) -> list[Reading]:
    return [reading for reading in recorder.readings if reading.quality is Quality.GOOD]


def said(recorder: Recorder, kind: str) -> list[str]:
    return [event.say for event in recorder.events if event.kind == kind]


async def test_what_the_sensor_sends_arrives_once_each(street: Any) -> None:
    async with street.running():
        await street.until(lambda recorder: len(recorder.readings) >= 40)
        street.emulator.fault("silence")
        await street.settles(lambda: len(good(street.recorder)) == street.emulator.produced()["lp-1/pm"])
    assert {reading.point for reading in street.recorder.readings} == {"lp-1/pm/pm25", "lp-1/pm/pm10"}
    assert all(5 < reading.value < 60 for reading in good(street.recorder))
    times = [reading.at for reading in street.recorder.readings if reading.point.endswith("pm25")]
    assert times == sorted(times)
    assert said(street.recorder, "device_up") == ["lp-1/pm sends Nova SDS011 frames."]
    assert street.failures == []


@pytest.mark.parametrize("fault", ["garbage", "split", "merged", "truncated"])
async def test_a_dirty_wire_costs_no_value(street: Any, fault: str) -> None:
    street.emulator.fault(fault)
    async with street.running():
        await street.until(lambda recorder: len(recorder.readings) >= 30)
        street.emulator.fault("silence")
        await street.settles(lambda: len(good(street.recorder)) == street.emulator.produced()["lp-1/pm"])
    assert all(5 < reading.value < 60 for reading in good(street.recorder))


async def test_a_damaged_frame_is_never_a_value(street: Any) -> None:
    street.emulator.fault("checksum")
    async with street.running():
        await street.until(lambda recorder: len(recorder.readings) >= 20)
        street.emulator.fault("silence")
        await street.settles(lambda: len(good(street.recorder)) == street.emulator.produced()["lp-1/pm"])


async def test_sync_inside_the_payload_is_no_number(street: Any) -> None:
    street.emulator.fault("sync_inside")
    async with street.running():
        await street.until(lambda recorder: len(recorder.readings) >= 20)
    for reading in street.recorder.readings:
        if reading.point.endswith("pm25"):
            assert (reading.value, reading.quality, reading.reason) == (None, Quality.BAD, Reason.OUT_OF_RANGE)
        else:
            assert reading.quality is Quality.GOOD


async def test_stuck_values_are_what_the_sensor_says(street: Any) -> None:
    street.emulator.fault("stuck")
    async with street.running():
        await street.until(lambda recorder: len(good(recorder)) >= 10)
    assert len({(reading.point, reading.value) for reading in good(street.recorder)}) == 2


async def test_unplugged_and_plugged_back_under_the_same_name(street: Any) -> None:
    async with street.running():
        await street.until(lambda recorder: len(good(recorder)) >= 4)
        street.emulator.fault("unplug")
        await street.until(lambda recorder: recorder.readings[-1].reason == Reason.COMM_FAILURE, 1)
        await street.settles(lambda: len(street.failures) >= 2)
        bad = [reading for reading in street.recorder.readings if reading.quality is Quality.BAD]
        assert [(reading.value, reading.reason) for reading in bad] == [(None, Reason.COMM_FAILURE)] * 2
        before = resource.getrusage(resource.RUSAGE_SELF)
        street.pause = 1.0
        await asyncio.sleep(1)
        after = resource.getrusage(resource.RUSAGE_SELF)
        assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.2
        street.pause = 0.05
        street.emulator.fault(None)
        count = len(good(street.recorder))
        await street.until(lambda recorder: len(good(recorder)) > count, 3)
    assert "is unplugged" in street.failures[0]
    assert "is not there" in street.failures[1]


async def test_silence_is_said_once_and_ends(street: Any) -> None:
    async with street.running():
        await street.until(lambda recorder: len(good(recorder)) >= 4)
        street.emulator.fault("silence")
        await street.until(lambda recorder: said(recorder, "device_down") != [])
        await asyncio.sleep(0.7)
        assert said(street.recorder, "device_down") == ["`line`: not one byte from lp-1/pm. Check power and the plug."]
        assert [reading.reason for reading in street.recorder.readings[-2:]] == [Reason.COMM_FAILURE] * 2
        assert sum(reading.reason == Reason.COMM_FAILURE for reading in street.recorder.readings) == 2
        count = len(good(street.recorder))
        street.emulator.fault(None)
        await street.until(lambda recorder: len(said(recorder, "device_up")) == 2)
        await street.until(lambda recorder: len(good(recorder)) > count)
    events = [lane for lane, records, _ in street.recorder.calls if not isinstance(records[0], Reading)]
    assert set(events) == {Lane.EVENT}
    assert street.failures == []


async def complaint(street: Any, serving: Any, stream: bytes) -> Recorder:
    """What the driver says of a serial server that sends `stream` every 20 ms."""

    async def speak(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(stream)
            await writer.drain()
            await asyncio.sleep(0.02)

    async with serving(speak) as port, asyncio.TaskGroup() as group:
        task = group.create_task(street.supervised(street.driver(f"tcp://127.0.0.1:{port}")))
        await street.until(lambda recorder: said(recorder, "device_down") != [])
        task.cancel()
    return street.recorder


async def test_bytes_of_another_sensor(street: Any, serving: Any) -> None:
    recorder = await complaint(street, serving, b"$WIMWV,052,R,01.0,M,A*3B\r\n")
    assert said(recorder, "device_down") == [
        "`line`: bytes arrive but no Nova SDS011 frame: wrong sensor, speed or wiring. Compare with the profile."
    ]
    more = recorder.events[0].more
    assert more["bytes"] > 26
    assert "24 57 49 4d" in more["last"]
    assert all(reading.value is None for reading in recorder.readings)


async def test_frames_that_all_arrive_damaged(street: Any, serving: Any) -> None:
    recorder = await complaint(street, serving, bytes.fromhex("aa c0 7b 00 c8 01 58 d9 00 ab"))
    (sentence,) = said(recorder, "device_down")
    assert "frames arrive damaged" in sentence
    assert "Check the cable and its ground." in sentence
    assert all(reading.value is None for reading in recorder.readings)


async def test_over_tcp_byte_by_byte(street: Any, serving: Any) -> None:
    async def trickle(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for byte in bytes.fromhex("aa c0 06 00 06 00 58 d9 3d ab aa c0 00 00 00 00 58 d9 31 ab"):
            writer.write(bytes([byte]))
            await asyncio.sleep(0.001)

    async with serving(trickle) as port, asyncio.TaskGroup() as group:
        task = group.create_task(street.supervised(street.driver(f"tcp://127.0.0.1:{port}")))
        await street.settles(lambda: street.failures)
        task.cancel()
    assert [reading.value for reading in street.recorder.readings[:4]] == [0.6, 0.6, 0.0, 0.0]
    assert "closed the connection" in street.failures[0]


ZERO = bytes.fromhex("aa c0 00 00 00 00 58 d9 31 ab")


def zeros(profile: Profile, device: dict[str, str], seconds: float, make: Any, serving: Any) -> Recorder:
    """What a driver emits of a serial server that sends zeros once a second, for so long in jumped time."""
    street = make(profile, **device)

    async def speak(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await asyncio.sleep(1)
            writer.write(ZERO)

    async def listen() -> None:
        async with serving(speak) as port, asyncio.TaskGroup() as group:
            task = group.create_task(street.supervised(street.driver(f"tcp://127.0.0.1:{port}")))
            await asyncio.sleep(seconds)
            task.cancel()

    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        runner.run(listen())
    return street.recorder


def test_zero_is_doubtful_while_warming_up_and_good_afterwards(sds011: Profile, make_street: Any, serving: Any) -> None:
    recorder = zeros(sds011, {}, 20.5, make_street, serving)
    pm25 = [reading for reading in recorder.readings if reading.point.endswith("pm25")]
    assert len(pm25) == 20
    assert {reading.value for reading in pm25} == {0.0}
    told = [(reading.quality, reading.reason) for reading in pm25]
    warm = told.index((Quality.GOOD, None))
    assert told[:warm] == [(Quality.UNCERTAIN, Reason.WARMING_UP)] * warm
    assert told[warm:] == [(Quality.GOOD, None)] * (20 - warm)
    assert warm in (14, 15)


def test_every_thins_but_a_change_of_quality_goes_at_once(sds011: Profile, make_street: Any, serving: Any) -> None:
    recorder = zeros(sds011, {"every": "30s"}, 305, make_street, serving)
    pm25 = [reading for reading in recorder.readings if reading.point.endswith("pm25")]
    told = [(round((reading.at - pm25[0].at) / 1000), reading.quality) for reading in pm25]
    assert told[0] == (0, Quality.UNCERTAIN)
    assert told[1][1] is Quality.GOOD
    assert told[1][0] in (14, 15)
    assert [round(second / 30, 1) for second, _ in told[2:]] == list(range(1, 11))


def link_of(street: Any, devices: list[Any]) -> Any:
    return make_link(street.settings("/dev/none"), devices, street.recorder)


def test_one_sensor_per_wire(street: Any) -> None:
    with pytest.raises(ConfigError, match="`line` is for one sensor that pushes, not for lp-1/pm, lp-1/pm"):
        Driver(link_of(street, [street.device, street.device]))
    with pytest.raises(ConfigError, match="not for none"):
        Driver(link_of(street, []))
    assert address(street.device.settings) == address(street.device.settings) is not None


async def test_it_takes_no_commands(street: Any) -> None:
    command = Command("1", "desk", "set", "lp-1/pm", {}, 0, 0)
    with pytest.raises(CommandError, match="lp-1/pm only speaks") as raised:
        await Driver(link_of(street, [street.device])).execute(command)
    assert raised.value.code == "unknown_verb"


async def test_it_ends_when_told(street: Any) -> None:
    async with asyncio.timeout(1), street.running():
        await street.until(lambda recorder: recorder.readings != [])


async def test_the_emulator_knows_its_faults(street: Any) -> None:
    with pytest.raises(ValueError):
        street.emulator.fault("frogs")
    assert {"garbage", "split", "merged", "checksum", "truncated", "sync_inside", "silence", "unplug", "stuck"} == set(
        Fault
    )
    assert street.emulator.produced() == {"lp-1/pm": 0}
    assert isinstance(street.settings("/dev/none"), Settings)
    assert Emulator(street.settings("/dev/none"), [street.device], None).cadence == street.profile.cadence
