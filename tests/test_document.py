"""YAML with positions: text stays text, every mistake has its place, and no file can bring the process down."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from gateway import document
from gateway.diagnostic import Diagnostic, DocumentError, Mistake
from gateway.fields import Duration, Secret, Written

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(params=["C", "pure"], autouse=True)
def each_parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """armv7l has no libyaml wheel: both parsers must read and refuse alike."""
    if request.param == "pure":
        monkeypatch.setattr(document, "_Loader", yaml.SafeLoader)
    elif not yaml.__with_libyaml__:
        pytest.skip("PyYAML has no libyaml here")


def mistakes(text: str | bytes) -> list[Diagnostic]:
    with pytest.raises(DocumentError) as caught:
        document.parse(text, "site.yaml")
    return caught.value.diagnostics


def only(text: str | bytes) -> Diagnostic:
    found = mistakes(text)
    assert len(found) == 1, found
    return found[0]


@pytest.mark.parametrize(
    "word",
    ["04123456", "0x10", "23:30", "on", "off", "yes", "no", "N", "y", "1e3", "1_000", "2026-11-22", ".inf", "true",
     "70B3D57ED0001234", "1795305600000", "0o17", "=", "=1", "a:b"],
)  # fmt: skip
def test_a_scalar_keeps_its_text(word: str) -> None:
    assert document.parse(f"tag: {word}\n", "x").tree == {"tag": word}
    assert document.parse(f"[{word}]", "x").tree == [word]
    assert document.parse(f"{word}: 1", "x").tree == {word: "1"}


@pytest.mark.parametrize(
    ("written", "value"), [("", None), ("~", None), ("null", None), ("''", ""), ('"null"', "null")]
)
def test_only_an_unquoted_null_is_nothing(written: str, value: str | None) -> None:
    assert document.parse(f"key: {written}\n", "x").tree == {"key": value}


def test_an_empty_document_is_nothing() -> None:
    assert document.parse("", "x").tree is None
    assert document.parse("# only a comment\n", "x").tree is None


def test_tags_construct_nothing() -> None:
    read = document.parse("a: !!python/object/apply:os.system ['true']\nb: !!int '5'\n", "x")
    assert read.tree == {"a": ["true"], "b": "5"}


def test_an_alias_is_what_its_anchor_names() -> None:
    read = document.parse("a: &one {x: 1}\nb: *one\nc: [*one, *one]\n", "x")
    assert read.tree == {"a": {"x": "1"}, "b": {"x": "1"}, "c": [{"x": "1"}, {"x": "1"}]}
    assert read.line(("b",)) == 2


def test_places_count_characters_not_bytes() -> None:
    read = document.parse("città: {è: òù, evry: 1}\n", "x")
    found = read.diagnostic("unknown_key", ("città", "evry"), "why", key=True)
    assert (found.line, found.column) == (1, 16)
    assert str(found).splitlines()[1:] == ["    1 | città: {è: òù, evry: 1}", " " * 23 + "^^^^"]


def test_the_caret_stands_under_the_word_after_tabs() -> None:
    found = Diagnostic("x", "f", 1, 9, "why", source="a:\t{b:\t1}", width=1)
    assert str(found).splitlines()[2] == "        " + "  \t   \t" + " " + "^"


def test_of_a_line_without_end_the_part_with_the_caret_is_shown() -> None:
    text = "{" + ", ".join(f"k{n}: v" for n in range(10_000)) + ", k7: w}"
    shown = str(only(text)).splitlines()
    assert len(shown[1]) < 150
    start = shown[2].index("^")
    assert shown[1][start:].startswith("k7")
    assert shown[2].count("^") == 2


def test_every_duplicate_key_is_said_with_the_line_of_the_first() -> None:
    found = mistakes("a: 1\nb: {c: 1, c: 2}\na: 3\n")
    assert [(one.code, one.line, one.column) for one in found] == [("duplicate_key", 2, 11), ("duplicate_key", 3, 1)]
    assert "the first is in line 1" in found[1].why


def test_a_key_is_one_word() -> None:
    found = mistakes("{a: 1}: 2\n? [x]\n: 3\n")
    assert [(one.code, one.line) for one in found] == [("bad_key", 1), ("bad_key", 2)]


@pytest.mark.parametrize(
    ("text", "line", "sentence"),
    [
        ("a: 1\n b: 2\n", 2, "not YAML"),
        ("a: [1, 2\n", 2, "not YAML"),
        ("a:\n\tb: 1\n", 2, "spaces"),
        ("a: *nothing\n", 1, "`*nothing` names nothing"),
        ("a: &x [*x]\n", 1, "`*x` names nothing"),
        ("a: 1\n---\nb: 2\n", 2, "second document"),
        ("a: 1\nb: \x07\n", 2, "not YAML"),
        ('a: "unfinished\n', 2, "not YAML"),
        ("a: b: c\n", 1, "not YAML"),
    ],
)
def test_what_is_not_yaml_has_its_line(text: str, line: int, sentence: str) -> None:
    found = only(text)
    assert found.code == "bad_yaml"
    assert found.line in (line, line - 1)  # libyaml and PyYAML differ on where an unfinished thing ends
    assert sentence in str(found)


def test_not_utf8_says_the_line() -> None:
    found = only(b"a: 1\nb: citt\xe0\n")
    assert (found.code, found.line) == ("not_utf8", 2)


def test_a_byte_order_mark_and_windows_line_ends_do_not_matter() -> None:
    assert document.parse(b"\xef\xbb\xbfa: 1\r\nb: 2\r\n", "x").tree == {"a": "1", "b": "2"}


def laughs(levels: int) -> str:
    """Each line names the one above nine times."""
    lines = ["b0: &b0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"b{n}: &b{n} [{', '.join([f'*b{n - 1}'] * 9)}]" for n in range(1, levels)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    "text",
    ["[" * 20_000, "- " * 20_000, "{a: " * 20_000, laughs(9), "a:\n" + "- 1\n" * 9000, "x" * 50_001],
    ids=["brackets", "dashes", "braces", "billion laughs", "many", "bytes"],
)
def test_what_is_too_large_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(document, "MAX_NODES", 8000)
    monkeypatch.setattr(document, "MAX_BYTES", max(50_000, len(text) if text[0] != "x" else 0))
    assert only(text).code == "too_large"


PROGRAM = """
from gateway import document
try:
    document.parse("[" * 400_000, "x")
except document.DocumentError:
    print("refused")
"""


def test_brackets_do_not_end_the_process() -> None:
    """libyaml's composer recurses on the C stack: a segmentation fault cannot be caught, so we look from outside."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "refused\n")


def test_a_file_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(DocumentError) as caught:
        document.read(tmp_path / "none.yaml")
    assert caught.value.diagnostics[0].code == "unreadable_file"
    assert "No such file" in str(caught.value)


class Inner(Written):
    every: Duration | None = None
    key: Secret | None = None
    kind: Literal["meter", "sensor"] | None = None
    count: int = Field(1, ge=1, le=9)
    share: float | None = None
    is_on: bool = False


class Outer(Written):
    name: str
    things: Mapping[str, Inner] = {}
    listed: tuple[Inner, ...] = ()
    alias: str | None = Field(None, alias="from")


def found_in(text: str) -> list[Diagnostic]:
    read = document.parse(text, "f")
    with pytest.raises(DocumentError) as caught:
        document.check(read, Outer)
    return caught.value.diagnostics


def test_a_right_document_is_a_model() -> None:
    made = document.check(document.parse("name: x\nthings: {a: {every: 5min, is_on: on}}\nfrom: y\n", "f"), Outer)
    assert made.things["a"].every == 300
    assert made.things["a"].is_on
    assert made.alias == "y"


@pytest.mark.parametrize(
    ("text", "code", "place", "sentence"),
    [
        ("nam: x", "unknown_key", (1, 1), "did you mean `name`?"),
        ("name: x\nthings: {a: {evry: 5s}}", "unknown_key", (2, 14), "did you mean `every`?"),
        ("name: x\nlisted: [{}, {evry: 5s}]", "unknown_key", (2, 15), "did you mean `every`?"),
        ("name: x\nthings: {a: {zzz: 5s}}", "unknown_key", (2, 14), "Valid here: count, every, is_on"),
        ("things: {}", "missing_key", (1, 1), "`name` is missing"),
        ("name: x\nthings: {a: {kind: metre}}", "unknown_word", (2, 20), "did you mean `meter`?"),
        ("name: x\nthings: {a: {count: many}}", "bad_value", (2, 21), "`many` is not a whole number"),
        ("name: x\nthings: {a: {count: 10}}", "bad_value", (2, 21), "at most 9"),
        ("name: x\nthings: {a: {count: 0}}", "bad_value", (2, 21), "at least 1"),
        ("name: x\nthings: {a: {share: half}}", "bad_value", (2, 21), "`half` is not a number"),
        ("name: x\nthings: {a: {is_on: maybe}}", "bad_value", (2, 21), "neither true nor false"),
        ("name: x\nthings: {a: 5}", "bad_value", (2, 13), "`5` should be a map"),
        ("name: x\nthings: [a]", "bad_value", (2, 9), "should be a map"),
        ("name: [x]", "bad_value", (1, 7), "should be text"),
        ("name: x\nthings: {a: {every: soon}}", "bad_amount", (2, 21), "not a number with a unit"),
        ("- a\n- b", "bad_value", (1, 1), "should be a map"),
        ("x", "bad_value", (1, 1), "`x` should be a map"),
    ],
)  # fmt: skip
def test_each_mistake_stands_at_its_place(text: str, code: str, place: tuple[int, int], sentence: str) -> None:
    found = [one for one in found_in(text) if one.code == code]
    assert found, found_in(text)
    assert (found[0].line, found[0].column) == place
    assert sentence in str(found[0])


def test_all_mistakes_come_at_once_in_the_order_of_lines() -> None:
    text = "things:\n  a: {evry: 1}\n  b: {count: x}\n  c: {every: 5}\nnam: x\n"
    assert [(one.code, one.line) for one in found_in(text)] == [
        ("missing_key", 1), ("unknown_key", 2), ("bad_value", 3), ("bad_amount", 4), ("unknown_key", 5),
    ]  # fmt: skip


def test_a_mistake_says_its_sentence_without_the_file() -> None:
    found = found_in("name: x\nthings: {a: {evry: 5s}}")[0]
    assert found.say == "Line 2: `evry` is unknown; did you mean `every`?"
    assert found.json()["code"] == "unknown_key"


@pytest.mark.parametrize(
    "text",
    [
        "name: x\nthings: {a: {key: hunter2}}",
        "name: x\nthings: {a: {key: hunter2, evry: 1}}",
        "name: x\nthings: {a: {evry: 1, key: hunter2}}",
        "name: x\nthings: {a: {secret_key: hunter2}}",
        "name: x\nthings: {a: {pasword: hunter2}}",
        "name: x\nthings:\n  a:\n    key: 'hunter2\n      more'\n",
    ],
)
def test_a_secret_in_clear_text_does_not_travel_in_a_diagnostic(text: str) -> None:
    read = document.parse(text, "f")
    with pytest.raises(DocumentError) as caught:
        document.check(read, Outer)
    assert "hunter2" not in str(caught.value)
    assert "hunter2" not in str([one.json() for one in caught.value.diagnostics])
    assert "•" in str(caught.value)


class Placed(Written):
    at: str

    def model_post_init(self, context: Any, /) -> None:
        raise Mistake("bad_value", "no", "fix", ("at",))


def test_a_mistake_of_the_whole_may_name_its_part() -> None:
    read = document.parse("x: {at: 5}", "f")
    made, found = document.collect(read, Placed, read.tree["x"], ("x",))
    assert made is None
    assert (found[0].column, found[0].fix) == (9, "fix")


words = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=12)
trees = st.recursive(
    words | st.integers().map(str),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words, inner, max_size=4),
    max_leaves=12,
)


@given(trees)
def test_what_yaml_writes_is_read_back_as_text(tree: Any) -> None:
    assert document.parse(yaml.safe_dump(tree), "x").tree == tree


def refusal(raw: bytes | str) -> list[Diagnostic]:
    try:
        document.parse(raw, "x")
    except DocumentError as error:
        return error.diagnostics
    return []


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_bytes_are_read_or_refused_with_a_place(raw: bytes) -> None:
    for one in refusal(raw):
        assert one.line >= 1
        assert one.column >= 1
        assert "^" in str(one) or not one.source


SIGNS = ["a: ", "- ", "[", "]", "{", "}", "&a ", "*a", "\n", "  ", "x", ": ", "? ", ",", "'", '"', "|\n"]


@given(st.lists(st.sampled_from(SIGNS), max_size=30))
def test_any_heap_of_yaml_signs_is_read_or_refused(signs: Sequence[str]) -> None:
    assert {one.code for one in refusal("".join(signs))} <= {"bad_yaml", "duplicate_key", "bad_key", "too_large"}
