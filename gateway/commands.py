"""Orders from a platform to a device: checked, journalled before they are executed, answered by records.

The journal lies beside the replies on the event lane, in the same transaction. The same id returns the
stored outcome and is never executed twice; what a crash left `executing` is told `unknown_outcome` where
running it again could do harm. A setpoint with a lease falls back to its safe value at the lease's end,
and a reboot ends every lease.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, cast

import orjson
import structlog

from gateway import expiry
from gateway.arguments import check_arguments
from gateway.errors import CommandError, DeviceError, LinkError, StorageError
from gateway.model import (
    ClockState,
    Command,
    CommandState,
    Device,
    DeviceId,
    Json,
    Lane,
    Record,
    Reply,
    Verb,
)
from gateway.ports import Clock, Emit, State
from gateway.supervise import pauses

MAX_BYTES = 16 * 1024
EXECUTE_WITHIN = 60.0
MAX_LEASE_S = 24 * 3600
_RESUME_WITHIN = 600.0
_UNREACHED = {"link_down", "not_connected"}
"""Codes of a device that was not told anything."""
_JOURNAL_KEPT = 1000
_JOURNAL, _LEASE = "command/", "lease/"

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Reach:
    """How to get at one device: what it can do, whether its link is up, and who carries it out."""

    device: Device
    is_up: Callable[[], bool]
    execute: Callable[[Command], Awaitable[Reply]]


@dataclass(slots=True)
class _Lease:
    command: Command
    ends: float
    """Loop time."""
    task: asyncio.Task[None] | None = field(default=None, repr=False)


class Commands:
    """All commands of one gateway. `emit` and `state` are those of the owner `commands` in the buffer."""

    def __init__(self, reaches: Mapping[DeviceId, Reach], emit: Emit, state: State, clock: Clock) -> None:
        self._reaches, self._emit, self._state, self._clock = reaches, emit, state, clock
        self._work: asyncio.Queue[Callable[[], Coroutine[Any, Any, None]]] = asyncio.Queue()
        self._tasks: asyncio.TaskGroup | None = None
        self._leases: dict[str, _Lease] = {}
        self._ends: dict[str, int | None] = {}
        """Boot clock at which an accepted command expires, by its id."""
        self._under_way: set[str] = set()
        """Commands that `receive` is about to journal."""

    async def run(self) -> None:
        """End what an earlier boot or a crash left open, then execute what is accepted, until cancelled."""
        async with asyncio.TaskGroup() as self._tasks:
            # What waited for an earlier run stands in the journal too.
            self._work = asyncio.Queue()
            await self._settle_the_past()
            while True:
                work = await self._work.get()
                self._tasks.create_task(work())

    async def receive(self, payload: bytes, retained: bool, allowed: Mapping[str, Sequence[str]]) -> None:
        """Take one command document from an uplink whose allow-list is `allowed` (issuer -> verbs).

        Returns once its journal entry is durable, so that the uplink may acknowledge it. StorageError
        when it is not: the uplink must leave it unacknowledged.
        """
        try:
            command = parse(payload)
        except CommandError as error:
            await self._emit([self._refusal("", error)], lane=Lane.EVENT)
            return
        known = self._state.get(_JOURNAL + command.id)
        if known is not None or command.id in self._under_way:
            await self._repeat(command, cast("Mapping[str, Json] | None", known))
            return
        self._under_way.add(command.id)
        try:
            reach, verb = self._check(command, retained, allowed)
            accepted = Reply(command.id, CommandState.ACCEPTED, self._clock.boot())
            received = replace(accepted, state=CommandState.RECEIVED)
            self._ends[command.id] = expiry.end(command, self._clock)
            await self._record(command, received, accepted)
            self._work.put_nowait(partial(self._execute, command, reach, verb))
        except CommandError as error:
            await self._record(command, self._refusal(command.id, error))
        finally:
            self._under_way.discard(command.id)

    def _check(self, command: Command, retained: bool, allowed: Mapping[str, Sequence[str]]) -> tuple[Reach, Verb]:
        if retained:
            raise CommandError(
                "retained", "A retained command is refused: it would be obeyed again at each connection."
            )
        if command.do not in allowed.get(command.issuer, ()):
            raise CommandError("not_allowed", f"{command.issuer} may not {command.do} through this uplink.")
        parts = command.on.split("/")
        reach = self._reaches.get("/".join(parts[:2]))
        if reach is None:
            raise CommandError("unknown_device", f"{command.on} is not a device of this gateway.")
        name = command.do if len(parts) == 2 else f"{command.do}:{parts[2]}"
        verb = reach.device.verbs.get(name)
        if verb is None:
            known = ", ".join(sorted(reach.device.verbs)) or "nothing"
            raise CommandError("unknown_verb", f"{command.on} takes {known}; {name} was asked.")
        check_arguments(command, verb)
        if command.lease_s is not None and not (verb.leasable and 0 < command.lease_s <= MAX_LEASE_S):
            raise CommandError("bad_lease", f"{command.do} on {command.on} takes no lease of {command.lease_s} s.")
        if self._clock.state() is ClockState.UNSYNCED:
            if not self._is_safe_unsynced(command, verb):
                raise CommandError("clock_unsynced", "The gateway's clock is not set, so an expiry cannot be judged.")
        elif expiry.is_too_late(command, self._clock):
            raise CommandError("expired", "The command came after its expiry.")
        if not reach.is_up():
            raise CommandError("link_down", f"{command.on} cannot be reached now; nothing was done.")
        return reach, verb

    def _is_safe_unsynced(self, command: Command, verb: Verb) -> bool:
        """Only what lowers a limit is obeyed on a clock that nobody vouches for (contract 4)."""
        name = verb.safe_when_lower
        if name is None:
            return False
        held = self._state.get(f"setpoint/{command.on}/{verb.name}")
        asked = command.args[name]
        bound = held if isinstance(held, int | float) else verb.arguments[name].maximum
        return isinstance(asked, int | float) and bound is not None and asked <= bound

    async def _execute(self, command: Command, reach: Reach, verb: Verb, since: CommandState | None = None) -> None:
        """`since`: the state that a restart found it in. Links come up after us: it waits for its own then."""
        loop = asyncio.get_running_loop()
        ends = self._ends.get(command.id)
        give_up = loop.time() + (_RESUME_WITHIN if since else math.inf)
        reply = None
        for pause in pauses():
            if loop.time() > give_up or (ends is not None and self._clock.boot() >= ends):
                reply = self._too_late(command, since)
                break
            if reply is not None or await self._is_journalled(command):
                reply = await self._carry_out(command, reach)
                if since is None or reply.code not in _UNREACHED:
                    break
            await asyncio.sleep(pause)
        assert reply is not None
        await self._finish(command, verb, reply)
        self._ends.pop(command.id, None)

    async def _is_journalled(self, command: Command) -> bool:
        """Whether it stands on the disk that it is now carried out."""
        try:
            await self._record(command, Reply(command.id, CommandState.EXECUTING, self._clock.boot()))
        except StorageError as error:
            log.warning("command_waits_for_the_disk", command=command.id, why=str(error))
            return False
        return True

    def _too_late(self, command: Command, since: CommandState | None) -> Reply:
        if since is CommandState.EXECUTING:
            say = f"The gateway stopped while it was carried out, and {command.on} could not be asked since."
            return self._end(command, CommandState.FAILED, "unknown_outcome", say)
        return self._end(command, CommandState.EXPIRED, "expired", "It expired before it could be carried out.")

    async def _carry_out(self, command: Command, reach: Reach) -> Reply:
        try:
            async with asyncio.timeout(EXECUTE_WITHIN):
                return await reach.execute(command)
        except TimeoutError:
            say = f"{command.on} has not confirmed within {EXECUTE_WITHIN:.0f} s; what it did is not known."
            return self._end(command, CommandState.FAILED, "unknown_outcome", say)
        except CommandError as error:
            return self._end(command, CommandState.FAILED, error.code, str(error))
        except DeviceError as error:
            return self._end(command, CommandState.FAILED, error.reason, str(error))
        except LinkError as error:
            return self._end(command, CommandState.FAILED, "link_down", str(error))
        except StorageError as error:
            # Of what the driver itself keeps. Whether the device did it nobody can tell, so it is not tried again.
            return self._end(command, CommandState.FAILED, "unknown_outcome", str(error))

    async def _finish(self, command: Command, verb: Verb, reply: Reply) -> None:
        key = f"{command.on}/{verb.name}"
        records: list[Record] = []
        state: dict[str, Json] = {}
        if reply.state is CommandState.SUCCEEDED:
            older = self._leases.pop(key, None)
            if older is not None:
                if older.task is not None:
                    older.task.cancel()
                say = f"{command.id} took its place."
                records.append(self._end(older.command, CommandState.SUPERSEDED, "superseded", say))
                state |= self._entry(older.command, records[-1])
                state[_LEASE + key] = None
            if verb.safe_when_lower:
                state[f"setpoint/{key}"] = command.args[verb.safe_when_lower]
            if command.lease_s is not None:
                reply = replace(reply, until=self._clock.wall() + command.lease_s * 1000)
                state[_LEASE + key] = {"command": _document(command), "boot_id": self._clock.boot_id}
                # Before it is written down, which a full disk can delay: a lease that began must end.
                self._start_lease(key, command, command.lease_s)
        await self._write([*records, reply], state | self._entry(command, reply) | self._forget_old())

    def _start_lease(self, key: str, command: Command, seconds: float) -> None:
        assert self._tasks is not None
        lease = _Lease(command, asyncio.get_running_loop().time() + seconds)
        self._leases[key] = lease
        lease.task = self._tasks.create_task(self._end_lease(key, lease), name=f"lease-{key}")

    async def _end_lease(self, key: str, lease: _Lease) -> None:
        await asyncio.sleep(lease.ends - asyncio.get_running_loop().time())
        await self._release(key, lease.command, "Its lease has ended.")
        if self._leases.get(key) is lease:
            del self._leases[key]

    async def _release(self, key: str, command: Command, say: str) -> None:
        """Bring a leased setpoint back to its safe value, trying for ever: a lease that ends must end."""
        reach = self._reaches.get("/".join(command.on.split("/")[:2]))
        verb = reach.device.verbs.get(key.rpartition("/")[2]) if reach else None
        if reach is not None and verb is not None and verb.release is not None:
            release = replace(command, id=f"{command.id}.release", args=verb.release, lease_s=None)
            reply = await self._carry_out(release, reach)
            for pause in pauses():
                if reply.state is CommandState.SUCCEEDED:
                    break
                await asyncio.sleep(pause)
                reply = await self._carry_out(release, reach)
            say = f"{say} It is back at its safe value."
            ended = replace(self._end(command, CommandState.EXPIRED, "lease_ended", say), now=reply.now)
        else:
            ended = self._end(command, CommandState.EXPIRED, "lease_ended", say)
        await self._write([ended], {_LEASE + key: None, f"setpoint/{key}": None} | self._entry(command, ended))

    async def _settle_the_past(self) -> None:
        """Commands that were open when the gateway stopped, and leases: both end now."""
        coming = {_JOURNAL + command for command in self._under_way}
        for key in self._state.keys():  # noqa: SIM118 - a State is not a mapping
            if key.startswith(_JOURNAL) and key not in coming:
                await self._settle_command(cast("Mapping[str, Any]", self._state.get(key)))
            elif key.startswith(_LEASE):
                held = cast("Mapping[str, Any]", self._state.get(key))
                command = _command(held["command"])
                assert self._tasks is not None
                is_same_boot = held["boot_id"] == self._clock.boot_id
                why = "The gateway has started again." if is_same_boot else "A reboot ends leases."
                self._tasks.create_task(self._release(key[len(_LEASE) :], command, why))

    async def _settle_command(self, entry: Mapping[str, Any]) -> None:
        command, state = _command(entry["command"]), CommandState(entry["state"])
        if state is CommandState.EXECUTING:
            reach = self._reaches.get("/".join(command.on.split("/")[:2]))
            verb = _verb(reach, command)
            if reach is None or verb is None or not verb.idempotent:
                say = "The gateway stopped while it was carried out; what the device did is not known."
                await self._record(command, self._end(command, CommandState.FAILED, "unknown_outcome", say))
                return
        elif state not in (CommandState.RECEIVED, CommandState.ACCEPTED):
            return
        reach = self._reaches.get("/".join(command.on.split("/")[:2]))
        verb = _verb(reach, command)
        if reach is None or verb is None:
            say = f"{command.on} is no longer a device of this gateway."
            await self._record(command, self._end(command, CommandState.FAILED, "unknown_device", say))
            return
        self._ends[command.id] = expiry.resumed(entry, command, self._clock)
        self._work.put_nowait(partial(self._execute, command, reach, verb, state))

    async def _repeat(self, command: Command, entry: Mapping[str, Json] | None) -> None:
        """The same id again: say once more what became of it, and do nothing."""
        if entry is None:
            return
        document = cast("Mapping[str, Any]", entry["reply"])
        reply = Reply(
            command.id,
            CommandState(str(entry["state"])),
            self._clock.boot(),
            **{name: document[name] for name in ("code", "say", "now", "proof", "until") if name in document},
        )
        await self._emit([reply], lane=Lane.EVENT)

    async def _write(self, records: Sequence[Record], state: Mapping[str, Json]) -> None:
        """Record what has happened in the street, as soon as the disk takes it."""
        for pause in pauses():
            try:
                await self._emit(records, lane=Lane.EVENT, state=state)
            except StorageError:
                await asyncio.sleep(pause)
            else:
                return

    async def _record(self, command: Command, *replies: Reply) -> None:
        await self._emit(list(replies), lane=Lane.EVENT, state=self._entry(command, replies[-1]))

    def _entry(self, command: Command, reply: Record) -> dict[str, Json]:
        assert isinstance(reply, Reply)
        told = {
            "code": reply.code, "say": reply.say, "now": dict(reply.now), "proof": reply.proof, "until": reply.until,
        }  # fmt: skip
        known = {name: value for name, value in told.items() if value not in (None, "", {})}
        entry: dict[str, Json] = {"command": _document(command), "state": reply.state.value, "reply": known}
        if command.id in self._ends:
            entry |= expiry.written(self._ends[command.id], self._clock)
        return {_JOURNAL + command.id: entry}

    def _forget_old(self) -> dict[str, Json]:
        """Journal entries beyond the newest _JOURNAL_KEPT that are over and have expired by an hour."""
        keys = [key for key in self._state.keys() if key.startswith(_JOURNAL)]  # noqa: SIM118
        if len(keys) <= _JOURNAL_KEPT:
            return {}
        entries = sorted((cast("Mapping[str, Any]", self._state.get(key))["command"]["expires"], key) for key in keys)
        limit = self._clock.wall() - 3_600_000
        return {key: None for expires, key in entries[: len(keys) - _JOURNAL_KEPT] if expires < limit}

    def _end(self, command: Command, state: CommandState, code: str, say: str) -> Reply:
        return Reply(command.id, state, self._clock.boot(), code, say)

    def _refusal(self, command: str, error: CommandError) -> Reply:
        return Reply(command, CommandState.REJECTED, self._clock.boot(), error.code, str(error))


def parse(payload: bytes) -> Command:
    """A command document (contract 4). CommandError `bad_command` says what is wrong with it."""
    if len(payload) > MAX_BYTES:
        raise CommandError("bad_command", f"A command has at most {MAX_BYTES} bytes; this one has {len(payload)}.")
    try:
        document = orjson.loads(payload)
        if document["v"] != 1:
            raise CommandError("bad_command", f"Command version {document['v']} is not 1.")
        return _command(document)
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise CommandError("bad_command", f"The command does not read: {type(error).__name__} {error}.") from None


def _command(document: Mapping[str, Any]) -> Command:
    lease = document.get("lease_s")
    texts = [document[key] for key in ("id", "issuer", "do", "on")]
    numbers = [document[key] for key in ("issued", "expires")] + ([] if lease is None else [lease])
    args = document.get("args", {})
    if not all(isinstance(text, str) and 0 < len(text) <= 100 for text in texts):
        raise ValueError("id, issuer, do and on are texts of 1 to 100 characters")
    if not all(type(number) is int for number in numbers) or not isinstance(args, dict):
        raise ValueError("issued, expires and lease_s are whole numbers, args is an object")
    identity, issuer, do, on = texts
    return Command(identity, issuer, do, on, args, numbers[0], numbers[1], lease)


def _document(command: Command) -> dict[str, Json]:
    return {
        "v": 1, "id": command.id, "issuer": command.issuer, "do": command.do, "on": command.on,
        "args": dict(command.args), "issued": command.issued, "expires": command.expires, "lease_s": command.lease_s,
    }  # fmt: skip


def _verb(reach: Reach | None, command: Command) -> Verb | None:
    if reach is None:
        return None
    parts = command.on.split("/")
    return reach.device.verbs.get(command.do if len(parts) == 2 else f"{command.do}:{parts[2]}")
