"""What the refusals of one poll teach: which register a device does not have, or how much it gives at once. Pure.

Exceptions 2 and 3 refuse a whole request, but hardly ever because of all that it asks. So the request is parted and
asked again until the culprit stands alone, or until every part passes and the request itself was what was refused.
"""

from drivers.modbus.frames import ABOUT_REGISTERS, Refused
from drivers.modbus.plan import Block, Limits, halves

BAD_FUNCTION, BAD_VALUE = 1, 3
HOPELESS = 4
"""So many fields refused on their own, and nothing passed: the profile is wrong, further parting is waste."""
MOST_PARTS = 24
"""Times that requests are parted in one poll: the neighbours on the line want to be asked, too."""


class Lesson:
    """One poll's."""

    def __init__(self) -> None:
        self._parted: list[tuple[Block, Block, Block, int]] = []
        self._shortened: list[tuple[Block, tuple[int, int]]] = []
        self._excused: set[str] = set()
        self.culprits: set[str] = set()
        """Fields that the device does not have."""
        self._passed = False

    def passed(self) -> None:
        self._passed = True

    def parts(self, block: Block, error: Refused) -> tuple[Block, ...]:
        """What to ask instead of `block`; nothing where it stays refused."""
        hopeless = not self._passed and len(self.culprits) >= HOPELESS
        if error.code in ABOUT_REGISTERS and len(block.fields) > 1 and not hopeless and len(self._parted) < MOST_PARTS:
            parts = halves(block)
            self._parted.append((block, *parts, error.code))
            return parts
        if error.code in (BAD_FUNCTION, *ABOUT_REGISTERS):
            self.culprits.update(block.slugs)
        else:
            self._excused.update(block.slugs)
        return ()

    def refused_more(self, block: Block, asked: Block, limits: Limits) -> None:
        """`block` was asked for in a longer request, which was refused: not in that one again."""
        cut = (block.fc, block.end if asked.end > block.end else block.addr)
        self._shortened.append((block, cut))
        limits.cuts.add(cut)

    def learn(self, limits: Limits) -> bool:
        """Put into `limits` what was refused although each of its parts passed. Whether there was anything."""
        explained = self.culprits | self._excused
        parted = {block for block, _, _, _ in self._parted}
        for block, cut in self._shortened:
            if not explained.isdisjoint(block.slugs):  # it is refused by itself
                limits.cuts.discard(cut)
        learnt = bool(self._shortened)
        for block, left, right, code in self._parted:
            if parted & {left, right} or not explained.isdisjoint(block.slugs):
                continue
            learnt = True
            if code == BAD_VALUE:
                limits.longest = min(limits.longest, max(left.count, right.count))
            else:
                limits.cuts.add((right.fc, right.addr))
        return learnt
