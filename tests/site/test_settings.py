"""Mistakes in what drivers and uplinks ask for, as the site file's reader says them: the place, and what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gateway import site
from gateway.diagnostic import DocumentError

if TYPE_CHECKING:
    from pathlib import Path

HEAD = "version: 1\ngateway: {id: cab-017, tenant: milan}\n"


@pytest.mark.parametrize(
    ("line", "code", "word", "sentence"),
    [
        ("links: {cs: {driver: ocpp, listen: everywhere}}", "bad_listen", "everywhere", "is not an address and a port"),
        ("links: {cs: {driver: ocpp, listen: '0.0.0.0:80', security: 1}}", "unguarded_listener", "{", "unencrypted"),
        ("links: {cs: {driver: ocpp, listen: '127.0.0.1:80'}}", "missing_key", "{", "Add `certificate: secret`"),
        ("links: {air: {driver: serial, port: COM3}}", "bad_port", "COM3", "/dev/serial/by-id"),
        ("links: {air: {driver: serial, port: [/dev/ttyUSB0]}}", "bad_value", "", "should be"),
        ("links: {line: {driver: modbus, host: h, port: /dev/ttyUSB0}}", "bad_port", "{", "Remove `host`"),
        ("links: {line: {driver: modbus, host: h, timeout: 0s}}", "bad_value", "0s", "too small"),
        (
            "uplinks: {city: {uplink: mqtt, url: 'usp.example'}}",
            "bad_url",
            "'usp",
            "Write it like `mqtts://usp.example`",
        ),
        ("uplinks: {city: {uplink: mqtt, url: 'mqtts://u:hunter2@x'}}", "clear_text_secret", "••", "in the url"),
        ("uplinks: {city: {uplink: http, url: 'ftp://x', token: secret}}", "bad_url", "'ftp", "is not an address of"),
        (
            "uplinks: {city: {uplink: mqtt, url: 'mqtts://x', lanes: [telemetri]}}",
            "unknown_word",
            "telem",
            "`telemetry`?",
        ),
    ],
)
def test_a_mistake_in_settings(tmp_path: Path, line: str, code: str, word: str, sentence: str) -> None:
    path = tmp_path / "site.yaml"
    path.write_text(HEAD + line + "\n")
    with pytest.raises(DocumentError) as caught:
        site.load(path)
    [found] = [one for one in caught.value.diagnostics if one.code == code]
    assert found.line == 3
    assert found.source[found.column - 1 :].startswith(word)
    assert sentence in str(found)
    assert "hunter2" not in str(caught.value)
