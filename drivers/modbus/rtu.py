"""Modbus RTU frames: pure. What a byte stream without lengths and transaction ids can be believed to say.

Source: MODBUS over Serial Line Specification and Implementation Guide V1.02, 2.5.1 and 6.2.2. A frame is:
unit (1 byte), function (1), the rest, CRC (2, low byte first). Everything between unit and CRC is as on TCP.
"""

from collections.abc import Iterator

from drivers.modbus.frames import READ_HOLDING, READ_INPUT, SEVERAL, WRITE_ONE, Misfit, NoAnswer, Refused

SHORTEST, LONGEST = 5, 256
QUESTION = 8
"""Bytes of every question but a write of several registers, and of every answer to a write."""
_READS = (READ_HOLDING, READ_INPUT)


def _table() -> list[int]:
    table = []
    for crc in range(256):
        for _ in range(8):
            crc = crc >> 1 ^ (0xA001 if crc & 1 else 0)
        table.append(crc)
    return table


_TABLE = _table()


def crc16(body: bytes) -> bytes:
    """The CRC as it follows on the wire."""
    crc = 0xFFFF
    for byte in body:
        crc = crc >> 8 ^ _TABLE[(crc ^ byte) & 0xFF]
    return crc.to_bytes(2, "little")


def seal(frame: bytes) -> bytes:
    """The RTU frame that says what a Modbus TCP frame says."""
    return frame[6:] + crc16(frame[6:])


def unseal(frame: bytes) -> bytes:
    """The Modbus TCP frame, of transaction 0, that says what a whole RTU frame says."""
    return b"\0\0\0\0" + (len(frame) - 2).to_bytes(2, "big") + frame[:-2]


def is_whole(frame: bytes) -> bool:
    return len(frame) >= SHORTEST and crc16(frame[:-2]) == frame[-2:]


def answer_length(asked: bytes) -> int:
    """Bytes of the answer to a question, if it is no exception."""
    return 5 + 2 * int.from_bytes(asked[4:6], "big") if asked[1] in _READS else QUESTION


def _heads(asked: bytes) -> Iterator[tuple[bytes, int]]:
    """How the answers to a question begin, and how long they are."""
    length = answer_length(asked)
    yield (asked[:2] + bytes([length - 5]) if asked[1] in _READS else asked[:6]), length
    yield bytes([asked[0], asked[1] | 0x80]), SHORTEST


def _places(head: bytes, heard: bytes) -> Iterator[int]:
    at = heard.find(head)
    while at >= 0:
        yield at
        at = heard.find(head, at + 1)


def find_answer(asked: bytes, heard: bytes) -> bytes | None:
    """The frame in `heard`, wherever it begins, that answers `asked`; None while there is none.

    Unit, function, byte count (or address and count of a write) and CRC must fit. Refused: an exception answer.
    Misfit: before it another master has asked the same unit, so that nobody knows whose answer it is.
    """
    for head, length in _heads(asked):
        for at in _places(head, heard):
            frame = heard[at : at + length]
            if len(frame) == length and is_whole(frame):
                if at >= QUESTION and any(each[0] == asked[0] for each in questions(heard[:at])):
                    raise Misfit(f"another master asks unit {asked[0]} on this line", "Disconnect the other master.")
                if frame[1] != asked[1]:
                    raise Refused(frame[2])
                return frame
    return None


def questions(heard: bytes) -> Iterator[bytes]:
    """The read questions in `heard`: on the way back there should be none."""
    for at in range(len(heard) - QUESTION + 1):
        if heard[at + 1] in _READS and is_whole(heard[at : at + QUESTION]):
            yield heard[at : at + QUESTION]


def answers(heard: bytes) -> Iterator[bytes]:
    """The whole answers to reads, and the exceptions, that are in `heard`, of whichever unit."""
    for at in range(len(heard) - SHORTEST + 1):
        function = heard[at + 1]
        length = 5 + heard[at + 2] if function in _READS else SHORTEST if function & 0x80 else 0
        if length and is_whole(heard[at : at + length]):
            yield heard[at : at + length]


def why_none(asked: bytes, heard: bytes) -> NoAnswer | None:
    """What is wrong with `heard`, which holds no answer to `asked`; None where the bytes are no frame at all."""
    unit, function = asked[0], asked[1]
    for frame in answers(heard):
        if frame[0] != unit:
            return Misfit(f"unit {frame[0]} answered a question to unit {unit}")
        if frame[1] != function:
            return Misfit(f"function {frame[1] & 0x7F} answered function {function}")
        count = int.from_bytes(asked[4:6], "big")
        return Misfit(f"{count} registers were asked, the answer has {frame[2] / 2:g}")
    if any(True for _ in questions(heard)):
        return Misfit("another master asks on this line", "Disconnect the other master.")
    head, length = next(_heads(asked))
    for at in _places(head, heard):
        if len(heard) - at < length:
            return NoAnswer(f"the answer was cut short: {len(heard) - at} of {length} bytes")
        return NoAnswer(
            "its answer is damaged, the checksum is wrong",
            f"Check shield, termination and earth, and that no other device has address {unit}.",
        )
    return None


def two_answers() -> Misfit:
    """Why neither is believed."""
    return Misfit(
        "two answers came to one question, nobody knows which is right",
        "If it happens again, look for a second device with this address, or a serial server with a memory.",
    )


def cut_question(heard: bytes) -> tuple[bytes | None, bytes]:
    """The first whole question in `heard` and what follows it; what can be no question is dropped."""
    while len(heard) >= 2:
        function = heard[1]
        known = function in (*_READS, WRITE_ONE, *SEVERAL)
        if known and function in SEVERAL and len(heard) < 7:
            break
        length = 9 + heard[6] if function in SEVERAL else QUESTION
        if known and len(heard) < length:
            break
        if known and is_whole(heard[:length]):
            return heard[:length], heard[length:]
        heard = heard[1:]
    return None, heard
