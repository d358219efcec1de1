"""A profile from a capture, whatever was captured: it passes its own check, or there is none."""

import contextlib
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.serial.draft import DraftError, draft
from gateway import document, load

SENSORS: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("sensors.yaml").read_text())
WORDS = st.text(alphabet='0123456789+-.,;:={}"*$RQab ', max_size=14)
LINES = st.lists(WORDS, max_size=12).map(lambda lines: "".join(f"{line}\r\n" for line in lines).encode())
FRAMES = st.lists(st.binary(min_size=3, max_size=3), max_size=12).map(
    lambda all_: b"".join(b"\xaa\x55" + x for x in all_)
)


def check(capture: bytes) -> str:
    """What is drafted, after making sure that `profiles check` takes it."""
    text = draft("acme-thing", capture, 9600)
    load.profile(document.parse(text, "acme-thing.yaml"), "acme-thing")
    return text


@settings(deadline=None, max_examples=60)
@given(st.one_of(LINES, LINES.map(lambda one: one * 6), st.binary(max_size=200), FRAMES))
def test_a_draft_holds_or_there_is_none(capture: bytes) -> None:
    with contextlib.suppress(DraftError):
        assert "acme-thing/1" in check(capture)


@pytest.mark.parametrize("name", SENSORS)
def test_every_sensor_gives_a_start(name: str) -> None:
    rows = SENSORS[name]["readings"]
    frames = [bytes.fromhex(row["hex"]) if "hex" in row else row["text"].encode("latin-1") for row in rows]
    capture = b"".join(frames * 12)
    assert "origin: capture" in check(capture)
