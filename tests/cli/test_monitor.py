"""`lampione monitor` on a pty, and `lampione profiles new` from what it saved."""

import os
import signal
import subprocess
import sys
import threading
import time
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from drivers.serial import Profile
from drivers.serial.codec import Codec
from drivers.serial.draft import DraftError, draft
from gateway import document, load
from gateway.cli import main
from gateway.site.read import shipped_profiles

from .bench import gateway_on

SITE = """\
version: 1
gateway: {{id: cab-017, tenant: milan, clock: trusted}}
links: {{air: {{driver: serial, port: {port}}}}}
assets: {{here: {{devices: {{pm: {{link: air, profile: nova-sds011, every: 1s}}}}}}}}
"""
SDS011 = bytes.fromhex("aa c0 06 00 06 00 58 d9 3d ab aa c0 09 00 09 00 58 d9 43 ab aa c0 7b 00 c8 01 58 d9 75 ab")


@contextmanager
def speaking(stream: bytes) -> Iterator[str]:
    """A port over which `stream` comes again and again."""
    master, slave = os.openpty()
    tty.setraw(slave)
    os.set_blocking(master, False)
    done = threading.Event()

    def speak() -> None:
        while not done.wait(0.02):
            try:
                os.write(master, stream)
            except BlockingIOError:
                continue

    thread = threading.Thread(target=speak)
    thread.start()
    name = os.ttyname(slave)
    os.close(slave)
    try:
        yield name
    finally:
        done.set()
        thread.join()
        os.close(master)


@pytest.mark.parametrize("named", ["the port", "the link"])
def test_beside_a_gateway_its_port_is_borrowed_and_read_again(
    named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with speaking(SDS011[:10]) as port:
        (tmp_path / "site.yaml").write_text(SITE.format(port=port))
        with gateway_on(tmp_path / "site.yaml", tmp_path / "state") as gateway:

            def heard() -> int:
                return gateway.status.snapshot()["devices"][0]["readings"]  # type: ignore[index, call-overload, no-any-return, return-value]

            def heard_more() -> None:
                before, end = heard(), time.monotonic() + 20
                while heard() == before:
                    assert time.monotonic() < end
                    time.sleep(0.02)

            heard_more()
            words = ["--profile", "nova-sds011", "--seconds", "0.4", "--state", str(tmp_path / "state")]
            assert main(["monitor", "--raw", {"the port": port, "the link": "air"}[named], *words]) == 0
            assert "pm25 = 0.6 ug/m3" in capsys.readouterr().out
            heard_more()
            where = ["--state", str(tmp_path / "state"), "--site", str(tmp_path / "site.yaml")]
            assert main(["read", "cab-017/pm", "pm25", *where]) == 0
            assert capsys.readouterr().out == "pm25  0.6 ug/m3\n"
            heard_more()
            assert gateway.status.snapshot()["links"][0]["restarts"] == 0  # type: ignore[index, call-overload]


def test_bytes_frames_and_values_side_by_side(capsys: pytest.CaptureFixture[str]) -> None:
    with speaking(SDS011[:10]) as port:
        assert main(["monitor", "--raw", port, "--profile", "nova-sds011", "--seconds", "0.4"]) == 0
    shown = capsys.readouterr()
    row = next(line for line in shown.out.splitlines() if "aa c0 06 00 06 00 58 d9 3d ab" in line)
    assert row.split("  ")[-1] == "[10 B]"
    assert "pm25 = 0.6 ug/m3" in shown.out
    assert "pm10 = 0.6 ug/m3" in shown.out
    assert "frames, 0 stray bytes" in shown.err


def test_what_is_refused_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    with speaking(bytes.fromhex("aa c0 7b 00 c8 01 58 d9 00 ab")) as port:
        assert main(["monitor", "--raw", port, "--profile", "nova-sds011", "--seconds", "0.3"]) == 0
    shown = capsys.readouterr()
    assert "refused: checksum" in shown.out
    assert "0 frames" in shown.err


def test_without_a_profile_bytes_and_text(capsys: pytest.CaptureFixture[str]) -> None:
    with speaking(b"$WIMWV,282,R,0.1,M,A*37\r\n") as port:
        assert main(["monitor", "--raw", port, "--seconds", "0.2"]) == 0
    shown = capsys.readouterr()
    assert "24 57 49 4d 57 56 2c 32 38 32 2c 52 2c 30 2e 31  $WIMWV,282,R,0.1" in shown.out
    assert "With --profile" in shown.err


def test_silence_and_mistakes(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with speaking(b"") as port:
        assert main(["monitor", "--raw", port, "--seconds", "0.1"]) == 1
    assert "Not one byte" in capsys.readouterr().err
    assert main(["monitor", "--raw", "ttyUSB0"]) == 2
    assert "/dev/serial/by-id/" in capsys.readouterr().err
    assert main(["monitor", "--raw", str(tmp_path / "gone"), "--seconds", "1"]) == 3
    assert "is not there" in capsys.readouterr().err
    assert main(["monitor", "--raw", "/dev/null", "--profile", "nova-sds"]) == 2
    assert "did you mean `nova-sds011`?" in capsys.readouterr().err
    assert main(["monitor", "--raw", "/dev/null", "--profile", "ocpp-generic"]) == 2
    assert "is for ocpp" in capsys.readouterr().err


@contextmanager
def answering(question: bytes, answer: bytes) -> Iterator[str]:
    """A port where `answer` follows on `question`, and silence on anything else."""
    master, slave = os.openpty()
    tty.setraw(slave)
    name = os.ttyname(slave)

    def answer_once() -> None:
        heard = b""
        while question not in heard:
            try:
                heard += os.read(master, 64)
            except OSError:  # nobody has opened it yet
                time.sleep(0.01)
        os.write(master, answer)

    thread = threading.Thread(target=answer_once, daemon=True)
    thread.start()
    os.close(slave)
    try:
        yield name
    finally:
        thread.join(5)
        os.close(master)


def test_a_sensor_that_only_answers_is_asked_at_its_address(capsys: pytest.CaptureFixture[str]) -> None:
    profile = load.profile(document.read(shipped_profiles() / "lufft-umb.yaml"), "lufft-umb")
    assert isinstance(profile, Profile)
    codec = Codec(profile)
    question = codec.addressed(profile.commands["read_temperature"].send, "0x7002")
    answer = codec.answering(profile.examples[0].received, "0x7002")
    with answering(question, answer) as port:
        words = ["monitor", "--raw", port, "--profile", "lufft-umb", "--ask", "--address", "0x7002", "--seconds", "0.6"]
        assert main(words) == 0
    assert "temperature = 23.5 Cel" in capsys.readouterr().out


def test_it_sums_up_when_it_is_interrupted() -> None:
    with speaking(SDS011[:10]) as port:
        words = [sys.executable, "-m", "gateway", "monitor", "--raw", port, "--profile", "nova-sds011"]
        # What a shell starts in the background ignores SIGINT, and its children inherit that.
        words = ["env", "--default-signal=INT", *words]
        with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stdout
            while "pm25" not in process.stdout.readline():
                pass
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=10)
    assert process.returncode == 0
    assert "frames, 0 stray bytes." in said


def test_a_file_that_cannot_be_written_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["monitor", "--raw", "/dev/null", "--save", str(tmp_path / "none" / "x.bin")]) == 2
    assert "Choose another with --save." in capsys.readouterr().err


def test_from_capture_to_profile(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved = tmp_path / "saved.bin"
    with speaking(SDS011) as port:
        assert main(["monitor", "--raw", port, "--seconds", "0.3", "--save", str(saved)]) == 0
    assert main(["profiles", "new", "acme-dust", str(saved), "--out", str(tmp_path / "profiles")]) == 0
    path = tmp_path / "profiles" / "acme-dust.yaml"
    assert f"lampione profiles check {path}" in capsys.readouterr().out
    assert main(["profiles", "check", str(path)]) == 0
    text = path.read_text()
    assert "sync: aa c0\n  length: 10\n  checksum: {algorithm: sum8, over: [2, 8], at: 8}" in text
    assert main(["profiles", "new", "acme-dust", str(saved), "--out", str(path.parent)]) == 2
    assert "is there already" in capsys.readouterr().err
    assert main(["profiles", "new", "acme-dust", str(saved)]) == 0
    assert capsys.readouterr().out == text
    assert main(["profiles", "new", "acme-dust", str(tmp_path / "gone")]) == 2


GPS = b"$GPGGA,184353.07,1929.045,S,02410.506,E,1,04,2.6,100.00,M,-33.9,M,,0000*6D\r\n"
DRAFTS = {
    "a plain line": (b"21.5,40.1,1013\r\n21.6,40.0,1013\r\n" * 4, 'layout: {type: csv, separator: ",", columns: 3}'),
    "NMEA": (GPS * 5, 'at: "GGA.9"'),
    "one sentence of several": (GPS * 5 + b"$GPGSV,1,1,00*79\r\n" * 2, "like: '^GPGGA,'"),
    "Vaisala, with letters": (b"0R2,Ta=16.1C,Ua=79.3P\r\n" * 5, 'at: "Ua", units: {"P": "1"}'),
    "numbers as keys": (b"1=94\n2=5\n" * 5, "type: key_values"),
    "SDI-12": (b"0+12.5-3\r\n" * 5, "type: series"),
    "a letter and a number": (b"R0480 \r" * 5, "type: expression"),
    "a torn line among them": (b"1,2\n" * 5 + b"7\n" + b"1,2\n" * 5, "columns: 2"),
    "JSON": (b'{"speed": 1.5, "unit": "x"}\n' * 6, 'at: "speed"'),
    "Plantower": (
        bytes.fromhex("424d001c000000080008000000080008 00d20046002d001e00000000970002c5") * 6,
        "checksum: {algorithm: sum16, over: [0, 30], at: 30}",
    ),
    "MH-Z19": (bytes.fromhex("ff86027c42000000ba ff86027942000000bd") * 5, "sum8_negated, over: [1, 8], at: 8}"),
    "in the middle": (SDS011[7:] + SDS011 * 4, "checksum: {algorithm: sum8,"),
}


@pytest.mark.parametrize(("capture", "said"), DRAFTS.values(), ids=DRAFTS)
def test_a_draft_recognises(capture: bytes, said: str) -> None:
    text = draft("acme-thing", capture, 9600)
    assert said in text
    assert load.profile(document.parse(text, "acme-thing.yaml"), "acme-thing").profile == "acme-thing/1"


@pytest.mark.parametrize(
    "capture", [b"", b"x" * 9, os.urandom(300), b"hello\r\n" * 9, b"\x00" * 500, b'{"a": "x"}\n' * 9]
)
def test_noise_is_no_profile(capture: bytes) -> None:
    with pytest.raises(DraftError):
        draft("acme-thing", capture, 9600)


def test_the_clock_of_the_rows_runs(capsys: pytest.CaptureFixture[str]) -> None:
    began = time.monotonic()
    with speaking(b"x") as port:
        assert main(["monitor", "--raw", port, "--seconds", "0.2"]) == 0
    assert time.monotonic() - began < 5
    times = [float(line[:8]) for line in capsys.readouterr().out.splitlines()[1:] if line[:8].strip()]
    assert times == sorted(times)
    assert times
