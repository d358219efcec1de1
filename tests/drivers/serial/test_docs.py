"""docs/serial.md: every profile on it is true, and every key of the language is on it."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from drivers.serial import dialogue, frames, layouts, point, scenario, settings, words
from gateway import document, load
from gateway.profile import Profile, ProfilePoint

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "serial.md").read_text()
BLOCKS = {text.split("/")[0]: f"profile: {text}" for text in re.findall(r"```yaml\nprofile: (.*?)```", PAGE, re.DOTALL)}
TEXT = re.sub(r"```.*?```", "", PAGE, flags=re.DOTALL)


@pytest.mark.parametrize("name", BLOCKS)
def test_a_profile_on_the_page_passes_its_own_check(name: str) -> None:
    assert load.profile(document.parse(BLOCKS[name], f"{name}.yaml"), name).title is not None


def models() -> Iterator[type[BaseModel]]:
    for module in (dialogue, frames, layouts, point, settings, words):
        for one in vars(module).values():
            is_model = isinstance(one, type) and issubclass(one, BaseModel) and one.__module__ == module.__name__
            if is_model and one not in (settings.Settings, settings.DeviceSettings):
                yield one


def keys() -> set[str]:
    return {name for model in models() for name in model.model_fields} - {"type"}


def used(tree: Any) -> set[str]:
    if isinstance(tree, dict):
        return set(tree) | {key for one in tree.values() for key in used(one)}
    if isinstance(tree, list):
        return {key for one in tree for key in used(one)}
    return set()


def test_every_key_is_explained() -> None:
    explained = set(re.findall(r"`([a-z0-9_]+)\b", TEXT))
    assert keys() - explained == set()


def test_every_key_is_shown_in_a_tested_example() -> None:
    shown = {key for text in BLOCKS.values() for key in used(yaml.load(text, yaml.BaseLoader))}
    meaning = {*ProfilePoint.model_fields, *Profile.model_fields}
    assert keys() - shown - meaning == set()


def test_every_word_of_the_language_is_on_the_page() -> None:
    listed = {str(one) for words_ in (dialogue.Meaning, scenario.Fault, scenario.Scenario) for one in words_}
    for model, field in (
        (words.Checksum, "algorithm"),
        (words.Checksum, "encoding"),
        (point.SerialPoint, "combine"),
    ):
        annotation: Any = model.model_fields[field].annotation
        listed |= set(annotation.__args__)
    assert {word for word in listed if f"`{word}`" not in TEXT} == set()


def test_the_settings_of_a_port_are_explained() -> None:
    for key in ("port", "baud", "format", "echo", "address"):
        assert key in settings.Settings.model_fields or key in settings.DeviceSettings.model_fields
        assert f"`{key}" in TEXT
