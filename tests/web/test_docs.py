"""docs/page.md names every key of the document, and no other."""

import re
from collections.abc import Iterator
from pathlib import Path

from gateway.model import Reading
from gateway.status import Status

PAGE = Path(__file__).resolve().parents[2] / "docs" / "page.md"


def keys(tree: object) -> Iterator[str]:
    if isinstance(tree, dict):
        for name, value in tree.items():
            yield name
            yield from keys(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from keys(value)


async def test_the_document_is_described(status: Status) -> None:
    status.note([Reading("here/feeder/voltage", 231.5, 60_000)])
    stranger = {"identity": "cp-9", "address": "10.0.0.9", "protocols": "ocpp1.6", "calls": 2, "last": 0}
    status.strangers = lambda: [stranger]
    table = PAGE.read_text().partition("## The document")[2]
    said = set(re.findall(r"`([a-z_]+)(?:\[\])?`", table)) - {"null", "_ms"}
    assert said == set(keys(status.snapshot()))
