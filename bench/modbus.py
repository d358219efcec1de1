"""What a Modbus transaction costs and how much of a line is used, beside libmodbus, pymodbus and what a line can carry.

The far end is another process that answers at once (TCP) or at line speed (a pty: each byte takes its time, and the
device thinks). Each client is a process of its own, so that its CPU is its own. libmodbus is driven by
_modbus.c, compiled here where its header is found (Debian: libmodbus-dev), else its rows are left out.

    python3 dev.py bench modbus [--seconds 3]
"""

import argparse
import os
import socket
import subprocess
import sys
import tempfile
import tty
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

from bench._modbus import MAIN, Figures, character, meters, settings
from drivers import modbus
from drivers.modbus.codec import Field
from drivers.modbus.line import FAST, Line
from drivers.modbus.pace import Pace
from drivers.modbus.plan import plan

HERE = Path(__file__).resolve().parent
BAUDS = (9600, 19200, 115200)
THINKS = 0.005
"""Seconds that the emulated device takes before it answers."""
SLOW = 0.040
"""What a meter takes (Carlo Gavazzi: 40 ms typical)."""
EASTRON = 0.060
"""Silence that Eastron wants between questions."""


def legal(count: int, baud: int, thinks: float, gap: float = 0.0) -> float:
    """Seconds that a read of `count` registers takes at the least: both frames, the device, the silence."""
    silence = max(3.5 * character(baud) if baud <= 19200 else FAST, gap)
    return (8 + 5 + 2 * count) * character(baud) + thinks + silence


def far_end(*words: object, keep: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "bench._modbus", "--far", *map(str, words)]
    far = subprocess.Popen(command, pass_fds=[keep], stdout=subprocess.PIPE)
    assert far.stdout
    far.stdout.readline()
    return far


def client(name: str, where: str, baud: int, count: int, seconds: float, program: Path | None) -> Figures | None:
    if name == "libmodbus":
        if program is None:
            return None
        words = ["tcp", where] if where.isdigit() else ["rtu", where, str(baud)]
        command = [str(program), *words, str(count), str(seconds)]
    else:
        command = [
            sys.executable,
            "-m",
            "bench._modbus",
            "--client",
            name,
            where,
            str(baud),
            str(count),
            str(seconds),
        ]
    said = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.split()
    return int(said[0]), float(said[1]), float(said[2])


def over_tcp(name: str, count: int, seconds: float, program: Path | None) -> Figures | None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        far = far_end("tcp", listener.fileno(), keep=listener.fileno())
        try:
            return client(name, str(listener.getsockname()[1]), 0, count, seconds, program)
        finally:
            far.kill()
            far.wait()


def on_a_line(name: str, baud: int, count: int, thinks: float, seconds: float, program: Path | None) -> Figures | None:
    master, slave = os.openpty()
    tty.setraw(slave)
    where = os.ttyname(slave)
    os.close(slave)  # or it would be a second reader, and be said to be one
    far = far_end("pty", master, baud, thinks, keep=master)
    try:
        return client(name, where, baud, count, seconds, program)
    finally:
        far.kill()
        far.wait()
        os.close(master)


def compiled(folder: Path) -> Path | None:
    """libmodbus's client, or None where there is no compiler or no header."""
    program = folder / "modbus"
    command = ["gcc", "-O2", "-I/usr/include/modbus", str(HERE / "_modbus.c"), "-o", str(program), "-lmodbus"]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return program


def optimum(fields: Sequence[Field], longest: int, cost: Callable[[int], float]) -> float:
    """Seconds of the cheapest way to read them all, found by trying every cut; independent of the planner."""
    runs = sorted(fields, key=lambda field: field.addr)

    @cache
    def rest(first: int) -> float:
        if first == len(runs):
            return 0.0
        ways = [
            cost(runs[last].end - runs[first].addr) + rest(last + 1)
            for last in range(first, len(runs))
            if runs[last].end - runs[first].addr <= longest
        ]
        return min(ways)

    return rest(0)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3.0, help="for each row (3)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        program = compiled(Path(folder))
        if program is None:
            print("libmodbus: no header or no gcc here (apt install gcc libmodbus-dev), its rows are left out.\n")
        return tables(args.seconds, program)


def tables(seconds: float, program: Path | None) -> int:
    missed = []
    print("| TCP, registers | client | transactions/s | µs of CPU each |\n|--:|---|--:|--:|")
    for count in (10, 100):
        for name in ("ours", "libmodbus", "pymodbus"):
            if figures := over_tcp(name, count, seconds, program):
                done, lasted, used = figures
                print(
                    f"| {count} | {name} | {done / lasted:,.0f} | {1e6 * used / done:.0f} |",
                    flush=True,
                )
                if name == "ours" and used / done > 150e-6:
                    missed.append(f"{count} registers over TCP cost more than 150 µs")
    print(f"\nA line, the device thinks {1000 * THINKS:g} ms:\n")
    print("| Bd | registers | client | of the legal rate | µs of CPU each |\n|--:|--:|---|--:|--:|")
    for baud in BAUDS:
        for count in (2, 80):
            for name in ("ours", "libmodbus", "pymodbus"):
                if figures := on_a_line(name, baud, count, THINKS, seconds, program):
                    done, lasted, used = figures
                    share = done / lasted * legal(count, baud, THINKS)
                    print(f"| {baud} | {count} | {name} | {share:.3f} | {1e6 * used / done:.0f} |", flush=True)
                    if name == "ours" and share < 0.95:
                        missed.append(f"{count} registers at {baud} Bd use {share:.3f} of the line")
    missed += cycles(seconds, program)
    missed += many(seconds, program)
    print("\n" + "\n".join(f"missed: {each}" for each in missed) if missed else "")
    return 1 if missed else 0


def cycles(seconds: float, program: Path | None) -> list[str]:
    """An SDM630's whole cycle: how near the least that the line allows, and how far from point by point."""
    (device,) = meters(1, MAIN)
    profile = device.profile
    assert isinstance(profile, modbus.Profile)
    fields = [field for _, field in profile.fields()]
    print(f"\nAn SDM630 ({len(fields)} points), {1000 * SLOW:g} ms to an answer, {1000 * EASTRON:g} ms gap:\n")
    print("| Bd | ms a cycle | the least | ratio | point by point | times faster |\n|--:|--:|--:|--:|--:|--:|")
    missed = []
    for baud in BAUDS:

        def cost(count: int, baud: int = baud) -> float:
            return legal(count, baud, SLOW, EASTRON)

        least = optimum(fields, profile.line.max_regs, cost)
        singly = sum(cost(field.width) for field in fields)
        blocks = modbus_blocks(profile, baud)
        done, lasted, _ = on_a_line("cycle", baud, 1, SLOW, max(seconds, 5.0), program) or (1, 0.0, 0.0)
        takes = lasted / done * blocks
        print(
            f"| {baud} | {1000 * takes:.0f} | {1000 * least:.0f} | {takes / least:.3f} | {1000 * singly:.0f} "
            f"| {singly / takes:.1f} |",
            flush=True,
        )
        if takes > 1.15 * least or singly < 5 * takes:
            missed.append(f"an SDM630's cycle at {baud} Bd")
    return missed


def modbus_blocks(profile: modbus.Profile, baud: int) -> int:
    """Questions that a cycle takes, once the turnaround is known."""
    pace = Pace(2.0, gap=profile.line.min_gap)
    pace.took(SLOW)
    worth = Line("line", settings("/dev/null", baud), {1: pace}).worth(1)
    return len(plan(profile.fields(), profile.limits(), worth))


def many(seconds: float, program: Path | None) -> list[str]:
    print("\n| meters | wire | questions/s | of the legal rate | µs of CPU each | share of a core |")
    print("|--:|---|--:|--:|--:|--:|")
    missed = []
    blocks = [78, 26]
    figures = on_a_line("driver", 9600, 32, THINKS, max(10.0, seconds), program)
    assert figures
    done, lasted, used = figures
    share = done / lasted * sum(legal(count, 9600, THINKS, EASTRON) for count in blocks) / len(blocks)
    print(
        f"| 32 | 9600 Bd | {done / lasted:.1f} | {share:.3f} | {1e6 * used / done:.0f} | {used / lasted:.4f} |",
        flush=True,
    )
    if share < 0.95:
        missed.append("32 meters on a line")
    figures = over_tcp("driver", 200, seconds, program)
    assert figures
    done, lasted, used = figures
    print(f"| 200 | TCP | {done / lasted:,.0f} | | {1e6 * used / done:.0f} | {used / lasted:.2f} |")
    if used / done > 150e-6:
        missed.append("200 meters over TCP cost more than 150 µs a question")
    return missed


if __name__ == "__main__":
    sys.exit(main())
