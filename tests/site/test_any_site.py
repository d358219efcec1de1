"""Whatever stands in a site file, reading it ends in a site or in mistakes with their places: never in a traceback."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway import document, site
from gateway.diagnostic import DocumentError
from gateway.profile import Catalogue
from gateway.site.read import Shelf, resolve, shipped_profiles

EXAMPLE = Path(site.__file__).parents[2] / "config" / "site.example.yaml"
TREE = document.read(EXAMPLE).tree
EXAMPLES = 100
CATALOGUE = Catalogue([shipped_profiles()])

Place = tuple[Any, ...]


def places(tree: Any, at: Place = ()) -> list[Place]:
    inner = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [at, *(place for key, value in inner for place in places(value, (*at, key)))]


def put(tree: Any, at: Place, value: Any) -> Any:
    if not at:
        return value
    inner = tree
    for part in at[:-1]:
        inner = inner[part]
    inner[at[-1]] = value
    return tree


words = st.sampled_from(
    ["", "here", "here/feeder", "cp-1", "secret", "secret:x", "modbus", "acme.lora", "..", "1", "-1", "1e400", "nan",
     "10s", "0x1", "0.0.0.0:1", "[::1]:99999", "mqtts://x", "è", "a/b", "*", "eastron-sdm630/9", "/"]
) | st.text(max_size=6)  # fmt: skip
values = st.recursive(
    st.none() | words,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["link", "driver", "at", "x", ""]), inner, max_size=3)
    ),
    max_leaves=4,
)
changes = st.lists(st.tuples(st.sampled_from(places(TREE)), values), min_size=1, max_size=3)


def read(text: str) -> site.Site | DocumentError:
    try:
        return resolve(document.parse(text, "site.yaml"), Path("site.yaml"), Shelf(CATALOGUE))
    except DocumentError as error:
        return error


@settings(max_examples=EXAMPLES, deadline=None)
@given(changes)
def test_any_change_of_the_example_is_a_site_or_mistakes(wanted: list[tuple[Place, Any]]) -> None:
    tree = copy.deepcopy(TREE)
    for at, value in wanted:
        try:
            tree = put(tree, at, value)
        except (KeyError, IndexError, TypeError):
            continue  # an earlier change took the place away
    found = read(yaml.safe_dump(tree))
    if isinstance(found, DocumentError):
        assert "[" in str(found)
        assert all(one.why and one.line >= 1 for one in found.diagnostics), found
    else:
        assert found.inventory(1)["gw"] == found.gateway.id
