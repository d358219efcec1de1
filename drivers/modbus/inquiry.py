"""Which meter answers here? Asks the least that tells the profiles apart. Pure: it says what to ask, and is told.

Few makers share a register that names the model, so the registers themselves are the trait: whoever answers where a
profile has values may be it, whoever refuses there is not. Each question is the one that says most about the profiles
that are still possible; those whose factory setting is the line's count most.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from drivers.modbus import identify
from drivers.modbus.codec import Field, decode
from drivers.modbus.identify import Bank, Match
from drivers.modbus.settings import Profile
from gateway.model import Reason

Question = tuple[int, int, int]
"""Function, address on the wire, number of registers."""

LIKELY, POSSIBLE, UNLIKELY = 30, 10, 1
"""How much a profile counts: it leaves the factory with the line's setting, nobody knows with which, with another."""
AHEAD = 8
"""Questions of which it is worked out what would follow."""
TIE = 0.1
"""What each further profile that fits as well takes from the confidence."""


@dataclass(slots=True)
class _Candidate:
    profile: Profile
    weight: int
    needed: list[Question]
    """What `match` looks for."""
    fields: list[Field]
    registers: frozenset[tuple[int, int]]
    windows: frozenset[Question]
    """Two registers, or one, that this device answers."""
    open: list[Question]
    """Of those, what has not been asked yet."""
    answered: bool = False
    """Something of it has come."""

    def has(self, question: Question) -> bool:
        """Whether this device answers it."""
        fc, first, count = question
        if self.profile.line.pairs and (first % 2 or count % 2) and question not in self.needed:
            return False
        return all((fc, addr) in self.registers for addr in range(first, first + count))


class Candidates:
    """The profiles that a meter may have. `serial`: the line as a profile writes it (9600 8N1), '' where there is none
    (TCP). What is asked while nothing answers is worked out once for all units.
    """

    def __init__(self, profiles: Sequence[Profile], serial: str) -> None:
        self.all = [_candidate(each, serial) for each in profiles if each.match]
        self.sought: dict[tuple[Question, ...], Question | None] = {}


class Inquiry:
    """One unit's."""

    def __init__(self, candidates: Candidates) -> None:
        self.bank: dict[int, dict[int, int]] = {}
        """What it has answered so far."""
        self.asked: list[Question] = []
        self._sought = candidates.sought
        self._candidates = [replace(each) for each in candidates.all]
        self._refused: list[Question] = []
        self._doubted: list[_Candidate] = []
        """They were refused half a value, which some devices do to any half."""
        self._apart: Question | None = None

    def next(self) -> Question | None:
        """What to ask now; None when no question tells more."""
        answered = [each for each in self._candidates if each.answered]
        complete = [each for each in answered if not each.open]
        if any(check.exact for each in complete for check in each.profile.match):
            return None
        if question := self._best((q, each.weight) for each in answered for q in each.open):
            return question
        if complete:
            return self._telling_apart(complete)
        question = self._seeking()
        if question is None and self._doubted:
            self._candidates, self._doubted = self._doubted, []
            return self._best((q, each.weight) for each in self._candidates for q in each.open)
        return question

    def told(self, question: Question, words: Sequence[int] | None) -> None:
        """The registers that `question` brought; None: it was refused."""
        self.asked.append(question)
        if words is None:
            self._refused.append(question)
        else:
            self.bank.setdefault(question[0], {}).update(enumerate(words, question[1]))
        kept = []
        for each in self._candidates:
            each.open = [q for q in each.open if not self._has(q)]
            each.answered |= words is not None and each.has(question)
            if not self._contradicts(each, question, refused=words is None):
                kept.append(each)
        self._candidates = kept
        if question == self._apart and (has_it := [each for each in kept if self._says(each, question)]):
            self._candidates = has_it

    def found(self) -> list[Match]:
        """The profiles that fit, best first; several that nothing told apart are each less sure."""
        matches = identify.matches([each.profile for each in self._candidates if not each.open], self.bank)
        best = [match for match in matches if match.confidence == matches[0].confidence]
        doubt = TIE * (len(best) - 1)
        return [Match(match.profile, max(TIE, match.confidence - doubt)) for match in best]

    def _seeking(self) -> Question | None:
        """While nothing has answered: the question after which the fewest more are to be expected."""
        asked = tuple(self.asked)
        if not self.bank and asked in self._sought:
            return self._sought[asked]
        seekers = [
            (each, {q for q in (*each.windows, *each.open) if not self._is_asked(q)}) for each in self._candidates
        ]
        direct = {q for each in self._candidates for q in each.open}
        votes = _votes(seekers)
        ahead = sorted(votes, key=lambda q: (-votes[q], q not in direct, q))[:AHEAD]
        found = min(ahead, key=lambda q: _effort(q, seekers), default=None)
        if not self.bank:
            self._sought[asked] = found
        return found

    def _best(self, weighed: Iterator[tuple[Question, int]]) -> Question | None:
        votes: Counter[Question] = Counter()
        for question, weight in weighed:
            if not self._is_asked(question):
                votes[question] += weight
        return max(votes, key=lambda q: (votes[q], q[2], -q[1]), default=None)

    def _is_asked(self, question: Question) -> bool:
        return self._has(question) or any(_is_within(refused, question) for refused in self._refused)

    def _has(self, question: Question) -> bool:
        fc, first, count = question
        known = self.bank.get(fc, {})
        return all(addr in known for addr in range(first, first + count))

    def _says(self, each: _Candidate, question: Question) -> bool:
        """Whether a value of it was asked for, and has come: zero is what some devices say where they have nothing."""
        asked = (one for one in each.fields if (one.fc, one.addr, one.width) == question)
        return any(_decoded(one, self.bank)[0] not in (None, 0) for one in asked)

    def _contradicts(self, each: _Candidate, question: Question, *, refused: bool) -> bool:
        if refused:
            if not each.has(question):
                return False
            if question not in each.needed and not any(_is_at(one, question) for one in each.fields):
                self._doubted.append(each)
            return True
        checks = identify.located(each.profile, each.profile.match)
        if any(
            _is_read(one, self.bank) and not identify.fits(each.profile, check, one, self.bank) for check, one in checks
        ):
            return True
        if any(check.else_word_order for check in each.profile.verify):
            return False  # it may be set to the other word order
        return any(
            _is_at(one, question) and _is_read(one, self.bank) and _decoded(one, self.bank)[1] is Reason.OUT_OF_RANGE
            for one in each.fields
        )

    def _telling_apart(self, complete: Sequence[_Candidate]) -> Question | None:
        """A value that half of them have and the others have not."""
        having: dict[Question, set[int]] = {}
        for number, each in enumerate(complete):
            for one in each.fields:
                having.setdefault((one.fc, one.addr, one.width), set()).add(number)
        split = {q: min(len(who), len(complete) - len(who)) for q, who in having.items() if not self._is_asked(q)}
        self._apart = max(split, key=lambda q: (split[q], -q[0], -q[1]), default=None)
        if self._apart is not None and not split[self._apart]:
            self._apart = None
        return self._apart


Seekers = Sequence[tuple[_Candidate, set[Question]]]


def _votes(seekers: Seekers) -> Counter[Question]:
    votes: Counter[Question] = Counter()
    for each, questions in seekers:
        for question in questions:
            votes[question] += each.weight
    return votes


def _effort(first: Question, seekers: Seekers) -> tuple[int, int]:
    """If `first` is asked: how many questions until each of the likely ones must have answered; and until each
    candidate has, summed by weight.
    """
    question, rest = first, list(seekers)
    count = longest = effort = 0
    while rest:
        count += 1
        hit = [each for each, windows in rest if question in windows]
        effort += sum((count + (question not in each.open)) * each.weight for each in hit)
        if any(each.weight > UNLIKELY for each in hit):
            longest = count
        rest = [one for one in rest if question not in one[1] and one[1]]
        votes = _votes(rest)
        question = max(votes, key=lambda q: (votes[q], q), default=question)
    return longest, effort


def _candidate(profile: Profile, serial: str) -> _Candidate:
    told = list(identify.located(profile, profile.match))
    # Where a SunSpec device has its values, only the device itself says.
    fields = [] if profile.sunspec else [field for _, field in (*profile.fields(), *profile.writable())]
    alone = {(one.fc, one.addr) for check, one in told if check.alone}
    registers = {(one.fc, addr) for one in (*fields, *(one for _, one in told)) for addr in range(one.addr, one.end)}
    registers -= alone
    step = 2 if profile.line.pairs else 1
    windows = {
        (fc, addr, count)
        for fc, addr in registers
        for count in range(step, 3)
        if addr % step == 0 and (count == 1 or (fc, addr + 1) in registers)
    }
    needed = _together(profile, [one for check, one in told if not check.alone], registers)
    needed += [(one.fc, one.addr, one.width) for check, one in told if check.alone]
    setting = profile.line.serial
    weight = LIKELY if (setting or "") == serial else POSSIBLE if setting is None else UNLIKELY
    return _Candidate(
        profile, weight, needed, fields, frozenset(registers | alone), frozenset(windows), open=list(needed)
    )


def _together(profile: Profile, fields: Sequence[Field], registers: set[tuple[int, int]]) -> list[Question]:
    """One question for those of `match` that its own registers join, where the device gives so many."""
    found: list[Question] = []
    for one in sorted(fields, key=lambda each: (each.fc, each.addr)):
        if found and found[-1][0] == one.fc:
            _, first, count = found[-1]
            span = {(one.fc, addr) for addr in range(first, one.end)}
            if span <= registers and one.end - first <= profile.line.max_regs:
                found[-1] = (one.fc, first, max(count, one.end - first))
                continue
        found.append((one.fc, one.addr, one.width))
    return found


def _is_at(one: Field, question: Question) -> bool:
    """Whether the question holds whole values of the field."""
    fc, first, count = question
    return one.fc == fc and first <= one.addr and one.end <= first + count


def _is_within(inner: Question, outer: Question) -> bool:
    return inner[0] == outer[0] and outer[1] <= inner[1] and inner[1] + inner[2] <= outer[1] + outer[2]


def _is_read(one: Field, bank: Bank) -> bool:
    known = bank.get(one.fc, {})
    return all(addr in known for addr in range(one.addr, one.end))


def _decoded(one: Field, bank: Bank) -> tuple[float | str | None, Reason | None]:
    known = bank[one.fc]
    return decode(one, [known[addr] for addr in range(one.addr, one.end)])
