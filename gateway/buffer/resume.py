"""What a running lane knows that its file may not: taken over when the file is opened again after a fault."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from gateway.buffer.block import INSERT
from gateway.buffer.epoch import Epoch
from gateway.buffer.facts import Facts
from gateway.buffer.points import LOST
from gateway.buffer.skips import Skips
from gateway.errors import StorageError
from gateway.model import Json
from gateway.ranges import Ranges


@dataclass(frozen=True, slots=True)
class Remains:
    """What a lane in memory still holds: its epoch, and the block rows that somebody waits for."""

    epoch: Epoch
    last: int
    rows: Sequence[Sequence[Any]]
    settled: Mapping[str, Ranges]
    """Of this epoch."""
    skips: Mapping[str, Skips]


@dataclass(frozen=True, slots=True)
class Past:
    """`head`: the position after the last record that was promised from this file, None where it was never open.

    `memory`: what the lane that went on without the disk holds; its records keep their epoch.
    """

    head: int | None
    points: Mapping[int, str]
    state: Mapping[str, Json]
    memory: Remains | None = None


def resume(file: Facts, past: Past, ended: int) -> int:
    """Within the opening's transaction. Returns the position beyond which new records must lie.

    A commit whose end was not heard of may have reached the disk: its producer was told that it failed, or its
    records went on in memory. So it is taken back, with the state that came with it. `ended`: where the file's own
    records end.
    """
    if past.head is not None:
        file.db.execute("DELETE FROM block WHERE first >= ?", (past.head,))
        for key in file.state.keys() - past.state.keys():
            file.store_state(key, None)
    for number, entry in past.points.items():
        if file.points.get(number, LOST) == LOST:
            file.store_point(number, entry)
    for key, value in past.state.items():
        file.store_state(key, value)
    if past.memory is None:
        return past.head or 1
    last = min(ended, past.head or ended) - 1
    for epoch in file.epochs:
        if epoch.last is None:
            file.store_epoch(replace(epoch, last=last))
    _take_over(file, past.memory)
    return past.memory.last + 1


def _take_over(file: Facts, memory: Remains) -> None:
    """Memory may have numbered its epoch without knowing the file's: it then lies anywhere above the first, even
    among what was settled as nobody's. One number in a million is taken: memory goes on until the next start.
    """
    if any(epoch.number == memory.epoch.number for epoch in file.epochs):
        raise StorageError(f"the buffer has an epoch {memory.epoch.number} already. Restart the gateway.")
    file.store_epoch(replace(memory.epoch, last=memory.last))
    file.db.executemany(INSERT, memory.rows)
    for uplink, spans in file.settled.items():
        spans.remove(memory.epoch.base + 1, memory.last)
        for first, last in memory.settled.get(uplink, ()):
            spans.add(first, last)
        file.store_settled(uplink)
    for uplink, skips in memory.skips.items():
        merged = file.skips.get(uplink, Skips()).copy()
        merged.merge(skips)
        file.store_skips(uplink, merged)
