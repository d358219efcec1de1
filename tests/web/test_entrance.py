"""Tokens, sessions, patience and names, without a server."""

import pytest

from gateway.errors import ConfigError
from gateway.web.entrance import Entrance, Patience, is_own_host, own_names

TOKEN = "a-token-of-the-tests-0123456789"


def test_only_the_token_is_the_token() -> None:
    entrance = Entrance(TOKEN)
    assert entrance.is_token(TOKEN)
    for wrong in ("", TOKEN[:-1], TOKEN + "x", TOKEN.upper(), "\udcff", "è" * 40):
        assert not entrance.is_token(wrong)


@pytest.mark.parametrize("token", ["", "admin", "0123456789abcde"])
def test_a_short_token_opens_nothing(token: str) -> None:
    with pytest.raises(ConfigError, match="too short to keep anybody out"):
        Entrance(token)


def test_a_session_is_ours_unforged_and_dies_with_its_token() -> None:
    entrance, other = Entrance(TOKEN), Entrance(TOKEN + "2")
    session = entrance.session()
    assert entrance.is_session(session)
    assert Entrance(TOKEN).is_session(session), "a restart of the gateway does not send the technician away"
    assert session != entrance.session()
    assert TOKEN not in session
    nonce, _, seal = session.partition(".")
    for forged in (
        "",
        ".",
        nonce,
        f"{nonce}.",
        f".{seal}",
        f"{nonce}x.{seal}",
        f"{nonce}.{seal[:-1]}",
        TOKEN,
        "\udcff.é",
    ):
        assert not entrance.is_session(forged)
    assert not other.is_session(session)


def test_patience_ends_and_comes_back() -> None:
    patience = Patience()
    for _ in range(4):
        patience.wrong("192.0.2.1", 0.0)
    assert patience.pause("192.0.2.1", 0.0) == 0
    pauses = []
    for _ in range(8):
        patience.wrong("192.0.2.1", 0.0)
        pauses.append(patience.pause("192.0.2.1", 0.0))
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]
    assert patience.pause("192.0.2.1", 61.0) == 0
    assert patience.pause("192.0.2.2", 0.0) == 0, "its neighbours are not touched"
    patience.right("192.0.2.1")
    patience.wrong("192.0.2.1", 0.0)
    assert patience.pause("192.0.2.1", 0.0) == 0


def test_patience_takes_an_ipv6_network_as_one_and_remembers_no_more_than_it_can() -> None:
    patience = Patience()
    for host in range(6):
        patience.wrong(f"2001:db8:0:1::{host:x}", 0.0)
    assert patience.pause("2001:db8:0:1::ffff", 0.0) > 0
    assert patience.pause("2001:db8:0:2::1", 0.0) == 0
    for number in range(5000):
        patience.wrong(f"10.0.{number >> 8}.{number & 255}", 0.0)
    assert len(patience._wrong) <= 1024


@pytest.mark.parametrize(
    ("header", "is_ours"),
    [
        ("127.0.0.1:8080", True), ("192.0.2.7", True), ("[::1]:8080", True), ("[fe80::1%25eth0]", True),
        ("localhost", True), ("LOCALHOST:1", True), ("cab-017.street.example", True), ("cab-017.street.example.", True),
        ("", False), ("evil.example", False), ("evil.example:8080", False), ("localhost.evil.example", False),
        ("127.0.0.1.evil.example", False), ("[evil", False), ("a:b:c", False),
    ],
)  # fmt: skip
def test_only_our_names_and_addresses(header: str, is_ours: bool) -> None:
    assert is_own_host(header, own_names(["cab-017.street.example"])) is is_ours
