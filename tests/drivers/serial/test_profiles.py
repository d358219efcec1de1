"""Every profile in the catalogue, its dialogue played by the emulator over a pty, read by the driver."""

import asyncio

import pytest

from drivers.serial import DeviceSettings, sensor, verbs
from drivers.serial.codec import Codec
from drivers.serial.driver import Driver
from drivers.serial.emulator import Fault
from drivers.serial.frames import SyncedFrame
from drivers.serial.played import Played
from gateway.errors import CommandError
from gateway.model import Command, CommandState, Quality, Reason
from gateway.testing import make_link
from tests.drivers.serial.bus import Bus, load, serial_profiles


@pytest.mark.parametrize("name", serial_profiles())
async def test_its_values_arrive(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # The first line that comes may be the rest of one: so the radar's agreement to its unit is missed once.
    monkeypatch.setattr(sensor, "WAKE_AGAIN", 0.1)
    bus = Bus(load(name))
    named = {point.id for point in bus.devices[0].points.values()}
    async with bus.running():
        await bus.recorder.until(lambda recorder: len(recorder.readings) >= 3 * min(len(named), 4), 20)
        await bus.recorder.until(lambda recorder: any(one.value is not None for one in recorder.readings), 20)
    assert {one.point for one in bus.recorder.readings} <= named
    assert any(one.value is not None for one in bus.recorder.readings)
    assert bus.said("device_up") == [f"lp-0/x sends {bus.devices[0].profile.title} frames."]
    assert bus.said("device_down") == []
    assert bus.failures == []


@pytest.mark.parametrize("fault", ["garbage", "split", "truncated", "checksum", "merged", "sync_inside"])
async def test_a_dirty_wire_gives_no_value_that_was_not_sent(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: dict[str, set[float | str | None]] = {}
    count = Played.count

    def counting(played: Played, frame: bytes) -> None:
        values = {sample.value for sample in Codec(played.profile).decode(frame).values()}
        sent.setdefault(played.profile.profile, set()).update(values)
        count(played, frame)

    async def believed(name: str) -> None:
        profile = load(name)
        profile = profile.model_copy(update={"dialogue": profile.dialogue.model_copy(update={"timeout": 0.04})})
        bus = Bus(profile)
        bus.emulator.fault(fault)
        async with bus.running():
            await bus.recorder.until(lambda recorder: len(recorder.readings) > 9 or bus.said("device_down") != [], 20)
        grown = {f"lp-0/x/{slug}" for slug, point in profile.points.items() if point.counter}
        good = [one for one in bus.recorder.readings if one.quality is Quality.GOOD and one.point not in grown]
        if fault == "sync_inside" and isinstance(profile.frame, SyncedFrame):
            # The frame is a good one by its checksum; what it says is the sensor's word.
            assert good, name
            assert bus.said("device_down") == []
        else:
            assert {one.value for one in good} <= sent.get(profile.profile, set()), name

    monkeypatch.setattr(Played, "count", counting)
    async with asyncio.TaskGroup() as group:
        for name in ("sensirion-sps30", "tera-nextpm", "gill-windsonic", "lufft-umb", "vaisala-wxt530"):
            group.create_task(believed(name))


async def test_two_sensors_on_one_bus_are_told_apart() -> None:
    """Both on SDI-12, which answers twice: `measure` says when, `values` what."""
    bus = Bus(load("sdi12-generic"), "0", "1")
    async with bus.running():
        await bus.recorder.until(lambda recorder: len(bus.said("device_up")) == 2, 30)
        await bus.recorder.until(lambda recorder: {one.point[:6] for one in recorder.readings} == {"lp-0/x", "lp-1/x"})
    assert bus.said("device_down") == []


async def test_a_neighbour_that_is_not_there_hurts_nobody() -> None:
    profile = load("lufft-umb")
    profile = profile.model_copy(update={"dialogue": profile.dialogue.model_copy(update={"timeout": 0.1})})
    bus = Bus(profile, "0x7001", "0x7002")
    bus.emulator._played.pop()
    async with bus.running():
        await bus.recorder.until(lambda recorder: bus.said("device_down") != [] and len(bus.good()) > 6)
    assert bus.said("device_down") == ["`line`: not one byte from lp-1/x. Check power and the plug."]
    lost = [one for one in bus.recorder.readings if one.point.startswith("lp-1")]
    assert {(one.value, one.quality, one.reason) for one in lost} == {(None, Quality.BAD, Reason.COMM_FAILURE)}
    assert len(lost) == 3, "once"
    assert all(one.quality is Quality.GOOD for one in bus.recorder.readings if one.point.startswith("lp-0"))


async def test_a_sensor_that_says_that_it_sleeps_is_woken_once() -> None:
    bus = Bus(load("tera-nextpm"))
    bus.emulator._first.asleep = True
    async with bus.running():
        await bus.recorder.until(lambda recorder: len(bus.good()) > 6)
    first = bus.recorder.readings[:6]
    assert {(one.value, one.reason) for one in first} == {(None, Reason.WARMING_UP)}


async def test_what_starts_has_no_value() -> None:
    bus = Bus(load("tera-nextpm"))
    bus.emulator.fault("warm_up")
    async with bus.running():
        await bus.recorder.until(lambda recorder: len(recorder.readings) >= 6)
        bus.emulator.fault(None)
        await bus.recorder.until(lambda recorder: len(bus.good()) > 6)
    assert {(one.value, one.reason) for one in bus.recorder.readings[:6]} == {(None, Reason.WARMING_UP)}


def order(do: str) -> Command:
    return Command("1", "desk", do, "lp-0/x", {}, 0, 0)


async def test_an_order_is_carried_out_and_answered() -> None:
    bus = Bus(load("sensirion-sps30"))
    async with bus.running():
        await bus.recorder.until(lambda recorder: len(bus.good()) > 10)
        assert bus.driver
        with pytest.raises(CommandError, match="does not answer") as raised:
            await bus.driver.execute(order("clean_fan"))
        assert raised.value.code == "unconfirmed", "no example has an answer to it, so the emulator gives none"
        with pytest.raises(CommandError, match="takes no `stop`"):
            await bus.driver.execute(order("stop"))
    bus = Bus(load("cubic-cm1106"))
    async with bus.running():
        await bus.recorder.until(lambda recorder: len(bus.good()) > 3)
        assert bus.driver
        reply = await bus.driver.execute(order("calibrate_400"))
        assert (reply.state, reply.proof) == (CommandState.SUCCEEDED, "calibrated")
        await bus.recorder.until(lambda recorder: len(bus.good()) > 6)


async def test_an_order_on_a_lost_wire_is_refused() -> None:
    bus = Bus(load("cubic-cm1106"))
    driver = Driver(make_link(bus.settings("/dev/none"), bus.devices, bus.recorder))
    with pytest.raises(CommandError, match="is down") as raised:
        await driver.execute(order("calibrate_400"))
    assert raised.value.code == "link_down"


def test_a_destructive_command_is_a_verb_for_the_commissioner_only() -> None:
    bus = Bus(load("winsen-mhz19"))
    settings = bus.devices[0].settings
    assert isinstance(settings, DeviceSettings)
    known = verbs(load("winsen-mhz19"), settings)
    assert set(known) == {"abc_on", "abc_off", "calibrate_zero"}
    assert known["calibrate_zero"].destructive
    assert not known["calibrate_zero"].idempotent
    assert known["calibrate_zero"].role == "commission"


def test_every_fault_has_a_name() -> None:
    assert len(Fault) == 10
