"""The site file: what it becomes, and every mistake in it with its place, its reason and its fix."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from gateway import buffer, site
from gateway.diagnostic import Diagnostic, DocumentError
from gateway.model import Lane
from gateway.site.keys import BufferKeys

if TYPE_CHECKING:
    from collections.abc import Callable

    Write = Callable[[str], Path]

SITE = """\
version: 1
gateway: {id: cab-017, tenant: milan}
links:
  line: {driver: modbus, host: 127.0.0.1}
  air: {driver: serial, port: /dev/ttyUSB0}
  cs: {driver: ocpp, listen: "127.0.0.1:0", security: 2, certificate: secret, key: secret:chargers-tls, tags: secret}
assets:
  here: {at: {lat: 45.4508, lon: 9.2041}, devices: {feeder: {link: line, profile: eastron-sdm630, address: 1}}}
  lp-0042: {fed_by: here/feeder, serves: [bay-1], devices: {pm: {link: air, profile: nova-sds011/1, every: 5min}}}
  cp-1: {fed_by: here/feeder, devices: {evse: {link: cs, key: secret}}}
  bay-1: {at: {lat: 45.4, lon: 9.2}}
uplinks:
  city: {uplink: mqtt, url: "mqtts://usp.example:8883", username: u, password: secret, ca: usp-ca.pem, only: [here/*]}
  archive: {uplink: file, path: records.jsonl}
page: {token: secret}
buffer: {commit_every: 5s, telemetry: 200 MB}
"""


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(text: str) -> Path:
        path = tmp_path / "site.yaml"
        path.write_text(text)
        return path

    return write


def changed(old: str, new: str) -> str:
    assert SITE.count(old) == 1, f"{old!r} stands {SITE.count(old)} times in SITE"
    return SITE.replace(old, new)


def mistakes(path: Path) -> list[Diagnostic]:
    with pytest.raises(DocumentError) as caught:
        site.load(path)
    return caught.value.diagnostics


def test_a_site_is_resolved(write: Write, tmp_path: Path) -> None:
    found = site.load(write(SITE))
    assert (found.gateway.id, found.gateway.tenant, found.gateway.clock) == ("cab-017", "milan", "system")
    assert list(found.devices) == ["cab-017/feeder", "lp-0042/pm", "cp-1/evse"]
    link, feeder = found.devices["cab-017/feeder"]
    assert (link.name, link.driver) == ("line", "modbus")
    assert feeder.points["power"].id == "cab-017/feeder/power"
    assert any(verb.startswith("set:") for verb in feeder.verbs)
    assert found.assets["lp-0042"].fed_by == "cab-017/feeder"
    assert found.assets["lp-0042"].serves == ("bay-1",)
    assert found.assets["cab-017"].at is not None
    assert found.links["cs"].devices[0].profile is not None, "a driver's usual profile is used where none is named"
    assert found.uplinks["city"].settings.only == ("cab-017/*",)
    assert getattr(found.uplinks["city"].settings, "ca") == tmp_path / "usp-ca.pem"  # noqa: B009 - mqtt's own key
    assert found.buffer.commit_every == 5
    assert found.buffer.bounds[Lane.TELEMETRY] == 200 * 1024**2
    assert found.warnings == ()
    assert set(found.profiles) == {"eastron-sdm630", "nova-sds011", "ocpp-generic"}


def test_the_hash_is_of_the_text_and_the_profiles(write: Write, tmp_path: Path) -> None:
    first = site.load(write(SITE)).hash
    assert site.load(write(SITE)).hash == first
    assert site.load(write(SITE + "# a word more\n")).hash != first
    own = tmp_path / "profiles"
    own.mkdir()
    text = site.load(write(SITE)).profiles["nova-sds011"][1]
    (own / "nova-sds011.yaml").write_text(text + "# mine\n")
    changed_profile = site.load(write(SITE))
    assert changed_profile.hash != first
    assert [one.code for one in changed_profile.warnings] == ["overridden_profile"]


def test_the_inventory_says_what_stands_in_the_street(write: Write) -> None:
    entry = json.loads(json.dumps(site.load(write(SITE)).inventory(7)))
    assert {key: entry[key] for key in ("v", "gw", "tenant", "version")} == {
        "v": 1,
        "gw": "cab-017",
        "tenant": "milan",
        "version": 7,
    }
    here, post, charger, bay = entry["assets"]
    assert here["at"] == {"lat": 45.4508, "lon": 9.2041}
    assert post["id"] == "lp-0042"
    assert post["fed_by"] == "cab-017/feeder"
    assert post["serves"] == ["bay-1"]
    [pm] = post["devices"]
    assert (pm["id"], pm["driver"], pm["link"], pm["profile"]) == ("lp-0042/pm", "serial", "air", "nova-sds011/1")
    assert ["lp-0042/pm/pm25", "pm25", "ug/m3"] in pm["points"]
    assert charger["devices"][0]["driver"] == "ocpp"
    assert bay["devices"] == []


def test_text_stays_text(write: Write) -> None:
    text = changed(
        "  bay-1: {at: {lat: 45.4, lon: 9.2}}\n",
        "  0x10: {}\n  1e3: {}\n  on: {}\n  '04123456': {}\n  70b3d57ed0001234: {}\n",
    )
    text = (
        text.replace("serves: [bay-1]", "serves: [on, 0x10, 1e3, 04123456]")
        .replace("id: cab-017", "id: 017")
        .replace("milan", "off")
    )
    found = site.load(write(text))
    assert found.assets["lp-0042"].serves == ("on", "0x10", "1e3", "04123456")
    assert (found.gateway.id, found.gateway.tenant) == ("017", "off")
    assert "017/feeder" in found.devices


MISTAKES = [
    # what, old text, new text, code, line, words of the sentence and the fix
    ("unknown key", "every: 5min", "evry: 5min", "unknown_key", 9, "`evry` is unknown; did you mean `every`?"),
    (
        "unknown key of the gateway",
        "tenant: milan",
        "tenant: milan, clok: trusted",
        "unknown_key",
        2,
        "did you mean `clock`?",
    ),
    ("unknown section", "page:", "pages:", "unknown_key", 15, "did you mean `page`?"),
    ("unknown word", "tenant: milan", "tenant: milan, clock: sistem", "unknown_word", 2, "did you mean `system`?"),
    ("missing link", "{link: air, ", "{", "missing_key", 9, "`link` is missing in `pm`"),
    ("missing driver", "{driver: serial, ", "{", "missing_key", 5, "`driver` is missing in `air`"),
    ("missing uplink", "{uplink: file, ", "{", "missing_key", 14, "`uplink` is missing in `archive`"),
    ("missing profile", "profile: eastron-sdm630, ", "", "missing_key", 8, "`profile` is missing in `feeder`"),
    ("missing address", ", address: 1", "", "missing_key", 8, "`address` is missing in `feeder`"),
    ("missing tenant", ", tenant: milan", "", "missing_key", 2, "`tenant` is missing in `gateway`"),
    ("missing version", "version: 1\n", "", "missing_key", 1, "`version` is missing"),
    (
        "unknown driver",
        "driver: serial",
        "driver: serail",
        "unknown_driver",
        5,
        "driver `serail` is unknown; did you mean `serial`?",
    ),
    (
        "unknown third party",
        "driver: serial",
        "driver: acme.nothing",
        "unknown_driver",
        5,
        "no package that is installed",
    ),
    ("unknown uplink", "uplink: mqtt", "uplink: mqttt", "unknown_uplink", 13, "did you mean `mqtt`?"),
    (
        "unknown profile",
        "profile: eastron-sdm630",
        "profile: eastron-sdm603",
        "unknown_profile",
        8,
        "did you mean `eastron-sdm630`?",
    ),
    (
        "unknown version of a profile",
        "nova-sds011/1",
        "nova-sds011/9",
        "unknown_profile",
        9,
        "the catalogue has `nova-sds011/1`",
    ),
    (
        "wrong driver",
        "profile: nova-sds011/1",
        "profile: eastron-sdm630",
        "wrong_driver_for_profile",
        9,
        "is for a modbus link; this link is serial",
    ),
    ("unknown link", "link: air", "link: airr", "unknown_link", 9, "link `airr` is unknown; did you mean `air`?"),
    ("clear-text secret", "password: secret", "password: hunter2", "clear_text_secret", 13, "lampione secret set"),
    ("clear-text token", "token: secret", "token: 1234", "clear_text_secret", 15, "clear text"),
    ("bad amount", "commit_every: 5s", "commit_every: 5", "bad_amount", 16, "Write `5s`"),
    ("bad size", "telemetry: 200 MB", "telemetry: 200", "bad_amount", 16, "Write `200 MB`"),
    ("bad value", "lat: 45.4,", "lat: 95.4,", "bad_value", 11, "at most 90"),
    ("no number", "lat: 45.4,", "lat: north,", "bad_value", 11, "`north` is not a number"),
    ("infinite", "lat: 45.4,", "lat: nan,", "bad_value", 11, "finite"),
    ("bad name of an asset", "  bay-1:", "  Bay 1:", "bad_value", 11, "`Bay 1` does not have the form"),
    ("bad name of a device", "{pm: {", "{P/M: {", "bad_value", 9, "`P/M` does not have the form"),
    ("device is no map", "{evse: {link: cs, key: secret}}", "{evse: cs}", "bad_value", 10, "`cs` should be a map"),
    ("link is no map", "{driver: serial, port: /dev/ttyUSB0}", "/dev/ttyUSB0", "bad_value", 5, "should be a map"),
    (
        "unknown feeder",
        "cp-1: {fed_by: here/feeder",
        "cp-1: {fed_by: here/feder",
        "unknown_asset",
        10,
        "did you mean `here/feeder`?",
    ),
    ("unknown served", "serves: [bay-1]", "serves: [bay-2]", "unknown_asset", 9, "did you mean `bay-1`?"),
    ("public page", "page: {", 'page: {listen: "0.0.0.0:8080", ', "public_listen", 15, "open to the network"),
    ("public name", "page: {", 'page: {listen: "cab.example:8080", ', "public_listen", 15, "unencrypted: true"),
    ("bad address of the page", "page: {", "page: {listen: 8080, ", "bad_value", 15, "Write it like `127.0.0.1:8080`."),
    (
        "newer version",
        "version: 1",
        "version: 2",
        "unsupported_version",
        1,
        "`version: 2` is not a version that this gateway reads",
    ),
    (
        "fleet file",
        "version: 1",
        "version: 1\nbase: fleet.yaml",
        "later_version",
        2,
        "`base` is not supported in this version",
    ),
    (
        "kinds",
        "version: 1",
        "version: 1\nkinds: {post: {}}",
        "later_version",
        2,
        "`kinds` is not supported in this version",
    ),
    ("use", "bay-1: {", "bay-1: {use: bay, ", "later_version", 11, "Write the devices of this asset out for now."),
    (
        "reserved name",
        "  bay-1:",
        "  bay-1: {}\n  uplinks:",
        "reserved_name",
        12,
        "an asset cannot be called `uplinks`",
    ),
    ("here twice", "  bay-1:", "  bay-1: {}\n  cab-017:", "duplicate_key", 12, "which stands here as `here` already"),
    ("duplicate key", "  bay-1:", "  cp-1:", "duplicate_key", 11, "the first is in line 10"),
    ("not yaml", "tenant: milan}", "tenant: milan", "bad_yaml", 3, "not YAML"),
]


@pytest.mark.parametrize(
    ("old", "new", "code", "line", "sentence"), [m[1:] for m in MISTAKES], ids=[m[0] for m in MISTAKES]
)
def test_a_mistake(write: Write, old: str, new: str, code: str, line: int, sentence: str) -> None:
    found = [one for one in mistakes(write(changed(old, new))) if one.code == code]
    assert found
    assert found[0].line == line or code == "bad_yaml"
    assert sentence in str(found[0])
    assert found[0].fix
    assert "^" in str(found[0])


def test_the_sentence_of_the_contract(write: Write) -> None:
    text = changed(
        "uplinks:\n",
        "\n  lp-2:\n    devices:\n      x: {link: line, profile: eastron-sdm630, address: 2, evry: 5s}\nuplinks:\n",
    )
    [found] = mistakes(write(text.replace("\n  lp-2", "  lp-2")))
    assert found.say == "Line 14: `evry` is unknown; did you mean `every`?"


def test_all_mistakes_come_at_once_over_the_whole_file(write: Write) -> None:
    text = SITE
    for old, new in (
        ("tenant: milan", "tenant: Milan"), ("host:", "hots:"), ("driver: serial", "driver: seral"),
        ("fed_by: here/feeder, serves", "fed_by: here/feder, serves"), ("uplink: mqtt", "uplink: mqt"),
        ("token: secret", "token: hunter2"), ("commit_every: 5s", "commit_every: soon"),
    ):  # fmt: skip
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    found = mistakes(write(text))
    assert [(one.line, one.code) for one in found] == [
        (2, "bad_value"), (4, "unknown_key"), (5, "unknown_driver"), (9, "unknown_asset"),
        (13, "unknown_uplink"), (15, "clear_text_secret"), (16, "bad_amount"),
    ]  # fmt: skip
    assert "hunter2" not in "".join(map(str, found))


def test_two_devices_with_one_address_are_both_named(write: Write) -> None:
    text = changed("  bay-1:", "  b-2: {devices: {m: {link: line, profile: eastron-sdm630, address: 1}}}\n  bay-1:")
    [found] = mistakes(write(text))
    assert (found.code, found.line) == ("duplicate_address", 11)
    assert "`b-2/m` has the address 1 of `cab-017/feeder` in line 8" in found.why


@pytest.mark.parametrize(
    ("old", "new", "circle"),
    [
        ("bay-1: {", "bay-1: {fed_by: bay-1, ", "bay-1 <- bay-1"),
        ("here: {", "here: {fed_by: lp-0042, ", "lp-0042 <- cab-017/feeder <- lp-0042"),
        ("address: 1}", "address: 1, fed_by: cp-1}", "cab-017/feeder <- cp-1 <- cab-017/feeder"),
    ],
)  # fmt: skip
def test_current_does_not_go_round_in_a_circle(write: Write, old: str, new: str, circle: str) -> None:
    found = mistakes(write(changed(old, new)))
    assert [one.code for one in found] == ["fed_by_cycle"]
    members = circle.split(" <- ")
    assert set(found[0].why.rpartition(": ")[2].split(" <- ")) == set(members)


def test_a_meter_may_feed_the_cabinet_it_stands_in(write: Write) -> None:
    site.load(write(changed("here: {", "here: {fed_by: here/feeder, ")))


def test_a_link_without_devices_is_a_warning(write: Write) -> None:
    found = site.load(write(changed("  air:", "  spare: {driver: modbus, host: 127.0.0.2}\n  air:")))
    assert [(one.code, one.line) for one in found.warnings] == [("unused_link", 5)]


def test_the_mistakes_of_a_profile_are_said_in_its_file(write: Write, tmp_path: Path) -> None:
    own = tmp_path / "profiles"
    own.mkdir()
    shipped = site.load(write(SITE)).profiles["nova-sds011"][1]
    (own / "nova-sds011.yaml").write_text(shipped.replace("kind:", "knd:", 1))
    found = mistakes(write(SITE))
    assert {one.code for one in found} == {"missing_key", "unknown_key"}
    assert {one.file for one in found} == {str(own / "nova-sds011.yaml")}


def test_a_profile_whose_examples_fail_is_not_run(write: Write, tmp_path: Path) -> None:
    own = tmp_path / "profiles"
    own.mkdir()
    shipped = site.load(write(SITE)).profiles["nova-sds011"][1]
    assert shipped.count("scale: 0.1") >= 1
    (own / "nova-sds011.yaml").write_text(shipped.replace("scale: 0.1", "scale: 0.2"))
    assert {one.code for one in mistakes(write(SITE))} == {"example_fails"}


def test_the_page_may_be_opened_to_the_network_by_one_who_says_so(write: Write) -> None:
    found = site.load(write(changed("page: {", 'page: {listen: "0.0.0.0:8080", unencrypted: true, ')))
    assert found.page is not None
    for address in ("127.0.0.2:80", "localhost:0", "[::1]:8080"):
        assert site.load(write(changed("page: {", f'page: {{listen: "{address}", '))).page
    assert site.load(write(changed("page: {token: secret}\n", ""))).page is None


def test_an_empty_file_says_what_is_missing(write: Write) -> None:
    assert [one.why for one in mistakes(write(""))] == ["`version` is missing", "`gateway` is missing"]
    assert mistakes(write("- a\n"))[0].code == "bad_value"


def test_the_bounds_of_the_buffer_are_its_own() -> None:
    assert BufferKeys().bounds == dict(buffer.BOUNDS)


def test_three_hundred_devices_are_checked_in_a_second(write: Write) -> None:
    posts = "".join(
        f"  lp-{n}: {{at: {{lat: 45.4, lon: 9.2}}, fed_by: here/m0, devices: "
        f"{{m: {{link: line{n // 100}, profile: eastron-sdm630, address: {n % 100 + 1}, every: 10s}}}}}}\n"
        for n in range(300)
    )
    lines = "".join(f"  line{n}: {{driver: modbus, host: 127.0.0.{n + 1}}}\n" for n in range(4))
    head = "version: 1\ngateway: {id: cab, tenant: milan}\nlinks:\n" + lines
    here = "assets:\n  here: {devices: {m0: {link: line3, profile: eastron-sdm630, address: 1}}}\n"
    path = write(head + here + posts)
    site.load(path)
    started = time.perf_counter()
    found = site.load(path)
    took = time.perf_counter() - started
    assert len(found.devices) == 301
    assert took < 3, f"{took:.2f} s; it is 0.3 s on an idle desk machine"


EXAMPLE = Path(site.__file__).parents[2] / "config" / "site.example.yaml"


def test_the_example_is_right() -> None:
    found = site.load(EXAMPLE)
    assert len(found.devices) == 4
    assert found.warnings == ()
    assert {"links.cs.key", "cp-1.evse.key", "uplinks.city.password", "page.token"} <= set(found.secrets)
