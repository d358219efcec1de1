"""What a Modbus transaction costs and how much of a line is used, beside libmodbus, pymodbus and what a line can carry.

The far end is another process that answers at once (TCP) or at line speed (a pty: each byte takes its time, and the
device thinks). Each client is a process of its own, so that CPU and memory are its own. libmodbus is driven by
_modbus.c, compiled here where its header is found (Debian: libmodbus-dev), else its column is left out.

    python3 dev.py bench modbus [--seconds 3]
"""

import sys

sys.path.remove(sys.path[0])  # this folder: a file in it is called what the library pyserial is called

import argparse
import asyncio
import os
import resource
import socket
import subprocess
import tempfile
import time
import tty
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path

from drivers import modbus
from drivers.modbus import frames, rtu
from drivers.modbus.codec import Field
from drivers.modbus.driver import Driver
from drivers.modbus.line import FAST, Line
from drivers.modbus.tcp import Tcp
from gateway import profile as profiles
from gateway.model import Device, Json, Lane, Record
from gateway.testing import Recorder, make_link

HERE = Path(__file__).resolve().parent
BAUDS = (9600, 19200, 115200)
THINKS = 0.005
"""Seconds that the emulated device takes before it answers."""
SLOW = 0.040
"""What a meter takes (Carlo Gavazzi: 40 ms typical)."""
EASTRON = 0.060
"""Silence that Eastron wants between questions."""
PIECE = 16
"""Bytes after which a UART hands over what it has."""
Figures = tuple[int, float, float, int]
"""Transactions, seconds, CPU seconds, kB resident."""


def character(baud: int) -> float:
    return 10 / baud


def legal(count: int, baud: int, thinks: float, gap: float = 0.0) -> float:
    """Seconds that a read of `count` registers takes at the least: both frames, the device, the silence."""
    silence = max(3.5 * character(baud) if baud <= 19200 else FAST, gap)
    return (8 + 5 + 2 * count) * character(baud) + thinks + silence


# The far end


def serve(listener: int) -> None:
    """Modbus TCP: every register holds its own address."""
    with socket.socket(fileno=listener) as listening:
        while True:
            connection, _ = listening.accept()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            heard = b""
            with connection:
                while more := connection.recv(4096):
                    heard += more
                    while frame := frames.cut(heard):
                        heard = heard[len(frame) :]
                        asked = frames.parse(frame)
                        connection.sendall(
                            frames.answer(asked, [n & 0x7FF for n in range(asked.addr, asked.addr + asked.count)])
                        )


def play(master: int, baud: int, thinks: float) -> None:
    """The far end of a line: bytes come in pieces, each when its last byte has travelled."""
    os.set_blocking(master, True)
    heard = b""
    while True:
        try:
            heard += os.read(master, 256)
        except OSError:  # nobody has opened it yet
            time.sleep(0.001)
            continue
        question, heard = rtu.cut_question(heard)
        if question is None:
            continue
        due = time.monotonic() + len(question) * character(baud) + thinks
        asked = frames.parse(rtu.unseal(question))
        answer = rtu.seal(frames.answer(asked, [n & 0x7FF for n in range(asked.addr, asked.addr + asked.count)]))
        for at in range(0, len(answer), PIECE):
            piece = answer[at : at + PIECE]
            due += len(piece) * character(baud)
            time.sleep(max(0.0, due - time.monotonic()))
            os.write(master, piece)


# The clients, each in a process of its own


class Counting(Recorder):
    """An emit that only counts."""

    count = 0

    async def __call__(
        self, records: Sequence[Record], *, lane: Lane = Lane.TELEMETRY, state: Mapping[str, Json] | None = None
    ) -> None:
        self.count += len(records)


def settings(where: str, baud: int) -> modbus.Settings:
    keys = {"host": "127.0.0.1", "port": where} if where.isdigit() else {"port": where, "baud": str(baud)}
    return modbus.Settings.model_validate({"driver": "modbus", "timeout": "2s", **keys})


def meters(count: int) -> list[Device]:
    """SDM630s that are polled as fast as the wire allows; nothing is asked but their points."""
    profile = profiles.load(profiles.shipped_profiles() / "eastron-sdm630.yaml", lambda _: modbus.Profile)
    profile = profile.model_copy(update={"match": (), "verify": (), "serial_number": None, "writes": {}})
    assert isinstance(profile, modbus.Profile)
    found = []
    for unit in range(1, count + 1):
        keys = modbus.DeviceSettings.model_validate({"link": "line", "address": unit, "every": "1ms"})
        points = modbus.points(f"m{unit}/m", profile, keys)
        found.append(Device(f"m{unit}/m", points, modbus.verbs(profile, keys), keys, profile))
    return found


async def ours(where: str, baud: int, count: int, seconds: float) -> Figures:
    """The wire alone: one block, again and again."""
    made = settings(where, baud)
    wire = Tcp(*made.endpoint, made.timeout) if made.host else Line("line", made, {})
    await wire.read(1, 4, 0, count)
    return await measured(seconds, lambda: wire.read(1, 4, 0, count))


async def driver(where: str, baud: int, count: int, seconds: float) -> Figures:
    """`count` meters, whole: scheduled, planned, decoded, handed over. Transactions are questions."""
    emit = Counting()
    polling = Driver(make_link(settings(where, baud), meters(count), emit))
    asked = 0
    read = polling._wire.read

    async def counted(unit: int, fc: int, addr: int, count: int) -> list[int]:
        nonlocal asked
        asked += 1
        return await read(unit, fc, addr, count)

    polling._wire.read = counted  # type: ignore[method-assign]
    task = asyncio.create_task(polling.run(emit))
    while asked < 4 * count:  # noqa: ASYNC110 - the turnarounds are measured
        await asyncio.sleep(0.05)
    before, began, used = asked, time.monotonic(), cpu()
    await asyncio.sleep(seconds)
    figures = asked - before, time.monotonic() - began, cpu() - used, resident()
    task.cancel()
    await asyncio.wait({task})
    return figures


async def pymodbus(where: str, baud: int, count: int, seconds: float) -> Figures:
    from pymodbus.client import AsyncModbusSerialClient, AsyncModbusTcpClient

    client = (
        AsyncModbusTcpClient("127.0.0.1", port=int(where))
        if where.isdigit()
        else AsyncModbusSerialClient(where, baudrate=baud)
    )
    await client.connect()
    gap = 0.0 if where.isdigit() else 3.5 * character(baud) if baud <= 19200 else FAST

    async def once() -> None:
        if gap:  # it keeps none by itself
            await asyncio.sleep(gap)
        answer = await client.read_input_registers(0, count=count, device_id=1)
        assert len(answer.registers) == count

    await once()
    return await measured(seconds, once)


async def measured(seconds: float, once: Callable[[], object]) -> Figures:
    done, began, used = 0, time.monotonic(), cpu()
    while time.monotonic() - began < seconds:
        try:
            await once()  # type: ignore[misc]
        except frames.NoAnswer:  # this machine stood still for a moment
            continue
        done += 1
    return done, time.monotonic() - began, cpu() - used, resident()


def cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def resident() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


CLIENTS = {"ours": ours, "driver": driver, "pymodbus": pymodbus}


# The measurements


def far_end(*words: object, keep: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, str(HERE / "modbus.py"), "--far", *map(str, words)]
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
            str(HERE / "modbus.py"),
            "--client",
            name,
            where,
            str(baud),
            str(count),
            str(seconds),
        ]
    said = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.split()
    return int(said[0]), float(said[1]), float(said[2]), int(said[3])


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
    parser.add_argument("--far", nargs="+", help=argparse.SUPPRESS)
    parser.add_argument("--client", nargs=5, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.far:
        print("ready", flush=True)
        serve(int(args.far[1])) if args.far[0] == "tcp" else play(
            int(args.far[1]), int(args.far[2]), float(args.far[3])
        )
    if args.client:
        name, where, baud, count, seconds = args.client
        print(*asyncio.run(CLIENTS[name](where, int(baud), int(count), float(seconds))))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        program = compiled(Path(folder))
        if program is None:
            print("libmodbus: no header or no gcc here (apt install gcc libmodbus-dev), its rows are left out.\n")
        return tables(args.seconds, program)


def tables(seconds: float, program: Path | None) -> int:
    missed = []
    print("| TCP, registers | client | transactions/s | µs of CPU each | MB |\n|--:|---|--:|--:|--:|")
    for count in (10, 100):
        for name in ("ours", "libmodbus", "pymodbus"):
            if figures := over_tcp(name, count, seconds, program):
                done, lasted, used, kept = figures
                print(
                    f"| {count} | {name} | {done / lasted:,.0f} | {1e6 * used / done:.0f} | {kept / 1024:.0f} |",
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
                    done, lasted, used, _ = figures
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
    (device,) = meters(1)
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
        done, lasted, _, _ = on_a_line("driver", baud, 1, SLOW, max(seconds, 5.0), program) or (1, 0.0, 0.0, 0)
        cycle = lasted / done * blocks
        print(
            f"| {baud} | {1000 * cycle:.0f} | {1000 * least:.0f} | {cycle / least:.3f} | {1000 * singly:.0f} "
            f"| {singly / cycle:.1f} |",
            flush=True,
        )
        if cycle > 1.15 * least or singly < 5 * cycle:
            missed.append(f"an SDM630's cycle at {baud} Bd")
    return missed


def modbus_blocks(profile: modbus.Profile, baud: int) -> int:
    """Questions that a cycle takes, once the turnaround is known."""
    from drivers.modbus.pace import Pace
    from drivers.modbus.plan import plan

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
    done, lasted, used, _ = figures
    share = done / lasted * sum(legal(count, 9600, THINKS, EASTRON) for count in blocks) / len(blocks)
    print(
        f"| 32 | 9600 Bd | {done / lasted:.1f} | {share:.3f} | {1e6 * used / done:.0f} | {used / lasted:.4f} |",
        flush=True,
    )
    if share < 0.95:
        missed.append("32 meters on a line")
    figures = over_tcp("driver", 200, seconds, program)
    assert figures
    done, lasted, used, _ = figures
    print(f"| 200 | TCP | {done / lasted:,.0f} | | {1e6 * used / done:.0f} | {used / lasted:.2f} |")
    return missed


if __name__ == "__main__":
    sys.exit(main())
