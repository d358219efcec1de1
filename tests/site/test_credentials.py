"""Credentials: where they are looked for, who may read them, and what is said where one is missing."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from gateway import site
from gateway.errors import ConfigError
from gateway.site import Credentials, resolver
from gateway.site.credentials import CredentialError

SITE = """\
version: 1
gateway: {id: cab-017, tenant: milan}
links: {cs: {driver: ocpp, listen: "127.0.0.1:0", security: 2, certificate: secret, key: secret:chargers-tls}}
assets:
  here: {devices: {evse: {link: cs, key: secret}}}
  cp-1: {devices: {evse: {link: cs, key: secret}, other: {link: cs, identity: x}}}
uplinks: {city: {uplink: mqtt, url: "mqtts://usp.example", username: u, password: secret}}
page: {token: secret}
"""
NAMES = {
    "links.cs.certificate", "chargers-tls", "cab-017.evse.key", "cp-1.evse.key", "uplinks.city.password", "page.token",
}  # fmt: skip


@pytest.fixture(autouse=True)
def outside_a_service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)


@pytest.fixture
def found(tmp_path: Path) -> site.Site:
    path = tmp_path / "site.yaml"
    path.write_text(SITE)
    return site.load(path)


def test_a_credential_is_named_after_its_place(found: site.Site) -> None:
    assert set(found.secrets) == NAMES
    assert found.references["links.cs.key"] == "chargers-tls"
    assert found.references["cab-017/evse.key"] == "cab-017.evse.key"


def test_what_a_driver_an_uplink_and_the_page_ask_for_is_found(found: site.Site, tmp_path: Path) -> None:
    credentials = Credentials.beside(found.path)
    for name in NAMES:
        credentials.write(name, f"value of {name}")
    link = resolver(found, "links.cs", credentials)
    assert link("certificate") == "value of links.cs.certificate"
    assert link("key") == "value of chargers-tls"
    assert link("cp-1/evse.key") == "value of cp-1.evse.key"
    assert link("cab-017/evse.key") == "value of cab-017.evse.key"
    assert resolver(found, "uplinks.city", credentials)("password") == "value of uplinks.city.password"
    assert resolver(found, "page", credentials)("token") == "value of page.token"
    assert credentials.missing(found) == []
    with pytest.raises(ConfigError, match=r"cp-1/other names no secret. Add `key: secret`"):
        link("cp-1/other.key")
    with pytest.raises(ConfigError, match=r"links.cs names no secret. Add `tags: secret`"):
        link("tags")


def test_the_missing_are_said_at_their_place(found: site.Site) -> None:
    credentials = Credentials.beside(found.path)
    credentials.write("page.token", "x")
    missing = credentials.missing(found)
    assert {one.code for one in missing} == {"missing_secret"}
    assert len(missing) == len(NAMES) - 1
    [password] = [one for one in missing if "uplinks.city.password" in one.why]
    assert (password.line, password.source[password.column - 1 :][:6]) == (7, "secret")
    assert password.fix == f"Type: lampione secret set uplinks.city.password --secrets {found.path.parent}/secrets"


def test_the_usual_folder_needs_no_option() -> None:
    missing = Credentials.beside(Path("/etc/lampione/site.yaml")).fault("no.such.secret")
    assert str(missing) == "The secret `no.such.secret` is not set. Type: lampione secret set no.such.secret"


def test_a_credential_is_read_anew_each_time(tmp_path: Path) -> None:
    credentials = Credentials(tmp_path)
    credentials.write("a", "one")
    assert credentials.read("a") == "one"
    credentials.write("a", "two")
    assert credentials.read("a") == "two"


@pytest.mark.parametrize(
    ("stored", "value"),
    [
        (b"x\n", "x"),
        (b"x\r\n", "x"),
        (b"x", "x"),
        (b" x \n", " x "),
        (b"a\nb\n", "a\nb"),
        (b"x\n\n", "x\n"),
        ("città".encode(), "città"),
    ],
)
def test_only_the_line_end_at_the_end_goes(tmp_path: Path, stored: bytes, value: str) -> None:
    (tmp_path / "a").write_bytes(stored)
    (tmp_path / "a").chmod(0o600)
    assert Credentials(tmp_path).read("a") == value


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o666, 0o601])
def test_what_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "a"
    path.write_text("x")
    path.chmod(mode)
    with pytest.raises(CredentialError, match=f"Others can read the secret `a` in {path}. Type: chmod 600 {path}"):
        Credentials(tmp_path).read("a")
    path.chmod(0o400)
    assert Credentials(tmp_path).read("a") == "x"


@pytest.mark.parametrize(("stored", "sentence"), [(b"", "is empty"), (b"\n", "is empty"), (b"\xff\xfe", "is not text")])
def test_what_is_no_credential_is_refused(tmp_path: Path, stored: bytes, sentence: str) -> None:
    (tmp_path / "a").write_bytes(stored)
    (tmp_path / "a").chmod(0o600)
    with pytest.raises(CredentialError, match=sentence):
        Credentials(tmp_path).read("a")


def test_a_folder_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir(mode=0o700)
    with pytest.raises(CredentialError, match="Is a directory"):
        Credentials(tmp_path).read("a")


def test_what_systemd_passes_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    passed, own = tmp_path / "passed", tmp_path / "own"
    passed.mkdir()
    (passed / "a").write_text("from systemd\n")
    (passed / "a").chmod(0o440)
    credentials = Credentials(own)
    credentials.write("a", "own")
    credentials.write("b", "own")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(passed))
    assert credentials.read("a") == "from systemd"
    assert credentials.read("b") == "own"
    (passed / "secrets_b").write_text("from a folder that systemd loads whole")
    assert credentials.read("b") == "from a folder that systemd loads whole"


def test_a_stored_credential_is_its_owners_alone(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "secrets"
    path = Credentials(folder).write("links.cs.key", "x")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert [one.name for one in folder.iterdir()] == ["links.cs.key"]


@pytest.mark.parametrize("name", ["", "..", ".hidden", "a/b", "a b", "è", "-x", "a" * 200])
def test_a_name_that_could_leave_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="is no name for a secret"):
        Credentials(tmp_path / "s").write(name, "x")
    assert not (tmp_path / "s").exists()


def test_an_empty_credential_is_not_stored(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nothing is stored"):
        Credentials(tmp_path).write("a", " \n")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_refuses_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be stored"):
        Credentials(tmp_path / "file" / "secrets").write("a", "x")
