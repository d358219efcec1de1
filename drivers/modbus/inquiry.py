"""Which meter answers here? Asks the least that tells the profiles apart. Pure: it says what to ask, and is told.

Few makers share a register that names the model, so the registers themselves are the trait: whoever answers where a
profile has values may be it, whoever refuses there is not. How it refuses speaks, too: who does not know function 4 is
none of those that do. Each question is the one that concerns most of the profiles that are still possible, and most of
those that need further questions to be told apart: so no meter takes many, and nothing is asked twice.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from drivers.modbus import identify, sunspec
from drivers.modbus.codec import Field, decode
from drivers.modbus.identify import Bank, Match
from drivers.modbus.settings import Profile
from gateway.model import Reason

Question = tuple[int, int, int]
"""Function, address on the wire, number of registers."""

TIE = 0.1
"""What each further profile that fits as well takes from the confidence."""


@dataclass(slots=True)
class _Candidate:
    profile: Profile
    needed: list[Question]
    """What `match` looks for."""
    fields: list[Field]
    registers: frozenset[tuple[int, int]]
    windows: frozenset[Question]
    """Two registers, or one, that this device answers."""
    open: list[Question]
    """Of `needed`, what has not been asked yet; of a SunSpec device, the places where it may begin."""
    explains: int = 0
    """How many answers it explains."""
    is_odd: bool = False
    """It would refuse otherwise than this device does, if its maker's list of functions is right."""

    def has(self, question: Question) -> bool:
        """Whether this device answers it."""
        fc, first, count = question
        if self.profile.line.pairs and (first % 2 or count % 2) and question not in self.needed:
            return False
        return all((fc, addr) in self.registers for addr in range(first, first + count))

    def knows(self, fc: int) -> bool | None:
        """Whether it has this function; None: nobody says so."""
        if any(one == fc for one, _ in self.registers):
            return True
        return fc in self.profile.line.functions if self.profile.line.functions else None


class Candidates:
    """The profiles that a meter may have. What is asked while nothing answers is worked out once for all units."""

    def __init__(self, profiles: Sequence[Profile]) -> None:
        self.all = [_candidate(each) for each in profiles if each.match]
        self.sought: dict[tuple[tuple[Question, bool], ...], Question | None] = {}


class Inquiry:
    """One unit's."""

    def __init__(self, candidates: Candidates) -> None:
        self.bank: dict[int, dict[int, int]] = {}
        """What it has answered so far."""
        self.asked: list[Question] = []
        self._sought = candidates.sought
        self._candidates = [replace(each, open=list(each.open)) for each in candidates.all]
        self._heard: list[tuple[Question, bool]] = []
        """What was refused, and whether for its function: as long as nothing else has come."""
        self._refused: list[Question] = []
        self._doubted: list[_Candidate] = []
        """They were refused half a value, which some devices do to any half."""
        self._apart: Question | None = None
        self._walk: sunspec.Walk | None = None
        self._ahead: Question | None = None
        """What the walk through a SunSpec device asks next."""
        self._place: sunspec.Place | None = None

    def next(self) -> Question | None:
        """What to ask now; None when no question tells more."""
        if self._ahead or self._place:
            return self._ahead
        most = max((each.explains for each in self._candidates), default=0)
        answered = [each for each in self._candidates if each.explains == most > 0]
        complete = [each for each in answered if not each.open]
        if any(check.exact for each in complete for check in each.profile.match):
            return None
        if question := self._best(answered):
            return question
        if complete:
            return self._telling_apart(complete)
        question = self._seeking()
        if question is None and self._doubted:
            self._candidates, self._doubted = self._doubted, []
            return self._best(self._candidates)
        return question

    def told(self, question: Question, words: Sequence[int] | None, *, is_illegal: bool = False) -> None:
        """The registers that `question` brought; None: it was refused, `is_illegal`: for its function."""
        self.asked.append(question)
        if words is None:
            self._refused.append(question)
            self._heard.append((question, is_illegal))
        else:
            self.bank.setdefault(question[0], {}).update(enumerate(words, question[1]))
        if self._walk:
            self._go_on(words)
            return
        found = sunspec.begins(self.bank, question)
        kept = []
        for each in self._candidates:
            each.open = [q for q in each.open if not self._is_asked(q)]
            if each.profile.sunspec:
                each.open = [(fc, base, count) for fc, base, count in each.open if not self._has((fc, base, 1))]
                kept += [each] if each.open or found else []
                continue
            each.explains += words is not None and each.has(question)
            each.is_odd |= each.knows(question[0]) not in (None, not is_illegal)
            if not self._contradicts(each, question, refused=words is None):
                kept.append(each)
        if question == self._apart and (has_it := [each for each in kept if self._says(each, question)]):
            kept = has_it
        self._candidates = kept
        if found:
            models = [model for each in self._sunspec() for model in each.profile.sunspec]
            self._walk = sunspec.onwards(models, *found, has_serial=False)
            self._go_on(None)

    def _sunspec(self) -> list[_Candidate]:
        return [each for each in self._candidates if each.profile.sunspec]

    def _go_on(self, words: Sequence[int] | None) -> None:
        """One step through the models of a SunSpec device."""
        assert self._walk
        try:
            self._ahead = next(self._walk) if self._ahead is None else self._walk.send(words)
        except StopIteration as done:
            self._walk = self._ahead = None
            place: sunspec.Place = done.value
            fits = [each for each in self._sunspec() if place.model in each.profile.sunspec]
            self._place = place if fits else None
            self._candidates = fits or [each for each in self._candidates if not each.profile.sunspec]

    def found(self) -> list[Match]:
        """The profiles that fit, best first; several that nothing told apart are each less sure."""
        if self._place:
            return [Match(each.profile, identify.SURE) for each in self._candidates]
        matches = identify.matches([each.profile for each in self._candidates if not each.open], self.bank)
        best = [match for match in matches if match.confidence == matches[0].confidence]
        doubt = TIE * (len(best) - 1)
        return [Match(match.profile, max(TIE, match.confidence - doubt)) for match in best]

    def _seeking(self) -> Question | None:
        """While nothing has answered: what concerns most of those that take longest to be told apart."""
        heard = tuple(self._heard)
        if not self.bank and heard in self._sought:
            return self._sought[heard]
        votes: Counter[Question] = Counter()
        answers: Counter[Question] = Counter()
        for each in [each for each in self._candidates if not each.is_odd] or self._candidates:
            for question in {q for q in (*each.windows, *each.open) if not self._is_asked(q)}:
                votes[question] += 1 + len(each.open)
                answers[question] += sum(_is_within(q, question) for q in each.open)
        found = max(votes, key=lambda q: (votes[q], answers[q], -q[2], -q[0], -q[1]), default=None)
        if not self.bank:
            self._sought[heard] = found
        return found

    def _best(self, among: Sequence[_Candidate]) -> Question | None:
        votes = Counter(q for each in among for q in each.open if not self._is_asked(q))
        return max(votes, key=lambda q: (votes[q], q[2], -q[1]), default=None)

    def _is_asked(self, question: Question) -> bool:
        return self._has(question) or any(_is_within(refused, question) for refused in self._refused)

    def _has(self, question: Question) -> bool:
        return all(self._word(*place) is not None for place in _places(question))

    def _word(self, fc: int, addr: int) -> int | None:
        return self.bank.get(fc, {}).get(addr)

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
        if not each.open and not any(self._word(*place) for question in each.needed for place in _places(question)):
            return True  # nothing but zeros says nothing
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


def _candidate(profile: Profile) -> _Candidate:
    if profile.sunspec:  # where it has its values, only the device itself says
        places = [(sunspec.FC, base, sunspec.BEGINNING) for base in sunspec.BASES]
        registers = {(fc, addr) for fc, base, count in places for addr in range(base, base + count)}
        return _Candidate(profile, [], [], frozenset(registers), frozenset(places), places)
    told = list(identify.located(profile, profile.match))
    fields = [field for _, field in (*profile.fields(), *profile.writable())]
    alone = {(one.fc, one.addr) for check, one in told if check.alone}
    beside = [*profile.match, *profile.verify, *([profile.serial_number] if profile.serial_number else [])]
    spoken = [*fields, *(one for _, one in identify.located(profile, beside))]
    registers = {(one.fc, addr) for one in spoken for addr in range(one.addr, one.end)}
    registers |= {
        (fc, addr) for fc, spans in profile.answers.items() for low, high in spans for addr in range(low, high + 1)
    }
    if profile.assign:
        registers |= {(3, one.addr + n) for one in profile.assign.holdings.values() for n in range(one.width)}
    registers -= alone
    if profile.line.one_table:
        registers |= {(7 - fc, addr) for fc, addr in registers}
    step = 2 if profile.line.pairs else 1
    windows = {
        (fc, addr, count)
        for fc, addr in registers
        for count in range(step, 3)
        if addr % step == 0 and (count == 1 or (fc, addr + 1) in registers)
    }
    needed = _together(profile, [one for check, one in told if not check.alone], registers)
    needed += [(one.fc, one.addr, one.width) for check, one in told if check.alone]
    return _Candidate(profile, needed, fields, frozenset(registers | alone), frozenset(windows), needed)


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


def _places(question: Question) -> Iterator[tuple[int, int]]:
    """Function and address of each register."""
    fc, first, count = question
    return ((fc, addr) for addr in range(first, first + count))


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
