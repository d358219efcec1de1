"""What is known of a charger's transactions, as durable state: ids, and what makes a repeated message the same one.

Pure: every change is planned as state for one `emit` beside its records, and holds when that emit has returned,
because the next plan reads the state back as it was committed. A charger sends its transaction messages one at a
time and in order (§3.7.1), so a repeated one is a repetition of the last, or a Start or Stop remembered here. A
Start is known again by its content, for chargers repeat it under a new message id.
"""

import hashlib
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from typing import Any

import orjson

from gateway.model import Json
from gateway.ports import State

NEXT = "transaction/next"
REMEMBERED = 30
"""Ended transactions that are remembered per charger."""
MOST_OPEN = 30
"""Open ones: a charger that never stops any must not fill the state."""
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

    def is_start_of(self, other: "Transaction") -> bool:
        """Whether `other` would be this one again. Without a time stamp only while it is open."""
        mine = (self.connector, self.tag, self.meter_start, self.began)
        theirs = (other.connector, other.tag, other.meter_start, other.began)
        return mine == theirs and (self.is_open or bool(self.began))


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
        self._all, self._last = f"transactions/{device}", f"last/{device}"
        self._state = state

    def known(self) -> list[Transaction]:
        """Oldest first."""
        rows = self._state.get(self._all)
        return [Transaction(*row) for row in rows] if isinstance(rows, Sequence) else []  # type: ignore[misc]

    def by_id(self, transaction_id: int | None) -> Transaction | None:
        return next((one for one in self.known() if one.id == transaction_id), None)

    def begun_as(self, start: Transaction) -> Transaction | None:
        """The transaction that this start has begun already."""
        return next((one for one in self.known() if one.is_start_of(start)), None)

    def is_repeated(self, digest: str) -> bool:
        """Whether the last transaction message was this very one."""
        return self._state.get(self._last) == digest

    def begin(self, transaction: Transaction, digest: str) -> dict[str, Json]:
        return {self._last: digest, self._all: _bounded([*self.known(), transaction])}

    def end(self, transaction: Transaction, digest: str) -> dict[str, Json]:
        known = [replace(one, is_open=False) if one.id == transaction.id else one for one in self.known()]
        return {self._last: digest, self._all: _bounded(known)}

    def note(self, digest: str) -> dict[str, Json]:
        """The state of a message that neither begins nor ends a known transaction."""
        return {self._last: digest}


def _bounded(transactions: list[Transaction]) -> list[Json]:
    forgotten = {one.id for one in [one for one in transactions if not one.is_open][:-REMEMBERED]}
    forgotten |= {one.id for one in [one for one in transactions if one.is_open][:-MOST_OPEN]}
    return [list(astuple(one)) for one in transactions if one.id not in forgotten]


def digest(action: str, payload: Mapping[str, Any]) -> str:
    """The same for a message sent again, whatever its id."""
    content = orjson.dumps([action, payload], option=orjson.OPT_SORT_KEYS)
    return hashlib.blake2b(content, digest_size=12).hexdigest()
