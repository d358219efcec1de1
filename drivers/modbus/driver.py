"""Polls the devices of one Modbus TCP endpoint or RS-485 line and carries out commands between the requests.

One task owns the wire. `execute` only puts an order down, so that cancelling a command never cuts a
request in two; the owner takes orders before each request.
"""

import asyncio
import math
import struct
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING

from drivers.modbus.codec import decode, decode_at, encode, same
from drivers.modbus.device import Polled
from drivers.modbus.frames import SILENT, NoAnswer, Refused
from drivers.modbus.plan import Block
from drivers.modbus.settings import Settings, WritePoint
from drivers.modbus.tcp import Tcp
from gateway.errors import CommandError, DeviceError, LinkError, StorageError
from gateway.model import Command, CommandState, Event, Lane, Quality, Reading, Reason, Record, Reply
from gateway.ports import Emit, Link

if TYPE_CHECKING:
    from drivers.modbus.line import Line

_DUE = attrgetter("due")
NAP = 30.0
"""Longest sleep, so that the watchdog hears of the driver."""
LOOK_AGAIN = 0.25
"""Seconds between two looks whether the adapter is back."""


@dataclass(slots=True)
class _Order:
    device: Polled
    slug: str
    value: float
    command: Command
    done: "asyncio.Future[Reply]"


class Driver:
    """See gateway.ports.Driver."""

    def __init__(self, link: Link) -> None:
        assert isinstance(link.settings, Settings)
        self._link = link
        self._timeout = link.settings.timeout
        self._devices = [Polled(device) for device in link.devices]
        self._wire = _wire(link, {device.unit: device.profile.line.min_gap for device in self._devices})
        self._unplugged = False
        self._orders: deque[_Order] = deque()
        self._news = asyncio.Event()
        self._up = False

    async def run(self, emit: Emit) -> None:
        """Poll until cancelled. LinkError: the wire cannot be had; run again, it waits for the adapter."""
        self._alive()
        try:
            while self._unplugged and not self._wire.is_there:
                self._alive()
                await asyncio.sleep(LOOK_AGAIN)
            await self._wire.open()
            self._up = True
            for device in self._devices:
                device.start_over()
            while True:
                await self._turn(emit)
        except LinkError:
            self._unplugged = True
            raise
        finally:
            self._up = False
            self._wire.close()
            while self._orders:
                _refuse(self._orders.popleft(), CommandError("link_down", f"{self._link.name} went down."))

    async def execute(self, command: Command) -> Reply:
        """Carry out `set` on `asset/device/slug`, proved by reading back. CommandError or DeviceError otherwise."""
        order = self._order(command)
        if not self._up:
            raise CommandError("link_down", f"{self._link.name} is down; {order.device.id} cannot be reached.")
        self._orders.append(order)
        self._news.set()
        return await order.done

    async def _turn(self, emit: Emit) -> None:
        """One poll, one order, or a nap."""
        now = self._now()
        device = min(self._devices, key=_DUE, default=None)
        due = min(device.due if device else now + NAP, now + NAP)
        self._alive(max(0.0, due - now))
        if self._orders:
            await self._obey(emit)
        elif device and due <= now:
            await self._poll(device, emit)
        else:
            self._news.clear()
            try:
                async with asyncio.timeout_at(due):
                    await self._news.wait()
            except TimeoutError:
                pass

    async def _poll(self, device: Polled, emit: Emit) -> None:
        now, lost = self._now(), 0.0
        readings: list[Reading] = []
        say = ""
        silent: DeviceError | None = None
        for block in device.take_due(now, self._wire.worth(device.unit)):
            self._alive()
            await self._obey(emit)
            slugs = [slug for slug, _ in block.fields]
            started = self._now()
            try:
                words = await self._read(device, block)
            except (NoAnswer, Refused) as error:
                if error.reason == Reason.COMM_FAILURE:  # a gateway that waited in vain (11) is silence, too
                    silent, lost = error, self._now() - started
                    break
                say = _refused(device, block, error)
                readings += device.bad(slugs, error, self._now(), self._at())
                continue
            readings += self._decode(device, block, words)
            device.good(slugs)
        if silent:
            said = {reading.point for reading in readings}
            rest = [slug for slug, point in device.point_ids.items() if point not in said]
            readings += device.bad(rest, silent, self._now(), self._at())
            others = sum(each.silent for each in self._devices if each is not device)
            device.fall_silent(self._now(), lost + self._wire.afterwards, others + 1)
            fix = silent.fix if isinstance(silent, NoAnswer) else SILENT
            say = f"{device.id} (unit {device.unit} at {self._wire.peer}): {silent}. {fix}"
        else:
            device.silent = False
        if not await self._tell(emit, readings):
            device.unsaid()
        await self._tell_state(emit, device, say)

    async def _tell_state(self, emit: Emit, device: Polled, say: str) -> None:
        state = device.state()
        if state == device.trouble:
            return
        say = say if state else f"{device.id} answers again."
        if await self._tell(emit, [Event(state or "device_up", device.id, self._at(), say)], Lane.EVENT):
            device.trouble = state

    async def _read(self, device: Polled, block: Block) -> list[int]:
        """Once more where an answer is lost: gateways close idle connections. A silent device gets no second try."""
        try:
            return await self._wire.read(device.unit, block.fc, block.addr, block.count)
        except NoAnswer:
            if device.silent:
                raise
        return await self._wire.read(device.unit, block.fc, block.addr, block.count)

    def _decode(self, device: Polled, block: Block, words: list[int]) -> list[Reading]:
        at = self._at()
        readings = []
        raw = struct.pack(f">{block.count}H", *words)
        for slug, field in block.fields:
            value, reason = decode_at(field, raw, 2 * (field.addr - block.addr))
            quality = Quality.BAD if reason else Quality.GOOD
            readings.append(Reading(device.point_ids[slug], value, at, quality, reason))
        return readings

    async def _tell(self, emit: Emit, records: Sequence[Record], lane: Lane = Lane.TELEMETRY) -> bool:
        if not records:
            return True
        try:
            await emit(records, lane=lane)
        except StorageError:
            # The buffer says itself that it is full or sick; the next poll brings newer values.
            return False
        return True

    # Commands

    def _order(self, command: Command) -> _Order:
        device_id, _, slug = command.on.rpartition("/")
        device = next((each for each in self._devices if each.id == device_id), None)
        if command.do != "set" or device is None or slug not in device.settings:
            raise CommandError("unknown_verb", f"{command.on} takes no `{command.do}`.")
        value = command.args.get("value")
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise CommandError("bad_argument", f"{command.on} takes a number; {value!r} was asked.")
        _check_bounds(command.on, device.profile.writes[slug], float(value))
        return _Order(device, slug, float(value), command, asyncio.get_running_loop().create_future())

    async def _obey(self, emit: Emit) -> None:
        while self._orders:
            self._alive()
            order = self._orders.popleft()
            if order.done.done():
                continue
            try:
                reading = await self._write(order)
            except (CommandError, DeviceError) as error:
                _refuse(order, error)
                continue
            except (LinkError, asyncio.CancelledError):
                _refuse(
                    order, CommandError("link_down", f"{self._link.name} went down while {order.command.on} was set.")
                )
                raise
            now = {"value": reading.value}
            reply = Reply(order.command.id, CommandState.SUCCEEDED, reading.at, now=now, proof="readback")
            if not order.done.done():
                order.done.set_result(reply)
            await self._tell(emit, [reading])

    async def _write(self, order: _Order) -> Reading:
        """Write, and believe only what is read back, even when the answer to the write was lost."""
        device, on = order.device, order.command.on
        field = device.settings[order.slug]
        words = encode(field, order.value)
        lost: NoAnswer | None = None
        try:
            await self._wire.write(device.unit, device.profile.writes[order.slug].fc, field.addr, words)
        except Refused as error:
            raise DeviceError(f"{on} refuses {order.value:g}: {error}. Check that it may be set now.") from None
        except NoAnswer as error:
            lost = error
        try:
            read = await self._wire.read(device.unit, field.fc, field.addr, field.width)
        except (NoAnswer, Refused) as error:
            why = f"{on} was told {order.value:g}, but it cannot be read back: {error}. Read it before you try again."
            raise CommandError("unconfirmed", why) from None
        value, reason = decode(field, read)
        if not same(field, words, read):
            cause = f"; {lost}" if lost else ""
            said = f"{value:g}" if isinstance(value, int | float) else "no value"
            raise CommandError(
                "unconfirmed", f"{on} was told {order.value:g} but says {said}{cause}. Check the device."
            )
        device.good([order.slug])
        quality = Quality.BAD if reason else Quality.GOOD
        return Reading(device.point_ids[order.slug], value, self._at(), quality, reason, context="command")

    def _alive(self, asleep: float = 0.0) -> None:
        """Heard from again after one question at the latest: two tries, each after a connection or a quiet line."""
        self._link.alive(asleep + 12 * self._timeout + NAP)

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def _at(self) -> int:
        return self._link.clock.boot()


def _wire(link: Link, gaps: Mapping[int, float]) -> "Tcp | Line":
    settings = link.settings
    if settings.host:
        return Tcp(settings.host, settings.port, settings.timeout)
    from drivers.modbus.line import Line

    return Line(link.name, settings, gaps)


def _check_bounds(on: str, place: WritePoint, value: float) -> None:
    """CommandError where `value`, canonical, is not what the profile allows."""
    factor, offset = place.conversion
    allowed = sorted(each * factor + offset for each in (place.values or place.bounds) if each is not None)
    unit = place.canonical_unit
    if value > allowed[-1] or value < allowed[0]:
        code = "above_bound" if value > allowed[-1] else "below_bound"
        raise CommandError(code, f"{on} takes {allowed[0]:g} to {allowed[-1]:g} {unit}; {value:g} {unit} was asked.")
    if place.values and value not in allowed:
        listed = ", ".join(f"{each:g}" for each in allowed)
        raise CommandError("not_a_choice", f"{on} takes {listed} {unit}; {value:g} {unit} was asked.")


def _refuse(order: _Order, error: CommandError | DeviceError) -> None:
    if not order.done.done():
        order.done.set_exception(error)


def _refused(device: Polled, block: Block, error: DeviceError) -> str:
    action = (
        f"Check that profile {device.profile.profile} fits this device."
        if error.reason == Reason.CONFIG_ERROR
        else "Look at the device itself."
    )
    return f"{device.id} (unit {device.unit}) refuses {block}: {error}. {action}"
