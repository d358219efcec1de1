"""`lampione demo`: a whole street on this machine, over real protocols, with the platform cut off in the middle.

Four processes: Mosquitto, the emulated street, the gateway on an ordinary site file, and this one, which is
the platform (the reference receiver) and shows what happens. Nothing leaves the loopback interface.
"""

import argparse
import asyncio
import json
import secrets
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from gateway.cli import street, table
from gateway.cli.broker import Broker, is_here
from gateway.cli.cut import Cut
from gateway.receiver import HttpIn, MqttIn, Receiver
from gateway.site import Credentials

ACCESS = f"pattern readwrite lampione/1/+/%u/#\nuser {street.PLATFORM}\ntopic readwrite lampione/1/#\n"
_REFRESH = 1.0
_START_WITHIN = 30.0
_DRAIN_WITHIN = 60.0
_STOP_WITHIN = 20.0


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seconds", type=float, help="end after so long, and fail if a record is missing")
    parser.add_argument("--posts", type=int, default=6, help="lamp posts with an air sensor each (default: 6)")
    parser.add_argument("--meters", type=int, default=2, help="three-phase meters on one link (default: 2)")
    parser.add_argument("--chargers", type=int, default=3, help="charge points with sessions (default: 3)")
    parser.add_argument("--uplink", choices=("mqtt", "http"), default="mqtt", help="the way to the platform")
    parser.add_argument("--keep", type=Path, help="work in this folder and leave everything in it")
    parser.add_argument("--json", action="store_true", help="print the closing account as JSON")


def run(args: argparse.Namespace) -> int:
    """0 where every record arrived, 1 where one is missing, 2 where the options make no street."""
    if min(args.posts, args.meters, args.chargers) < 1:
        print("A street has at least one post, one meter and one charger.", file=sys.stderr)
        return 2
    if args.uplink == "mqtt" and not is_here():
        print("Mosquitto is not installed: the demo uses HTTP. (sudo apt install mosquitto)", file=sys.stderr)
        args.uplink = "http"
    folder = args.keep or Path(tempfile.mkdtemp(prefix="lampione-demo-"))
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        return asyncio.run(_play(args, folder))
    finally:
        if not args.keep:
            shutil.rmtree(folder, ignore_errors=True)


async def _play(args: argparse.Namespace, folder: Path) -> int:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with AsyncExitStack() as stack:
        platform, url, password = await stack.enter_async_context(_platform(args.uplink, folder))
        cut = await stack.enter_async_context(Cut.before(url))
        site = street.write(
            folder, url=cut.url, password=password, posts=args.posts, meters=args.meters, chargers=args.chargers
        )
        state = folder / "state"
        state.mkdir(exist_ok=True, mode=0o700)
        session = await stack.enter_async_context(aiohttp.ClientSession())
        simulate = await stack.enter_async_context(
            _program(folder, "simulate", str(site), "--out", str(folder / "running.yaml"), "--state", str(state),
                     "--secrets", str(folder / "secrets"), "--produced", str(folder / "produced.json"))
        )  # fmt: skip
        await _until((folder / "running.yaml").exists, folder, simulate)
        gateway = await stack.enter_async_context(
            _program(folder, "run", str(folder / "running.yaml"), "--state", str(state),
                     "--secrets", str(folder / "secrets"))
        )  # fmt: skip
        await _until(lambda: "page" in _addresses(state), folder, gateway)
        view = _View(session, _addresses(state)["page"], Credentials(folder / "secrets").read("page.token"))
        print(f"The page: {view.url}/?token={view.token}\nThe site file: {site}\n", file=sys.stderr)
        screen = table.Screen(sys.stderr)
        await _watch(args.seconds, stop, cut, view, platform, screen)
        await _end(simulate)
        lanes = await _drained(view, platform)
        snapshot = await view.snapshot()
        await _end(gateway)
        account = table.account(_produced(folder), snapshot, lanes, platform.report(), platform.per_device())
        screen.close()
    print(json.dumps(account.json(), indent=1) if args.json else account.text())
    return 0 if account.is_complete else 1


class _View:
    """The gateway as its own page shows it."""

    def __init__(self, session: aiohttp.ClientSession, url: str, token: str) -> None:
        self.url, self.token, self._session = url, token, session

    async def snapshot(self) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {self.token}"}
        async with asyncio.timeout(10), self._session.get(f"{self.url}/api/status", headers=headers) as answer:
            answer.raise_for_status()
            document: dict[str, Any] = await answer.json()
            return document


async def _watch(
    seconds: float | None, stop: asyncio.Event, cut: Cut, view: _View, platform: Receiver, screen: table.Screen
) -> None:
    """Show the street until the time is over; in the middle third of it, or of each minute, the platform is cut off."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    period = seconds or 60.0
    while not stop.is_set() and (seconds is None or loop.time() - began < seconds):
        elapsed = loop.time() - began
        is_cut = period * 0.4 <= elapsed % period < period * 0.6
        if is_cut and not cut.is_open:
            await cut.open()
        elif cut.is_open and not is_cut:
            await cut.close()
        screen.show(await view.snapshot(), platform, elapsed, seconds, is_cut=is_cut)
        try:
            async with asyncio.timeout(_REFRESH):
                await stop.wait()
        except TimeoutError:
            pass
    await cut.close()


async def _drained(view: _View, platform: Receiver) -> dict[str, int]:
    """Wait until all that the gateway has committed is settled; returns the records committed by lane."""
    try:
        async with asyncio.timeout(_DRAIN_WITHIN):
            while True:
                lanes = {lane["name"]: lane for lane in (await view.snapshot())["lanes"]}
                held: dict[str, int] = {}
                for row in platform.report():
                    held[row.lane] = held.get(row.lane, 0) + row.received + sum(row.skipped.values())
                if all(held.get(name, 0) >= lane["committed"] for name, lane in lanes.items()):
                    break
                await asyncio.sleep(_REFRESH)
    except TimeoutError:
        pass
    return {name: lane["committed"] for name, lane in lanes.items()}


@asynccontextmanager
async def _platform(uplink: str, folder: Path) -> AsyncIterator[tuple[Receiver, str, str]]:
    """The receiver, listening; where to reach it; and the gateway's password there."""
    password = secrets.token_urlsafe(24)
    async with AsyncExitStack() as stack:
        if uplink == "mqtt":
            own = secrets.token_urlsafe(24)
            passwords = {street.GATEWAY: password, street.PLATFORM: own}
            broker = await asyncio.to_thread(Broker(folder / "broker", passwords=passwords, access=ACCESS).start)
            stack.push_async_callback(asyncio.to_thread, broker.stop)
            receiver = Receiver(folder / "platform.sqlite", mqtt=MqttIn(broker.url, street.PLATFORM, own))
        else:
            receiver = Receiver(folder / "platform.sqlite", http=HttpIn({street.GATEWAY: password}))
        running = asyncio.create_task(receiver.run())
        stack.push_async_callback(_cancel, running)
        async with asyncio.timeout(_START_WITHIN):
            ready = asyncio.create_task(receiver.ready())
            await asyncio.wait([ready, running], return_when=asyncio.FIRST_COMPLETED)
            if running.done():
                running.result()
        yield receiver, broker.url if uplink == "mqtt" else receiver.url, password


@asynccontextmanager
async def _program(folder: Path, verb: str, *args: str) -> AsyncIterator[asyncio.subprocess.Process]:
    with (folder / f"{verb}.log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "gateway", verb, *args, stdout=log, stderr=log, stdin=asyncio.subprocess.DEVNULL
        )
    try:
        yield process
    finally:
        await _end(process)


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    process.terminate()
    try:
        async with asyncio.timeout(_STOP_WITHIN):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


async def _until(holds: Any, folder: Path, process: asyncio.subprocess.Process) -> None:
    """Wait for what another process does; RuntimeError with its log where it has ended instead."""
    async with asyncio.timeout(_START_WITHIN):
        while not holds():
            if process.returncode is not None:
                raise RuntimeError(f"A part of the demo has ended:\n{_logs(folder)}")
            await asyncio.sleep(0.05)


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])


def _logs(folder: Path) -> str:
    return "\n".join(log.read_text() for log in sorted(folder.glob("*.log")))


def _addresses(state: Path) -> dict[str, str]:
    file = state / "addresses.json"
    return json.loads(file.read_text()) if file.exists() else {}


def _produced(folder: Path) -> dict[str, int]:
    file = folder / "produced.json"
    return json.loads(file.read_text()) if file.exists() else {}
