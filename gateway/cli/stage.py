"""The stage for demo, tests and benches: broker, platform, a cable that can be cut, emulated street, gateway.

Mosquitto, `lampione simulate` and `lampione run` are processes of their own; the platform (the reference
receiver) and the cable run in the caller's event loop. All on loopback, on ephemeral ports.
"""

import asyncio
import json
import secrets
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Self

import aiohttp

from gateway.cli import street
from gateway.cli.broker import Broker
from gateway.cli.cut import Cut
from gateway.errors import LampioneError
from gateway.receiver import HttpIn, MqttIn, Receiver
from gateway.site import Credentials

ACCESS = f"pattern readwrite lampione/1/+/%u/#\nuser {street.PLATFORM}\ntopic readwrite lampione/1/#\n"
START_WITHIN = 60.0
STOP_WITHIN = 20.0
_LOOK_EVERY = 0.05
_SETTLED_EVERY = 1.2


class StageError(LampioneError):
    """A part of the stage has ended, or does not start: the text carries the programs' logs."""


class Stage:
    """Use as an async context; then `perform(site)`, or `simulate` and `run` one by one."""

    def __init__(self, folder: Path, *, uplink: str = "mqtt", state: Path | None = None) -> None:
        self.folder = folder
        self.state = state or folder / "state"
        self.password = secrets.token_urlsafe(24)
        """What the platform knows the gateway by."""
        self.site = folder / "site.yaml"
        self.running = folder / "running.yaml"
        self.gateway: asyncio.subprocess.Process | None = None
        self.simulation: asyncio.subprocess.Process | None = None
        self._uplink = uplink
        self._stack = AsyncExitStack()
        self._platform: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self.state.mkdir(exist_ok=True, mode=0o700)
        async with AsyncExitStack() as stack:
            self.session = await stack.enter_async_context(aiohttp.ClientSession())
            if self._uplink == "mqtt":
                self._own = secrets.token_urlsafe(24)
                passwords = {street.GATEWAY: self.password, street.PLATFORM: self._own}
                self.broker = Broker(self.folder / "broker", passwords=passwords, access=ACCESS)
                await asyncio.to_thread(self.broker.start)
                stack.push_async_callback(asyncio.to_thread, self.broker.stop)
            await self.open_platform()
            stack.push_async_callback(self.close_platform)
            url = self.broker.url if self._uplink == "mqtt" else self.platform.url
            self.cut = await stack.enter_async_context(Cut.before(url))
            stack.push_async_callback(self.end, "simulation")
            stack.push_async_callback(self.end, "gateway")
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    @property
    def url(self) -> str:
        """Where the gateway finds the platform: through the cable."""
        return self.cut.url

    async def open_platform(self) -> None:
        """Start the receiver on the stage's database, as often as it was closed."""
        database = self.folder / "platform.sqlite"
        if self._uplink == "mqtt":
            self.platform = Receiver(database, mqtt=MqttIn(self.broker.url, street.PLATFORM, self._own))
        else:
            self.platform = Receiver(database, http=HttpIn({street.GATEWAY: self.password}))
        self._platform = asyncio.create_task(self.platform.run(), name="platform")
        ready = asyncio.create_task(self.platform.ready())
        async with asyncio.timeout(START_WITHIN):
            await asyncio.wait([ready, self._platform], return_when=asyncio.FIRST_COMPLETED)
        if not ready.done():
            ready.cancel()
            self._platform.result()

    async def close_platform(self) -> None:
        """The receiver ends; what it has not committed it has not acknowledged."""
        if self._platform is not None:
            self._platform.cancel()
            await asyncio.wait([self._platform])
            self._platform = None

    async def simulate(self) -> None:
        """Emulate every device of `site`; `running` is then the site file that finds them."""
        self.simulation = await self._start(
            "simulate", str(self.site), "--out", str(self.running), "--state", str(self.state),
            "--produced", str(self.folder / "produced.json"),
        )  # fmt: skip
        await self.until(self.running.exists)

    async def run(self, *, page: bool = True) -> None:
        """Start the gateway on `running`; with `page`, return once its page answers."""
        if self.addresses():
            (self.state / "addresses.json").unlink()
        self.gateway = await self._start("run", str(self.running), "--state", str(self.state))
        if page:
            await self.until(lambda: "page" in self.addresses())

    async def perform(self) -> None:
        """The whole play: `simulate`, then `run`."""
        await self.simulate()
        await self.run()

    async def end(self, part: str) -> int:
        """SIGTERM to `gateway` or `simulation`, SIGKILL where that does not do; returns its exit code."""
        process: asyncio.subprocess.Process | None = getattr(self, part)
        if process is None:
            return 0
        if process.returncode is None:
            process.terminate()
            try:
                async with asyncio.timeout(STOP_WITHIN):
                    await process.wait()
            except TimeoutError:
                process.kill()
        return await process.wait()

    async def kill(self) -> None:
        """SIGKILL to the gateway."""
        assert self.gateway is not None
        self.gateway.kill()
        await self.gateway.wait()

    async def until(self, holds: Callable[[], bool], within: float = START_WITHIN) -> None:
        """Wait for what other processes do. StageError where one of them ends, or it takes too long."""
        try:
            async with asyncio.timeout(within):
                while not holds():
                    ended = [p for p in (self.gateway, self.simulation) if p is not None and p.returncode is not None]
                    if ended:
                        raise StageError(f"A part of the stage has ended.\n{self.logs()}")
                    await asyncio.sleep(_LOOK_EVERY)
        except TimeoutError:
            raise StageError(f"It has not come about within {within:.0f} s.\n{self.logs()}") from None

    async def snapshot(self) -> dict[str, Any]:
        """The gateway as its own page shows it."""
        headers = {"Authorization": f"Bearer {self.token}"}
        url = f"{self.addresses()['page']}/api/status"
        async with asyncio.timeout(10), self.session.get(url, headers=headers) as answer:
            answer.raise_for_status()
            document: dict[str, Any] = await answer.json()
            return document

    async def drained(self, within: float = 60.0) -> dict[str, int]:
        """Wait until the platform holds all that the gateway has committed; returns the records committed by lane."""
        before: dict[str, int] = {}
        committed: dict[str, int] = {}
        loop = asyncio.get_running_loop()
        ends = loop.time() + within
        while loop.time() < ends:
            committed = {lane["name"]: lane["committed"] for lane in (await self.snapshot())["lanes"]}
            held = dict.fromkeys(committed, 0)
            for row in self.platform.report():
                held[row.lane] += row.received + sum(row.skipped.values())
            if committed == before and all(held[lane] >= count for lane, count in committed.items()):
                break
            before = committed
            await asyncio.sleep(_SETTLED_EVERY)
        return committed

    @property
    def token(self) -> str:
        return Credentials.beside(self.site).read("page.token")

    def addresses(self) -> dict[str, str]:
        """Where the gateway listens, as it tells in its state folder."""
        return _json(self.state / "addresses.json")

    def produced(self) -> dict[str, int]:
        """Values that the emulators have put on the wire, by device id."""
        return _json(self.folder / "produced.json")

    def logs(self) -> str:
        return "\n".join(f"--- {log.name}\n{log.read_text()}" for log in sorted(self.folder.glob("*.log")))

    async def _start(self, *words: str) -> asyncio.subprocess.Process:
        with (self.folder / f"{words[0]}.log").open("ab") as log:
            return await asyncio.create_subprocess_exec(
                sys.executable, "-m", "gateway", *words, "--secrets", str(self.folder / "secrets"),
                stdout=log, stderr=log, stdin=asyncio.subprocess.DEVNULL,
            )  # fmt: skip


def _json(file: Path) -> dict[str, Any]:
    try:
        known: dict[str, Any] = json.loads(file.read_text())
    except FileNotFoundError:
        return {}
    return known
