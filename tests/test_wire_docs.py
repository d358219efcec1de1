"""What the documents say of the wire is what goes over it: examples, keys, schemas and AsyncAPI against the code."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import pytest
import yaml
from hypothesis import given
from jsonschema import Draft202012Validator, ValidationError
from referencing import Registry, Resource

from gateway import batch as wire
from gateway.buffer.block import event_row
from gateway.commands import parse
from gateway.model import Command, CommandState, Event, Lane, Reading, Reason, Receipt, Reply
from gateway.quantities import DIRECTIONS, PHASES, STATISTICS
from tests.platforms import INVENTORY, telemetry
from tests.test_batch import GOOD, batches

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ROOT = Path(__file__).resolve().parents[1]
TEXTS = {name: (ROOT / "docs" / f"{name}.md").read_text() for name in ("batch", "topics")}
SCHEMAS: dict[str, Any] = {
    name: json.loads((ROOT / "config" / "schema" / f"{name}.json").read_text())
    for name in ("batch", "point", "ack", "command", "inventory", "state")
}
REGISTRY: Registry[Any] = Registry().with_resources(
    [(f"{name}.json", Resource.from_contents(schema)) for name, schema in SCHEMAS.items()]
)


def validate(document: Any, schema: str, part: str = "") -> None:
    whole = {"$ref": f"{schema}.json{part}"}
    Draft202012Validator(whole, registry=REGISTRY).validate(document)


def examples(kind: str) -> list[Any]:
    found = [text for page in TEXTS.values() for text in re.findall(rf"```json {kind}\n(.*?)```", page, re.DOTALL)]
    assert found, f"no example of {kind}"
    return [json.loads(text) for text in found]


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_schema_is_one(name: str) -> None:
    Draft202012Validator.check_schema(SCHEMAS[name])


def test_every_block_of_json_is_named_and_checked() -> None:
    kinds = [kind for page in TEXTS.values() for kind in re.findall(r"```json *(\w*)", page)]
    assert sorted(kinds) == ["ack", "batch", "command", "event", "inventory", "reply", "state"]


def test_the_batch_in_the_documents_is_what_the_encoder_writes() -> None:
    (example,) = examples("batch")
    validate(example, "batch")
    batch = wire.decode(orjson.dumps(example))
    assert orjson.loads(wire.encode(batch)) == example
    assert list(orjson.loads(wire.encode(batch))) == list(example), "in this order"


def test_the_acknowledgement_in_the_documents_is_what_the_encoder_writes() -> None:
    (example,) = examples("ack")
    validate(example, "ack")
    receipt = wire.decode_receipt(orjson.dumps(example))
    assert orjson.loads(wire.encode_receipt(example["gw"], Lane(example["lane"]), receipt)) == example


def test_the_command_in_the_documents_is_taken() -> None:
    (example,) = examples("command")
    validate(example, "command")
    assert parse(orjson.dumps(example)).lease_s == 900


def test_the_other_examples_are_valid() -> None:
    for kind, schema, part in (
        ("event", "batch", "#/$defs/happened"), ("reply", "batch", "#/$defs/reply"),
        ("inventory", "inventory", ""), ("state", "state", ""),
    ):  # fmt: skip
        for example in examples(kind):
            validate(example, schema, part)
    validate(INVENTORY, "inventory")


FULL_EVENT = Event("gap", "cab-017", 5, "A sentence.", {"lane": "event"}, device_time=7)
FULL_REPLY = Reply("1", CommandState.SUCCEEDED, 5, "code", "A sentence.", {"amps": 16}, "readback", until=7)


def written(record: Event | Reply) -> dict[str, Any]:
    document: dict[str, Any] = orjson.loads(orjson.dumps(event_row(record, 0)[2]))
    return document


def test_every_key_that_is_written_is_in_schema_and_documents() -> None:
    full = dataclasses.replace(wire.decode(orjson.dumps(GOOD | {"e": []})), events=[[1, 0, {}]], error=500, up=60_000)
    receipt = Receipt("9f2c", ((1, 2),), ((3, "x", True),))
    batch = SCHEMAS["batch"]
    stored = orjson.loads(wire.encode_receipt("cab-017", Lane.EVENT, receipt))
    refused = orjson.loads(wire.encode_refusal("cab-017", Lane.EVENT, "not JSON"))
    for document in (stored, refused):
        validate(document, "ack")
    for document, schema in (
        (orjson.loads(wire.encode(full)), batch),
        (stored | refused, SCHEMAS["ack"]),
        (written(FULL_EVENT), batch["$defs"]["happened"]),
        (written(FULL_REPLY), batch["$defs"]["reply"]),
        ({field.name: 1 for field in dataclasses.fields(Command)} | {"v": 1}, SCHEMAS["command"]),
    ):
        assert set(document) == set(schema["properties"])
    for name in ("device_time", "context", "transaction"):
        assert name in Reading._fields
        assert name in batch["$defs"]["reading"]["prefixItems"][6]["properties"]
    validate(written(FULL_EVENT), "batch", "#/$defs/happened")
    validate(written(FULL_REPLY), "batch", "#/$defs/reply")


def keys(schema: Any) -> Iterator[str]:
    """Every key that a schema names, however deep."""
    if isinstance(schema, dict):
        yield from schema.get("properties", {})
        for inner in schema.values():
            yield from keys(inner)
    elif isinstance(schema, list):
        for inner in schema:
            yield from keys(inner)


@pytest.mark.parametrize(("schema", "page"), [
    ("batch", "batch"), ("ack", "batch"), ("command", "topics"), ("inventory", "topics"), ("state", "topics"),
])  # fmt: skip
def test_every_key_of_a_schema_has_its_line_in_a_table(schema: str, page: str) -> None:
    first_cells = " ".join(re.findall(r"^\| (`[^|]*) \|", TEXTS[page], re.MULTILINE))
    nested = {"lat", "lon"}
    missing = [key for key in set(keys(SCHEMAS[schema])) - nested if not re.search(rf"[`.]{key}`", first_cells)]
    assert missing == []


def test_words_that_the_documents_list_are_the_words_of_the_code() -> None:
    for word in (*Reason, *CommandState, *Lane):
        assert f"`{word}`" in TEXTS["batch"]
    parts = SCHEMAS["point"]["prefixItems"]
    for number, words in ((3, PHASES), (4, DIRECTIONS), (5, STATISTICS)):
        assert tuple(word for word in parts[number]["enum"] if word) == words
    states = SCHEMAS["batch"]["$defs"]["reply"]["properties"]["state"]["enum"]
    assert states == list(CommandState)


@given(batches())
def test_whatever_the_encoder_writes_has_the_shape_of_the_schema(batch: wire.Batch) -> None:
    document = orjson.loads(wire.encode(batch))
    # The strategy makes free words for points and events; their meaning is not what is checked here.
    for row in document.get("e", []):
        row[2] = {"event": "gap", "on": "cab-017"}
    document["p"] = [["a/b/c", "voltage", "V"] for _ in document.get("p", [])]
    for row in document.get("r", []):
        if row[3] is None:
            row[3:] = [None, "bad", "stale"]
    validate(document, "batch")


WRONG = {
    "no span": {"span": ...}, "a span of one": {"span": [1]}, "a lane of its own": {"lane": "fast"},
    "null without a reason": {"r": [[48210, 0, 0, None], [48212, 1, 140, 1]]},
    "null with an empty reason": {"r": [[48210, 0, 0, None, "bad", None], [48212, 1, 140, 1]]},
    "a reading too long": {"r": [[48210, 0, 0, 1, "good", None, {}, 1]]},
    "another quality": {"r": [[1, 0, 0, 1, "ok"]]},
    "a point without a unit": {"p": [["a/b/c", "voltage"]]},
    "a point id of two parts": {"p": [["a/b", "voltage", "V"]]},
    "an event without a name": {"e": [[1, 0, {"on": "line"}]]}, "a skip without a reason": {"skip": [[1, 2]]},
}  # fmt: skip


@pytest.mark.parametrize("change", WRONG.values(), ids=WRONG.keys())
def test_the_schema_refuses(change: Mapping[str, Any]) -> None:
    validate(GOOD, "batch")
    with pytest.raises(ValidationError):
        validate({key: value for key, value in (GOOD | dict(change)).items() if value is not ...}, "batch")


def references(tree: Any) -> Iterator[str]:
    if isinstance(tree, dict):
        if isinstance(tree.get("$ref"), str):
            yield tree["$ref"]
        for inner in tree.values():
            yield from references(inner)
    elif isinstance(tree, list):
        for inner in tree:
            yield from references(inner)


def test_asyncapi_names_the_topics_that_are_used_and_every_reference_leads_somewhere() -> None:
    document = yaml.safe_load((ROOT / "docs" / "asyncapi.yaml").read_text())
    assert document["asyncapi"] == "3.0.0"
    addresses = {channel["address"] for channel in document["channels"].values()}
    root = f"lampione/{wire.VERSION}/{{tenant}}/{{gateway}}"
    assert addresses == {f"{root}/{what}" for what in ("batch/{lane}", "ack", "cmd", "inventory", "state")}
    for channel in document["channels"].values():
        assert set(re.findall(r"{(\w+)}", channel["address"])) == set(channel["parameters"])
    assert document["components"]["messages"]["batch"]["contentType"] == wire.MEDIA_TYPE
    found = list(references(document))
    assert len(found) > 15
    for reference in found:
        if reference.startswith("#/"):
            tree = document
            for part in reference[2:].split("/"):
                tree = tree[part]
        else:
            assert (ROOT / "docs" / reference).is_file(), reference


def test_links_between_the_documents_lead_somewhere() -> None:
    for name, text in TEXTS.items():
        for target in re.findall(r"\]\(([^)]+)\)", text):
            file, _, place = target.partition("#")
            page = ROOT / "docs" / (file or f"{name}.md")
            assert page.exists(), target
            heads = (
                {
                    re.sub(r"[^\w ]", "", head).lower().replace(" ", "-")
                    for head in re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
                }
                if place
                else set()
            )
            assert not place or place in heads, target


def test_a_batch_from_the_tests_is_one_by_the_schema() -> None:
    validate(orjson.loads(wire.encode(telemetry(1))), "batch")
