"""Mistakes in the frame language: each is said at its place, with the fix."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from drivers.serial import DeviceSettings, Profile, points
from drivers.serial.dialogue import Address
from drivers.serial.settings import address_bytes
from gateway import document
from gateway.document import DocumentError, Mistake

PROFILES = Path(__file__).resolve().parents[3] / "config" / "profiles"


def tree_of(name: str) -> dict[str, Any]:
    tree: dict[str, Any] = yaml.load((PROFILES / f"{name}.yaml").read_text(), yaml.BaseLoader)
    return tree


Change = Callable[[dict[str, Any]], Any]
CASES: list[tuple[str, Change, str, str]] = [
    ("nova-sds011", lambda t: t["frame"].update(lock="0"), "bad_value", "too small"),
    ("nova-sds011", lambda t: t["points"]["pm10"].update(polynomial=["0", "1"]), "bad_point", "exclude each other"),
    ("nova-sds011", lambda t: t["points"]["pm10"].update(bits=["0", "7"]), "bad_point", "[0, 7] are no bits"),
    ("nova-sds011", lambda t: t["points"]["pm10"].update(range=["9", "1"]), "bad_point", "is empty"),
    ("nova-sds011", lambda t: t["points"]["pm10"].update(combine="vector"), "bad_point", "for directions"),
    ("nova-sds011", lambda t: t["points"]["pm10"].update(weight="pm25"), "bad_point", "`weight` is for"),
    ("nova-sds011", lambda t: t["points"]["pm10"].update(counter={}, combine="mean"), "bad_point", "never averaged"),
    ("nova-sds011", lambda t: t["points"]["pm10"].update(type="number"), "bad_point", "needs a type of bytes"),
    ("nova-sds011", lambda t: t["points"]["pm10"].update(at="GGA.2"), "bad_place", "is no offset"),
    ("nova-sds011", lambda t: t["points"]["pm10"].update(unit_at="3"), "bad_point", "without `units`"),
    ("nova-sds011", lambda t: t.update(mode="poll"), "bad_command", "without a command to ask with"),
    ("nova-sds011", lambda t: t.update(address={}), "bad_command", "have no address"),
    ("nova-sds011", lambda t: t["dialogue"].update(wake=[]), "bad_command", "to rest"),
    ("nova-sds011", lambda t: t["dialogue"].update(wake=["wakke"]), "unknown_word", "did you mean `wake`?"),
    ("nova-sds011", lambda t: t["examples"][0].update(means="asleep"), "bad_expectation", "what is expected of"),
    ("nova-sds011", lambda t: t["commands"]["wake"].update(answer="ack"), "unknown_word", "message `ack`"),
    ("winsen-mhz19", lambda t: t["dialogue"].update(init=["calibrate_zero"]), "bad_command", "is destructive"),
    ("tera-nextpm", lambda t: t["messages"]["reading"].update(when={"1": "11/0"}), "bad_hex", "not bytes"),
    ("tera-nextpm", lambda t: t["messages"]["reading"].update(when={"1": "11/0f0f"}), "bad_hex", "differ in length"),
    ("tera-nextpm", lambda t: t["messages"]["reading"].update(means="other"), "bad_frame", "none of the messages"),
    ("tera-nextpm", lambda t: t["messages"]["asleep"].update(means="sleepy"), "unknown_word", "`sleepy` is unknown"),
    ("tera-nextpm", lambda t: t["status"].update(bits={}), "bad_point", "a status that means nothing"),
    ("tera-nextpm", lambda t: t["dialogue"].update(init=["toggle_sleep"]), "bad_command", "is not idempotent"),
    ("tera-nextpm", lambda t: (t.update(duty={"measure": "9s"}), t["dialogue"].update(sleep=["toggle_sleep"])),
     "bad_command", "is not idempotent, and what stands in `wake`"),
    ("tera-nextpm", lambda t: t["status"].pop("type"), "bad_point", "the status needs a type of bytes"),
    ("tera-nextpm", lambda t: t["status"].update(at="16"), "outside_frame", "`status` ends at byte 17"),
    ("tera-nextpm", lambda t: t["status"].update(at="two"), "bad_place", "`two` is no offset"),
    ("gill-windsonic", lambda t: t["status"].update(type="u8"), "bad_point", "`u8` is for bytes, not text"),
    ("lufft-umb", lambda t: t["points"]["pressure"].update(type="u8"), "bad_point", "`type` and `types`"),
    ("lufft-umb", lambda t: t["points"]["pressure"].update(at={"presure": "14"}), "unknown_word", "did you mean"),
    ("lufft-umb", lambda t: t["frame"]["checksum"].update(algorithm="crc"), "bad_frame", "belong together"),
    ("lufft-umb", lambda t: t["frame"]["checksum"].update(algorithm="crc", crc={"width": "8", "poly": "0x1021"}),
     "bad_frame", "0x1021 has more than 8 bits"),
    ("gill-windsonic", lambda t: t["points"]["wind_direction"].update(weight="wind"), "unknown_word", "point `wind`"),
    ("gill-windsonic", lambda t: t["points"]["wind_speed"].update(type="u8"), "bad_point", "is for bytes, not text"),
    ("gill-windsonic", lambda t: t["points"]["wind_speed"]["units"].update(M="mm"), "bad_unit", "is not a unit"),
    ("gill-windsonic", lambda t: t["points"]["wind_speed"].update(at=[["1"]]), "bad_place", "is no place"),
    ("gill-windsonic", lambda t: t["points"]["wind_speed"].update(table=[["2", "0"], ["1", "1"]]),
     "bad_point", "rising"),
    ("sdi12-generic", lambda t: t["layout"].update(like="[+"), "bad_pattern", "not a regular expression"),
    ("sdi12-generic", lambda t: t["messages"]["measuring"].update(like="^.[0-9]{4}$"), "bad_pattern", "how long"),
    ("sdi12-generic", lambda t: t.update(layout={"type": "expression", "like": "x"}), "bad_pattern", "names no group"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "change", "code", "said"), CASES)
def test_a_mistake_is_said_at_its_place(name: str, change: Change, code: str, said: str) -> None:
    tree = copy.deepcopy(tree_of(name))
    change(tree)
    with pytest.raises(DocumentError) as raised:
        document.check(document.parse(json.dumps(tree, indent=1), "x.yaml"), Profile)
    mistake = raised.value.diagnostics[0]
    assert mistake.code == code
    assert said in mistake.why
    assert "^" in str(mistake)


def settings(**keys: str) -> DeviceSettings:
    return DeviceSettings.model_validate({"link": "bus", "profile": "x-y", **keys})


def profile(name: str) -> Profile:
    return Profile.model_validate(tree_of(name))


def test_an_address_is_needed_or_none() -> None:
    with pytest.raises(Mistake, match="needs an address"):
        points("a/b", profile("lufft-umb"), settings())
    with pytest.raises(Mistake, match="has no address"):
        points("a/b", profile("nova-sds011"), settings(address="1"))
    with pytest.raises(Mistake, match="is no address of 16 bits"):
        points("a/b", profile("lufft-umb"), settings(address="70000"))
    assert address_bytes(Address(type="u16le"), "0x7001") == b"\x01\x70"
    assert points("a/b", profile("sdi12-generic"), settings(address="3"))


def test_averages_and_growth_are_said_to_be_such() -> None:
    named = points("a/b", profile("gill-windsonic"), settings(every="10min"))
    assert (named["wind_speed"].statistic, named["wind_speed"].window) == ("mean", 600)
    assert points("a/b", profile("davis-vantage"), settings())["rain"].statistic == "sum"
