"""Modbus TCP frames, both directions: pure. The driver's guard checks answers here, the emulator makes them here.

RTU frames are made from these, see rtu.py.

Source: MODBUS Messaging on TCP/IP Implementation Guide V1.0b, 3.1.3; MODBUS Application Protocol V1.1b3, 6 and 7.
A frame is: transaction id (2 bytes), protocol 0 (2), length (2), unit (1), function (1), the rest.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from gateway.errors import DeviceError
from gateway.model import Reason

_HEADER = struct.Struct(">HHHB")
_PAIR = struct.Struct(">HH")
LONGEST = 254
"""Unit and PDU, as the length field counts them."""

EVERYBODY = 0
"""The unit id that every device on a line obeys and none answers (MODBUS over Serial Line V1.02, 2.2)."""
READ_HOLDING, READ_INPUT, WRITE_ONE, WRITE_SEVERAL = 3, 4, 6, 16
OPEN_SETTINGS: Literal[40] = 40
"""Orno's own: a password, written as function 16 writes registers, after which settings can be written."""
SEVERAL = (WRITE_SEVERAL, OPEN_SETTINGS)

EXCEPTIONS = {
    1: ("illegal function", Reason.CONFIG_ERROR), 2: ("illegal data address", Reason.CONFIG_ERROR),
    3: ("illegal data value", Reason.CONFIG_ERROR), 4: ("device failure", Reason.DEVICE_FAILURE),
    5: ("acknowledge, still working", Reason.DEVICE_FAILURE), 6: ("device busy", Reason.DEVICE_FAILURE),
    8: ("memory parity error", Reason.DEVICE_FAILURE), 10: ("gateway path unavailable", Reason.COMM_FAILURE),
    11: ("gateway: the device did not answer", Reason.COMM_FAILURE),
}  # fmt: skip

ILLEGAL_FUNCTION = 1
ABOUT_REGISTERS = (2, 3)
"""Exceptions that refuse an address, or how much was asked for: another request may pass."""

SILENT = "Check its power, its unit id and its wiring."


class NoAnswer(DeviceError):
    """Nothing that can be trusted came back; `fix` is what a technician does about it."""

    def __init__(self, say: str, fix: str = SILENT) -> None:
        super().__init__(say, Reason.COMM_FAILURE)
        self.fix = fix


class Misfit(NoAnswer):
    """What came answers another question: what was taken for an answer before may have, too."""


class Refused(DeviceError):
    """The device answered with an exception code."""

    def __init__(self, code: int) -> None:
        self.name, reason = EXCEPTIONS.get(code, ("unknown exception", Reason.DEVICE_FAILURE))
        super().__init__(f"exception {code}, {self.name}", reason)
        self.code = code


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked: `count` registers from `addr`; `words` are those to be written."""

    transaction: int
    unit: int
    function: int
    addr: int
    count: int
    words: tuple[int, ...] = ()


def cut(buffer: bytes) -> bytes | None:
    """The first whole frame at the start of `buffer`, None while it is not all there. ValueError: not Modbus TCP."""
    if len(buffer) < _HEADER.size - 1:
        return None
    _, protocol, length = struct.unpack_from(">HHH", buffer)
    if protocol != 0 or not 2 <= length <= LONGEST:
        raise ValueError(f"not a Modbus TCP frame: {buffer[:8].hex(' ')}")
    return buffer[: 6 + length] if len(buffer) >= 6 + length else None


def parse(frame: bytes) -> Request:
    """The request in a whole frame. ValueError: a function that is not spoken here, or a wrong length."""
    transaction, _, _, unit = _HEADER.unpack_from(frame)
    function, rest = frame[7], frame[8:]
    try:
        match function:
            case 3 | 4:
                addr, count = _PAIR.unpack(rest)
                return Request(transaction, unit, function, addr, count)
            case 6:
                addr, word = _PAIR.unpack(rest)
                return Request(transaction, unit, function, addr, 1, (word,))
            case 16 | 40:
                addr, count = _PAIR.unpack_from(rest)
                if rest[4] != 2 * count or len(rest) != 5 + 2 * count:
                    raise ValueError("byte count and registers do not agree")
                return Request(transaction, unit, function, addr, count, struct.unpack_from(f">{count}H", rest, 5))
    except (struct.error, IndexError) as error:
        raise ValueError(f"the request is cut short: {error}") from None
    raise ValueError(f"function {function}")


def ask(request: Request) -> bytes:
    """The frame of a request."""
    body = _PAIR.pack(request.addr, request.words[0] if request.function == WRITE_ONE else request.count)
    if request.function in SEVERAL:
        body += bytes([2 * request.count]) + struct.pack(f">{request.count}H", *request.words)
    return _frame(request, request.function, body)


def answer(request: Request, words: Sequence[int] = ()) -> bytes:
    """The frame that answers `request`: with these registers, or that it was written."""
    if request.function in (READ_HOLDING, READ_INPUT):
        return _frame(request, request.function, bytes([2 * len(words)]) + struct.pack(f">{len(words)}H", *words))
    return _frame(
        request,
        request.function,
        _PAIR.pack(request.addr, request.words[0] if request.function == WRITE_ONE else request.count),
    )


def refuse(request: Request, code: int) -> bytes:
    """The frame that refuses `request` with an exception code."""
    return _frame(request, request.function | 0x80, bytes([code]))


def _frame(request: Request, function: int, body: bytes) -> bytes:
    return _HEADER.pack(request.transaction, 0, 2 + len(body), request.unit) + bytes([function]) + body


def find_answer(asked: bytes, heard: bytes) -> bytes | None:
    """The frame in `heard` that answers the request frame `asked`, None while more must come.

    Frames of other transactions are passed over: they answer what was given up. Everything else that
    does not fit to the last byte raises NoAnswer, an exception answer raises Refused.
    """
    while True:
        try:
            frame = cut(heard)
        except ValueError as error:
            raise NoAnswer(str(error)) from None
        if frame is None:
            return None
        if frame[:2] == asked[:2]:
            _check(asked, frame)
            return frame
        heard = heard[len(frame) :]


def _check(asked: bytes, frame: bytes) -> None:
    unit, function = asked[6], asked[7]
    if frame[6] != unit:
        raise Misfit(f"unit {frame[6]} answered a question to unit {unit}")
    if frame[7] == function | 0x80 and len(frame) == 9:
        raise Refused(frame[8])
    if frame[7] != function:
        raise Misfit(f"function {frame[7]} answered function {function}")
    if function in (READ_HOLDING, READ_INPUT):
        count = int.from_bytes(asked[10:12], "big")
        if len(frame) != 9 + 2 * count or frame[8] != 2 * count:
            raise Misfit(f"{count} registers were asked, the answer has {(len(frame) - 9) / 2:g}")
    elif frame[8:] != asked[8:12]:
        raise Misfit("the answer to the write names other registers")
