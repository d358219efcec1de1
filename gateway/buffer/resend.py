"""Sending again what a platform has lost, as far as it is still here: see `keep_after_ack`."""

from gateway.buffer.connection import Transaction
from gateway.buffer.lanefile import LaneFile
from gateway.errors import StorageError
from gateway.ranges import Ranges

_AT_ONCE = 1024 * 1024


def resend(file: LaneFile, uplink: str, epoch: str, first: int, last: int) -> Ranges:
    """Unsettle seqs first..last for an uplink; returns the positions that are here. StorageError: no such stream."""
    base = next((known.base for known in file.epochs if known.id == epoch), None)
    if base is None or uplink not in file.settled:
        epochs, uplinks = ", ".join(known.id for known in file.epochs), ", ".join(file.settled) or "none"
        say = f"{file.path} knows no epoch {epoch}, or no uplink {uplink}."
        raise StorageError(f"{say} Its epochs are {epochs}; its uplinks: {uplinks}.")
    held, at, end = Ranges(), base + first, base + last
    while blocks := file.read(at, end, _AT_ONCE):
        for block in blocks:
            held.add(max(block.first, base + first), min(block.last, end))
        at = blocks[-1].last + 1
    for span in held:
        file.settled[uplink].remove(*span)
    with Transaction(file.db):
        file.store_settled(uplink)
    return held
