"""A block: consecutive records of one lane as one row, small on disk and checked by a CRC.

A row of a block is `[point number, ms since the block's anchor, value, quality?, reason?, more?]` for a
reading and `[EVENT, ms since the anchor, object]` for an event or a reply: what goes into a batch later,
with the point's number in this lane file in place of its index in the batch.
"""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

import orjson

from gateway.buffer.points import Points
from gateway.model import ClockState, Event, Quality, Reading, Record, Reply
from gateway.ports import Clock

EVENT = -1
MAX_RECORDS = 500
_PLAIN, _ZLIB = b"\0", b"\1"
_WORTH_PACKING = 200
_WINDOW, _MEMORY = 13, 6
"""A fifth of zlib's usual room: that takes longer to make ready than to pack a block, and packs it no smaller."""
COLUMNS = "first, count, boot_id, boot, wall, clock, level, crc, body"
INSERT = f"INSERT INTO block({COLUMNS}) VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?)"
COUNT = "min(500, max(1, coalesce(CAST(count AS INTEGER), 1)))"
"""Of a block that was not read, and may be damaged."""
_GOOD = Quality.GOOD
_SCALARS = frozenset((float, int, str, bool, type(None)))


@dataclass(frozen=True, slots=True)
class Anchor:
    """One wall/boot pair: what turns a block's boot-clock times into UTC when they are sent."""

    boot_id: str
    boot: int
    wall: int
    clock: ClockState
    error: int | None = None
    """Milliseconds that `wall` may be off; None where nobody knows."""

    @classmethod
    def now(cls, clock: Clock) -> "Anchor":
        # The state first: a clock that is set in between is then called unsynchronised, never the reverse.
        state, error = clock.state(), clock.error()
        return cls(clock.boot_id, clock.boot(), clock.wall(), state, error)

    @property
    def trust(self) -> str:
        """Its column: the state, and beside it the error where one is known."""
        return self.clock.value if self.error is None else f"{self.clock.value} {self.error}"


_UNKNOWN = Anchor("", 0, 0, ClockState.UNSYNCED)


@dataclass(frozen=True, slots=True)
class Block:
    """Records `first`..`last`; `rows` is None where the CRC says that they are not what was written."""

    first: int
    count: int
    anchor: Anchor
    rows: Sequence[Any] | None
    size: int
    """Bytes of its rows as JSON."""
    level: int = 0
    """0: as they came; 1, 2: aggregates that stand for thinned records."""

    @property
    def last(self) -> int:
        return self.first + self.count - 1


def rows_of(records: Sequence[Record], points: Points, new: list[tuple[int, str]], boot: int) -> list[Any]:
    """Records as a block's rows; points that the file does not know yet go to `new`. TypeError where a value is not a
    scalar, or what an event tells is not JSON; NaN and infinity are no values. KeyError: no such point.
    """
    rows, numbers = list[Any](), points.numbers
    beside: tuple[int | None, str | None, str | None] = (None, None, None)
    more = None
    for record in records:
        if not isinstance(record, Reading):
            rows.append(event_row(record, boot))
            continue
        point, value, at, quality, reason = record[:5]
        if type(value) is float and not isfinite(value):
            value, quality, reason = None, Quality.BAD, reason or "not_a_number"
        elif type(value) not in _SCALARS:
            raise TypeError(f"{point}: a value is a number, text, bool or None, not {value!r}")
        number = numbers.get(point)
        if number is None:
            number = points.number(point, new)
        if record[5:] != beside:  # the same for all that one message tells: encoded once
            beside = record[5:]
            more = _beside(*beside)
        if more is not None:
            rows.append([number, at - boot, value, quality, reason, more])
        elif quality is _GOOD and reason is None:
            rows.append([number, at - boot, value])
        else:
            rows.append([number, at - boot, value, quality, reason])
    return rows


def _beside(device_time: int | None, context: str | None, transaction: str | None) -> orjson.Fragment | None:
    more = {"device_time": device_time, "context": context, "transaction": transaction}
    said = {key: value for key, value in more.items() if value is not None}
    return orjson.Fragment(orjson.dumps(said)) if said else None


def event_row(record: Event | Reply, boot: int) -> list[Any]:
    """An event or a reply as a block's row. TypeError where its content is not JSON."""
    try:
        return [EVENT, record.at - boot, orjson.Fragment(orjson.dumps(_document(record)))]
    except orjson.JSONEncodeError as error:
        raise TypeError(f"{record} is not JSON: {error}") from None


def _document(record: Event | Reply) -> Mapping[str, Any]:
    match record:
        case Event():
            document: dict[str, Any] = {"event": record.kind, "on": record.on}
            optional = {"say": record.say, "more": dict(record.more), "device_time": record.device_time}
        case Reply():
            document = {"cmd": record.command, "state": record.state}
            optional = {
                "code": record.code, "say": record.say, "now": dict(record.now), "proof": record.proof,
                "until": record.until,
            }  # fmt: skip
    return document | {key: value for key, value in optional.items() if value not in (None, "", {})}


def pack(rows: Sequence[Any]) -> bytes:
    plain = orjson.dumps(rows)
    if len(plain) < _WORTH_PACKING:
        return _PLAIN + plain
    packer = zlib.compressobj(1, zlib.DEFLATED, _WINDOW, _MEMORY)
    return _ZLIB + packer.compress(plain) + packer.flush()


def unpack(body: bytes) -> bytes:
    """The rows as JSON. zlib.error where the CRC should have been looked at first."""
    return zlib.decompress(body[1:]) if body[:1] == _ZLIB else body[1:]


def crc(first: int, count: int, anchor: Anchor, level: int, body: bytes) -> int:
    """Over the row's every column, so that a flipped bit in a time or a number is noticed too."""
    head = f"{first},{count},{anchor.boot_id},{anchor.boot},{anchor.wall},{anchor.trust},{level}".encode()
    return zlib.crc32(body, zlib.crc32(head))


def columns(first: int, rows: Sequence[Any], anchor: Anchor, level: int = 0) -> tuple[Any, ...]:
    """COLUMNS of a new block."""
    body = pack(rows)
    check = crc(first, len(rows), anchor, level, body)
    return first, len(rows), anchor.boot_id, anchor.boot, anchor.wall, anchor.trust, level, check, body


def block_of(row: Sequence[Any]) -> Block:
    """A block from its COLUMNS; where something is not as it was written, without rows, and with nothing else told."""
    first, count, boot_id, boot, wall, trust, level, check, body = row
    try:
        clock, _, error = trust.partition(" ")
        anchor = Anchor(boot_id, boot, wall, ClockState(clock), int(error) if error else None)
        is_whole = crc(first, count, anchor, level, body) == check
    except (AttributeError, TypeError, ValueError):
        is_whole = False
    if not is_whole:
        return Block(first, 1, _UNKNOWN, None, 0)
    plain = unpack(body)
    return Block(first, count, anchor, orjson.loads(plain), len(plain), level)
