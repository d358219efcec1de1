"""Checksums: sums, xor, and any CRC by its Rocksoft parameters. Pure."""

from binascii import crc_hqx
from collections.abc import Callable
from functools import cache, reduce
from operator import xor

from drivers.serial.words import Checksum, Crc

# Parameters as the catalogue of parametrised CRC algorithms prints them (G. Cook, CRC RevEng).
NAMED = {
    "crc8_maxim": Crc(width=8, poly=0x31, refin=True, refout=True),
    "crc16_arc": Crc(width=16, poly=0x8005, refin=True, refout=True),
    "crc16_mcrf4xx": Crc(width=16, poly=0x1021, init=0xFFFF, refin=True, refout=True),
    "crc16_modbus": Crc(width=16, poly=0x8005, init=0xFFFF, refin=True, refout=True),
    "crc16_xmodem": Crc(width=16, poly=0x1021),
    "crc32": Crc(width=32, poly=0x04C11DB7, init=0xFFFFFFFF, refin=True, refout=True, xorout=0xFFFFFFFF),
}


def _xor(covered: bytes) -> int:
    return reduce(xor, covered, 0)


SUMS: dict[str, tuple[int, Callable[[bytes], int]]] = {
    "sum8": (8, lambda covered: sum(covered) & 0xFF),
    "sum8_negated": (8, lambda covered: -sum(covered) & 0xFF),
    "sum8_inverted": (8, lambda covered: ~sum(covered) & 0xFF),
    "sum16": (16, lambda covered: sum(covered) & 0xFFFF),
    "xor8": (8, _xor),
}


def width(rule: Checksum) -> int:
    """How many bytes it takes in the frame."""
    bits = SUMS[rule.algorithm][0] if rule.algorithm in SUMS else _parameters(rule).width
    size = (bits + 7) // 8
    return {"hex": 2 * size, "sdi12": 3}.get(rule.encoding, size)


def expected(rule: Checksum, frame: bytes) -> bytes:
    """The checksum as it stands in a good frame."""
    covered = frame[rule.over[0] : rule.over[1]]
    number = SUMS[rule.algorithm][1](covered) if rule.algorithm in SUMS else crc(_parameters(rule), covered)
    match rule.encoding:
        case "hex":
            return f"{number:0{width(rule)}X}".encode()
        case "sdi12":
            return bytes(0x40 | (number >> shift) & 0x3F for shift in (12, 6, 0))
        case order:
            return number.to_bytes(width(rule), order)


def stands_at(rule: Checksum, frame: bytes) -> slice:
    """Where the checksum stands in `frame`."""
    start = rule.at if rule.at >= 0 else len(frame) + rule.at
    return slice(start, start + width(rule))


def is_good(rule: Checksum, frame: bytes) -> bool:
    if not rule.holds(frame):
        return True
    found = frame[stands_at(rule, frame)]
    return (found.upper() if rule.encoding == "hex" else found) == expected(rule, frame)


def sealed(rule: Checksum | None, frame: bytes) -> bytes:
    """`frame` with the checksum that it should have."""
    if rule is None or not rule.holds(frame):
        return frame
    good = bytearray(frame)
    good[stands_at(rule, frame)] = expected(rule, frame)
    return bytes(good)


def _parameters(rule: Checksum) -> Crc:
    return rule.crc or NAMED[rule.algorithm]


def crc(parameters: Crc, covered: bytes) -> int:
    """The CRC of `covered`."""
    p = parameters
    return _register(p.width, p.poly, p.init, p.refin, p.refout, p.xorout, covered)


def _register(
    bits: int, poly: int, init: int, refin: bool, refout: bool, xorout: int, covered: bytes
) -> int:  # fmt: skip
    if (bits, poly, refin) == (16, 0x1021, False):
        register = crc_hqx(covered, init)
        return (_reflected(register, bits) if refout else register) ^ xorout
    table, mask = _table(bits, poly, refin), (1 << bits) - 1
    if refin:
        register = _reflected(init, bits)
        for byte in covered:
            register = register >> 8 ^ table[(register ^ byte) & 0xFF]
    else:
        register, top = init, bits - 8
        for byte in covered:
            register = register << 8 & mask ^ table[register >> top ^ byte]
    if refin != refout:
        register = _reflected(register, bits)
    return register ^ xorout


@cache
def _table(bits: int, poly: int, refin: bool) -> tuple[int, ...]:
    mask, top = (1 << bits) - 1, 1 << (bits - 1)
    rows = []
    for byte in range(256):
        register = (_reflected(byte, 8) if refin else byte) << (bits - 8)
        for _ in range(8):
            register = (register << 1 ^ poly if register & top else register << 1) & mask
        rows.append(_reflected(register, bits) if refin else register)
    return tuple(rows)


def _reflected(number: int, bits: int) -> int:
    return int(f"{number:0{bits}b}"[::-1], 2)
