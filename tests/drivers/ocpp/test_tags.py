"""The local list, and pseudonyms that say nothing of the tag."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.ocpp.tags import Entry, Pseudonyms, authorise, parse

NEW_YEAR = 1_767_225_600_000  # 2026-01-01T00:00:00Z


def test_the_list() -> None:
    lines = "# staff\n04A1,staff\n 04B2 , , 2026-01-01\n\n04C3,,soon\n04D4,fleet,2026-01-01T01:00:00+01:00 # van\n"
    assert parse(lines) == {
        "04a1": Entry("staff"),
        "04b2": Entry(None, NEW_YEAR),
        "04d4": Entry("fleet", NEW_YEAR),
    }


@pytest.mark.parametrize(("wall", "status"), [(NEW_YEAR - 1, "Accepted"), (NEW_YEAR, "Expired"), (None, "Accepted")])
def test_expiry_counts_only_where_the_date_is_known(wall: int | None, status: str) -> None:
    assert authorise("04B2", {"04b2": Entry(None, NEW_YEAR)}, wall)["status"] == status


def test_a_pseudonym_is_hmac_sha256_under_the_keys_short_name() -> None:
    # The definition spelled out once more: a pseudonym that changed between versions would split every customer.
    import base64
    import hashlib
    import hmac

    digest = hmac.new(b"k", b"04a1b2c3", hashlib.sha256).digest()
    name = base64.b32encode(hmac.new(b"k", b"lampione key name", hashlib.sha256).digest()).decode().lower()[:4]
    expected = f"{name}.{base64.b32encode(digest).decode().lower()[:20]}"
    assert Pseudonyms(b"k").of("04A1B2C3") == expected
    assert Pseudonyms(b"k").of("04a1b2c3") == expected
    assert Pseudonyms(b"k").of("") == ""


@given(st.text(min_size=1, max_size=20), st.text(min_size=1, max_size=20))
def test_pseudonyms_tell_tags_apart_and_keys_too(one: str, other: str) -> None:
    first, second = Pseudonyms(b"first"), Pseudonyms(b"second")
    assert re.fullmatch(r"[a-z2-7]{4}\.[a-z2-7]{20}", first.of(one))
    assert (first.of(one) == first.of(other)) == (one.casefold() == other.casefold())
    assert first.of(one) != second.of(one)
