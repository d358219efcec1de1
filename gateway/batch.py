"""The batch and its acknowledgement as they go over every wire (contract 3), encoded and decoded here only.

The dataclasses hold the rows in their wire form: a batch is built from stored blocks and written out
by the thousand, and nothing in between needs more than that. `docs/batch.md` explains each key;
`config/schema/batch.json` is its JSON Schema.
"""

import zlib
from dataclasses import dataclass
from typing import Any

import orjson

from gateway.model import ClockState, Lane, Point, Receipt
from gateway.ranges import Ranges

VERSION = 1
MEDIA_TYPE = "application/vnd.lampione.batch+json; v=1"
ENCODING = "deflate"
"""zlib, RFC 1950, as HTTP's content coding of that name."""
MAX_DECODED = 4 * 1024 * 1024

LIVE, BACKLOG = "live", "backlog"


class BatchError(ValueError):
    """What came over the wire is not a batch or an acknowledgement of this version; str() says why."""


class BatchRefusedError(BatchError):
    """The acknowledgement says that the platform cannot read the batch; str() is its reason."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Records `span[0]`..`span[1]` of one lane and epoch, less what `skip` lists with its reason.

    `readings`: [seq, index into points, ms after `time`, value, quality?, reason?, more?]
    `events`:   [seq, ms after `time`, object], an event or a reply to a command
    `points`:   [point id, quantity, unit, phase, direction, statistic, part, window], trailing nulls cut
    `low`:      the oldest seq of this lane and epoch still to come, so holes below it are losses
    `error`:    ms that `time` may be off, None where nobody knows
    `up`:       `time` on the boot clock, of an unsynced batch: an anchor of its `boot` dates it later
    """

    gateway: str
    lane: Lane
    epoch: str
    span: tuple[int, int]
    low: int
    time: int
    clock: ClockState
    boot: str
    mode: str = LIVE
    inventory: int = 0
    skip: tuple[tuple[int, int, str], ...] = ()
    points: tuple[tuple[Any, ...], ...] = ()
    readings: tuple[Any, ...] | list[Any] = ()
    events: tuple[Any, ...] | list[Any] = ()
    error: int | None = None
    up: int | None = None


def point_entry(point: Point) -> tuple[Any, ...]:
    """The `p` entry of a point: everything a platform needs to know it without an inventory."""
    entry = [
        point.id,
        point.quantity,
        point.unit,
        point.phase,
        point.direction,
        point.statistic,
        point.part,
        point.window,
    ]
    while entry[-1] is None:
        entry.pop()
    return tuple(entry)


def encode(batch: Batch) -> bytes:
    """JSON, UTF-8, not yet compressed."""
    document: dict[str, Any] = {
        "v": VERSION, "gw": batch.gateway, "lane": batch.lane, "ep": batch.epoch, "inv": batch.inventory,
        "boot": batch.boot, "t": batch.time, "clock": batch.clock, "mode": batch.mode, "low": batch.low,
        "span": batch.span,
    }  # fmt: skip
    if batch.error is not None:
        document["err"] = batch.error
    if batch.up is not None:
        document["up"] = batch.up
    if batch.skip:
        document["skip"] = batch.skip
    if batch.readings:
        document["p"] = batch.points
        document["r"] = batch.readings
    if batch.events:
        document["e"] = batch.events
    return orjson.dumps(document)


def compress(payload: bytes) -> bytes | None:
    """zlib where it pays, else None: under some hundred bytes it costs more than it saves."""
    if len(payload) < 400:
        return None
    packed = zlib.compress(payload, 1)
    return packed if len(packed) < len(payload) else None


def decompress(payload: bytes) -> bytes:
    """Undo `compress`, never making more than MAX_DECODED bytes of it. BatchError where it is not zlib."""
    unpacker = zlib.decompressobj()
    try:
        plain = unpacker.decompress(payload, MAX_DECODED)
    except zlib.error as error:
        raise BatchError(f"the payload is not zlib: {error}") from None
    if not unpacker.eof:
        raise BatchError(f"the payload is cut off, or larger than {MAX_DECODED} bytes when unpacked")
    return plain


def decode(payload: bytes) -> Batch:
    """The batch in `payload`; BatchError says what is wrong with it."""
    document = _object(payload)
    try:
        first, last = document["span"]
        batch = Batch(
            gateway=_text(document, "gw"),
            lane=Lane(document["lane"]),
            epoch=_text(document, "ep"),
            span=(_whole(first), _whole(last)),
            low=_whole(document["low"]),
            time=_whole(document["t"]),
            clock=ClockState(document["clock"]),
            boot=_text(document, "boot"),
            mode=_text(document, "mode"),
            inventory=_whole(document.get("inv", 0)),
            skip=tuple((_whole(a), _whole(b), str(why)) for a, b, why in document.get("skip", ())),
            points=tuple(tuple(entry) for entry in document.get("p", ())),
            readings=document.get("r", []),
            events=document.get("e", []),
            error=_whole(document["err"]) if "err" in document else None,
            up=_whole(document["up"]) if "up" in document else None,
        )
    except KeyError as missing:
        raise BatchError(f"the batch has no {missing}") from None
    except (TypeError, ValueError) as error:
        raise BatchError(f"the batch does not read: {error}") from None
    _check_rows(batch)
    return batch


def _check_rows(batch: Batch) -> None:
    first, last = batch.span
    if last < first:
        raise BatchError(f"span {first}..{last} ends before it starts")
    if not (isinstance(batch.readings, list) and isinstance(batch.events, list)):
        raise BatchError("readings or events are not a list")
    seqs: list[int] = []
    for row in batch.readings:
        if not (isinstance(row, list) and len(row) >= 4 and all(type(n) is int for n in row[:3])):
            raise BatchError(f"reading {row!r} is not [seq, point, ms, value, …]")
        if not 0 <= row[1] < len(batch.points):
            raise BatchError(f"reading {row[0]} names point {row[1]} of {len(batch.points)}")
        seqs.append(row[0])
    for row in batch.events:
        if not (isinstance(row, list) and len(row) == 3 and type(row[0]) is int and isinstance(row[2], dict)):
            raise BatchError(f"event {row!r} is not [seq, ms, object]")
        seqs.append(row[0])
    skipped = Ranges()
    for a, b, why in batch.skip:
        if not first <= a <= b <= last:
            raise BatchError(f"skip {a}..{b} ({why}) is not within span {first}..{last}")
        if skipped.missing(a, b) != [(a, b)]:
            raise BatchError(f"skip {a}..{b} ({why}) repeats what another skips")
        skipped.add(a, b)
    if skipped and any(seq in skipped for seq in seqs):
        raise BatchError("a record is there and skipped at once")
    if len(set(seqs)) != len(seqs) or (seqs and not (first <= min(seqs) and max(seqs) <= last)):
        raise BatchError(f"seqs repeat or leave span {first}..{last}")
    if len(seqs) + skipped.total() != last - first + 1:
        raise BatchError(f"span {first}..{last} is not accounted for: {len(seqs)} records, {skipped.total()} skipped")


def encode_receipt(gateway: str, lane: Lane, receipt: Receipt) -> bytes:
    """The acknowledgement document, sent only after the platform's commit."""
    document: dict[str, Any] = {
        "v": VERSION, "gw": gateway, "lane": lane, "ep": receipt.epoch, "ok": receipt.accepted,
    }  # fmt: skip
    if receipt.rejected:
        document["bad"] = [[seq, why, True] if retry else [seq, why] for seq, why, retry in receipt.rejected]
    return orjson.dumps(document)


def encode_refusal(gateway: str, lane: str, why: str) -> bytes:
    """The answer to a batch that cannot be read, so that nothing in it can be told apart."""
    return orjson.dumps({"v": VERSION, "gw": gateway, "lane": lane, "refused": why})


def decode_receipt(payload: bytes) -> Receipt:
    """The receipt in an acknowledgement. BatchError says what is wrong with it, BatchRefusedError with the batch."""
    document = _object(payload)
    if "refused" in document:
        raise BatchRefusedError(_text(document, "refused"))
    try:
        accepted = tuple((_whole(a), _whole(b)) for a, b in document["ok"])
        rejected = tuple(
            (_whole(row[0]), str(row[1]), len(row) > 2 and bool(row[2])) for row in document.get("bad", ())
        )
        receipt = Receipt(_text(document, "ep"), accepted, rejected)
    except KeyError as missing:
        raise BatchError(f"the acknowledgement has no {missing}") from None
    except (TypeError, ValueError, IndexError) as error:
        raise BatchError(f"the acknowledgement does not read: {error}") from None
    for first, last in accepted:
        if last < first:
            raise BatchError(f"acknowledged range {first}..{last} ends before it starts")
    return receipt


def _object(payload: bytes) -> dict[str, Any]:
    try:
        document = orjson.loads(payload)
    except orjson.JSONDecodeError as error:
        raise BatchError(f"not JSON: {error}") from None
    if not isinstance(document, dict):
        raise BatchError("not a JSON object")
    if document.get("v") != VERSION:
        raise BatchError(f"version {document.get('v')!r} is not {VERSION}")
    return document


def _text(document: dict[str, Any], key: str) -> str:
    value = document[key]
    if not isinstance(value, str):
        raise BatchError(f"{key!r} is not text")
    return value


def _whole(value: Any) -> int:
    if type(value) is not int:
        raise BatchError(f"{value!r} is not a whole number")
    return value
