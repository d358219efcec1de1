"""Questions to one device after another, and which of its answers can be believed.

A line has no transaction numbers, and some gateways put the last answer under the next one. So answers are told apart
by their length; where that cannot be, a question that stands apart shows that nothing else was under way.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from drivers.modbus.device import Polled
from drivers.modbus.frames import ABOUT_REGISTERS, Misfit, NoAnswer, Refused
from drivers.modbus.plan import Block
from drivers.modbus.tcp import Tcp
from gateway.model import Reason

if TYPE_CHECKING:
    from drivers.modbus.line import Line


class Asking:
    """On one wire. `alive` is told before each question."""

    def __init__(self, wire: "Tcp | Line", alive: Callable[[], None]) -> None:
        self._wire, self._alive = wire, alive
        self.started = 0.0
        """Loop time at which the last reading began."""

    async def read(self, device: Polled, block: Block) -> list[int]:
        """The registers of `block`, which may be asked for in a longer request. NoAnswer, Refused.

        Once more where an answer is lost: gateways close idle connections. A silent device gets no second try. Misfit:
        what was read since `prove` is worth nothing, either; after a loss no later answer vouches for it.
        """
        self.started = now = _now()
        has_second_try, is_vouched_for = not device.silent, device.trail.is_proved(now)
        while True:
            asked = device.trail.as_asked(block, now)
            try:
                if device.trail.is_suspect(asked, now):
                    await self._step_apart(device)
                words = await self._put(device, asked)
            except NoAnswer as error:
                if not is_vouched_for:
                    raise Misfit(str(error), error.fix) from None
                if isinstance(error, Misfit) or not has_second_try:
                    raise
                has_second_try = False
            except Refused as error:
                if asked is block or error.code not in ABOUT_REGISTERS:
                    raise
                device.refuses_more(block, asked)
            else:
                return words[block.addr - asked.addr :][: block.count]
            now = _now()

    async def prove(self, device: Polled) -> None:
        """Return if what was read is what was asked for. Misfit: nobody knows."""
        if not device.trail.is_proved(_now()):
            try:
                await self._step_apart(device)
            except NoAnswer as error:
                raise Misfit(str(error), error.fix) from None

    async def _step_apart(self, device: Polled) -> None:
        """Ask what no answer that is under way would fit, where there is such a question: then none was."""
        if apart := device.trail.apart(_now()):
            with suppress(Refused):
                await self._put(device, apart)

    async def _put(self, device: Polled, asked: Block) -> list[int]:
        """One question. A gateway that waited in vain (exception 11) is silence, too."""
        self._alive()
        device.trail.asks(asked, _now())
        try:
            words = await self._wire.read(device.unit, asked.fc, asked.addr, asked.count)
        except Refused as error:
            if error.reason != Reason.COMM_FAILURE:
                device.trail.refused(asked)
                raise
            lost = NoAnswer(str(error))
        except NoAnswer as error:
            lost = error
        else:
            device.trail.answered(asked)
            return words
        device.trail.missed(asked, _now())
        raise lost


def _now() -> float:
    return asyncio.get_running_loop().time()
