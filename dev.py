#!/usr/bin/env python3
"""The developer's entrance. Needs Python 3.11 and nothing else; makes .venv and fetches Mosquitto by itself.

python3 dev.py demo [args]           the street on your desk: lampione demo, with everything it needs
python3 dev.py test [--all] [args]   the tests (args go to pytest); --all: the slow ones too, and a missing
                                     system program is a failure instead of a counted skip
python3 dev.py check [--all]         what CI runs: ruff, mypy, generated files, tests
python3 dev.py bench [name] [args]   one measurement of bench/; without a name, lists them
python3 dev.py programs [--missing]  the system programs that tests start, and what apt calls them
python3 dev.py lock                  refresh requirements.lock (needs uv)
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from subprocess import DEVNULL, PIPE, STDOUT
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import NoReturn

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
BIN = VENV / "bin"
PYTHON = BIN / "python"
OPT = VENV / "opt"
LOCK = ROOT / "requirements.lock"
STAMP = VENV / "lampione-dev"
VERSION = f"{sys.version_info[0]}.{sys.version_info[1]}"
# sys.executable may be .venv's own Python, which is about to be removed.
BASE_PYTHON: str = getattr(sys, "_base_executable", sys.executable)

# Adding a generated file to `check`: one line here, a command that exits non-zero when the file is out of date.
GENERATED: tuple[tuple[str, ...], ...] = (("lampione", "schema", "--check"),)

# program -> (what shows that it is there: a name on PATH or a file, Debian packages)
PROGRAMS: dict[str, tuple[tuple[str, ...], str]] = {
    "strace": (("strace",), "strace"),
    "systemd-analyze": (("systemd-analyze",), "systemd"),
    "gcc": (("gcc",), "gcc libc6-dev"),
    "openssl": (("openssl",), "openssl"),
    "mkfs.ext4": (("mkfs.ext4", "losetup"), "e2fsprogs mount"),
    "libmodbus": (("gcc", "/usr/include/modbus/modbus.h"), "gcc libc6-dev libmodbus-dev"),
    "chromium": (("chromium",), "chromium"),
    "faketime": (("faketime",), "faketime"),
}

MOSQUITTO_BY = {  # the Debian package starts a server on port 1883 when installed: mask it first
    "apt-get": "sudo systemctl mask mosquitto && sudo apt-get update && sudo apt-get install mosquitto",
    "dnf": "sudo dnf install mosquitto",
    "pacman": "sudo pacman -S mosquitto",
    "zypper": "sudo zypper install mosquitto",
    "apk": "sudo apk add mosquitto",
    "brew": "brew install mosquitto",
}


def say(line: str) -> None:
    print(f"dev.py: {line}", flush=True)


def stop(line: str, code: int = 1) -> NoReturn:
    print(f"dev.py: {line}", file=sys.stderr, flush=True)
    raise SystemExit(code)


def environment() -> dict[str, str]:
    env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    # Debian keeps servers in sbin, which an ordinary user's PATH lacks.
    env["PATH"] = f"{BIN}:{env.get('PATH', '/usr/bin:/bin')}:/usr/local/sbin:/usr/sbin"
    env["VIRTUAL_ENV"] = str(VENV)
    return env


def which(program: str) -> str | None:
    return shutil.which(program, path=environment()["PATH"])


def missing(program: str) -> str:
    """The Debian packages that bring `program`, or nothing where it is there."""
    signs, packages = PROGRAMS[program]
    return "" if all(Path(sign).exists() if sign[0] == "/" else which(sign) for sign in signs) else packages


def quiet(*command: str | Path, env: dict[str, str] | None = None) -> tuple[bool, str]:
    """Run it; whether it went well, and what it printed."""
    try:
        done = subprocess.run(command, stdin=DEVNULL, stdout=PIPE, stderr=STDOUT, env=env or environment(), check=False)
    except OSError as error:
        return False, str(error)
    return done.returncode == 0, done.stdout.decode(errors="replace").strip()


# ---- .venv ----------------------------------------------------------------------------------------------------


def wanted_stamp() -> str:
    """What .venv must have been made of: this Python, this folder, these pins."""
    digest = hashlib.sha256(LOCK.read_bytes() + (ROOT / "pyproject.toml").read_bytes()).hexdigest()
    return f"{VERSION} {ROOT}\n{digest}\n"


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Two dev.py at once would install into each other; the lock is on the folder, so nothing is left behind."""
    folder = os.open(ROOT, os.O_RDONLY)
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another dev.py is preparing .venv; waiting for it")
            fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def prepare() -> None:
    with alone():
        prepare_alone()


def prepare_alone() -> None:
    stamp = STAMP.read_text() if STAMP.exists() else ""
    wanted = wanted_stamp()
    if stamp == wanted and PYTHON.exists():
        return
    if VENV.exists() and not os.access(VENV, os.W_OK):
        stop(f"{VENV} belongs to another user. Remove it: sudo rm -r {shlex.quote(str(VENV))}")
    started = time.monotonic()
    if stamp.splitlines()[:1] != wanted.splitlines()[:1] or not PYTHON.exists():
        make_venv()
    else:
        say("requirements.lock or pyproject.toml changed; updating .venv")
    STAMP.unlink(missing_ok=True)
    install()
    STAMP.write_text(wanted)
    say(f".venv is ready ({time.monotonic() - started:.0f} s)")


def make_venv() -> None:
    say(f"making .venv with Python {VERSION} (once; about half a minute)")
    for way in (
        ("uv", "venv", "--quiet", "--python", BASE_PYTHON, VENV),
        (BASE_PYTHON, "-m", "venv", VENV),
        (BASE_PYTHON, "-m", "venv", "--without-pip", VENV),
    ):
        if VENV.exists():
            shutil.rmtree(VENV)
        if quiet(*way)[0] and installer():
            return
    shutil.rmtree(VENV, ignore_errors=True)
    stop(f"Python {VERSION} here has neither venv nor pip. Type: sudo apt install python{VERSION}-venv")


def installer() -> tuple[str | Path, ...]:
    """The command that installs into .venv, or nothing where there is none."""
    for command in (
        ("uv", "pip", "install", "--quiet", "--compile-bytecode", "--python", PYTHON),
        (PYTHON, "-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check"),
        (
            BASE_PYTHON,
            "-m",
            "pip",
            "--python",
            PYTHON,
            "install",
            "--quiet",
            "--no-input",
            "--disable-pip-version-check",
        ),
    ):
        if quiet(*command, "--help")[0]:
            return command
    return ()


def install() -> None:
    command = installer()
    pins = LOCK
    if sys.maxsize < 2**32:
        # mypy's runtime has no 32-bit ARM wheel, and a marker cannot tell a 32-bit Python on a 64-bit kernel.
        pins = VENV / "requirements.lock"
        pins.write_text(without(("mypy", "librt"), LOCK.read_text()))
    for arguments in (
        ("--require-hashes", "-r", pins),
        ("--no-deps", "--no-build-isolation", "--editable", ROOT),
    ):
        went_well, output = quiet(*command, *arguments, env=environment() | {"PIP_USER": "0"})
        if not went_well:
            stop(f"{shlex.join(str(part) for part in (*command, *arguments))}\n{output}")


def without(names: tuple[str, ...], pins: str) -> str:
    blocks = re.split(r"^(?=[A-Za-z0-9])", pins, flags=re.MULTILINE)
    return "".join(block for block in blocks if block.partition("==")[0] not in names)


# ---- Mosquitto ------------------------------------------------------------------------------------------------


def fetch_mosquitto() -> str:
    """Mosquitto from Debian into .venv/opt, without root and without starting it. Returns why not, or nothing."""
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        return "this system has no apt-get"
    say("fetching Mosquitto into .venv (once; nothing is installed on the system, nothing is started)")
    new = VENV / "opt.new"
    shutil.rmtree(new, ignore_errors=True)
    state, cache = new / "apt" / "state", new / "apt" / "cache"
    for folder in (state / "lists" / "partial", cache / "archives" / "partial"):
        folder.mkdir(parents=True)
    own_cache = ("-o", f"Dir::Cache={cache}", "-o", "Debug::NoLocking=1", "-o", "Acquire::Retries=2")
    own_lists = ("-o", f"Dir::State={state}", "-o", "Dir::State::status=/var/lib/dpkg/status")
    download = ("install", "--yes", "--download-only", "--no-install-recommends", "mosquitto")
    # apt knows which libraries this machine lacks; its own lists may be empty, or too old to download from.
    went_well, output = quiet("apt-get", *own_cache, *download)
    if not went_well:
        quiet("apt-get", *own_cache, *own_lists, "update")  # one dead third-party source spoils only its exit code
        went_well, output = quiet("apt-get", *own_cache, *own_lists, *download)
    packages = sorted((cache / "archives").glob("*.deb"))
    for package in packages:
        went_well, output = quiet("dpkg-deb", "-x", package, new) if went_well else (went_well, output)
    if not went_well or not packages:
        return output or "apt-get downloaded nothing"
    shutil.rmtree(new / "apt")
    shutil.rmtree(OPT, ignore_errors=True)
    new.rename(OPT)
    libraries = ":".join(sorted({str(library.parent) for library in OPT.rglob("*.so*")}))
    for program in (OPT / "usr/bin/mosquitto_passwd", OPT / "usr/sbin/mosquitto"):
        wrapper = BIN / program.name
        wrapper.write_text(
            f'#!/bin/sh\nexport LD_LIBRARY_PATH={shlex.quote(libraries)}\nexec {shlex.quote(str(program))} "$@"\n'
        )
        wrapper.chmod(0o755)
    output = quiet(BIN / "mosquitto", "-h")[1]
    if "mosquitto version" not in output:
        (BIN / "mosquitto").unlink()
        return output
    return ""


def need_mosquitto() -> str:
    """Nothing where Mosquitto is there now; otherwise one sentence: why not, and what to type."""
    with alone():
        reason = "" if which("mosquitto") else fetch_mosquitto()
    if not reason:
        return ""
    reason = "\n".join(reason.splitlines()[-3:])
    command = next((line for tool, line in MOSQUITTO_BY.items() if shutil.which(tool)), "install mosquitto 2")
    return f"{reason}\ndev.py: Mosquitto is missing. Type: {command}"


# ---- verbs ----------------------------------------------------------------------------------------------------


def become(*command: str | Path) -> NoReturn:
    os.execve(command[0], [str(part) for part in command], environment())


def demo(arguments: Sequence[str]) -> NoReturn:
    lacking = need_mosquitto()
    if lacking:
        say(f"{lacking}\ndev.py: going on without a broker: readings travel by HTTP (--uplink http).")
        arguments = ("--uplink", "http", *arguments)
    become(BIN / "lampione", "demo", *arguments)


def test(arguments: Sequence[str]) -> NoReturn:
    lacking = need_mosquitto()
    if lacking:
        stop(lacking)
    become(PYTHON, "-m", "pytest", *arguments)


def follow(*command: str | Path) -> int:
    with subprocess.Popen(command, env=environment()) as process:
        try:
            return process.wait()
        except KeyboardInterrupt:
            process.wait()  # an interrupted pytest still says how far it came
            raise


def check(arguments: Sequence[str]) -> int:
    lacking = need_mosquitto()
    if lacking:
        stop(lacking)
    steps = [("ruff", "check"), ("ruff", "format", "--check"), ("mypy",), *GENERATED, ("pytest", *arguments)]
    if sys.maxsize < 2**32:
        steps.remove(("mypy",))
        say("mypy is left out: it has no 32-bit ARM wheel")
    failed = []
    began = time.monotonic()
    for number, step in enumerate(steps, 1):
        name = shlex.join(step)
        print(f"[{number}/{len(steps)}] {name}", flush=True)
        started = time.monotonic()
        code = follow(BIN / step[0], *step[1:])
        outcome = "ok" if code == 0 else "FAILED, no test was run" if step[0] == "pytest" and code == 5 else "FAILED"
        print(f"[{number}/{len(steps)}] {name}: {outcome} ({time.monotonic() - started:.1f} s)\n", flush=True)
        if code:
            failed.append(name)
    took = f"{time.monotonic() - began:.0f} s"
    if failed:
        stop(f"check failed after {took}: {'; '.join(failed)}")
    say(f"check passed: {len(steps)} steps in {took}")
    return 0


def bench(arguments: Sequence[str]) -> int:
    if arguments:
        script = ROOT / "bench" / f"{arguments[0]}.py"
        if not script.exists():
            stop(f"there is no bench/{arguments[0]}.py; python3 dev.py bench lists what there is", 2)
        lacking = need_mosquitto()
        if lacking:
            stop(lacking)
        os.chdir(ROOT)
        # As a module: a script's own folder would come first on its path, and bench/serial.py is called like pyserial.
        become(PYTHON, "-m", f"bench.{script.stem}", *arguments[1:])
    for script in sorted((ROOT / "bench").glob("[!_]*.py")):
        print(script.stem)
    return 0


def programs(arguments: Sequence[str]) -> int:
    marks = re.compile(r"\bneeds\(([^)]*)\)")
    text = "".join(path.read_text() for path in sorted((ROOT / "tests").rglob("*.py")))
    named = {name for mark in marks.findall(text) for name in re.findall(r"[\"']([\w-]+)[\"']", mark)}
    for program in PROGRAMS:
        packages = missing(program)
        if "--missing" in arguments:
            if packages and program in named:
                print(packages)
        else:
            print(f"{program:16} {f'missing: sudo apt install {packages}' if packages else 'here'}")
    return 0


def lock(arguments: Sequence[str]) -> int:
    command = "uv pip compile pyproject.toml --group dev --universal --python-version 3.11 --generate-hashes"
    went_well, output = quiet(*command.split(), "--no-header", "--quiet", "-o", LOCK, *arguments)
    if not went_well or "://" in LOCK.read_text():
        stop(output or "requirements.lock names an index; it must not")
    return 0


def main(arguments: Sequence[str]) -> int:
    verbs: tuple[Callable[[Sequence[str]], int], ...] = (demo, test, check, bench, programs, lock)
    verb = next((verb for verb in verbs if [verb.__name__] == arguments[:1]), None)
    if verb is None:
        print(__doc__)
        return 0 if arguments[:1] in (["-h"], ["--help"]) else 2
    os.chdir(ROOT)
    if verb not in (programs, lock):
        prepare()
    return verb(arguments[1:])


if __name__ == "__main__":
    if sys.version_info < (3, 11):  # noqa: UP036 - whoever runs an older one needs this sentence
        stop(f"Lampione needs Python 3.11 or newer; this is {sys.version.split()[0]}. Type: python3.11 dev.py ...", 2)
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
