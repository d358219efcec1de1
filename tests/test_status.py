"""What the gateway says of itself: colours from evidence, one sentence each, and changes that are told once."""

import asyncio
import itertools
import json
import timeit
from typing import Any

import pytest

from gateway.model import ClockState, CommandState, Device, Event, Lane, Point, Quality, Reading, Reply, Verb
from gateway.status import LaneDepth, Status
from gateway.testing import JumpingLoop, LoopClock

METER, LAMP, CHARGER = "here/feeder", "lp-1/pm", "cp-1/evse"


class StillClock(LoopClock):
    """A clock that the test turns by hand."""

    now = 60_000

    def boot(self) -> int:
        return self.now


def device(name: str, *slugs: str) -> Device:
    return Device(name, {slug: Point(f"{name}/{slug}", "power_active", "W", phase="L1") for slug in slugs})


@pytest.fixture
def clock() -> StillClock:
    return StillClock()


@pytest.fixture
def status(clock: StillClock) -> Status:
    links = {
        "line": [device(METER, "power", "voltage")],
        "air": [device(LAMP, "pm25")],
        "cs": [device(CHARGER, "state")],
    }
    return Status("cab-017", clock, links, every={METER: 10, LAMP: 300}, uplinks=["city"])


def seen(status: Status, name: str, now: int) -> dict[str, Any]:
    devices: Any = status.snapshot(now)["devices"]
    return next(each for each in devices if each["id"] == name)


def good(name: str, slug: str, at: int, value: float = 1.5) -> Reading:
    return Reading(f"{name}/{slug}", value, at)


def bad(name: str, slug: str, at: int, reason: str = "out_of_range") -> Reading:
    return Reading(f"{name}/{slug}", None, at, Quality.BAD, reason)


def test_nothing_heard_is_red_and_says_so(status: Status) -> None:
    found = seen(status, METER, 61_000)
    assert (found["health"], found["colour"]) == ("unknown", "red")
    assert found["say"] == "Nothing has been heard from it yet."
    assert found["since_ms"] == 1000
    assert found["points"][0]["value"] is None
    assert found["points"][0]["age_ms"] is None


def test_green_when_every_point_is_good_and_fresh(status: Status) -> None:
    status.note([good(METER, "power", 61_000, 0.0), good(METER, "voltage", 61_000, 231.5)])
    found = seen(status, METER, 62_000)
    assert (found["health"], found["colour"], found["say"]) == ("up", "green", "")
    assert found["readings"] == 2
    assert found["points"][0] == {
        "id": "here/feeder/power", "quantity": "power_active", "unit": "W", "phase": "L1", "direction": None,
        "value": 0.0, "age_ms": 1000, "quality": "good", "reason": None, "stale": False,
    }  # fmt: skip


@pytest.mark.parametrize(("age", "colour"), [(30_000, "green"), (30_001, "amber")])
def test_a_point_is_stale_after_three_intervals(status: Status, age: int, colour: str) -> None:
    status.note([good(METER, "power", 61_000), good(METER, "voltage", 61_000)])
    found = seen(status, METER, 61_000 + age)
    assert found["colour"] == colour
    if colour == "amber":
        assert found["say"] == "2 of 2 points overdue: power, voltage."
        assert found["since_ms"] == 1, "it became stale a millisecond ago, whoever looks when"
        assert found["points"][0]["stale"] is True


def test_a_point_that_never_came_is_overdue_too(status: Status) -> None:
    status.note([good(METER, "power", 61_000)])
    assert seen(status, METER, 62_000)["colour"] == "green"
    status.note([good(METER, "power", 91_000)])
    found = seen(status, METER, 91_000)
    assert (found["colour"], found["say"]) == ("amber", "1 of 2 points overdue: voltage.")


def test_what_is_told_late_never_takes_the_place_of_what_is_newer(status: Status) -> None:
    status.note([good(METER, "power", 61_000, 7), good(METER, "power", 31_000, 3)])
    point = seen(status, METER, 62_000)["points"][0]
    assert (point["value"], point["age_ms"]) == (7, 1000)
    assert seen(status, METER, 62_000)["readings"] == 2
    assert status.last(f"{METER}/power") == good(METER, "power", 61_000, 7)


def test_a_point_without_an_interval_never_turns_stale(status: Status) -> None:
    status.note([good(CHARGER, "state", 61_000)])
    assert seen(status, CHARGER, 10**9)["colour"] == "green"


def test_a_point_may_have_an_interval_of_its_own(clock: StillClock) -> None:
    meter = device(METER, "power", "energy")
    status = Status("g", clock, {"line": [meter]}, every={METER: 10, f"{METER}/energy": 60})
    status.note([good(METER, "power", 61_000), good(METER, "energy", 61_000)])
    assert seen(status, METER, 161_000)["say"] == "1 of 2 points overdue: power."


def test_a_setting_is_not_overdue_by_its_devices_interval(clock: StillClock) -> None:
    meter = device(METER, "power", "demand_period")
    meter = Device(METER, meter.points, {"set:demand_period": Verb("set", {})})
    status = Status("g", clock, {"line": [meter]}, every={METER: 10})
    status.note([good(METER, "power", 61_000), good(METER, "demand_period", 61_000)])
    status.note([good(METER, "power", 600_000)])
    assert seen(status, METER, 601_000)["colour"] == "green"


def test_what_is_wrong_is_grouped_and_cut_short(clock: StillClock) -> None:
    slugs = [f"p{number}" for number in range(9)]
    status = Status("g", clock, {"line": [device(METER, *slugs)]}, every={METER: 10})
    status.note([good(METER, "p0", 80_000), good(METER, "p1", 80_000), bad(METER, "p2", 80_000)])
    status.note([bad(METER, slug, 80_000, "absent") for slug in slugs[3:7]])
    assert seen(status, METER, 90_001)["say"] == (
        "7 of 9 points out of range: p2; not fitted: p3, p4, p5 and 1 more; overdue: p7, p8."
    )


def test_some_bad_is_amber_with_the_reason_and_its_beginning(status: Status) -> None:
    status.note([good(METER, "power", 61_000), good(METER, "voltage", 61_000)])
    status.note([good(METER, "power", 62_000), bad(METER, "voltage", 62_000)])
    status.note([good(METER, "power", 63_000), bad(METER, "voltage", 63_000)])
    found = seen(status, METER, 64_000)
    assert (found["health"], found["colour"]) == ("degraded", "amber")
    assert found["say"] == "1 of 2 points out of range: voltage."
    assert found["since_ms"] == 2000
    assert found["points"][1]["value"] is None


def test_no_point_with_a_value_is_red(status: Status) -> None:
    status.note([bad(METER, "power", 61_000, "comm_failure"), bad(METER, "voltage", 61_000, "comm_failure")])
    found = seen(status, METER, 61_500)
    assert (found["health"], found["colour"]) == ("down", "red")
    assert found["say"] == "No point has a value; without answer: power, voltage."


def test_what_is_idle_has_no_value_and_is_green(status: Status) -> None:
    status.note([good(METER, "voltage", 61_000), bad(METER, "power", 61_000, "idle")])
    found = seen(status, METER, 61_500)
    assert (found["colour"], found["say"]) == ("green", "")
    assert [(point["value"], point["reason"]) for point in found["points"]] == [(None, "idle"), (1.5, None)]


def test_what_a_device_reports_of_itself_stands_until_it_takes_it_back(status: Status) -> None:
    status.note([good(METER, "power", 61_000), good(METER, "voltage", 61_000)])
    status.note([Event("connector_fault", METER, 62_000, "Too hot.", {"connector": 2})])
    status.note([Event("limit_refused", METER, 63_000, "It takes no limit.")])
    found = seen(status, METER, 65_000)
    assert (found["colour"], found["say"], found["since_ms"]) == ("amber", "Too hot. It takes no limit.", 3000)
    status.note([Event("device_down", METER, 66_000, "Gone."), Event("device_up", METER, 66_000)])
    assert seen(status, METER, 66_000)["colour"] == "amber", "it is as hot as before"
    status.note([Event("connector_clear", METER, 67_000, "", {"connector": 1}), Event("safe_share", METER, 67_000)])
    assert seen(status, METER, 67_000)["say"] == "Too hot."
    status.note([Event("connector_clear", METER, 68_000, "", {"connector": 2})])
    assert seen(status, METER, 68_000)["colour"] == "green"
    status.note([Event("device_fault", METER, 69_000, "Lens dirty."), Event("device_fault", METER, 70_000, "Laser.")])
    found = seen(status, METER, 70_000)
    assert (found["say"], found["since_ms"]) == ("Laser.", 1000)
    status.note([Event("device_up", METER, 71_000)])
    assert seen(status, METER, 71_000)["say"] == ""


def test_a_charger_with_a_wrong_key_is_told_from_one_that_never_called(status: Status) -> None:
    status.note([Event("wrong_key", METER, 61_000, "Its key is wrong.")])
    assert (seen(status, METER, 61_000)["colour"], seen(status, METER, 61_000)["say"]) == ("red", "Its key is wrong.")
    status.note([Event("device_up", METER, 62_000)])
    status.note([Event("wrong_key", METER, 63_000, "Its key is wrong.")])
    assert seen(status, METER, 63_000)["colour"] == "green", "whoever that was"


def test_remarks_are_few_and_the_newest(status: Status) -> None:
    status.note([Event("nonconforming", METER, 61_000, f"It sent {number}.") for number in [*range(40), 35]])
    assert seen(status, METER, 61_000)["remarks"] == [f"It sent {n}." for n in (30, 31, 32, 33, 34, 36, 37, 38, 39, 35)]


def test_an_uncertain_value_is_amber(status: Status) -> None:
    status.note([Reading(f"{LAMP}/pm25", 12.0, 61_000, Quality.UNCERTAIN, "warming_up")])
    found = seen(status, LAMP, 61_000)
    assert (found["colour"], found["say"]) == ("amber", "1 of 1 point warming up: pm25.")


def test_what_the_driver_says_of_a_device(status: Status) -> None:
    status.note([good(METER, "power", 61_000), good(METER, "voltage", 61_000)])
    status.note([Event("device_down", METER, 62_000, "Not one byte. Check power, swap A and B.")])
    found = seen(status, METER, 65_000)
    assert (found["health"], found["since_ms"]) == ("down", 3000)
    assert found["say"] == "Not one byte. Check power, swap A and B."
    assert not status.is_reachable(METER)
    assert status.is_reachable(LAMP), "its neighbours are not touched"
    status.note([bad(METER, "power", 66_000)])
    assert seen(status, METER, 66_000)["health"] == "down", "a bad reading is no sign of life"
    status.note([Event("device_up", METER, 67_000), good(METER, "power", 67_000), good(METER, "voltage", 67_000)])
    assert seen(status, METER, 68_000)["colour"] == "green"
    assert status.is_reachable(METER)


def test_a_good_reading_outweighs_older_bad_news(status: Status) -> None:
    status.note([Event("device_down", LAMP, 61_000, "gone")])
    status.note([good(LAMP, "pm25", 61_000)])
    assert seen(status, LAMP, 62_000)["colour"] == "red"
    status.note([good(LAMP, "pm25", 61_001)])
    assert seen(status, LAMP, 62_000)["colour"] == "green"
    assert status.is_reachable(LAMP)


def test_a_device_that_says_hello_without_values_is_up(status: Status) -> None:
    status.note([Event("device_up", CHARGER, 61_000)])
    assert seen(status, CHARGER, 62_000)["colour"] == "green"


def test_a_link_takes_its_devices_with_it_and_only_them(status: Status) -> None:
    status.note([good(METER, "power", 61_000), good(METER, "voltage", 61_000), good(LAMP, "pm25", 61_000)])
    status.note([Event("link_down", "line", 62_000, "The adapter for `line` is unplugged. Plug it back.")])
    found = seen(status, METER, 63_000)
    assert (found["colour"], found["say"]) == ("red", "The adapter for `line` is unplugged. Plug it back.")
    assert not status.is_reachable(METER)
    assert seen(status, LAMP, 63_000)["colour"] == "green"
    status.note([Event("link_up", "line", 64_000)])
    assert seen(status, METER, 64_000)["colour"] == "green"


def test_links_count_failures_and_keep_since(status: Status, clock: StillClock) -> None:
    status.link("line", up=True)
    for clock.now in (70_000, 75_000):
        status.link("line", up=False, say="refused")
    links: Any = status.snapshot(80_000)["links"]
    assert links[0] == {"name": "line", "up": False, "say": "refused", "since_ms": 10_000, "restarts": 2}
    assert links[1]["up"] is None


def test_uplinks_lanes_configuration_and_clock(status: Status, clock: StillClock) -> None:
    status.uplink("city", connected=False, say="The broker refuses our password. Re-enter it.")
    status.acknowledged("city", 61_000)
    status.lane(
        Lane.TELEMETRY, LaneDepth(4210, clock.boot() - 5000, 65_536, 9000, "The disk is full.", 3, 1, 777_600_000)
    )
    status.configuration("9f2c", "Line 14: `evry` is unknown; did you mean `every`? The last one still runs.")
    clock.quality = ClockState.UNSYNCED
    found: Any = status.snapshot(63_000)
    assert found["uplinks"] == [
        {
            "name": "city", "connected": False, "say": "The broker refuses our password. Re-enter it.",
            "since_ms": 3000, "restarts": 1, "acknowledged_ms": 2000,
        }
    ]  # fmt: skip
    assert found["lanes"][2] == {
        "name": "telemetry", "records": 4210, "oldest_ms": 8000, "bytes": 65_536, "committed": 9000,
        "error": "The disk is full.", "dead": 3, "quarantined": 1, "full_ms": 777_600_000,
    }  # fmt: skip
    assert found["configuration"]["running"] == "9f2c"
    assert "evry" in found["configuration"]["say"]
    assert found["clock"]["state"] == "unsynced"
    assert found["clock"]["say"] == "Clock not set: lamps stay lit, readings are marked. Connect network or GNSS."
    assert (found["clock"]["since_ms"], found["clock"]["error_ms"]) == (63_000, None)
    assert json.loads(json.dumps(found)) == found


def test_records_of_strangers_are_ignored(status: Status) -> None:
    status.note([good("no/such", "power", 1), Event("device_down", "no/such", 1), Reply("1", CommandState.ACCEPTED, 1)])
    assert all(each["readings"] == 0 for each in status.snapshot(60_000)["devices"])  # type: ignore[index,union-attr,call-overload]


def test_last(status: Status) -> None:
    assert status.last(f"{METER}/power") is None
    status.note([good(METER, "power", 61_000)])
    assert status.last(f"{METER}/power") == good(METER, "power", 61_000)
    with pytest.raises(KeyError):
        status.last("no/such/point")


def test_only_what_changed_is_told_again(status: Status) -> None:
    first: Any = status.snapshot(61_000)
    assert len(first["devices"]) == 3
    assert status.snapshot(61_000, first["version"])["devices"] == []
    status.note([good(METER, "power", 61_000)])
    second: Any = status.snapshot(61_000, first["version"])
    assert [each["id"] for each in second["devices"]] == [METER]
    silent: Any = status.snapshot(100_000, second["version"])
    assert [(each["id"], each["colour"]) for each in silent["devices"]] == [(METER, "amber")]
    assert status.snapshot(100_000, silent["version"])["devices"] == []


def test_changes_are_told_to_all_who_wait_at_most_twice_a_second() -> None:
    async def street() -> None:
        loop = asyncio.get_running_loop()
        status = Status("g", LoopClock(), {"line": [device(METER, "power")]}, every={})
        told: list[list[float]] = [[], []]

        async def watch(mine: list[float]) -> None:
            version = status.version
            while len(mine) < 4:
                version = await status.changed(version)
                mine.append(loop.time())

        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            for mine in told:
                group.create_task(watch(mine))
            for at in range(30):
                await asyncio.sleep(0.1)
                status.note([good(METER, "power", at)])
        for mine in told:
            assert all(later - earlier >= 0.5 for earlier, later in itertools.pairwise(mine))

    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        runner.run(street())


def test_note_costs_less_than_a_microsecond_per_reading(clock: StillClock) -> None:
    meters = [device(f"m-{number}/m", *(f"p{point}" for point in range(20))) for number in range(50)]
    status = Status("g", clock, {"line": meters}, every={meter.id: 1 for meter in meters})
    readings = [[Reading(point.id, 1.5, 61_000) for point in meter.points.values()] for meter in meters]

    def poll() -> None:
        for block in readings:
            status.note(block)

    best = min(timeit.repeat(poll, number=1, repeat=30)) / 1000
    assert best < 1e-6, f"{best * 1e9:.0f} ns"


def test_a_clock_that_runs_by_itself_says_since_when_and_how_far_it_may_be_off() -> None:
    class Alone(StillClock):
        def since(self) -> int:
            return 1_000

        def error(self) -> int | None:
            return 3_240

    clock = Alone(ClockState.HOLDOVER)
    found: Any = Status("cab-017", clock, {}, every={}).snapshot(61_000)
    assert (found["clock"]["since_ms"], found["clock"]["error_ms"]) == (60_000, 3_240)
    assert found["clock"]["say"] == "The clock runs on by itself and may be off by 3.2 s. Connect network or GNSS."
    clock.quality = ClockState.SYNCED
    found = Status("cab-017", clock, {}, every={}).snapshot(61_000)
    assert found["clock"]["say"] == ""
