"""Which profile fits a device that nobody has told of: asked step by step, read-only, in few questions.

No register says it for all makers. So each answer, and each refusal, is held against all profiles at once: one that
has a value where the device refuses, or a range that the value is not in, is out. The next question is the one that
most of the profiles that are left have something to say about; one that is half confirmed is finished first.
"""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from drivers.modbus.codec import Field, decode
from drivers.modbus.frames import Refused
from drivers.modbus.identify import SURE, Match, fits, located, matches, needed, requests
from drivers.modbus.settings import Profile
from gateway.model import Reason

Question = tuple[int, int, int]
"""Function, address on the wire, count."""
Ask = Callable[[int, int, int], Awaitable[Sequence[int]]]
"""(function, address, count) to registers. Refused: the device does not give them."""
MOST = 24
"""Questions after which it is not worth while to go on. A meter on a line as it leaves the factory needs eight."""


@dataclass(slots=True)
class _Candidate:
    profile: Profile
    questions: list[Question]
    has: dict[int, set[int]]
    """By function: the registers that it knows of."""
    fields: list[Field]
    speaks: int = 0
    """Answers that it explains; none speaks against it."""


@dataclass(slots=True)
class Search:
    """One device's. Pure: `question`, then `answered`, until there is no question left.

    `serial` is how the line is set, `9600 8N1`, or '' for Modbus TCP: meters that leave the factory so are asked for
    first.
    """

    profiles: Iterable[Profile]
    serial: str = ""
    bank: dict[int, dict[int, int]] = field(default_factory=lambda: {3: {}, 4: {}})
    """What was read."""
    asked: list[Question] = field(default_factory=list)
    _left: list[_Candidate] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._left = [_candidate(profile) for profile in self.profiles if profile.match]

    @property
    def found(self) -> list[Match]:
        """The profiles all of whose `match` hold, best first."""
        speaks = {one.profile.profile: one.speaks for one in self._left}
        found = matches([one.profile for one in self._left], self.bank)
        return sorted(found, key=lambda match: (match.confidence, speaks[match.profile.profile]), reverse=True)

    def question(self) -> Question | None:
        """What to ask next. None: nothing more can be learnt."""
        found = self.found
        if found and found[0].confidence >= SURE:
            return None
        names = {match.profile.profile for match in found}
        best = max((one.speaks for one in self._left if one.profile.profile in names), default=-1)
        if names and all(one.speaks < best for one in self._left if one.profile.profile not in names):
            return None
        wanted = {question: one for one in self._left for question in one.questions if question not in self.asked}
        return max(wanted, key=lambda question: self._worth(question, wanted[question]), default=None)

    def answered(self, question: Question, words: Sequence[int] | None) -> None:
        """What came; None: it was refused."""
        self.asked.append(question)
        fc, addr, _ = question
        if words is not None:
            self.bank[fc].update(enumerate(words, addr))
        self._left = [one for one in self._left if self._may_be(one, question, words)]
        for one in self._left if words is not None else ():
            one.speaks += _has(one, question)

    def _worth(self, question: Question, one: _Candidate) -> tuple[bool, int, bool, int, bool]:
        half = any(asked in one.questions for asked in self.asked)
        leaves_so = (one.profile.line.serial or "") == self.serial
        exact = any(check.exact for check in one.profile.match)
        return half, one.speaks, leaves_so, sum(_has(each, question) for each in self._left), exact

    def _may_be(self, one: _Candidate, question: Question, words: Sequence[int] | None) -> bool:
        if words is None:
            return not _has(one, question)
        asked = [
            (check, place)
            for check, place in located(one.profile, one.profile.match)
            if (place.fc, place.addr, place.width) == question
        ]
        if asked:
            return all(fits(one.profile, check, place, self.bank) for check, place in asked)
        fc, addr, count = question
        inside = (each for each in one.fields if each.fc == fc and addr <= each.addr and each.end <= addr + count)
        return not any(_contradicts(each, words[each.addr - addr :][: each.width]) for each in inside)


async def identify(profiles: Iterable[Profile], ask: Ask, *, most: int = MOST, serial: str = "") -> Search:
    """Put at most `most` questions; what fits is in `found`. Whatever `ask` raises but Refused."""
    search = Search(profiles, serial)
    while len(search.asked) < most and (question := search.question()):
        try:
            words = await ask(*question)
        except Refused:
            search.answered(question, None)
        else:
            search.answered(question, words)
    return search


def _candidate(profile: Profile) -> _Candidate:
    fields = [each for _, each in (*profile.fields(), *profile.writable())]
    questions, told = requests(profile, profile.match), requests(profile, needed(profile))
    has: dict[int, set[int]] = {3: set(), 4: set()}
    for fc, addr, end in (*((each.fc, each.addr, each.end) for each in fields), *_ends(questions), *_ends(told)):
        has[fc].update(range(addr, end))
    return _Candidate(profile, questions, has, [each for each in fields if each.special is None])


def _ends(questions: Iterable[Question]) -> Iterable[Question]:
    return ((fc, addr, addr + count) for fc, addr, count in questions)


def _has(one: _Candidate, question: Question) -> bool:
    """Whether that meter would answer."""
    fc, addr, count = question
    if one.profile.line.pairs and (addr % 2 or count % 2) and question not in one.questions:
        return False
    return one.has[fc].issuperset(range(addr, addr + count))


def _contradicts(place: Field, words: Sequence[int]) -> bool:
    """Whether it cannot be that point, in either word order."""
    other = replace(place, low_word_first=not place.low_word_first)
    return all(decode(each, words)[1] is Reason.OUT_OF_RANGE for each in (place, other))
