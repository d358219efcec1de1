"""What is installed is pinned, and the wheel carries what is not code."""

from __future__ import annotations

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import dev

ROOT = Path(__file__).resolve().parents[1]


def pinned() -> dict[str, str]:
    lines = [line for line in dev.LOCK.read_text().splitlines() if line[:1].isalnum()]
    return dict(line.split()[0].split("==") for line in lines)


def test_the_lock_satisfies_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    groups = project["dependency-groups"]
    wanted = (
        project["project"]["dependencies"] + groups["build"] + [line for line in groups["dev"] if str(line) == line]
    )
    pins = pinned()
    for requirement in map(Requirement, wanted):
        assert requirement.specifier.contains(pins[requirement.name.lower()]), f"python3 dev.py lock: {requirement}"


def test_the_lock_pins_by_hash_and_names_no_index() -> None:
    text = dev.LOCK.read_text()
    assert "://" not in text
    assert "--index" not in text
    for name, version in pinned().items():
        block = text.partition(f"{name}=={version} ")[2].partition("\n    # via")[0]
        assert "--hash=sha256:" in block, name


def test_32_bit_machines_leave_out_what_has_no_wheel() -> None:
    text = dev.without(("mypy", "librt"), dev.LOCK.read_text())
    names = {line.split("==")[0] for line in text.splitlines() if line[:1].isalnum()}
    assert set(pinned()) - names == {"mypy", "librt"}


def test_contributing_says_how_the_lock_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(dev, "quiet", lambda *words: (asked.extend(map(str, words)), (True, ""))[1])
    dev.lock([])
    command = " ".join(asked).replace(f"{ROOT}/", "").replace("--quiet ", "")
    assert f"\n{command}\n" in (ROOT / "CONTRIBUTING.md").read_text()


def test_the_wheel_carries_what_is_not_code_too(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path], cwd=ROOT, check=True)
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        carried = {name for name in wheel.namelist() if ".dist-info/" not in name}
        scripts = [wheel.read(name).decode() for name in wheel.namelist() if name.endswith("entry_points.txt")]
    listed = subprocess.run(
        ["git", "ls-files", "gateway", "drivers", "config"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert set(listed) <= carried
    assert {name.partition("/")[0] for name in carried} == {"gateway", "drivers", "config"}
    assert scripts == ["[console_scripts]\nlampione = gateway.cli:main\n"]
