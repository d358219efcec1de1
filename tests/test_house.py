"""House rules that a linter does not know. Each is one function from a syntax tree to what is wrong with it."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Rule = Callable[[ast.Module], Iterator[tuple[int, str]]]

ROOT = Path(__file__).resolve().parents[1]
EVERYWHERE = ("gateway", "drivers", "bench", "tests", "dev.py")
PRODUCT = ("gateway", "drivers")
BANNED = {"manager", "handler", "helper", "utils", "util", "service", "processor", "data", "info", "misc", "common"}
LONGEST = 400
LONGEST_TEST = 600


def banned(name: str) -> list[str]:
    words = [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)]
    return [word for word in words if word in BANNED or word.removesuffix("s") in BANNED]


def class_names(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and banned(node.name):
            yield node.lineno, f"class {node.name}: `{banned(node.name)[0]}` says nothing; name what it is"


def broad_excepts(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler):
            caught = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
            if any(each is None or ast.unparse(each) in ("Exception", "BaseException") for each in caught):
                yield node.lineno, "only gateway/supervise.py catches everything; name the error"


def wall_clock(tree: ast.Module) -> Iterator[tuple[int, str]]:
    asked = {"time.time", "time.time_ns", "date.today", "datetime.now", "datetime.utcnow", "datetime.today"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and ".".join(ast.unparse(node).split(".")[-2:]) in asked:
            yield node.lineno, f"{ast.unparse(node)}: only gateway/clock.py asks what time it is"
        if isinstance(node, ast.ImportFrom) and node.module == "time":
            for alias in node.names:
                if alias.name in ("time", "time_ns"):
                    yield node.lineno, "only gateway/clock.py asks what time it is"


def loose_tasks(tree: ast.Module) -> Iterator[tuple[int, str]]:
    groups = {
        ast.unparse(item.optional_vars)
        for node in ast.walk(tree)
        if isinstance(node, ast.AsyncWith)
        for item in node.items
        if item.optional_vars and "TaskGroup" in ast.unparse(item.context_expr)
    } | {
        node.arg if isinstance(node, ast.arg) else ast.unparse(node.target)
        for node in ast.walk(tree)
        if isinstance(node, ast.arg | ast.AnnAssign) and node.annotation and "TaskGroup" in ast.unparse(node.annotation)
    }
    for node in ast.walk(tree):
        thrown_away = isinstance(node, ast.Expr) or (
            isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == ["_"]
        )
        if not thrown_away or not isinstance(node.value, ast.Call):
            continue
        owner, _, made = ast.unparse(node.value.func).rpartition(".")
        if made in ("create_task", "ensure_future") and owner not in groups:
            yield node.lineno, f"keep what {made} returns, or the task may vanish with its error"


def lossy_asyncio(tree: ast.Module) -> Iterator[tuple[int, str]]:
    words = {"gather", "wait_for", "shield"}
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id="asyncio"), attr=name) if name in words:
                yield node.lineno, f"asyncio.{name} loses cancellations or errors; use TaskGroup and asyncio.timeout"
            case ast.ImportFrom(module="asyncio", names=names) if words & {alias.name for alias in names}:
                yield node.lineno, "gather, wait_for and shield lose cancellations or errors; use TaskGroup and timeout"


def code_from_text(tree: ast.Module) -> Iterator[tuple[int, str]]:
    forbidden = {"eval", "exec", "os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            shell = any(word.arg == "shell" and ast.unparse(word.value) != "False" for word in node.keywords)
            if called in forbidden or called.endswith("create_subprocess_shell") or shell:
                yield node.lineno, f"{called}: nothing here turns text into code, and nothing runs through a shell"


def installs(tree: ast.Module) -> Iterator[tuple[int, str]]:
    installers = {"pip", "pip3", "uv", "ensurepip", "apt", "apt-get", "dpkg"}
    for node in ast.walk(tree):
        match node:
            case ast.List(elts=[*words]) | ast.Tuple(elts=[*words]) | ast.Call(args=[*words]):
                called = {word.value for word in words if isinstance(word, ast.Constant)} & installers
            case ast.Import(names=names):
                called = {alias.name for alias in names} & installers
            case _:
                continue
        if called:
            yield node.lineno, f"{called.pop()}: a running gateway installs nothing"


def prints(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "print":
            yield node.lineno, "print belongs to gateway/cli; everything else logs"


# rule -> (where it holds, the files and folders it leaves alone)
RULES: dict[Rule, tuple[tuple[str, ...], tuple[str, ...]]] = {
    class_names: (EVERYWHERE, ()),
    broad_excepts: (EVERYWHERE, ("gateway/supervise.py",)),
    wall_clock: (PRODUCT, ("gateway/clock.py",)),
    loose_tasks: (EVERYWHERE, ()),
    lossy_asyncio: (PRODUCT, ()),
    code_from_text: (EVERYWHERE, ()),
    installs: (PRODUCT, ()),
    prints: (PRODUCT, ("gateway/cli",)),
}


def sources(root: Path, places: tuple[str, ...]) -> Iterator[tuple[str, Path]]:
    for place in places:
        top = root / place
        for path in [top] if top.is_file() else sorted(top.rglob("*.py")):
            yield path.relative_to(root).as_posix(), path


def faults(root: Path) -> list[str]:
    found = []
    for rule, (places, left_alone) in RULES.items():
        for name, path in sources(root, places):
            if not any(name == spared or name.startswith(f"{spared}/") for spared in left_alone):
                tree = ast.parse(path.read_text(), name)
                found += [f"{name}:{line}: {sentence}" for line, sentence in rule(tree)]
    for name, path in sources(root, EVERYWHERE):
        longest = LONGEST_TEST if name.startswith("tests/") else LONGEST
        lines = path.read_text().count("\n")
        if lines > longest:
            found.append(f"{name}: {lines} lines; over {longest} it is more than one thought")
        found += [f"{name}: `{word}` says nothing; name what it is" for word in banned(name.removesuffix(".py"))]
    return found


def test_the_house_is_in_order() -> None:
    assert list(sources(ROOT, PRODUCT)), "there is no code to look at"
    assert faults(ROOT) == []


GROUP = "async def f():\n    async with asyncio.TaskGroup() as group:\n        group.create_task(g())\n"
PLANTED = {
    "class name": ("gateway/model.py", "class BufferManager: ...\n", "manager"),
    "plural class name": ("drivers/modbus/codec.py", "class ModbusHelpers: ...\n", "helper"),
    "module name": ("gateway/device_info.py", "", "info"),
    "folder name": ("drivers/common/codec.py", "", "common"),
    "broad except": ("gateway/app.py", "try: ...\nexcept (OSError, Exception): ...\n", "name the error"),
    "bare except": ("tests/test_x.py", "try: ...\nexcept: ...\n", "name the error"),
    "base exception": ("drivers/ocpp/driver.py", "try: ...\nexcept BaseException: ...\n", "name the error"),
    "time.time": ("gateway/buffer/lane.py", "import time\nnow = time.time()\n", "what time it is"),
    "from time": ("gateway/batch.py", "from time import time\n", "what time it is"),
    "datetime.now": ("drivers/ocpp/codec.py", "now = datetime.datetime.now(UTC)\n", "what time it is"),
    "loose task": ("gateway/app.py", "async def f():\n    asyncio.create_task(g())\n", "keep what create_task returns"),
    "task to nobody": ("gateway/app.py", "async def f():\n    _ = loop.create_task(g())\n", "keep what create_task"),
    "gather": ("gateway/app.py", "async def f():\n    await asyncio.gather(g(), h())\n", "loses cancellations"),
    "wait_for": ("drivers/serial/driver.py", "from asyncio import wait_for\n", "lose cancellations"),
    "eval": ("gateway/profile.py", "x = eval('1')\n", "turns text into code"),
    "os.system": ("bench/end_to_end.py", "os.system('true')\n", "through a shell"),
    "shell": ("dev.py", "subprocess.run('true', shell=True)\n", "through a shell"),
    "install": ("gateway/load.py", "run(['python3', '-m', 'pip', 'install', name])\n", "installs nothing"),
    "import pip": ("gateway/load.py", "import pip\n", "installs nothing"),
    "print": ("gateway/web/page.py", "print(1)\n", "belongs to gateway/cli"),
    "long file": ("gateway/site.py", "x = 1\n" * 401, "more than one thought"),
    "long test": ("tests/test_site.py", "x = 1\n" * 601, "more than one thought"),
}


@pytest.mark.parametrize(("name", "text", "sentence"), PLANTED.values(), ids=PLANTED.keys())
def test_a_planted_fault_is_found(tmp_path: Path, name: str, text: str, sentence: str) -> None:
    plant(tmp_path, name, text)
    found = faults(tmp_path)
    assert len(found) == 1
    assert sentence in found[0]


ALLOWED = {
    "the supervisor catches all": ("gateway/supervise.py", "try: ...\nexcept Exception: ...\n"),
    "the clock tells the time": ("gateway/clock.py", "import time\nnow = time.time()\n"),
    "durations": ("gateway/app.py", "import time\nfrom time import monotonic\nnow = time.monotonic()\n"),
    "a kept task": ("gateway/app.py", "async def f():\n    task = asyncio.create_task(g())\n"),
    "a group keeps its tasks": ("gateway/app.py", GROUP),
    "a group that was passed": ("gateway/app.py", "def f(group: asyncio.TaskGroup):\n    group.create_task(g())\n"),
    "the command line prints": ("gateway/cli/demo.py", "print(1)\n"),
    "words that only look alike": ("gateway/database.py", "class Informed: ...\n"),
    "sqlite executes": ("gateway/buffer/lane.py", "connection.execute('select 1')\n"),
}


@pytest.mark.parametrize(("name", "text"), ALLOWED.values(), ids=ALLOWED.keys())
def test_what_is_allowed_is_not_complained_about(tmp_path: Path, name: str, text: str) -> None:
    plant(tmp_path, name, text)
    assert faults(tmp_path) == []


def plant(root: Path, name: str, text: str) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text)
