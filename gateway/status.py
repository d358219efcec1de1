"""What the gateway knows now: last value per point, health of devices, links, uplinks and lanes, each with its reason.

Written by `note` after each emit and by a few setters, read by the page and the command line. Nothing is
stored and nothing is decided here that a driver or the supervisor has not said, with one exception: a
device whose points are bad or overdue is not called healthy because nobody complained.
"""

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from gateway.model import (
    ClockState,
    Device,
    DeviceId,
    Event,
    Json,
    Lane,
    Point,
    PointId,
    Quality,
    Reading,
    Reason,
    Record,
)
from gateway.ports import Clock

STALE_AFTER = 3
"""Poll intervals without a reading after which a point is stale."""
PACE = 0.5
"""Seconds for which changes gather before `changed` tells of them."""
REMARKS = 10
"""Remarks that are kept of each device."""
_NAMED = 3
_BECAUSE = {
    "comm_failure": "without answer",
    "device_failure": "at fault",
    "out_of_range": "out of range",
    "not_a_number": "not a number",
    "absent": "not fitted",
    "stale": "out of date",
    "warming_up": "warming up",
    "substituted": "substituted",
    "counter_reset": "counting anew",
    "config_error": "configured wrongly",
    "idle": "idle",
}


class Health(StrEnum):
    UP = "up"
    DEGRADED = "degraded"
    DOWN = "down"
    UNKNOWN = "unknown"


COLOUR = {Health.UP: "green", Health.DEGRADED: "amber", Health.DOWN: "red", Health.UNKNOWN: "red"}


@dataclass(slots=True)
class _Peer:
    """A link or an uplink: None until somebody has said whether it is up."""

    since: int
    up: bool | None = None
    say: str = ""
    restarts: int = 0
    acknowledged: int | None = None

    def turn(self, *, up: bool, say: str, at: int) -> None:
        if up is not self.up:
            self.up, self.since = up, at
        self.say = say


@dataclass(frozen=True, slots=True)
class LaneDepth:
    """Of one lane: `oldest` is the boot time of the oldest record that waits, `full_ms` counts at the pace of late."""

    records: int = 0
    oldest: int | None = None
    size: int = 0
    committed: int = 0
    error: str | None = None
    dead: int = 0
    quarantined: int = 0
    full_ms: int | None = None


@dataclass(slots=True)
class _Device:
    id: DeviceId
    link: str
    said: _Peer
    version: int = 1
    readings: int = 0
    slots: list["_Slot"] = field(default_factory=list)
    verdict: tuple[Health, str] = (Health.UNKNOWN, "")
    faults: dict[str, tuple[str, int]] = field(default_factory=dict)
    """What it reports of itself, until it takes it back: sentence and since when, by what it is about."""
    remarks: dict[str, None] = field(default_factory=dict)
    """What it does otherwise than its protocol has it, newest last."""


@dataclass(slots=True)
class _Slot:
    """One point and its newest reading. `limit`: milliseconds after which a reading is stale."""

    device: _Device
    point: Point
    limit: float
    since: int
    """Boot time at which its quality last changed, or at which it came back after silence."""
    reading: Reading | None = None
    at: int = 0
    quality: Quality | None = None

    def name(self) -> str:
        return self.point.id.rpartition("/")[2].replace("_", " ")

    def why(self) -> str:
        reason = self.reading.reason if self.reading else None
        return _BECAUSE.get(reason, reason) if reason else "doubtful"

    def is_doubtful(self) -> bool:
        """Idle is no fault: there is nothing to measure."""
        return self.quality is not Quality.GOOD and (self.reading is None or self.reading.reason != Reason.IDLE)

    def is_stale(self, now: int) -> bool:
        return now - self.at > self.limit


class Status:
    """`links`: the devices on each link; `every`: poll interval in seconds by device id, or by point id where one
    differs. A point without an interval never turns stale, nor does a setting (a point with a `set:` verb) by its
    device's: it is read when it may have changed. Every `at` is milliseconds of the boot clock.
    """

    def __init__(
        self,
        gateway: str,
        clock: Clock,
        links: Mapping[str, Sequence[Device]],
        *,
        every: Mapping[str, float],
        uplinks: Sequence[str] = (),
    ) -> None:
        self.gateway = gateway
        self.version = 1
        """Grows with every change; see `changed`."""
        self._clock = clock
        self._started = now = clock.boot()
        self._links = {name: _Peer(now) for name in links}
        self._uplinks = {name: _Peer(now) for name in uplinks}
        self._lanes = {lane: LaneDepth() for lane in Lane}
        self._configuration = ("", "", now)
        self._devices: dict[DeviceId, _Device] = {}
        self._slots: dict[PointId, _Slot] = {}
        for link, devices in links.items():
            for device in devices:
                held = self._devices[device.id] = _Device(device.id, link, _Peer(now))
                for slug, point in device.points.items():
                    of_device = math.inf if f"set:{slug}" in device.verbs else every.get(device.id, math.inf)
                    seconds = every.get(point.id, of_device)
                    slot = _Slot(held, point, STALE_AFTER * 1000 * seconds, now, at=now)
                    self._slots[point.id] = slot
                    held.slots.append(slot)
        self.strangers: Callable[[], Sequence[Json]] = list
        """Who called on a link and is not in the site file."""
        self._news = asyncio.Event()

    def note(self, records: Sequence[Record]) -> None:
        """Records that an emit has just accepted. Readings of points that are not of this site are ignored."""
        slots = self._slots
        self.version = version = self.version + 1
        for record in records:
            if type(record) is Reading:
                slot = slots.get(record.point)
                if slot is None:
                    continue
                at, quality = record.at, record.quality
                if slot.reading is not None and at < slot.reading.at:
                    slot.device.readings += 1  # told late: what is newer stays
                    continue
                if quality is not slot.quality or at - slot.at > slot.limit:
                    slot.quality, slot.since = quality, at
                slot.reading, slot.at = record, at
                device = slot.device
                device.readings += 1
                device.version = version
            elif type(record) is Event:
                self._note_event(record)
        self._news.set()

    def link(self, name: str, *, up: bool, say: str = "") -> None:
        """What the supervisor found; each call with up=False counts as one more failure."""
        peer = self._links[name]
        peer.turn(up=up, say=say, at=self._clock.boot())
        if not up:
            peer.restarts += 1
        self._touch()

    def uplink(self, name: str, *, connected: bool, say: str = "") -> None:
        peer = self._uplinks[name]
        peer.turn(up=connected, say=say, at=self._clock.boot())
        if not connected:
            peer.restarts += 1
        self._touch()

    def acknowledged(self, name: str, at: int) -> None:
        """The platform behind this uplink last settled records at `at`."""
        self._uplinks[name].acknowledged = at
        self._touch()

    def lane(self, lane: Lane, depth: LaneDepth) -> None:
        self._lanes[lane] = depth
        self._touch()

    def configuration(self, running: str, say: str = "") -> None:
        """The hash of the site file that runs; `say`: what is wrong with the file that does not."""
        self._configuration = (running, say, self._clock.boot())
        self._touch()

    def last(self, point: PointId) -> Reading | None:
        """The newest reading of a point; None where there was none yet, KeyError where there is no such point."""
        return self._slots[point].reading

    def is_reachable(self, device: DeviceId) -> bool:
        """Whether nothing speaks against giving this device a command now."""
        held = self._devices[device]
        return self._links[held.link].up is not False and self._is_said_down(held) is False

    async def changed(self, after: int) -> int:
        """Wait until `version` is beyond `after`, then gather for PACE seconds; returns the new version."""
        while self.version <= after:
            self._news.clear()
            await self._news.wait()
        await asyncio.sleep(PACE)
        return self.version

    def snapshot(self, now: int | None = None, after: int = 0) -> dict[str, Json]:
        """All of it as JSON (docs/page.md), ages counted back from `now`; devices only if changed since `after`."""
        now = self._clock.boot() if now is None else now
        self._judge_all(now)
        running, rejected, applied = self._configuration
        return {
            "v": 1,
            "version": self.version,
            "after": after,
            "gateway": self.gateway,
            "uptime_ms": now - self._started,
            "clock": _told(self._clock, now),
            "configuration": {"running": running, "say": rejected, "since_ms": now - applied},
            "links": [
                {"name": name, "up": peer.up, "say": peer.say, "since_ms": now - peer.since, "restarts": peer.restarts}
                for name, peer in self._links.items()
            ],
            "uplinks": [
                {
                    "name": name, "connected": peer.up, "say": peer.say, "since_ms": now - peer.since,
                    "restarts": peer.restarts, "acknowledged_ms": _age(now, peer.acknowledged),
                }
                for name, peer in self._uplinks.items()
            ],
            "lanes": [
                {
                    "name": name.value, "records": lane.records, "oldest_ms": _age(now, lane.oldest),
                    "bytes": lane.size, "committed": lane.committed, "error": lane.error, "dead": lane.dead,
                    "quarantined": lane.quarantined, "full_ms": lane.full_ms,
                }
                for name, lane in self._lanes.items()
            ],
            "strangers": self.strangers(),
            "devices": [self._device(device, now) for device in self._devices.values() if device.version > after],
        }  # fmt: skip

    def _touch(self) -> None:
        self.version += 1
        self._news.set()

    def _note_event(self, event: Event) -> None:
        device = self._devices.get(event.on)
        if device is not None:
            device.version = self.version
        match event.kind:
            case "device_up" | "device_down" if device is not None:
                device.faults.pop("device ", None)
                device.said.turn(up=event.kind == "device_up", say=event.say, at=event.at)
            case "wrong_key" if device is not None and not device.said.up:
                device.said.turn(up=False, say=event.say, at=event.at)
            case "device_fault" | "connector_fault" | "limit_refused" if device is not None:
                _, since = device.faults.get(_about(event), ("", event.at))
                device.faults[_about(event)] = (event.say, since)
            case "connector_clear" | "safe_share" if device is not None:
                device.faults.pop(_about(event), None)
            case "nonconforming" if device is not None:
                device.remarks.pop(event.say, None)
                device.remarks[event.say] = None
                while len(device.remarks) > REMARKS:
                    del device.remarks[next(iter(device.remarks))]
            case "link_up" | "link_down" if event.on in self._links:
                self._links[event.on].turn(up=event.kind == "link_up", say=event.say, at=event.at)

    def _device(self, device: _Device, now: int) -> dict[str, Json]:
        health, say, since = self._judge(device, now)
        return {
            "id": device.id, "link": device.link, "health": health.value, "colour": COLOUR[health], "say": say,
            "since_ms": now - since, "readings": device.readings, "remarks": list(device.remarks),
            "points": [_point(slot, now) for slot in device.slots],
        }  # fmt: skip

    def _judge_all(self, now: int) -> None:
        """A device that falls silent changes without a record: its new verdict is a change like any other."""
        for device in self._devices.values():
            verdict = self._judge(device, now)[:2]
            if verdict != device.verdict:
                device.verdict = verdict
                self.version += 1
                device.version = self.version

    def _judge(self, device: _Device, now: int) -> tuple[Health, str, int]:
        """(health, one sentence or '', boot time since when)."""
        link, said = self._links[device.link], device.said
        if link.up is False:
            return Health.DOWN, link.say or f"Its link {device.link} is down.", link.since
        if self._is_said_down(device):
            return Health.DOWN, said.say or f"{device.id} does not answer.", said.since
        heard = [slot for slot in device.slots if slot.reading is not None]
        if not heard and not said.up:
            return Health.UNKNOWN, "Nothing has been heard from it yet.", self._started
        bad = [slot for slot in heard if slot.quality is Quality.BAD and slot.is_doubtful()]
        if bad and len(bad) == len(device.slots):
            return Health.DOWN, f"No point has a value; {_because(bad)}.", max(slot.since for slot in bad)
        stale = [slot for slot in device.slots if slot.is_stale(now)]
        doubtful = [slot for slot in heard if slot.is_doubtful() and slot not in stale]
        if doubtful or stale or device.faults:
            say = [sentence for sentence, _ in device.faults.values()]
            began = [since for _, since in device.faults.values()]
            parts = [_because(doubtful)] if doubtful else []
            if stale:
                parts.append(f"overdue: {_names(stale)}")
            if parts:
                total = len(device.slots)
                points = "points" if total > 1 else "point"
                say.append(f"{len(doubtful) + len(stale)} of {total} {points} {'; '.join(parts)}.")
            began += [slot.since for slot in doubtful] + [round(slot.at + slot.limit) for slot in stale]
            return Health.DEGRADED, " ".join(say), min(began)
        return Health.UP, "", max([slot.since for slot in heard] + [said.since, link.since])

    def _is_said_down(self, device: _Device) -> bool:
        """A good reading that is newer than the bad news outweighs it."""
        said = device.said
        return said.up is False and not any(
            slot.at > said.since and slot.quality is Quality.GOOD for slot in device.slots
        )


def _about(event: Event) -> str:
    """What a fault and its end have in common."""
    what = event.kind.partition("_")[0]
    return f"{'limit' if what == 'safe' else what} {event.more.get('connector', '')}"


def _told(clock: Clock, now: int) -> dict[str, Json]:
    state, error = clock.state(), clock.error()
    say = ""
    if state is ClockState.UNSYNCED:
        say = "Clock not set: lamps stay lit, readings are marked. Connect network or GNSS."
    elif state is ClockState.HOLDOVER and error is not None:
        say = f"The clock runs on by itself and may be off by {error / 1000:,.1f} s. Connect network or GNSS."
    return {"state": state.value, "say": say, "time": clock.wall(), "since_ms": now - clock.since(), "error_ms": error}


def _age(now: int, at: int | None) -> int | None:
    return None if at is None else now - at


def _point(slot: _Slot, now: int) -> dict[str, Json]:
    point, reading = slot.point, slot.reading
    return {
        "id": point.id, "quantity": point.quantity, "unit": point.unit, "phase": point.phase,
        "direction": point.direction, "value": reading.value if reading else None,
        "age_ms": now - reading.at if reading else None, "quality": reading.quality.value if reading else None,
        "reason": reading.reason if reading else None, "stale": slot.is_stale(now),
    }  # fmt: skip


def _because(slots: Sequence[_Slot]) -> str:
    """Points grouped by what is wrong with them: `out of range: voltage, current; no answer: power`."""
    groups: dict[str, list[_Slot]] = {}
    for slot in slots:
        groups.setdefault(slot.why(), []).append(slot)
    return "; ".join(f"{why}: {_names(members)}" for why, members in groups.items())


def _names(slots: Sequence[_Slot]) -> str:
    rest = len(slots) - _NAMED
    return ", ".join(slot.name() for slot in slots[:_NAMED]) + (f" and {rest} more" if rest > 0 else "")
