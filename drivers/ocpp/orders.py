"""Commands as OCPP calls: what is sent for each verb, which answers are a success, and what is told back.

A reset, an unlock or a start is done when the charger accepts it; what follows comes as records of its own
(`transaction_begin`, statuses). Everything sent is checked against the specification's schemas first.
"""

import asyncio
from collections.abc import Mapping
from functools import partial
from typing import Any

from drivers.ocpp import codec, limits, locallist, outgoing
from drivers.ocpp.charger import Charger
from drivers.ocpp.codec import Remarks
from drivers.ocpp.connection import Connection, GoneError, RefusedError
from drivers.ocpp.tags import Cards
from drivers.ocpp.trace import HIDDEN, is_secret, shown
from gateway.errors import CommandError
from gateway.model import Command, CommandState, Json, Reply
from gateway.ports import Clock, Emit

_SIMPLE = {
    "start": ("RemoteStartTransaction", {"tag": "idTag", "connector": "connectorId"}),
    "stop": ("RemoteStopTransaction", {"transaction": "transactionId"}),
    "unlock": ("UnlockConnector", {"connector": "connectorId"}),
    "reset": ("Reset", {"kind": "type"}),
    "availability": ("ChangeAvailability", {"connector": "connectorId", "kind": "type"}),
    "trigger": ("TriggerMessage", {"message": "requestedMessage", "connector": "connectorId"}),
    "change_configuration": ("ChangeConfiguration", {"key": "key", "value": "value"}),
    "data_transfer": ("DataTransfer", {"vendor": "vendorId", "message": "messageId", "content": "data"}),
    "cancel_reservation": ("CancelReservation", {"reservation": "reservationId"}),
    "clear_cache": ("ClearCache", {}),
}
_RESERVE = {"reservation": "reservationId", "connector": "connectorId", "tag": "idTag"}
_WHOLE = ("connectorId", "transactionId", "reservationId")
_DONE = ("Accepted", "Scheduled", "Unlocked", "RebootRequired")
_CHARGES = ("start", "stop")


async def execute(charger: Charger, command: Command, cards: Cards, emit: Emit, clock: Clock) -> Reply:
    """CommandError: the charger is away, refuses, or does not know the command."""
    match command.do:
        case "limit":
            return await limits.execute(charger, command, clock)
        case "clear_limit":
            return await limits.clear(charger, command, clock)
        case "authorise":
            return await _authorise(command, cards, emit, clock)
        case "frames":
            return _frames(charger, command, cards, clock)
    connection = charger.connection
    if connection is None:
        raise CommandError("not_connected", f"{charger.device.id} is not connected; nothing was done.")
    if command.do in _CHARGES and charger.settings.admit != "accepted":
        raise CommandError("not_admitted", f"{charger.device.id} is {charger.settings.admit}: it may not charge.")
    await outgoing.load()
    try:
        now = await _carry_out(charger, connection, command, cards, clock)
    except GoneError as error:
        raise CommandError("no_answer", f"{charger.device.id}: {error}.") from None
    except RefusedError as error:
        raise CommandError("refused", f"{charger.device.id} answers {error}.") from None
    return Reply(command.id, CommandState.SUCCEEDED, clock.boot(), now=now)


async def _carry_out(
    charger: Charger, connection: Connection, command: Command, cards: Cards, clock: Clock
) -> dict[str, Json]:
    match command.do:
        case "get_configuration":
            return await _configuration(connection, command)
        case "local_list_version":
            return {"version": await locallist.version(partial(_call, connection))}
        case "send_local_list":
            return await locallist.send(charger, partial(_call, connection), cards, clock)
        case "reserve":
            payload = _payload(command.args, _RESERVE)
            until = codec.moment(command.args["until"], Remarks())
            if until is None:
                raise CommandError("bad_argument", "until is a time like 2026-12-31T00:00:00Z.")
            return await _ask(charger, connection, "ReserveNow", {**payload, "expiryDate": codec.iso(until)})
        case verb if verb in _SIMPLE:
            action, names = _SIMPLE[verb]
            if verb == "change_configuration" and is_secret(str(command.args["key"])):
                say = "Keys are not set by commands, which are kept; set it in the charger and in the site file."
                raise CommandError("not_allowed", say)
            return await _ask(charger, connection, action, _payload(command.args, names))
    raise CommandError("unknown_verb", f"{charger.device.id} does not know {command.do}.")


def _payload(args: Mapping[str, Json], names: Mapping[str, str]) -> dict[str, Any]:
    """In OCPP's words. CommandError: a number that must be whole is not."""
    payload: dict[str, Any] = {}
    for name, key in names.items():
        value = args.get(name)
        if value is None:
            continue
        if key in _WHOLE:
            if not isinstance(value, int | float) or value != int(value):
                raise CommandError("bad_argument", f"{name} is a whole number; {value} was asked.")
            value = int(value)
        payload[key] = value
    return payload


async def _call(connection: Connection, action: str, payload: Mapping[str, Any]) -> Mapping[str, Any]:
    outgoing.check(action, payload)
    return await connection.call(action, payload)


async def _ask(charger: Charger, connection: Connection, action: str, payload: Mapping[str, Any]) -> dict[str, Json]:
    answer = await _call(connection, action, payload)
    status = str(answer.get("status"))[:40]
    if status not in _DONE:
        raise CommandError("refused", f"{charger.device.id} answers {status} to {action}.")
    told = answer.get("data")
    return {"status": status, "content": told[:4000]} if isinstance(told, str) else {"status": status}


async def _configuration(connection: Connection, command: Command) -> dict[str, Json]:
    """The charger's settings by key, keys and passwords hidden."""
    wanted = command.args.get("key")
    answer = await _call(connection, "GetConfiguration", {"key": [wanted]} if wanted else {})
    listed = answer.get("configurationKey")
    unknown = answer.get("unknownKey")
    values: dict[str, Json] = {}
    for entry in listed if isinstance(listed, list) else ():
        if isinstance(entry, dict) and isinstance(key := entry.get("key"), str):
            value = entry.get("value")
            values[key[:50]] = HIDDEN if is_secret(key) else None if value is None else str(value)[:500]
    return {"values": values, "unknown": [str(key)[:50] for key in unknown] if isinstance(unknown, list) else []}


async def _authorise(command: Command, cards: Cards, emit: Emit, clock: Clock) -> Reply:
    """The platform's word on a tag."""
    args = {name: str(value) for name, value in command.args.items() if value is not None}
    await cards.told(emit, args["tag"], args["status"], args.get("expires"), args.get("group"))
    return Reply(command.id, CommandState.SUCCEEDED, clock.boot(), now={"status": args["status"]})


def _frames(charger: Charger, command: Command, cards: Cards, clock: Clock) -> Reply:
    """The last frames of the present connection, tags as pseudonyms, keys hidden."""
    connection = charger.connection
    if connection is None:
        raise CommandError("not_connected", f"{charger.device.id} is not connected: there are no frames of it.")
    now = asyncio.get_running_loop().time()
    frames: list[Json] = [shown(frame, now, cards.pseudonym) for frame in connection.trace.frames()]
    told: dict[str, Json] = {"frames": frames, "too_large": connection.trace.too_large}
    return Reply(command.id, CommandState.SUCCEEDED, clock.boot(), now=told)
