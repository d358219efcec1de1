"""The last good file: kept whole or not at all, and used when the new one is broken."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from gateway import durable, site
from gateway.diagnostic import DocumentError
from gateway.site import keep_as_last_good, load_or_last_good
from gateway.site.lastgood import FILE

if TYPE_CHECKING:
    from pathlib import Path

SITE = """\
version: 1
gateway: {id: cab-017, tenant: milan}
links: {air: {driver: serial, port: /dev/ttyUSB0}}
assets: {lp-1: {devices: {pm: {link: air, profile: nova-sds011, every: 5min}}}}
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "site.yaml"
    path.write_text(SITE)
    return path


@pytest.fixture
def state(tmp_path: Path) -> Path:
    (tmp_path / "state").mkdir()
    return tmp_path / "state"


def test_a_right_file_is_used_and_nothing_is_kept_before_the_gateway_runs_on_it(path: Path, state: Path) -> None:
    found, rejected = load_or_last_good(path, state)
    assert rejected is None
    assert list(found.devices) == ["lp-1/pm"]
    assert list(state.iterdir()) == []


def test_a_broken_file_runs_the_last_good_one_and_says_so(path: Path, state: Path) -> None:
    good, _ = load_or_last_good(path, state)
    keep_as_last_good(good, state)
    path.write_text(SITE.replace("every", "evry"))
    found, rejected = load_or_last_good(path, state)
    assert found.hash == good.hash
    assert found.devices.keys() == good.devices.keys()
    assert rejected is not None
    assert rejected.diagnostics[0].say == "Line 4: `evry` is unknown; did you mean `every`?"
    assert rejected.diagnostics[0].code == "unknown_key"


@pytest.mark.parametrize("fault", ["gone", "a folder", "not utf-8", "cut off"])
def test_a_file_that_cannot_be_read_at_all_runs_the_last_good_one(path: Path, state: Path, fault: str) -> None:
    keep_as_last_good(site.load(path), state)
    path.unlink()
    if fault == "a folder":
        path.mkdir()
    elif fault == "not utf-8":
        path.write_bytes(SITE.encode("utf-16"))
    elif fault == "cut off":
        path.write_text(SITE[:60])
    found, rejected = load_or_last_good(path, state)
    assert list(found.devices) == ["lp-1/pm"]
    assert rejected is not None


def test_without_a_last_good_one_the_mistakes_are_raised(path: Path, state: Path) -> None:
    path.write_text(SITE.replace("every", "evry"))
    with pytest.raises(DocumentError, match="did you mean `every`"):
        load_or_last_good(path, state)
    with pytest.raises(DocumentError):
        load_or_last_good(path, state / "no such folder")


def test_the_profile_of_that_day_is_kept_too(path: Path, state: Path) -> None:
    own = path.parent / "profiles"
    own.mkdir()
    profile = site.load(path).profiles["nova-sds011"][1]
    (own / "nova-sds011.yaml").write_text(profile)
    good = site.load(path)
    keep_as_last_good(good, state)
    (own / "nova-sds011.yaml").write_text(profile.replace("quantity: pm25", "quantity: pm52"))
    found, rejected = load_or_last_good(path, state)
    assert rejected is not None
    assert {one.code for one in rejected.diagnostics} == {"unknown_quantity"}
    assert found.hash == good.hash
    assert found.devices["lp-1/pm"][1].points == good.devices["lp-1/pm"][1].points


def test_what_a_profile_inherits_from_is_kept_with_it(path: Path, state: Path) -> None:
    own = path.parent / "profiles"
    own.mkdir()
    sensor = site.load(path).profiles["nova-sds011"][1]
    parent = own / "acme-dust.yaml"
    parent.write_text(sensor.replace("nova-sds011/1", "acme-dust/1"))
    (own / "nova-sds011.yaml").write_text("profile: nova-sds011/1\ninherits: acme-dust\n")
    good = site.load(path)
    assert set(good.profiles) >= {"nova-sds011", "acme-dust"}
    keep_as_last_good(good, state)
    parent.unlink()
    found, rejected = load_or_last_good(path, state)
    assert rejected is not None
    assert {one.code for one in rejected.diagnostics} == {"unknown_profile"}
    assert found.hash == good.hash
    assert found.devices["lp-1/pm"][1].points == good.devices["lp-1/pm"][1].points


def test_another_sites_last_good_file_is_not_run(path: Path, state: Path, tmp_path: Path) -> None:
    keep_as_last_good(site.load(path), state)
    with pytest.raises(DocumentError, match="No such file"):
        load_or_last_good(tmp_path / "typo.yaml", state)


@pytest.mark.parametrize(
    "kept",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b"null",
        b"\xff",
        b'{"path": 1, "text": "", "profiles": []}',
        b'{"text": 5, "profiles": {"a": [1]}}',
    ],
)
def test_a_kept_file_that_is_damaged_is_not_believed(path: Path, state: Path, kept: bytes) -> None:
    (state / FILE).write_bytes(kept.replace(b'"path": 1', b'"path": "%s"' % os.fsencode(path)))
    path.write_text("version: 1\n")
    with pytest.raises(DocumentError, match="`gateway` is missing"):
        load_or_last_good(path, state)


class PowerCutError(OSError):
    pass


@pytest.mark.parametrize("step", ["write", "fsync", "rename"])
def test_a_power_cut_while_keeping_leaves_the_one_before(
    path: Path, state: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = site.load(path)
    keep_as_last_good(good, state)
    path.write_text(SITE.replace("5min", "1min"))
    newer = site.load(path)

    def cut(*_: object) -> None:
        raise PowerCutError

    with monkeypatch.context() as patched:
        match step:
            case "write":
                patched.setattr(durable.os, "fdopen", cut)
            case "fsync":
                patched.setattr(durable.os, "fsync", cut)
            case _:
                patched.setattr(durable.Path, "replace", cut)
        with pytest.raises(PowerCutError):
            keep_as_last_good(newer, state)
    path.write_text("broken: [")
    found, _ = load_or_last_good(path, state)
    assert found.hash == good.hash
    assert [one.name for one in state.iterdir()] == [FILE]


def test_the_order_of_steps_survives_a_power_cut(path: Path, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Content to the disk before the name, the name before the return."""
    steps: list[str] = []
    fsync, rename = os.fsync, durable.Path.replace

    def noted_fsync(descriptor: int) -> None:
        steps.append("fsync " + ("folder" if os.path.isdir(f"/proc/self/fd/{descriptor}") else "file"))  # noqa: PTH112
        fsync(descriptor)

    def noted_rename(self: Path, target: Path) -> Path:
        steps.append("rename")
        return rename(self, target)

    monkeypatch.setattr(durable.os, "fsync", noted_fsync)
    monkeypatch.setattr(durable.Path, "replace", noted_rename)
    keep_as_last_good(site.load(path), state)
    assert steps == ["fsync file", "rename", "fsync folder"]
    assert (state / FILE).stat().st_mode & 0o077 == 0
