"""Checksums against the check values that catalogues print for the text 123456789."""

import pytest

from drivers.serial.checksum import NAMED, SUMS, crc, expected, is_good, sealed
from drivers.serial.words import Checksum, Crc

DIGITS = b"123456789"
# G. Cook's catalogue of parametrised CRC algorithms.
CHECKS = {
    "crc8_maxim": 0xA1, "crc16_arc": 0xBB3D, "crc16_mcrf4xx": 0x6F91, "crc16_modbus": 0x4B37, "crc16_xmodem": 0x31C3,
    "crc32": 0xCBF43926,
}  # fmt: skip


@pytest.mark.parametrize("name", NAMED)
def test_the_named_ones(name: str) -> None:
    assert crc(NAMED[name], DIGITS) == CHECKS[name]


@pytest.mark.parametrize(
    ("parameters", "check"),
    [
        (Crc(width=8, poly=0x31, init=0xFF), 0xF7),
        (Crc(width=12, poly=0x80F, refout=True), 0xDAF),
        (Crc(width=16, poly=0x1021, init=0xFFFF, xorout=0xFFFF), 0xD64E),
        (Crc(width=24, poly=0x864CFB, init=0xB704CE), 0x21CF02),
        (Crc(width=64, poly=0x42F0E1EBA9EA3693), 0x6C40DF5F0B497347),
    ],
)
def test_any_other_by_its_parameters(parameters: Crc, check: int) -> None:
    assert crc(parameters, DIGITS) == check


def test_the_example_of_davis() -> None:
    """Asserted in weewx, crc16.py."""
    assert crc(NAMED["crc16_xmodem"], bytes.fromhex("c6 ce a2 03")) == 0xE2B4


def test_sums() -> None:
    assert [SUMS[name][1](b"\xff\x02") for name in ("sum8", "sum8_negated", "sum8_inverted", "sum16", "xor8")] == [
        0x01, 0xFF, 0xFE, 0x101, 0xFD,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("encoding", "end"), [("big", b"\xbb\x3d"), ("little", b"\x3d\xbb"), ("hex", b"BB3D"), ("sdi12", b"Kl}")]
)
def test_encodings(encoding: str, end: bytes) -> None:
    size = len(end)
    rule = Checksum.model_validate({"algorithm": "crc16_arc", "over": [0, -size], "at": -size, "encoding": encoding})
    assert expected(rule, DIGITS + bytes(size)) == end
    assert sealed(rule, DIGITS + bytes(size)) == DIGITS + end
    assert is_good(rule, DIGITS + end)
    assert not is_good(rule, DIGITS + end[:-1] + b"\x00")


def test_one_only_where_its_condition_holds() -> None:
    rule = Checksum.model_validate(
        {"like": "^.r", "algorithm": "crc16_arc", "over": [0, -3], "at": -3, "encoding": "sdi12"}
    )
    assert is_good(rule, b"0R3,Rc=0.00M")
    assert is_good(rule, b"0r3,Rc=0.00M,Rd=0s,Ri=0.0MIlm")
    assert not is_good(rule, b"0r3,Rc=0.00M,Rd=0s,Ri=0.1MIlm")
