"""OCPP-J frames: text in, a call or an answer out, and back. No socket, no clock, no state but the call in flight.

Source: OCPP-J 1.6 (JSON over WebSocket) §4: message types 2 CALL, 3 CALLRESULT, 4 CALLERROR, and the error codes;
OCPP 2.1 part 4 §4: 5 CALLRESULTERROR and 6 SEND, which are read from any charger and owed no answer.
Whatever comes in, `parse` returns: a frame that cannot be used is `Malformed`, with the CALLERROR that is owed
where the frame's id could still be read. An answer to nothing is dropped, never a fault of the connection.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple, TypeAlias

import orjson

MAX_FRAME = 1024 * 1024
"""Characters; a StopTransaction with a night's meter values stays well below."""
MAX_DEPTH = 20
"""Levels of nesting; MeterValues has 6."""
MAX_ID = 255
"""OCPP-J allows 36 characters; what a charger made longer is still answered with what it sent."""
_READABLE_ID = re.compile(r'\s*\[\s*2\s*,\s*"([^"\\]{1,255})"\s*[,\]]')

Id = str | int


class ErrorCode(StrEnum):
    """OCPP-J 1.6 §4.2.3, in its own spelling."""

    NOT_IMPLEMENTED = "NotImplemented"
    NOT_SUPPORTED = "NotSupported"
    INTERNAL = "InternalError"
    PROTOCOL = "ProtocolError"
    SECURITY = "SecurityError"
    FORMATION = "FormationViolation"
    PROPERTY = "PropertyConstraintViolation"
    OCCURRENCE = "OccurenceConstraintViolation"
    TYPE = "TypeConstraintViolation"
    GENERIC = "GenericError"
    RPC_FRAMEWORK = "RpcFrameworkError"
    """From OCPP 2.0.1 on."""


class Call(NamedTuple):
    id: Id
    action: str
    payload: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class CallResult:
    id: Id
    payload: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class CallError:
    id: Id
    code: str
    description: str


@dataclass(frozen=True, slots=True)
class CallResultError:
    """The far end could not read our answer to its call `id`."""

    id: Id
    code: str
    description: str


@dataclass(frozen=True, slots=True)
class Send:
    """Told without waiting for an answer."""

    id: Id
    action: str
    payload: Mapping[str, Any]


Message: TypeAlias = Call | CallResult | CallError | CallResultError | Send


@dataclass(frozen=True, slots=True)
class Malformed:
    """`answer` is the CALLERROR to send, or None where nobody waits for one."""

    why: str
    answer: str | None = None


def parse(frame: str | bytes, unreadable: Id | None = None) -> Message | Malformed:
    """What `frame` says. Never raises. `unreadable`: the id of the CALLERROR for a frame whose own id cannot be read:
    "-1" from OCPP 2.0.1 on (part 4 §4.2.3); 1.6 owes none.
    """
    found = _parse(frame)
    if unreadable is not None and isinstance(found, Malformed) and found.answer is None:
        return Malformed(found.why, error(unreadable, ErrorCode.RPC_FRAMEWORK, found.why))
    return found


def _parse(frame: str | bytes) -> Message | Malformed:
    if len(frame) > MAX_FRAME:
        return Malformed(f"a frame of {len(frame)} characters; {MAX_FRAME} are taken")
    try:
        message = orjson.loads(_without_mark(frame))
    except orjson.JSONDecodeError as fault:
        # Also what is nested too deep, and numbers that no computer holds: the decoder has a limit for both.
        return _owed(frame, ErrorCode.FORMATION, f"not JSON: {fault.msg}")
    if not isinstance(message, list) or not message:
        return Malformed("not a list")
    # No deeper than it has brackets: most frames need no look inside.
    if _brackets(frame) > MAX_DEPTH and _is_too_deep(message):
        return _owed(frame, ErrorCode.FORMATION, f"nested more than {MAX_DEPTH} levels deep")
    kind = message[0]
    if kind not in (2, 3, 4, 5, 6) or isinstance(kind, bool):
        return Malformed("a message type that OCPP does not have")
    if len(message) < 2 or not _is_id(message[1]):
        return Malformed("no message id")
    if kind == 2:
        return _call(message)
    if kind == 6:
        told = _call(message)
        return Send(told.id, told.action, told.payload) if isinstance(told, Call) else Malformed(told.why)
    if kind == 3:
        payload = message[2] if len(message) > 2 else None
        return CallResult(message[1], payload if isinstance(payload, dict) else {})
    # A CALLERROR that lost its description or details still ends the call that it answers.
    words = [word if isinstance(word, str) else "" for word in [*message[2:4], "", ""]]
    made = CallError if kind == 4 else CallResultError
    return made(message[1], words[0] or ErrorCode.GENERIC, words[1])


def call(message_id: Id, action: str, payload: Mapping[str, Any]) -> str:
    return orjson.dumps([2, message_id, action, payload]).decode()


def result(message_id: Id, payload: Mapping[str, Any]) -> str:
    return orjson.dumps([3, message_id, payload]).decode()


def error(message_id: Id, code: ErrorCode, description: str) -> str:
    """`description` is cut to the 255 characters that OCPP-J allows."""
    return orjson.dumps([4, message_id, code, description[:255], {}]).decode()


class Outbound:
    """Our own calls: one in flight, ids that never come twice, answers to anything else not ours."""

    def __init__(self, prefix: str) -> None:
        self._prefix, self._count = prefix, 0
        self.in_flight: Id | None = None
        self.unsolicited = 0

    def begin(self, action: str, payload: Mapping[str, Any]) -> str:
        """The frame to send. Only when nothing is in flight (OCPP-J 1.6 §4.1.1)."""
        assert self.in_flight is None
        self._count += 1
        self.in_flight = f"{self._prefix}{self._count}"
        return call(self.in_flight, action, payload)

    def settles(self, answer: CallResult | CallError) -> bool:
        """Whether `answer` is to the call in flight; one that is not is counted and means nothing."""
        if self.in_flight is None or answer.id != self.in_flight:
            self.unsolicited += 1
            return False
        self.in_flight = None
        return True

    def give_up(self) -> None:
        """Its answer, should it still come, is unsolicited."""
        self.in_flight = None


def _call(message: list[Any]) -> Call | Malformed:
    message_id = message[1]
    if len(message) != 4:
        why = f"a CALL has 4 elements, this one has {len(message)}"
        code = ErrorCode.PROTOCOL if len(message) < 4 else ErrorCode.FORMATION
        return Malformed(why, error(message_id, code, why))
    action, payload = message[2], message[3]
    if not isinstance(action, str):
        why = "the action is not text"
        return Malformed(why, error(message_id, ErrorCode.FORMATION, why))
    if not isinstance(payload, dict):
        if payload is not None:
            why = "the payload is not an object"
            return Malformed(why, error(message_id, ErrorCode.FORMATION, why))
        payload = {}
    return Call(message_id, action, payload)


def _owed(frame: str | bytes, code: ErrorCode, why: str) -> Malformed:
    head = frame[:1024]
    text = head.decode(errors="replace") if isinstance(head, bytes) else head
    readable = _READABLE_ID.match(_without_mark(text))
    answer = error(_encodable(readable[1]), code, why) if readable else None
    return Malformed(why, answer)


def _brackets(frame: str | bytes) -> int:
    return frame.count(b"[") + frame.count(b"{") if isinstance(frame, bytes) else frame.count("[") + frame.count("{")


def _is_too_deep(message: list[Any]) -> bool:
    level: list[Any] = [message]
    for _ in range(MAX_DEPTH):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, list | dict)
        ]
        if not level:
            return False
    return True


def _encodable(text: str) -> str:
    return text.encode(errors="replace").decode()


def _without_mark(frame: Any) -> Any:
    return frame.removeprefix("\ufeff" if isinstance(frame, str) else b"\xef\xbb\xbf")


def _is_id(word: object) -> bool:
    return (isinstance(word, str) and 0 < len(word) <= MAX_ID) or (isinstance(word, int) and not isinstance(word, bool))
