"""The local list in a charger: who may charge there when it cannot ask (OCPP 1.6 §3.5, §5.15).

Whole the first time and whenever a tag has gone, for a tag that is to go would have to be named and only its pseudonym
is kept here; else what is new or has changed. Its version is read back before and after: one that somebody else has
changed gets the whole list.
"""

import contextlib
import hashlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import orjson

from drivers.ocpp import codec
from drivers.ocpp.charger import Charger
from drivers.ocpp.codec import Remarks
from drivers.ocpp.tags import Cards
from gateway.errors import CommandError, ConfigError, StorageError
from gateway.model import ClockState, Json
from gateway.ports import Clock

CHUNK = 50
"""Entries in one message, where the charger does not say how many it takes."""
_LENGTH_KEY = "SendLocalListMaxLength"
Call = Callable[[str, Mapping[str, Any]], Awaitable[Mapping[str, Any]]]


async def version(call: Call) -> int | None:
    """Of the list in the charger: 0 none, -1 it keeps none; None: its answer says nothing."""
    return codec.whole(await call("GetLocalListVersion", {}), "listVersion", Remarks())


async def send(charger: Charger, call: Call, cards: Cards, clock: Clock) -> dict[str, Json]:
    """What the charger then keeps. CommandError: there is no list, or the charger takes none."""
    rows = _rows(cards, clock)
    marks: dict[str, Json] = {name: _mark(row) for name, row in rows.items()}
    held, key = await version(call), f"list/{charger.device.id}"
    if held is None or held < 0:
        raise CommandError("not_supported", f"{charger.device.id} keeps no local list.")
    changed = _changed(charger.recall(key), held, marks)
    sent = [*rows.values()] if changed is None else [rows[name] for name in changed]
    now, refusal = await _update(call, "Full" if changed is None else "Differential", held, sent)
    if refusal and changed is not None:
        sent = [*rows.values()]
        now, refusal = await _update(call, "Full", max(now, await version(call) or 0), sent)
    if refusal:
        raise CommandError("refused", f"{charger.device.id} answers {refusal} to SendLocalList.")
    shown = await version(call)
    if shown != now:
        say = f"{charger.device.id} accepted list {now}, but shows {shown}."
        raise CommandError("not_applied", say)
    with contextlib.suppress(StorageError):  # the next one is sent whole
        await cards.keep_key()
        await charger.remember({key: [now, marks]})
    return {"version": now, "entries": len(rows), "sent": len(sent)}


def _rows(cards: Cards, clock: Clock) -> dict[str, dict[str, Any]]:
    """AuthorizationData by pseudonym."""
    wall = None if clock.state() is ClockState.UNSYNCED else clock.wall()
    try:
        # A longer tag would be cut by the charger, and be another's.
        tags = [tag for tag in cards.entries if len(tag) <= 20]
    except ConfigError as error:
        raise CommandError("no_list", str(error)) from None
    return {cards.pseudonym(tag): {"idTag": tag.upper(), "idTagInfo": cards.listed(tag, wall)} for tag in tags}


def _changed(kept: Json, held: int, marks: Mapping[str, Json]) -> list[str] | None:
    """What differs from the list in the charger; None: it cannot be told, or something is to go."""
    if not isinstance(kept, Sequence) or kept[0] != held or not isinstance(before := kept[1], Mapping):
        return None
    return None if before.keys() - marks.keys() else [name for name in marks if before.get(name) != marks[name]]


async def _update(call: Call, kind: str, held: int, entries: Sequence[Mapping[str, Any]]) -> tuple[int, str]:
    """(the version that it has then, '' or how it refuses). The empty difference needs no message."""
    size = max(1, await _length(call) if entries else 0)
    chunks = [entries[at : at + size] for at in range(0, len(entries), size)]
    if kind == "Full" and not chunks:
        chunks = [[]]
    for number, part in enumerate(chunks):
        held += 1
        # Of the parts of a whole list only the first replaces what was there.
        update = kind if number == 0 else "Differential"
        payload = {"listVersion": held, "localAuthorizationList": part, "updateType": update}
        status = str((await call("SendLocalList", payload)).get("status"))[:40]
        if status != "Accepted":
            return held, status
    return held, ""


async def _length(call: Call) -> int:
    answer = await call("GetConfiguration", {"key": [_LENGTH_KEY]})
    listed = answer.get("configurationKey")
    entries = [entry for entry in listed if isinstance(entry, dict)] if isinstance(listed, list) else []
    value = next((codec.whole(entry, "value", Remarks()) for entry in entries if entry.get("key") == _LENGTH_KEY), None)
    return value if value and value > 0 else CHUNK


def _mark(row: Mapping[str, Any]) -> str:
    """Enough to see that an entry has changed."""
    return hashlib.blake2b(orjson.dumps(row["idTagInfo"], option=orjson.OPT_SORT_KEYS), digest_size=6).hexdigest()
