"""Commands to write: checked against what the profile allows, as registers, and proved by what is read back."""

import asyncio
import math
from collections.abc import Iterable
from dataclasses import dataclass

from drivers.modbus.codec import Field, decode, encode, same
from drivers.modbus.device import Polled
from drivers.modbus.frames import EVERYBODY, Request, ask
from drivers.modbus.plan import Block
from drivers.modbus.settings import WritePoint
from gateway.errors import CommandError, DeviceError
from gateway.model import Command, CommandState, Json, Quality, Reading, Reply


@dataclass(slots=True)
class Order:
    """One setting of one device, to be carried out by the task that owns the wire."""

    device: Polled
    slug: str
    value: float
    command: Command
    is_rehearsal: bool
    """Nothing is written: what would be sent is said."""
    done: "asyncio.Future[Reply]"

    @property
    def place(self) -> WritePoint:
        return self.device.profile.writes[self.slug]

    @property
    def field(self) -> Field:
        return self.device.settings[self.slug]

    @property
    def unit(self) -> int:
        return EVERYBODY if self.place.broadcast else self.device.unit

    @property
    def words(self) -> tuple[int, ...]:
        """The registers that say it."""
        return encode(self.field, self.value)

    @property
    def block(self) -> Block:
        """What is read back."""
        return Block(self.field.fc, self.field.addr, self.field.width, ((self.slug, self.field),))

    def refuse(self, error: CommandError | DeviceError) -> None:
        if not self.done.done():
            self.done.set_exception(error)

    def proved(self, words: list[int], lost: DeviceError | None, at: int) -> Reading:
        """The reading that the registers read back are. CommandError: they do not say what was written."""
        value, reason = decode(self.field, words)
        if not self.is_rehearsal and not same(self.field, self.words, words):
            cause = f"; {lost}" if lost else ""
            said = f"{value:g}" if isinstance(value, int | float) else "no value"
            why = f"{self.command.on} was told {self.value:g} but says {said}{cause}. Check the device."
            raise CommandError("unconfirmed", why)
        quality = Quality.BAD if reason else Quality.GOOD
        return Reading(self.device.point_ids[self.slug], value, at, quality, reason, context="command")

    def reply(self, reading: Reading) -> Reply:
        """It is done: what holds now, or for a rehearsal, what would be sent."""
        if not self.is_rehearsal:
            now: dict[str, Json] = {"value": reading.value}
            return Reply(self.command.id, CommandState.SUCCEEDED, reading.at, now=now, proof="readback")
        frame = ask(Request(0, self.unit, self.place.fc, self.field.addr, len(self.words), self.words))[6:].hex(" ")
        now = {"value": reading.value, "frame": frame}
        return Reply(self.command.id, CommandState.SUCCEEDED, reading.at, now=now, proof="dry_run")


def order(command: Command, devices: Iterable[Polled]) -> Order:
    """`set` on `asset/device/slug`. CommandError: there is no such setting, or the profile does not allow the value."""
    device_id, _, slug = command.on.rpartition("/")
    device = next((each for each in devices if each.id == device_id), None)
    if command.do != "set" or device is None or slug not in device.settings:
        raise CommandError("unknown_verb", f"{command.on} takes no `{command.do}`.")
    value = command.args.get("value")
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise CommandError("bad_argument", f"{command.on} takes a number; {value!r} was asked.")
    _check_bounds(command.on, device.profile.writes[slug], float(value))
    rehearsal = command.args.get("dry_run") == "yes"
    return Order(device, slug, float(value), command, rehearsal, asyncio.get_running_loop().create_future())


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
