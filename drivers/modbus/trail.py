"""What was asked of one unit lately, and which answers may still be under way. Pure.

RTU has no transaction numbers, and some gateways put the last answer under the next one: an answer fits whatever is
asked with its function and length. So the next question has another length where the device allows that. Answers come
in the order of the questions: once one is answered whose answer could be none to those before, theirs come no more.
"""

import math
from collections.abc import Sequence

from drivers.modbus.plan import Block, Limits, Named, lengthened

SUSPECT = 60.0
"""Seconds for which an answer that never came may come, and after which a unit is asked something of another length."""

Shape = tuple[int, int]
"""Function and number of registers: all that is told apart."""
_NOTHING = Block(0, 0, 0, ())


class Trail:
    """Of one unit. `there`: the fields that it answers."""

    def __init__(self, limits: Limits, there: Sequence[Named]) -> None:
        self._limits, self._there = limits, there
        self._asked: dict[int, int] = {}
        """By function: how many registers were asked for last."""
        self._last = _NOTHING
        """What was asked last."""
        self._proved = -math.inf
        """Loop time of the last question whose answer could be none to the one before, if none that could was since."""
        self._lost: dict[Shape, float] = {}
        """Questions without an answer in the order of the first of each, and until when it may still come."""
        self._stepped: Block | None = None
        """What stood apart the last time."""
        self._refused: set[tuple[int, int, int]] = set()
        self._longer: dict[Block, Block] = {}
        """What is asked instead of a planned block where the last answer was as long."""

    def leads(self, there: Sequence[Named]) -> None:
        """From now on over these fields."""
        self._there, self._refused, self._longer = there, set(), {}

    def shorten(self) -> None:
        """Less is answered at once than was thought."""
        self._longer = {}

    def start_over(self) -> None:
        """The wire is new: who knows what was asked before."""
        self._last = _NOTHING

    def ordered(self, blocks: Sequence[Block]) -> Sequence[Block]:
        """The same; the answer to the last could be none to the one before it, where there is such an order."""
        self._longer |= {block: self._lengthened(block, {block.count}) for block in blocks}
        for at in reversed(range(len(blocks))):
            others = [*blocks[:at], *blocks[at + 1 :]]
            if others and (blocks[at].fc != others[-1].fc or self._can_differ(blocks[at], others[-1].count)):
                return [*others, blocks[at]]
        return blocks

    def as_asked(self, block: Block, now: float) -> Block:
        """`block` as it is to be asked: of another length than the last answer, and than any that is still to come."""
        last = {self._asked.get(block.fc, 0)}
        lost = {count for fc, count in self._still_to_come(now) if fc == block.fc} if self._lost else set()
        asked = self._varied(block, last | lost)
        return asked if asked.count not in lost else self._varied(block, lost)

    def asks(self, asked: Block, now: float) -> None:
        """It is asked so now."""
        last, self._last, self._asked[asked.fc] = self._last, asked, asked.count
        if last is _NOTHING:
            self._proved = -math.inf
        elif asked.count != last.count or asked.fc != last.fc:
            self._proved = now
        elif asked.addr != last.addr:
            self._proved = -math.inf

    def is_suspect(self, asked: Block, now: float) -> bool:
        """Whether its answer could be one that is still to come."""
        return bool(self._lost) and _shape(asked) in self._still_to_come(now)

    def is_proved(self, now: float) -> bool:
        """Whether no answer was lately believed that could be another question's."""
        return now - self._proved < SUSPECT

    def apart(self, now: float) -> Block | None:
        """The shortest question whose answer could be none to those asked lately; None: there is no such.

        Where the last such was not answered it is that again, as nobody looks at what it says: a unit that is silent
        for long does not use up all lengths.
        """
        lost = self._still_to_come(now)
        if self._stepped is None or self._stepped is not self._last or _shape(self._stepped) not in lost:
            self._stepped = self._shortest({*lost, _shape(self._last)})
        return self._stepped

    def _shortest(self, taken: set[Shape]) -> Block | None:
        found = None
        for slug, field in self._there:
            if found and field.width >= found.count:
                continue
            single = Block(field.fc, field.addr, field.width, ((slug, field),))
            asked = self._lengthened(single, {count for fc, count in taken if fc == field.fc})
            if _shape(asked) in taken or (asked.fc, asked.addr, asked.count) in self._refused:
                continue
            if not found or asked.count < found.count:
                found = asked
        return found

    def answered(self, asked: Block) -> None:
        """It came: no answer to a question that was put before comes any more."""
        if self._lost:
            shapes = list(self._lost)
            since = shapes.index(_shape(asked)) if _shape(asked) in self._lost else len(shapes)
            self._lost = {shape: self._lost[shape] for shape in shapes[since:]}

    def missed(self, asked: Block, now: float) -> None:
        """No answer came."""
        self._lost[_shape(asked)] = now + SUSPECT

    def refused(self, asked: Block) -> None:
        """A refusal does not say which question it answers; what stands apart is another question the next time."""
        self._proved = -math.inf
        self._refused.add((asked.fc, asked.addr, asked.count))

    def _still_to_come(self, now: float) -> set[Shape]:
        return {shape for shape, until in self._lost.items() if until > now}

    def _can_differ(self, block: Block, count: int) -> bool:
        return self._varied(block, {count}).count != count

    def _varied(self, block: Block, taken: set[int]) -> Block:
        if block.count not in taken:
            return block
        if len(taken) == 1 and block in self._longer:
            return self._longer[block]
        return self._lengthened(block, taken)

    def _lengthened(self, block: Block, taken: set[int]) -> Block:
        # What asks who the device is has no fields, and may be answered only by itself.
        return lengthened(block, self._there, self._limits, taken) if block.fields else block


def _shape(block: Block) -> Shape:
    return block.fc, block.count
