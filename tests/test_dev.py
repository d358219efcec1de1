"""dev.py on machines that lack things, with stand-ins for what it calls. The real thing: system/fresh_root.sh."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import dev

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout of its own with a space in its name, and a PATH that holds only what a test puts there."""
    root = tmp_path / "my checkout"
    (root / ".venv" / "bin").mkdir(parents=True)
    (root / "requirements.lock").write_text("one==1\n")
    (root / "pyproject.toml").write_text("")
    for name in ("ROOT", "VENV", "BIN", "PYTHON", "OPT", "LOCK", "STAMP"):
        monkeypatch.setattr(dev, name, root / getattr(dev, name).relative_to(ROOT))
    (tmp_path / "path").mkdir()
    monkeypatch.setattr(dev, "environment", lambda: {"PATH": f"{dev.BIN}:{tmp_path / 'path'}"})
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    monkeypatch.chdir(root)
    return root


def program(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\nPATH=/usr/bin:/bin\n{text}\n")
    path.chmod(0o755)


# ---- what it says ---------------------------------------------------------------------------------------------


def test_an_old_python_can_read_it_and_is_told_what_to_type() -> None:
    ast.parse((ROOT / "dev.py").read_text(), feature_version=(3, 8))
    pretend = (
        f"import runpy, sys; sys.version_info = (3, 9, 2); runpy.run_path({str(ROOT / 'dev.py')!r}, None, '__main__')"
    )
    done = subprocess.run([sys.executable, "-c", pretend], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "needs Python 3.11 or newer" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("arguments", "code"), [([], 2), (["tset"], 2), (["--help"], 0)])
def test_without_a_verb_it_says_what_it_can_do(
    arguments: list[str], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert dev.main(arguments) == code
    assert "python3 dev.py demo" in capsys.readouterr().out


# ---- .venv ----------------------------------------------------------------------------------------------------


@pytest.fixture
def steps(root: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    steps: list[str] = []

    def make_venv() -> None:
        steps.append("make")
        dev.PYTHON.unlink(missing_ok=True)
        dev.PYTHON.touch()

    monkeypatch.setattr(dev, "make_venv", make_venv)
    monkeypatch.setattr(dev, "install", lambda: steps.append("install"))
    return steps


def test_venv_is_made_once(steps: list[str]) -> None:
    dev.prepare()
    dev.prepare()
    assert steps == ["make", "install"]


def test_a_half_made_venv_is_made_again(steps: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(dev, "install", broken)
        with pytest.raises(KeyboardInterrupt):
            dev.prepare()
    dev.prepare()
    assert steps == ["make", "make", "install"]


@pytest.mark.parametrize("name", ["requirements.lock", "pyproject.toml"])
def test_changed_pins_are_installed_into_the_same_venv(root: Path, steps: list[str], name: str) -> None:
    dev.prepare()
    (root / name).write_text("two==2\n")
    dev.prepare()
    assert steps == ["make", "install", "install"]


def test_another_pythons_venv_is_made_again(steps: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    dev.prepare()
    monkeypatch.setattr(dev, "VERSION", "3.99")
    dev.prepare()
    assert steps == ["make", "install", "make", "install"]


def test_a_venv_whose_python_went_away_is_made_again(steps: list[str]) -> None:
    dev.prepare()
    dev.PYTHON.unlink()
    dev.PYTHON.symlink_to("/nowhere/python3")
    dev.prepare()
    assert steps[2:] == ["make", "install"]


def test_a_moved_checkout_makes_its_venv_again(root: Path, steps: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    dev.prepare()
    monkeypatch.setattr(dev, "ROOT", root.rename(root.with_name("moved")))
    for name in ("VENV", "BIN", "PYTHON", "OPT", "LOCK", "STAMP"):
        monkeypatch.setattr(dev, name, dev.ROOT / getattr(dev, name).relative_to(root))
    dev.prepare()
    assert steps[2:] == ["make", "install"]


def test_somebody_elses_venv_is_left_alone(
    steps: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(SystemExit):
        dev.prepare()
    assert "sudo rm -r '" in capsys.readouterr().err
    assert steps == []


def test_two_at_once_wait_for_each_other(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    entered = threading.Event()

    def second() -> None:
        with dev.alone():
            entered.set()

    thread = threading.Thread(target=second)
    with dev.alone():
        thread.start()
        assert not entered.wait(0.2)
    thread.join(10)
    assert entered.is_set()
    assert "waiting for it" in capsys.readouterr().out


PIP = ("-m", "pip")


@pytest.mark.parametrize(
    ("present", "ways", "command"),
    [
        (("uv",), ["uv"], ("uv", "pip")),
        (("venv", "venv pip"), ["uv", "venv"], (dev.PYTHON, *PIP, "install")),
        (("without-pip", "base pip"), ["uv", "venv", "without-pip"], (dev.BASE_PYTHON, *PIP, "--python")),
        (("without-pip",), ["uv", "venv", "without-pip"], ()),
    ],
    ids=["uv", "venv", "debian without ensurepip", "no pip at all"],
)
def test_venv_takes_the_first_way_that_works(
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    present: tuple[str, ...],
    ways: list[str],
    command: tuple[str, ...],
) -> None:
    tried = []

    def quiet(*words: str | Path, env: object = None) -> tuple[bool, str]:
        if "pip" not in words:
            way = "uv" if words[0] == "uv" else "without-pip" if "--without-pip" in words else "venv"
            tried.append(way)
        else:
            way = "uv" if words[0] == "uv" else "venv pip" if words[0] == dev.PYTHON else "base pip"
        return way in present, ""

    monkeypatch.setattr(dev, "quiet", quiet)
    if command:
        dev.make_venv()
        wanted = tuple(dev.PYTHON if word == ROOT / ".venv/bin/python" else word for word in command)
        assert dev.installer()[: len(command)] == wanted
    else:
        with pytest.raises(SystemExit):
            dev.make_venv()
        assert f"sudo apt install python{dev.VERSION}-venv" in capsys.readouterr().err
        assert not dev.VENV.exists()
    assert tried == ways


# ---- the pages ------------------------------------------------------------------------------------------------


def test_contributing_lists_every_program() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text().partition("## System programs")[2]
    for name, (_, packages) in dev.PROGRAMS.items():
        assert f"| `{packages}` |" in text, name


PATHS = r"`((?:tests|gateway|drivers|config|bench|docs)/[\w./-]+)`"


@pytest.mark.parametrize("page", ["SECURITY.md", "CONTRIBUTING.md"])
def test_the_pages_name_only_what_exists(page: str) -> None:
    text = (ROOT / page).read_text()
    for path in re.findall(PATHS, text):
        assert (ROOT / path).exists(), path
    for path, names in re.findall(r"`(tests/[\w/]+\.py)` \(([^)]*)\)", text):
        for name in re.findall(r"`(\w+)`", names):
            assert f"def {name}(" in (ROOT / path).read_text(), f"{path} has no {name}"


# ---- Mosquitto ------------------------------------------------------------------------------------------------

APT = """
log="$(dirname "$0")/apt.log"; echo "$@" >> "$log"
for word in "$@"; do case "$word" in Dir::Cache=*) cache=${word#Dir::Cache=} ;; Dir::State=*) own=1 ;; esac; done
case "$*" in
    *update) [ -z "$own" ] && exit 1; exit 0 ;;
    *--download-only*) [ -z "$own" ] && { echo "E: Unable to locate package mosquitto"; exit 100; }
        echo > "$cache/archives/mosquitto_2_all.deb" ;;
    *) echo "E: that would install"; exit 1 ;;
esac
"""
DPKG = """
mkdir -p "$3/usr/sbin" "$3/usr/bin" "$3/usr/lib/here"
touch "$3/usr/lib/here/libcjson.so.1"
printf '#!/bin/sh\\necho mosquitto version 2; echo "$LD_LIBRARY_PATH|$1|$2"\\n' > "$3/usr/sbin/mosquitto"
chmod +x "$3/usr/sbin/mosquitto"
"""


def test_mosquitto_comes_from_debian_without_root(root: Path, tmp_path: Path) -> None:
    program(tmp_path / "path" / "apt-get", APT)
    program(tmp_path / "path" / "dpkg-deb", DPKG)
    assert dev.need_mosquitto() == ""
    went_well, output = dev.quiet(dev.BIN / "mosquitto", "-c", "a b")
    assert went_well
    assert output.splitlines()[1] == f"{dev.OPT}/usr/lib/here|-c|a b"
    asked = (tmp_path / "path" / "apt.log").read_text().splitlines()
    assert all("--download-only" in line for line in asked if " install " in line), "nothing may be installed"
    assert len(asked) == 3, "empty lists are fetched into .venv, and then the package"
    assert not (dev.OPT / "apt").exists()
    assert dev.need_mosquitto() == ""
    assert len((tmp_path / "path" / "apt.log").read_text().splitlines()) == 3, "the second run finds it"


def test_a_mosquitto_that_does_not_run_is_not_kept(root: Path, tmp_path: Path) -> None:
    program(tmp_path / "path" / "apt-get", APT)
    program(tmp_path / "path" / "dpkg-deb", DPKG.replace("echo mosquitto version 2", "echo libcjson.so.1: missing"))
    lacking = dev.need_mosquitto()
    assert "libcjson.so.1: missing" in lacking
    assert "sudo systemctl mask mosquitto" in lacking
    assert not dev.which("mosquitto")


def test_the_machines_own_mosquitto_is_taken_first(root: Path, tmp_path: Path) -> None:
    program(tmp_path / "path" / "mosquitto", "")
    program(tmp_path / "path" / "apt-get", "exit 1")
    assert dev.need_mosquitto() == ""
    assert not dev.OPT.exists()


def test_test_stops_with_the_command_to_type(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    program(tmp_path / "path" / "dnf", "")
    for verb in (dev.test, dev.check):
        with pytest.raises(SystemExit):
            verb([])
        assert "Mosquitto is missing. Type: sudo dnf install mosquitto" in capsys.readouterr().err


def test_demo_goes_on_by_http_and_says_so(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    became: list[str] = []

    def execve(path: str, words: list[str], environment: dict[str, str]) -> None:
        became.extend(words[1:])
        raise SystemExit

    monkeypatch.setattr(os, "execve", execve)
    with pytest.raises(SystemExit):
        dev.demo(["--seconds", "5"])
    assert became == ["demo", "--uplink", "http", "--seconds", "5"]
    assert "readings travel by HTTP" in capsys.readouterr().out


# ---- check ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mypy", "pytest_code", "exit_code", "sentence"),
    [
        (0, 0, 0, "check passed: 5 steps"),
        (1, 0, 1, "check failed after 0 s: mypy\n"),
        (0, 5, 1, "FAILED, no test was run"),
    ],
)
def test_check_names_what_failed(
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    mypy: int,
    pytest_code: int,
    exit_code: int,
    sentence: str,
) -> None:
    program(dev.BIN / "mosquitto", "")
    program(dev.BIN / "ruff", "")
    monkeypatch.setattr(dev, "GENERATED", (("made", "--check"),))
    program(dev.BIN / "made", "")
    program(dev.BIN / "mypy", f"exit {mypy}")
    program(dev.BIN / "pytest", f'echo "pytest $*"; exit {pytest_code}')
    try:
        code = dev.check(["--all"])
    except SystemExit as stopped:
        code = int(stopped.code or 0)
    output = "".join(capfd.readouterr())
    assert code == exit_code
    assert sentence in output
    assert "pytest --all\n" in output


def test_programs_names_only_what_a_test_needs(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "tests").mkdir()
    (root / "tests" / "test_x.py").write_text(f'@pytest.mark.{"needs"}("strace", "chromium")\n')
    dev.programs(["--missing"])
    assert capsys.readouterr().out.split() == ["strace", "chromium"]


# ---- what tests/conftest.py adds to pytest --------------------------------------------------------------------

SAMPLE = """
import pytest
@pytest.mark.needs("nothing-like-it")
def test_lacking(): ...
@pytest.mark.slow
def test_slow(): ...
def test_quick(): ...
def test_last(): ...
"""


@pytest.mark.parametrize(
    ("arguments", "code", "sentences"),
    [
        ([], 0, ["1 test skipped: nothing-like-it is missing (sudo apt install nlt)", "1 skipped, 1 deselected"]),
        (["--all"], 1, ["needs nothing-like-it. Type: sudo apt install nlt", "3 passed, 1 error"]),
        (["--budget", "0.001"], 1, ["test_quick was next", "1 skipped, 1 deselected"]),
        (["--all", "--budget", "0.001", "-k", "slow"], 0, ["1 test skipped: the time budget was nearly used up"]),
    ],
    ids=["plain", "all", "budget", "slow tests yield"],
)
def test_needs_slow_and_budget(tmp_path: Path, arguments: list[str], code: int, sentences: list[str]) -> None:
    shutil.copy(ROOT / "tests" / "conftest.py", tmp_path)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "dev.py").write_text(
        'PROGRAMS = {"nothing-like-it": ()}\ndef missing(name): return "nlt"\n'
        'def environment(): return {"PATH": "/usr/bin:/bin"}\n'
    )
    (tmp_path / "test_sample.py").write_text(SAMPLE)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "test_sample.py", *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stdout
    for sentence in sentences:
        assert sentence in done.stdout
