"""Driver and emulated sensor over a pty: what arrives, what never does, and what is said."""

import asyncio
import resource
from collections.abc import Callable
from typing import Any

import pytest

from drivers.serial import Profile, Settings, address
from drivers.serial.driver import Driver
from drivers.serial.emulator import Emulator, Fault
from gateway.errors import CommandError, ConfigError, StorageError
from gateway.model import Command, Lane, Quality, Reading, Reason
from gateway.testing import Recorder, make_link
from tests.drivers.serial.bus import true


def good(recorder: Recorder) -> list[Reading]:
    return [reading for reading in recorder.readings if reading.quality is Quality.GOOD]


def said(recorder: Recorder, kind: str) -> list[str]:
    return [event.say for event in recorder.events if event.kind == kind]


async def test_what_the_sensor_sends_arrives_once_each(street: Any) -> None:
    async with street.running():
        await street.until(lambda recorder: len(recorder.readings) >= 20)
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
        await street.until(lambda recorder: len(recorder.readings) >= 14)
        street.emulator.fault("silence")
        await street.settles(lambda: len(good(street.recorder)) == street.emulator.produced()["lp-1/pm"])
    assert all(5 < reading.value < 60 for reading in good(street.recorder))


async def test_a_damaged_frame_is_never_a_value(street: Any) -> None:
    street.emulator.fault("checksum")
    async with street.running():
        await street.until(lambda recorder: len(recorder.readings) >= 10)
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


def test_zeros_of_a_sensor_that_warms_up_are_doubtful(slow_street: Any, jumped: Any) -> None:
    """It has no word for it: only the time since its first frame tells these zeros from those of clean air."""
    slow_street.emulator.fault("warm_up")

    async def story() -> None:
        async with slow_street.running():
            await asyncio.sleep(12)

    jumped(story())
    readings = slow_street.recorder.readings
    assert len(readings) >= 16
    told = {(reading.value, reading.quality, reading.reason) for reading in readings}
    assert told == {(0.0, Quality.UNCERTAIN, Reason.WARMING_UP)}


async def test_unplugged_and_plugged_back_under_the_same_name(street: Any) -> None:
    async with street.running():
        await street.until(lambda recorder: len(good(recorder)) >= 4)
        street.emulator.fault("unplug")
        await street.settles(lambda: len(street.failures) >= 2, 1)
        count = len(street.recorder.records)
        before = resource.getrusage(resource.RUSAGE_SELF)
        street.pause = 0.4
        await asyncio.sleep(0.4)
        after = resource.getrusage(resource.RUSAGE_SELF)
        assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.1
        assert len(street.recorder.records) == count, "a lost link is the supervisor's to tell"
        street.emulator.fault(None)
        await street.until(lambda recorder: len(recorder.records) > count, 3)
    assert len(good(street.recorder)) == len(street.recorder.readings)
    assert "is unplugged" in street.failures[0]
    assert "is not there" in street.failures[1]


def test_silence_is_said_once_and_ends(slow_street: Any, jumped: Any) -> None:
    recorder = slow_street.recorder

    async def story() -> None:
        async with slow_street.running():
            await slow_street.until(lambda recorder: len(good(recorder)) >= 4, 60)
            slow_street.emulator.fault("silence")
            await slow_street.until(lambda recorder: said(recorder, "device_down") != [], 60)
            last = good(recorder)[-1].at
            assert 9_900 <= recorder.events[-1].at - last <= 10_100
            await asyncio.sleep(40)
            assert len(said(recorder, "device_down")) == 1
            slow_street.emulator.fault(None)
            count = len(good(recorder))
            await slow_street.until(lambda recorder: len(good(recorder)) > count, 60)

    jumped(story())
    assert said(recorder, "device_down") == ["`line`: not one byte from lp-1/pm. Check power and the plug."]
    assert said(recorder, "device_up") == ["lp-1/pm sends Nova SDS011 frames."] * 2
    lost = [number for number, one in enumerate(recorder.readings) if one.reason == Reason.COMM_FAILURE]
    assert [(recorder.readings[number].value, recorder.readings[number].quality) for number in lost] == [
        (None, Quality.BAD)
    ] * 2
    assert recorder.readings[lost[-1] + 1].reason == Reason.WARMING_UP, "a sensor that was away warms up again"
    events = [lane for lane, records, _ in recorder.calls if not isinstance(records[0], Reading)]
    assert set(events) == {Lane.EVENT}
    assert slow_street.failures == []


def test_what_a_sick_disk_did_not_take_is_told_again(slow_street: Any, jumped: Any) -> None:
    recorder, produced = slow_street.recorder, slow_street.emulator.produced

    async def story() -> None:
        async with slow_street.running():
            recorder.fail = StorageError("The disk is full.")
            await asyncio.sleep(6)
            assert produced()["lp-1/pm"] >= 4
            assert recorder.records == []
            recorder.fail = None
            await slow_street.until(lambda recorder: len(recorder.readings) >= 4, 60)
            recorder.fail = StorageError("The disk is full.")
            slow_street.emulator.fault("silence")
            await asyncio.sleep(25)
            recorder.fail = None
            await slow_street.until(lambda recorder: recorder.readings[-1].quality is Quality.BAD, 60)

    jumped(story())
    assert said(recorder, "device_up") == ["lp-1/pm sends Nova SDS011 frames."]
    assert len(said(recorder, "device_down")) == 1
    assert slow_street.failures == []


def complaint(street: Any, jumped: Any, serving: Any, stream: bytes) -> str:
    """What the driver says of a serial server that sends `stream` each second."""

    async def speak(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(stream)
            await writer.drain()
            await asyncio.sleep(1)

    async def story() -> None:
        async with serving(speak) as port, asyncio.TaskGroup() as group:
            task = group.create_task(street.supervised(street.driver(f"tcp://127.0.0.1:{port}")))
            await asyncio.sleep(60)
            task.cancel()

    jumped(story())
    assert all(reading.value is None for reading in street.recorder.readings)
    (sentence,) = said(street.recorder, "device_down")
    return str(sentence)


def test_bytes_of_another_sensor(slow_street: Any, jumped: Any, serving: Any) -> None:
    assert complaint(slow_street, jumped, serving, b"$WIMWV,052,R,01.0,M,A*3B\r\n") == (
        "`line`: bytes arrive but no Nova SDS011 frame: wrong sensor, speed or wiring. Compare with the profile."
    )
    more = slow_street.recorder.events[0].more
    assert more["bytes"] >= 26 * 8
    assert "24 57 49 4d" in more["last"]


def test_frames_that_all_arrive_damaged(slow_street: Any, jumped: Any, serving: Any) -> None:
    sentence = complaint(slow_street, jumped, serving, bytes.fromhex("aa c0 7b 00 c8 01 58 d9 00 ab"))
    assert "frames arrive damaged" in sentence
    assert "Check the cable and its ground." in sentence


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


def zeros(street: Any, jumped: Any, serving: Any, seconds: float, at_once: int = 1) -> list[Reading]:
    """The PM2.5 that a driver gives of a serial server that sends zeros once a second, for so long."""

    async def speak(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await asyncio.sleep(at_once)
            writer.write(ZERO * at_once)

    async def story() -> None:
        async with serving(speak) as port, asyncio.TaskGroup() as group:
            task = group.create_task(street.supervised(street.driver(f"tcp://127.0.0.1:{port}")))
            await asyncio.sleep(seconds)
            task.cancel()

    jumped(story())
    return [reading for reading in street.recorder.readings if reading.point.endswith("pm25")]


def test_zero_is_doubtful_while_warming_up_and_good_afterwards(slow_street: Any, jumped: Any, serving: Any) -> None:
    pm25 = zeros(slow_street, jumped, serving, 20.5)
    assert len(pm25) == 20
    assert {reading.value for reading in pm25} == {0.0}
    told = [(reading.quality, reading.reason) for reading in pm25]
    warm = told.index((Quality.GOOD, None))
    assert warm in (15, 16)
    assert told == [(Quality.UNCERTAIN, Reason.WARMING_UP)] * warm + [(Quality.GOOD, None)] * (20 - warm)


def test_every_thins_but_a_change_of_quality_goes_at_once(
    sds011: Profile, make_street: Any, jumped: Any, serving: Any
) -> None:
    pm25 = zeros(make_street(sds011, every="30s"), jumped, serving, 185)
    told = [(round((reading.at - pm25[0].at) / 1000), reading.quality) for reading in pm25]
    assert told[0] == (0, Quality.UNCERTAIN)
    assert told[1][0] in (15, 16)
    assert told[1][1] is Quality.GOOD
    assert [round(second / 30, 1) for second, _ in told[2:]] == list(range(1, 7))


def test_frames_that_waited_together_are_dated_back(slow_street: Any, jumped: Any, serving: Any) -> None:
    """A gateway that was busy for three seconds finds three frames at once: they did not all come now."""
    pm25 = zeros(slow_street, jumped, serving, 20, at_once=3)
    times = [reading.at - pm25[0].at for reading in pm25[:9]]
    assert [round(time / 1000, 1) for time in times] == list(range(9))


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
    dirt = {"garbage", "split", "merged", "checksum", "truncated", "sync_inside"}
    assert dirt | {"warm_up", "silence", "unplug", "stuck"} == set(Fault)
    assert street.emulator.produced() == {"lp-1/pm": 0}
    assert isinstance(street.settings("/dev/none"), Settings)
    assert Emulator(street.settings("/dev/none"), [street.device], None).cadence == street.profile.cadence


def test_frames_without_values_are_silence_too(jumped: Any, serving: Any, make_street: Any) -> None:
    """A receiver that was set to send nothing but satellites in view is well, and worthless."""
    street = make_street(true("nmea-gnss"))
    sentence = complaint(street, jumped, serving, b"$GPGSV,1,1,00*79\r\n")
    assert sentence == (
        "`line`: GNSS receiver, NMEA 0183 frames arrive, but none with values. Set the sensor as its profile says."
    )
    assert said(street.recorder, "device_up") == ["lp-1/pm sends GNSS receiver, NMEA 0183 frames."]
    assert {reading.reason for reading in street.recorder.readings} == {Reason.COMM_FAILURE}


Answers = Callable[[bytes], bytes]


def questions(street: Any, jumped: Any, serving: Any, answers: Answers, seconds: float) -> list[bytes]:
    """What a sensor behind a serial server was asked in so many seconds, while it answers so."""
    asked: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while question := await reader.read(64):
            asked.append(question)
            writer.write(answers(question))

    async def story() -> None:
        async with serving(answer) as port, asyncio.TaskGroup() as group:
            task = group.create_task(street.supervised(street.driver(f"tcp://127.0.0.1:{port}")))
            await asyncio.sleep(seconds)
            task.cancel()

    jumped(story())
    return asked


def polled(**changes: Any) -> Profile:
    """The CM1106, asked every ten seconds, with other flags on its question."""
    profile = true("cubic-cm1106")
    read = profile.commands["read"].model_copy(update=changes)
    return profile.model_copy(update={"commands": {**profile.commands, "read": read}})


def test_a_question_that_changes_something_is_never_repeated(jumped: Any, serving: Any, make_street: Any) -> None:
    street = make_street(polled(idempotent=False))
    assert len(questions(street, jumped, serving, lambda _: b"", 35)) == 4, "once in each round"
    street = make_street(polled())
    assert len(questions(street, jumped, serving, lambda _: b"", 35)) == 8, "twice: its profile says two tries"
    assert {reading.reason for reading in street.recorder.readings} == {Reason.COMM_FAILURE}


def test_a_sensor_that_never_has_a_new_value_is_not_well(jumped: Any, serving: Any, make_street: Any) -> None:
    """For a while that is neither an error nor zero; for longer than its `silence` it is."""
    profile = true("sensirion-sps30")
    street = make_street(profile)
    none_new, started = bytes.fromhex("7e 00 03 00 00 fc 7e"), bytes.fromhex("7e 00 00 00 00 ff 7e")
    start = profile.commands["start"].send

    def answers(question: bytes) -> bytes:
        return started if question == start else none_new

    questions(street, jumped, serving, answers, profile.silence - 1)
    assert street.recorder.readings == []
    questions(street, jumped, serving, answers, 3 * profile.silence)
    assert said(street.recorder, "device_down") == [
        "`line`: Sensirion SPS30 frames arrive, but none with values. Set the sensor as its profile says."
    ]
    assert len(street.recorder.readings) == len(profile.points), "once each"
    assert {reading.reason for reading in street.recorder.readings} == {Reason.COMM_FAILURE}


def test_a_sensor_that_has_rested_may_take_its_time(jumped: Any, serving: Any, make_street: Any) -> None:
    """Nothing new for a second behind each start is no silence, however long it had rested before."""
    profile = true("sensirion-sps30")
    commands, values = profile.commands, profile.examples[0].received
    street, since = make_street(profile, every="2min"), 0

    def answers(question: bytes) -> bytes:
        nonlocal since
        since = 0 if question == commands["start"].send else since + 1
        if question == commands["read"].send:
            return values if since > 2 else bytes.fromhex("7e 00 03 00 00 fc 7e")
        return bytes.fromhex("7e 00 00 00 00 ff 7e" if since == 0 else "7e 00 01 00 00 fe 7e")

    questions(street, jumped, serving, answers, 500)
    assert said(street.recorder, "device_down") == []
    told = [reading for reading in street.recorder.readings if reading.point.endswith("/pm25")]
    assert [reading.quality for reading in told] == [Quality.GOOD] * 4


def test_only_silence_ends_its_frames_and_a_serial_server_makes_its_own(make_street: Any) -> None:
    street = make_street(true("libelium-parking"))
    with pytest.raises(ConfigError, match="Connect it to a port of the gateway"):
        street.driver("tcp://127.0.0.1:4001")
    street.driver("/dev/ttyS0")
