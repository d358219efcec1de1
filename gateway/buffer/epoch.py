"""Whose numbers they are: a lane's epochs, one above the other.

A record's place is a position: its epoch's number in the upper bits, its seq in the lower 40. So the records of
a salvaged or cloned file keep the identity under which a platform may hold them, beside the new epoch's, and
every range of positions runs through all epochs. In a lane's first epoch positions are seqs.
"""

from collections.abc import Sequence
from dataclasses import dataclass

EPOCH_BITS = 40


@dataclass(frozen=True, slots=True)
class Epoch:
    """`id` as in batches; records have the positions `base` + seq; `last`: of its last record, None while it grows."""

    number: int
    id: str
    machine: str
    last: int | None

    @property
    def base(self) -> int:
        return self.number << EPOCH_BITS


def epoch_at(epochs: Sequence[Epoch], position: int) -> Epoch:
    """The epoch of a position; IndexError where it lies below all of them."""
    return [epoch for epoch in epochs if epoch.base <= position][-1]
