"""Who is on this wire? Asks unit after unit, at one speed after another. It only reads, and never two at a time."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from drivers.modbus.frames import ILLEGAL_FUNCTION, NoAnswer, Refused
from drivers.modbus.identify import Match
from drivers.modbus.inquiry import Candidates, Inquiry, Question
from drivers.modbus.settings import Profile
from gateway.errors import LinkError

UNITS = range(1, 248)
FORMATS = ("8N1", "8E1", "8N2", "8O1")
NOBODY = (10, 11)
"""Exceptions by which a gateway says that nobody answers behind it."""
SETTLE = 0.3
"""Seconds in which everything that was asked for must have come."""
SURVEYED, TOGETHER = 100, 10
"""Registers of a stranger that are read, and how many at once: the shortest limit of any meter is 11."""
MOST = 40
"""Questions to one unit that nothing recognises."""


class Wire(Protocol):
    """A `Line` or `Tcp`."""

    async def open(self) -> None: ...
    async def read(self, unit: int, fc: int, addr: int, count: int) -> list[int]: ...
    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Step:
    """What is asked next. `serial` is '' on TCP."""

    serial: str
    unit: int
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class Found:
    """Somebody answers. `trouble`: one sentence and one action where nothing it says can be believed."""

    serial: str
    unit: int
    matches: Sequence[Match] = ()
    questions: int = 0
    bank: Mapping[int, Mapping[int, int]] = field(default_factory=dict)
    trouble: str = ""


Told = Callable[[Step | Found], Awaitable[None]]


async def scan(
    wire_at: Callable[[str], Wire],
    profiles: Sequence[Profile],
    factory: Mapping[str, Sequence[int]],
    rest: Sequence[str],
    units: Sequence[int],
    tell: Told,
) -> None:
    """First the `factory` units of each setting, then all `units` at each of `rest`; where somebody answered, first.

    A setting that the port does not have is passed over. LinkError: there is no wire. When it is cancelled, the wire
    is closed.
    """
    total = sum(len(each) for each in factory.values()) + sum(
        len([unit for unit in units if unit not in factory.get(serial, ())]) for serial in rest
    )
    done = 0
    candidates = Candidates(profiles)
    lively: list[str] = []
    opened: list[str] = []
    asked = {serial: set(each) for serial, each in factory.items()}

    async def sweep(serial: str, wanted: Sequence[int]) -> None:
        nonlocal done
        wire = wire_at(serial)
        try:
            if not await _opens(wire, wire_at, opened):
                done += len(wanted)
                return
            opened.append(serial)
            for unit in wanted:
                await tell(Step(serial, unit, done, total))
                done += 1
                if found := await look(wire, serial, unit, candidates):
                    lively.append(serial)
                    await tell(found)
        finally:
            wire.close()

    for serial, wanted in factory.items():
        if wanted:
            await sweep(serial, wanted)
    for serial in sorted(rest, key=lambda each: each not in lively):
        if wanted := [unit for unit in units if unit not in asked.get(serial, ())]:
            await sweep(serial, wanted)


async def _opens(wire: Wire, wire_at: Callable[[str], Wire], opened: Sequence[str]) -> bool:
    """False where the port does not have this setting. LinkError: it is not there at all, or no longer."""
    try:
        await wire.open()
    except LinkError:
        if not opened:
            raise
        again = wire_at(opened[0])
        try:
            await again.open()
        finally:
            again.close()
        return False
    return True


async def look(wire: Wire, serial: str, unit: int, candidates: Candidates) -> Found | None:
    """Who is at this unit; None where nobody answers."""
    inquiry = Inquiry(candidates)
    try:
        while (question := inquiry.next()) and len(inquiry.asked) < MOST:
            answer = await _read(wire, unit, question, is_first=not inquiry.asked)
            if isinstance(answer, Refused):
                inquiry.told(question, None, is_illegal=answer.code == ILLEGAL_FUNCTION)
            else:
                inquiry.told(question, answer)
        matches = inquiry.found()
        if not matches and inquiry.asked:
            # Refusals do not say what they refuse: those of two meters pass for one's until the line is left alone.
            await asyncio.sleep(SETTLE)
            await _read(wire, unit, inquiry.asked[0], is_first=False)
    except NoAnswer as error:
        return None if _is_silence(error) and not inquiry.asked else Found(serial, unit, trouble=_why(unit, error))
    except Refused:
        return None  # by a gateway, for nobody
    if not matches:
        await _survey(wire, unit, inquiry.bank)
    return Found(serial, unit, matches, len(inquiry.asked), inquiry.bank)


async def _survey(wire: Wire, unit: int, bank: dict[int, dict[int, int]]) -> None:
    """The first registers of one that nobody knows, as far as it gives them: enough to begin a profile with."""
    for fc in (4, 3):
        for at in range(0, SURVEYED, TOGETHER):
            for first, count in ((at, TOGETHER), *((each, 2) for each in range(at, at + TOGETHER, 2))):
                try:
                    words = await wire.read(unit, fc, first, count)
                except (NoAnswer, Refused):
                    continue
                bank.setdefault(fc, {}).update(enumerate(words, first))
                if count == TOGETHER:
                    break


async def _read(wire: Wire, unit: int, question: Question, *, is_first: bool) -> list[int] | Refused:
    """The registers, or how it refuses. Once more where an answer is lost, but not where nobody was heard yet.

    Refused: a gateway says that nobody is there.
    """
    has_second_try = True
    while True:
        try:
            return await wire.read(unit, *question)
        except NoAnswer as error:
            if not has_second_try or (is_first and _is_silence(error)):
                raise
            has_second_try = False
        except Refused as error:
            if error.code in NOBODY:
                raise
            return error


def _is_silence(error: NoAnswer) -> bool:
    return "no answer within" in str(error) or "closed without" in str(error)


def _why(unit: int, error: NoAnswer) -> str:
    if "two answers" in str(error) or "damaged" in str(error):
        return f"Two meters share address {unit}. Disconnect one, and give the other a new one: lampione assign."
    said = str(error)
    return f"Unit {unit}: {said}. {error.fix}"


def factory_settings(profiles: Sequence[Profile], units: Sequence[int]) -> dict[str, list[int]]:
    """Line setting to the units that meters have there when they are new; the commonest setting first."""
    found: dict[str, list[int]] = {}
    commonest = sorted(profiles, key=lambda each: -sum(each.line.serial == one.line.serial for one in profiles))
    for profile in commonest:
        if profile.line.serial:
            at = found.setdefault(profile.line.serial, [])
            unit = profile.line.unit or 1
            if unit not in at and unit in units:
                at.append(unit)
    return {serial: at for serial, at in found.items() if at}


def settings(profiles: Sequence[Profile]) -> Iterator[str]:
    """Every line setting that any meter can have: first those that meters come with, then by speed."""
    given = factory_settings(profiles, UNITS)
    yield from given
    speeds = {int(each.partition(" ")[0]) for each in given} | {rate for each in profiles for rate in each.line.speeds}
    for speed in sorted(speeds, key=lambda rate: abs(rate - 9600)):
        for serial in (f"{speed} {each}" for each in FORMATS):
            if serial not in given:
                yield serial
