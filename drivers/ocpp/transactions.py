"""What is known of a charger's transactions, as durable state: ids, and what makes a repeated message the same one.

Pure: every change is planned as state for one `emit` beside its records, and holds when that emit has returned,
because the next plan reads the state back as it was committed. Chargers repeat messages under new message ids, so each
is known again by its content: values as the last ones of their charge, for a charger tells them in order (§3.7.1), a
Start by what it says, a Stop by its number or, where that says nothing, by all of it.
"""

import hashlib
import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from typing import Any

import orjson

from drivers.ocpp import codec
from drivers.ocpp.codec import Remarks
from gateway.model import Json
from gateway.ports import State

NEXT = "transaction/next"
REMEMBERED = 30
"""Ended transactions that are remembered per charger."""
MOST_OPEN = 30
"""Open ones: a charger that never stops any must not fill the state."""
_ROUNDED_MS = 1000
"""Chargers cut their times to seconds, not all of them everywhere."""
_FIRST_BELOW = 1_000_000_000
_LARGEST = 0x7FFFFFFF


@dataclass(frozen=True, slots=True)
class Transaction:
    """One charge. Energy in Wh of the charger's register."""

    id: int
    connector: int
    tag: str
    """The pseudonym."""
    meter_start: float | None
    began: str
    """The time stamp of StartTransaction as the charger wrote it."""
    is_open: bool = True
    has_no_baseline: bool = False
    """Its register cannot have stood at `meter_start`."""
    is_undated: bool = False
    """It began while nobody knew the time; the charger has its clock from us."""

    def is_start_of(self, other: "Transaction", tags: Collection[str]) -> bool:
        """Whether `other` would be this one again, whose tag is one of `tags`. Without a time stamp only while open."""
        mine = (self.connector, self.meter_start, self.began)
        theirs = (other.connector, other.meter_start, other.began)
        return mine == theirs and self.tag in tags and (self.is_open or bool(self.began))


@dataclass(frozen=True, slots=True)
class Clue:
    """What a message tells of its charge, where the transaction id in it says nothing."""

    connector: int | None
    """None: any."""
    tags: Collection[str]
    """Pseudonyms of its tag; none: any."""
    time: int | None
    """The earliest that it speaks of, UTC milliseconds of the charger."""
    meter: float | None
    """Where its register stood at the end, Wh."""

    @classmethod
    def of(cls, payload: Mapping[str, Any], connector: int | None, tags: Collection[str]) -> "Clue":
        """Of a MeterValues or a StopTransaction."""
        entries = payload.get("meterValue") or payload.get("transactionData")
        parts = [payload, *(entries if isinstance(entries, list) else ())]
        times = [codec.moment(part.get("timestamp"), Remarks()) for part in parts if isinstance(part, Mapping)]
        meter = codec.number(payload, "meterStop", Remarks())
        return cls(connector, tags, min((time for time in times if time is not None), default=None), meter)

    def fits(self, one: Transaction) -> bool:
        """Nothing of a charge is before its start, and no register runs backwards while it lasts."""
        began = None if one.is_undated else codec.moment(one.began, Remarks())
        return (
            self.connector in (None, one.connector)
            and (not self.tags or one.tag in self.tags)
            and (self.time is None or began is None or self.time >= began - _ROUNDED_MS)
            and (self.meter is None or one.meter_start is None or self.meter >= one.meter_start)
        )


class Ids:
    """Transaction ids of one link: unique and positive, also across restarts."""

    def __init__(self, state: State) -> None:
        following = state.get(NEXT)
        # The first of a new buffer is chosen at random: a charger may still hold an id that was given before the
        # card was lost.
        self._next = following if isinstance(following, int) else 1 + secrets.randbelow(_FIRST_BELOW)

    def take(self) -> tuple[int, dict[str, Json]]:
        """(id, state that must be committed with it). Nothing may be awaited between this and its `emit`."""
        taken = self._next
        self._next = taken % _LARGEST + 1
        return taken, {NEXT: self._next}


class Ledger:
    """The transactions of one charger, read from and planned for the link's durable state."""

    def __init__(self, device: str, state: State) -> None:
        self._all, self._last, self._strays = f"transactions/{device}", f"last/{device}", f"strays/{device}"
        self._session = f"session/{device}/"
        self._state = state
        self._read: tuple[Json, list[Transaction]] = (None, [])

    def known(self) -> list[Transaction]:
        """Oldest first. Not to be changed."""
        rows = self._state.get(self._all)
        if rows is not self._read[0]:
            made = [Transaction(*row) for row in rows] if isinstance(rows, Sequence) else []  # type: ignore[misc]
            self._read = (rows, made)
        return self._read[1]

    def by_id(self, transaction_id: int | None) -> Transaction | None:
        for one in reversed(self.known()):
            if one.id == transaction_id:
                return one
        return None

    def begun_as(self, start: Transaction, tags: Collection[str]) -> Transaction | None:
        """The transaction that this start, with a tag of these pseudonyms, has begun already."""
        return next((one for one in self.known() if one.is_start_of(start, tags)), None)

    def unnamed(self, clue: Clue) -> Transaction | None:
        """The open transaction whose id the charger never learnt, if there is exactly one that it can be: its
        messages come with -1 then (errata v4 §3.18).
        """
        found = [one for one in self.known() if one.is_open and not self.is_named(one) and clue.fits(one)]
        return found[0] if len(found) == 1 else None

    def is_named(self, transaction: Transaction) -> bool:
        stored = self.progress(transaction)
        return isinstance(stored, Sequence) and bool(stored[1])

    def progress(self, transaction: Transaction) -> Json:
        """As committed with `note`."""
        return self._state.get(self._session + str(transaction.id))

    def is_repeated(self, digest: str) -> bool:
        """Whether the last values of no open transaction were these very ones."""
        return self._state.get(self._last) == digest

    def is_stray(self, digest: str) -> bool:
        """Whether this stop, whose number says nothing, has come before."""
        return digest in self._seen()

    def begin(self, transaction: Transaction) -> tuple[dict[str, Json], list[Transaction]]:
        """(state, open transactions that are forgotten for it: a charger that never stops any has no room)."""
        kept, forgotten = _bounded([*self.known(), transaction])
        state: dict[str, Json] = {self._all: kept}
        return state | {self._session + str(one.id): None for one in forgotten}, forgotten

    def end(self, transaction: Transaction) -> dict[str, Json]:
        known = [replace(one, is_open=False) if one.id == transaction.id else one for one in self.known()]
        kept, _ = _bounded(known)
        return {self._all: kept, self._session + str(transaction.id): None}

    def note(self, transaction: Transaction, progress: Json) -> dict[str, Json]:
        """The state of values of an open transaction: what is known of it besides its start."""
        return {self._session + str(transaction.id): progress}

    def pass_over(self, digest: str) -> dict[str, Json]:
        """The state of values of no open transaction."""
        return {self._last: digest}

    def stray(self, digest: str) -> dict[str, Json]:
        """The state of a stop whose number says nothing."""
        return {self._strays: [*self._seen(), digest][-REMEMBERED:]}

    def _seen(self) -> Sequence[Json]:
        seen = self._state.get(self._strays)
        return seen if isinstance(seen, Sequence) else ()


def _bounded(transactions: list[Transaction]) -> tuple[list[Json], list[Transaction]]:
    """(rows, open transactions left out)."""
    ended = [one for one in transactions if not one.is_open][:-REMEMBERED]
    still_open = [one for one in transactions if one.is_open][:-MOST_OPEN]
    forgotten = {one.id for one in [*ended, *still_open]}
    return [list(astuple(one)) for one in transactions if one.id not in forgotten], still_open


def digest(action: str, payload: Mapping[str, Any]) -> str:
    """The same for a message sent again, whatever its id."""
    content = orjson.dumps([action, payload], option=orjson.OPT_SORT_KEYS)
    return hashlib.blake2b(content, digest_size=12).hexdigest()
