"""What people can type, write or read is documented, and what is documented exists."""

from __future__ import annotations

import ast
import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest

from gateway.cli import VERBS, main
from gateway.profile import Catalogue
from gateway.site.read import shipped_profiles

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
SAYERS = {"Mistake", "Diagnostic", "diagnostic", "_find"}


def generator() -> Any:
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


GENERATE = generator()


def codes_in(text: str) -> set[str]:
    """The codes of the mistakes that a piece of code can find."""
    calls = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call) and node.args]
    named = [call for call in calls if ast.unparse(call.func).rpartition(".")[2] in SAYERS]
    return {
        call.args[0].value
        for call in named
        if isinstance(call.args[0], ast.Constant) and isinstance(call.args[0].value, str)
    }


def codes() -> set[str]:
    paths = [*(ROOT / "gateway").rglob("*.py"), *(ROOT / "drivers").rglob("*.py")]
    return set().union(*(codes_in(path.read_text()) for path in paths))


def documented() -> list[str]:
    return re.findall(r"^## (\w+)$", (DOCS / "diagnostics.md").read_text(), re.MULTILINE)


def test_a_code_is_found_where_it_is_raised() -> None:
    assert codes_in('raise Mistake("a_code", f"{why}")\nself._find("other", at, why)\nlog("third")') == {
        "a_code",
        "other",
    }
    assert len(codes()) > 30


def test_every_code_is_documented_and_every_documented_code_exists() -> None:
    assert set(documented()) == codes()
    assert documented() == sorted(documented()), "in the order of the alphabet"


def test_every_code_is_explained() -> None:
    sections = re.split(r"^## ", (DOCS / "diagnostics.md").read_text(), flags=re.MULTILINE)[1:]
    assert [one.partition("\n")[0] for one in sections if len(one.partition("\n")[2].strip()) < 40] == []


def test_every_code_is_raised_by_a_test() -> None:
    tests = "".join(path.read_text() for path in (ROOT / "tests").rglob("*.py") if path != Path(__file__))
    assert [code for code in documented() if not re.search(rf"[\"'\[]{code}[\"'\]]", tests)] == []


@pytest.mark.parametrize("name", GENERATE.PAGES)
def test_a_generated_page_is_up_to_date(name: str) -> None:
    assert (DOCS / name).read_text() == GENERATE.PAGES[name](), "Type: python docs/generate.py"


def test_every_setting_is_explained() -> None:
    unexplained = [f"{title}: {key}" for title, _, rows in GENERATE.settings() for key, _, words in rows if not words]
    assert unexplained == [], "write a text under the setting"


def test_no_explanation_is_left_over() -> None:
    keys = {key for _, _, rows in GENERATE.settings() for key, _, _ in rows}
    assert sorted(set(GENERATE.WORDS) - keys) == []


def test_every_verb_and_option_is_documented(capsys: pytest.CaptureFixture[str]) -> None:
    page = (DOCS / "cli.md").read_text()
    for verb in VERBS:
        section = page.partition(f"## lampione {verb}\n")[2].partition("\n## ")[0]
        assert section, verb
        main([verb, "--help"])
        for option in re.findall(r"--[a-z-]+", capsys.readouterr().out):
            assert option == "--help" or option in page, f"{verb} {option}"


def test_every_profile_is_documented() -> None:
    page = (DOCS / "profiles.md").read_text()
    for name in Catalogue([shipped_profiles()]).names():
        assert f"\n## {name}\n" in page


PAGES = sorted(DOCS.glob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if ":" in target:
            continue
        file, _, anchor = target.partition("#")
        there = (page.parent / file).resolve() if file else page
        assert there.exists(), target
        if anchor:
            heads = re.findall(r"^#+ (.+)$", there.read_text(), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w\- ]", "", head).strip().lower().replace(" ", "-") for head in heads}, target
