"""Polls the devices of one Modbus TCP endpoint or RS-485 line and carries out commands between the requests.

One task owns the wire. `execute` only puts an order down, so that cancelling a command never cuts a
request in two; the owner takes orders before each request.
"""

import asyncio
import struct
from collections import deque
from collections.abc import Mapping, Sequence
from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING

from drivers.modbus.asking import Asking
from drivers.modbus.codec import decode_at
from drivers.modbus.device import Polled, Rate
from drivers.modbus.frames import Misfit, NoAnswer, Refused
from drivers.modbus.identity import Nature, Question, inquire
from drivers.modbus.orders import Order, order
from drivers.modbus.pace import Pace
from drivers.modbus.plan import Block
from drivers.modbus.settings import Settings
from drivers.modbus.tcp import Tcp
from gateway.errors import CommandError, DeviceError, LinkError, StorageError
from gateway.model import Command, Event, Json, Lane, Quality, Reading, Reason, Record, Reply
from gateway.ports import Emit, Link

if TYPE_CHECKING:
    from drivers.modbus.line import Line

_DUE = attrgetter("due")
NAP = 30.0
"""Longest sleep, so that the watchdog hears of the driver."""
LOOK_AGAIN = 0.25
"""Seconds between two looks whether the adapter is back."""


class Driver:
    """See gateway.ports.Driver."""

    def __init__(self, link: Link) -> None:
        assert isinstance(link.settings, Settings)
        self._link = link
        self._devices = [Polled(device, link.state) for device in link.devices]
        paces = {device.unit: _pace(device, link.settings) for device in self._devices}
        self._slowest = max([link.settings.timeout, *(pace.longest for pace in paces.values())])
        self._wire = wire(link, paces)
        self._asking = Asking(self._wire, self._alive)
        self._unplugged = False
        self._orders: deque[Order] = deque()
        self._news = asyncio.Event()
        self._up = self._leaving = False
        self._began = 0.0
        """Since when there is polling: what is due together is asked for together, at one waking."""

    async def run(self, emit: Emit) -> None:
        """Poll until cancelled, or until `let_go`. LinkError: the wire cannot be had; run again, it waits for the
        adapter.
        """
        self._leaving = False
        self._alive()
        try:
            while self._unplugged and not self._wire.is_there and not self._leaving:
                self._alive()
                await asyncio.sleep(LOOK_AGAIN)
            await self._wire.open()
            self._up = True
            self._began = self._began or self._now()
            for device in self._devices:
                device.start_over()
            while not self._leaving:
                await self._turn(emit)
        except LinkError:
            self._unplugged = True
            raise
        finally:
            self._up = False
            self._wire.close()
            while self._orders:
                self._orders.popleft().refuse(CommandError("link_down", f"{self._link.name} went down."))

    def let_go(self) -> None:
        """See gateway.lending.Lendable: the poll or the order under way is finished, then `run` returns."""
        self._leaving = True
        self._news.set()

    async def execute(self, command: Command) -> Reply:
        """Carry out `set` on `asset/device/slug`, proved by reading back. CommandError or DeviceError otherwise."""
        put = order(command, self._devices)
        if not self._up:
            raise CommandError("link_down", f"{self._link.name} is down; {put.device.id} cannot be reached.")
        self._orders.append(put)
        self._news.set()
        return await put.done

    async def _turn(self, emit: Emit) -> None:
        """Everybody who is due, the one that waits longest first; else the orders that wait, or a nap."""
        now = self._now()
        if due := sorted((device for device in self._devices if device.due <= now), key=_DUE):
            while due and not self._leaving:
                await self._poll(due.pop(0), emit)
        elif self._orders:
            await self._obey(emit)
        else:
            await self._nap(min([now + NAP, *(device.due for device in self._devices)]))

    async def _nap(self, until: float) -> None:
        """Until then, or until somebody has an order."""
        self._alive(until - self._now())
        self._news.clear()
        waking = asyncio.get_running_loop().call_at(until, self._news.set)
        try:
            await self._news.wait()
        finally:
            waking.cancel()

    async def _poll(self, device: Polled, emit: Emit) -> None:
        """Ask for everything that is due; what nobody vouches for is not said."""
        readings: list[Reading] = []
        try:
            say = await self._ask(device, emit, readings)
            self._answers(device)
        except NoAnswer as error:
            if isinstance(error, Misfit) or device.identity.is_doubted(readings):
                readings.clear()
            readings += self._fall_silent(device, error, readings, self._now() - self._asking.started)
            say = f"{device.id} (unit {device.unit} at {self._wire.peer}): {error}. {error.fix}"
        device.learn(self._now())
        told, events = device.counters.judge(readings)
        if await self._tell(emit, events, Lane.EVENT) and await self._tell(emit, told, state=device.counters.keep()):
            device.counters.kept()
        else:
            device.unsaid()
        await self._tell_state(emit, device, say)

    async def _ask(self, device: Polled, emit: Emit, readings: list[Reading]) -> str:
        """Put what it answers into `readings`; one sentence where it refuses something, or ''. NoAnswer: silence.

        Where an answer was another question's, all are asked for once more: those before may have been, too.
        """
        rates = device.take_due(self._now(), self._began)
        await self._obey(emit)
        try:
            return await self._ask_all(device, emit, rates, readings)
        except Misfit:
            if device.silent:
                raise
        readings.clear()
        device.identity.ask_again()
        return await self._ask_all(device, emit, rates, readings)

    async def _ask_all(self, device: Polled, emit: Emit, rates: Sequence[Rate], readings: list[Reading]) -> str:
        """As `_ask`, once."""
        try:
            if device.identity.due <= self._now() and await self._identify(device, emit):
                rates = device.rates
            if not device.identity.is_known:
                error = device.identity.error
                readings += device.bad(device.point_ids, error, self._now(), self._at())
                return f"{device.id} (unit {device.unit}): {error}."
            say = await self._ask_for(device, emit, device.blocks(rates, self._wire.worth(device.unit)), readings)
            if device.identity.is_doubted(readings) or device.counters.has_fallen(readings):
                doubted = readings.copy()
                readings.clear()
                if await self._identify(device, emit):
                    device.start_over()  # how it was set when they were read, nobody knows
                else:
                    readings += doubted
        except Refused as error:
            readings += device.bad(device.point_ids, error, self._now(), self._at())
            return f"{device.id} (unit {device.unit}) does not say who it is: {error}. Look at the device itself."
        return say

    async def _ask_for(self, device: Polled, emit: Emit, wanted: Sequence[Block], readings: list[Reading]) -> str:
        """As `_ask`, for these blocks; orders go before each question."""
        say = ""
        blocks = deque(wanted)
        while blocks:
            block = blocks.popleft()
            await self._obey(emit)
            try:
                words = await self._asking.read(device, block)
            except Refused as error:
                parts = device.lesson.parts(block, error)
                blocks.extendleft(reversed(parts))
                if not parts:
                    say = _refused(device, block, error)
                    readings += device.bad(block.slugs, error, self._now(), self._at())
                continue
            device.lesson.passed()
            readings += self._decode(device, block, words)
            device.good(block)
        await self._asking.prove(device)
        return say

    async def _identify(self, device: Polled, emit: Emit) -> bool:
        """Ask the device who it is and how it is set. Whether that is otherwise than it was known.

        NoAnswer; Refused: it has the registers, but does not answer for them now.
        """
        nature = await self._who(device)
        if device.counters.is_other(nature.serials) and await self._who(device) != nature:
            why = "it names two serial numbers, one after the other"
            raise NoAnswer(why, "Look for a second device with its address.")
        before = device.identity.nature
        is_news = device.identity.learn(nature, self._now())
        if nature.is_known:
            device.counters.meet(nature.serials, self._at())
        if nature.layout != before.layout:
            device.turn()
        if remark := device.identity.remark():
            say = f"{device.id} {remark}."
            await self._tell(emit, [Event("nonconforming", device.id, self._at(), say)], Lane.EVENT)
        return is_news

    async def _who(self, device: Polled) -> Nature:
        """What it says of itself."""

        async def read(question: Question) -> list[int] | None:
            try:
                return await self._asking.read(device, Block(*question, ()))
            except Refused as error:
                if error.reason != Reason.CONFIG_ERROR:
                    raise
                return None

        nature = await inquire(device.profile, read)
        await self._asking.prove(device)
        return nature

    def _fall_silent(
        self, device: Polled, error: DeviceError, readings: Sequence[Reading], lost: float
    ) -> list[Reading]:
        """What has no value now, but for those of `readings`."""
        said = {reading.point for reading in readings}
        rest = [slug for slug, point in device.point_ids.items() if point not in said]
        silent = 1 + sum(each.silent for each in self._devices if each is not device)
        others = len(self._devices) - silent
        device.fall_silent(self._now(), lost + 2 * self._wire.afterwards, silent, others)
        return device.bad(rest, error, self._now(), self._at())

    def _answers(self, device: Polled) -> None:
        """It speaks. If it was silent, what silenced it may be over for the other silent ones, too: they are asked."""
        if device.silent:
            for each in self._devices:
                if each.silent:
                    each.due = min(each.due, self._now())
            device.silent = False

    async def _tell_state(self, emit: Emit, device: Polled, say: str) -> None:
        state = device.state()
        if state == device.trouble:
            return
        say = say if state else f"{device.id} answers again."
        if await self._tell(emit, [Event(state or "device_up", device.id, self._at(), say)], Lane.EVENT):
            device.trouble = state

    def _decode(self, device: Polled, block: Block, words: list[int]) -> list[Reading]:
        at = self._at()
        readings = []
        raw = struct.pack(f">{block.count}H", *words)
        for slug, field in block.fields:
            value, reason = decode_at(field, raw, 2 * (field.addr - block.addr))
            point = device.point_ids[slug]
            readings.append(Reading(point, None, at, Quality.BAD, reason) if reason else Reading(point, value, at))
        return readings

    async def _tell(
        self,
        emit: Emit,
        records: Sequence[Record],
        lane: Lane = Lane.TELEMETRY,
        state: Mapping[str, Json] | None = None,
    ) -> bool:
        if not records:
            return True
        try:
            await emit(records, lane=lane, state=state or None)
        except StorageError:
            # The buffer says itself that it is full or sick; the next poll brings newer values.
            return False
        return True

    async def _obey(self, emit: Emit) -> None:
        """The orders that wait now, not those that come meanwhile: a flood of them does not stop the polling."""
        self._alive()
        for _ in range(len(self._orders)):
            self._alive()
            put = self._orders.popleft()
            if put.done.done():
                continue
            try:
                await self._vouch(put, emit)
                reading = await self._carry_out(put)
            except (CommandError, DeviceError) as error:
                put.refuse(error)
                continue
            except (LinkError, asyncio.CancelledError):
                put.refuse(CommandError("link_down", f"{self._link.name} went down while {put.command.on} was set."))
                raise
            if not put.done.done():
                put.done.set_result(put.reply(reading))
            await self._tell(emit, [reading])

    async def _vouch(self, put: Order, emit: Emit) -> None:
        """Nothing is written to a device that is not what it is taken for, nor in another word order. DeviceError."""
        if not put.device.identity.is_asked:
            return
        try:
            await self._identify(put.device, emit)
        except (NoAnswer, Refused) as error:
            why = f"{put.command.on} does not say who it is: {error}. Nothing was written."
            raise DeviceError(why) from None
        if not put.device.identity.is_known:
            raise DeviceError(f"{put.command.on}: {put.device.identity.error}. Nothing was written.")

    async def _carry_out(self, put: Order) -> Reading:
        """Write, and believe only what is read back, even when the answer to the write was lost."""
        on = put.command.on
        lost: NoAnswer | None = None
        if not put.is_rehearsal:
            try:
                await self._wire.write(put.unit, put.place.fc, put.field.addr, put.words)
            except Refused as error:
                raise DeviceError(f"{on} refuses {put.value:g}: {error}. Check that it may be set now.") from None
            except NoAnswer as error:
                lost = error
        try:
            words = await self._asking.read(put.device, put.block)
        except (NoAnswer, Refused) as error:
            if put.is_rehearsal:
                raise DeviceError(f"{on} cannot be read: {error}. Nothing was written.") from None
            why = f"{on} was told {put.value:g}, but it cannot be read back: {error}. Read it before you try again."
            raise CommandError("unconfirmed", why) from None
        reading = put.proved(words, lost, self._at())
        put.device.good(put.block)
        return reading

    def _alive(self, asleep: float = 0.0) -> None:
        """Heard from again after one question at the latest: two tries, each after a connection or a quiet line."""
        self._link.alive(asleep + 12 * self._slowest + NAP)

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def _at(self) -> int:
        return self._link.clock.boot()


def _pace(device: Polled, settings: Settings) -> Pace:
    """The site's word on how long an answer may take is the last one; without it, the maker's counts."""
    line = device.profile.line
    granted = line.answer[1] if line.answer else 0.0
    longest = settings.timeout if "timeout" in settings.model_fields_set else granted or settings.timeout
    return Pace(longest, granted, line.min_gap)


def wire(link: Link, paces: Mapping[int, Pace]) -> "Tcp | Line":
    """The wire of a link; it opens when it is first asked."""
    settings: Settings = link.settings
    if settings.tls:
        from drivers.modbus import tls

        return Tcp(
            *settings.endpoint,
            settings.timeout,
            paces,
            partial(tls.context, settings, link.secret),
            settings.server_name,
        )
    if settings.host:
        return Tcp(*settings.endpoint, settings.timeout, paces)
    from drivers.modbus.line import Line

    return Line(link.name, settings, paces)


def _refused(device: Polled, block: Block, error: DeviceError) -> str:
    action = (
        f"Check that profile {device.profile.profile} fits this device."
        if error.reason == Reason.CONFIG_ERROR
        else "Look at the device itself."
    )
    return f"{device.id} (unit {device.unit}) refuses {block}: {error}. {action}"
