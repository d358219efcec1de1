"""Power cuts without a power switch: every disk that a cut may leave is rebuilt from a trace, and started again."""

import itertools
import random
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.crash.disks import Disk, Fate, lay_out, without_folder_flushes
from tests.crash.recovery import AGAIN, LOST, WRONG, Fault, judge, promises
from tests.crash.trace import Operation, Said, record

pytestmark = [pytest.mark.needs("strace"), pytest.mark.fault]

LIVES, RECORDS = "3", "50"


@dataclass(frozen=True, slots=True)
class Work:
    """What a writer did under `root`, where its buffer is in `below`."""

    root: str
    below: str
    operations: Sequence[Operation]


def work(folder: Path, *words: str, below: str = ".") -> Work:
    """The trace of some lives of the writer, of which every second one ends in the middle."""
    root = folder / "root"
    root.mkdir()
    return Work(str(root), below, record(root, folder / "trace", "-m", "tests.crash.writer", root / below, *words))


def moments(operations: Sequence[Operation], count: int, dice: random.Random) -> list[int]:
    """After how many operations the power goes: one half anywhere, one half just after a promise."""
    promised = [number + 1 for number, operation in enumerate(operations) if isinstance(operation, Said)]
    anywhere = [round(at * len(operations) / (count // 2)) for at in range(1, count // 2 + 1)]
    return sorted(anywhere + dice.choices(promised, k=count - count // 2))


async def cut_off(folder: Path, work: Work, count: int, seed: int) -> list[list[Fault]]:
    """Rebuild `count` disks, start each, and return what was found on those that are not as promised."""
    dice = random.Random(seed)
    fates = itertools.cycle([*Fate, Fate.ANY, Fate.ANY, Fate.ANY])
    disk, done, said = Disk(work.root), 0, list[str]()
    bad: list[list[Fault]] = []
    for number, moment in enumerate(moments(work.operations, count, dice)):
        for operation in work.operations[done:moment]:
            disk.take(operation)
            if isinstance(operation, Said):
                said.append(operation.line)
        done, fate = moment, next(fates)
        here = folder / f"disk-{number}"
        here.mkdir()
        lay_out(disk.cut(fate, dice), work.root, here)
        found = await judge(here / work.below, promises(said))
        if found:
            bad.append([Fault(fault.kind, f"after {moment} operations, {fate}: {fault.say}") for fault in found])
        shutil.rmtree(here)
    return bad


def kinds(bad: Sequence[Sequence[Fault]]) -> Counter[str]:
    """On how many disks each kind of fault was found."""
    return Counter(kind for found in bad for kind in {fault.kind for fault in found})


async def test_no_power_cut_loses_what_was_promised(fast_folder: Path) -> None:
    done = work(fast_folder, "--lives", LIVES, "--records", RECORDS)
    assert await cut_off(fast_folder, done, 480, seed=1) == []


async def test_nor_where_the_buffer_makes_its_own_folder(fast_folder: Path) -> None:
    done = work(fast_folder, "--lives", "1", "--records", "20", below="state/buffer")
    assert await cut_off(fast_folder, done, 80, seed=1) == []


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 5))
async def test_nor_do_many_more(fast_folder: Path, seed: int) -> None:
    done = work(fast_folder, "--lives", "5", "--records", RECORDS)
    assert await cut_off(fast_folder, done, 800, seed=seed) == []


async def test_commits_that_are_not_flushed_are_noticed(fast_folder: Path) -> None:
    done = work(fast_folder, "--lives", LIVES, "--records", RECORDS, "--synchronous", "NORMAL")
    bad = await cut_off(fast_folder, done, 120, seed=1)
    found = kinds(bad)
    assert found[LOST] >= 30, found
    assert found[AGAIN] >= 30, found
    assert [fault for disk in bad for fault in disk if fault.kind == WRONG] == [], "what is read is whole all the same"


async def test_names_that_are_not_flushed_are_noticed(fast_folder: Path) -> None:
    done = work(fast_folder, "--lives", LIVES, "--records", RECORDS)
    careless = replace(done, operations=without_folder_flushes(done.operations, done.root))
    found = kinds(await cut_off(fast_folder, careless, 120, seed=1))
    assert found[LOST] >= 30, found
