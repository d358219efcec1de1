"""The control socket over a real Unix socket, and wires that are borrowed through it from a running gateway."""

from __future__ import annotations

import asyncio
import functools
import json
import os
import signal
import socket
import stat
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from gateway import control
from gateway.control import Control, NoGatewayError, ask, held, socket_of
from gateway.errors import CommandError, ConfigError, LinkError
from gateway.lending import LET_GO_WITHIN, QUIETLY, Lending, Wire
from gateway.testing import jumped

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
    from pathlib import Path

    from gateway.model import Json


def jumping(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Its seconds pass at once."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        jumped(test(*args, **kwargs), grace=0.005)

    return run


@asynccontextmanager
async def serving(path: Path) -> AsyncIterator[Control]:
    server = Control(path)

    async def echo(args: Mapping[str, Json]) -> Json:
        return dict(args)

    async def refuse(args: Mapping[str, Json]) -> Json:
        raise CommandError("above_bound", f"no {args['n']}")

    server.answers("echo", echo)
    server.answers("refuse", refuse)
    task = asyncio.create_task(server.run())
    async with asyncio.timeout(5):
        while not path.exists():  # noqa: ASYNC110, ASYNC240 - nothing tells that a file is there
            await asyncio.sleep(0.001)
    try:
        yield server
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_what_is_asked_is_answered_or_refused_with_a_reason(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    async with serving(path):
        assert await ask(path, "echo", a=[1, "ü"]) == {"a": [1, "ü"]}
        with pytest.raises(CommandError, match="no 7") as refused:
            await ask(path, "refuse", n=7)
        assert refused.value.code == "above_bound"
        with pytest.raises(CommandError, match="serves no `dance`"):
            await ask(path, "dance")
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not path.exists()


async def test_a_path_longer_than_a_socket_address_does_no_harm(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 120)
    deep.mkdir()
    async with serving(deep / "control.sock"):
        assert await ask(deep / "control.sock", "echo") == {}


async def test_no_gateway_and_a_gateway_that_died_are_the_same(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    with pytest.raises(NoGatewayError):
        await ask(path, "status")
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(path))
    dead.close()
    with pytest.raises(NoGatewayError):
        await ask(path, "status")
    async with serving(path):  # and the next one takes its place
        async with asyncio.timeout(5):
            while True:
                try:
                    assert await ask(path, "echo") == {}
                    break
                except NoGatewayError:
                    await asyncio.sleep(0.001)


async def test_whoever_may_not_is_told_to_use_sudo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise PermissionError

    monkeypatch.setattr(control, "_short", refuse)  # root may open everything: no socket can refuse this test
    with pytest.raises(ConfigError, match="Use `sudo`"):
        await ask(tmp_path / "control.sock", "status")


@pytest.mark.parametrize("said", [b"nonsense\n", b"[1]\n", b'{"do": 3}\n', b"{}\n"])
async def test_what_is_no_request_is_refused_and_the_next_is_served(tmp_path: Path, said: bytes) -> None:
    async with serving(tmp_path / "s"):
        reader, writer = await asyncio.open_unix_connection(tmp_path / "s")
        writer.write(said + b'{"do": "echo"}\n')
        assert json.loads(await reader.readline())["code"] == "bad_request"
        assert json.loads(await reader.readline()) == {"answer": {}}
        writer.close()


async def test_a_flood_without_a_line_is_cut_off(tmp_path: Path) -> None:
    async with serving(tmp_path / "s"):
        reader, writer = await asyncio.open_unix_connection(tmp_path / "s")
        writer.write(b"x" * (3 * control.LONGEST_REQUEST))
        try:
            said = await reader.readline()
        except ConnectionResetError:
            said = b'{"code": "bad_request"}'
        assert json.loads(said)["code"] == "bad_request"
        assert await ask(tmp_path / "s", "echo") == {}
        writer.close()


class Polling:
    """A driver whose transaction takes `busy` seconds, and which lets go after it."""

    def __init__(self, busy: float = 1.0) -> None:
        self.busy, self.under_way, self.done, self.cut = busy, False, 0, 0
        self._leaving = False

    async def run(self, emit: Any) -> None:
        self._leaving = False
        while not self._leaving:
            self.under_way = True
            try:
                await asyncio.sleep(self.busy)
            except asyncio.CancelledError:
                self.cut += 1
                raise
            finally:
                self.under_way = False
            self.done += 1

    def let_go(self) -> None:
        self._leaving = True

    async def execute(self, command: Any) -> Any: ...


class Listening:
    """A driver that cannot be borrowed from."""

    async def run(self, emit: Any) -> None: ...

    async def execute(self, command: Any) -> Any: ...


class Settings:
    def __init__(self, **keys: Any) -> None:
        self.__dict__.update(keys)

    def model_dump(self, **_: Any) -> dict[str, Any]:
        return self.__dict__


class Street:
    """One polling driver and its wire, behind a control socket."""

    def __init__(self, path: Path, busy: float = 1.0) -> None:
        self.path, self.driver, self.said = path, Polling(busy), list[str]()
        self.kept = 0.0
        self.wire = Wire("line", Settings(port="/dev/null"), self.driver, self._keep)

    def _keep(self, within: float) -> None:
        self.kept = asyncio.get_running_loop().time() + within

    async def away(self, say: str) -> None:
        self.said.append(say)

    async def goes_on(self) -> None:
        before = self.driver.done
        async with asyncio.timeout(60):
            while self.driver.done < before + 2:  # noqa: ASYNC110 - the driver knows nothing of us
                await asyncio.sleep(self.driver.busy / 2)


@asynccontextmanager
async def street(path: Path, busy: float = 1.0) -> AsyncIterator[Street]:
    async with serving(path) as server:
        there = Street(path, busy)
        other = Wire("cs", Settings(listen="127.0.0.1:0"), Listening(), there._keep)
        server.holds("lend", Lending({"line": there.wire, "cs": other}).lend)
        running = asyncio.create_task(there.wire.run(None, there.away))  # type: ignore[arg-type]
        try:
            await there.goes_on()
            yield there
            assert not running.done()
        finally:
            running.cancel()
            await asyncio.wait([running])


@pytest.mark.parametrize("wire", ["line", "/dev/null", "/dev/../dev/null"])
@jumping
async def test_a_wire_is_lent_between_two_transactions_and_comes_back(tmp_path: Path, wire: str) -> None:
    async with street(tmp_path / "s") as there:
        async with held(there.path, "lend", wire=wire, to="test") as lent:
            assert lent == {"link": "line", "settings": {"port": "/dev/null"}}
            assert not there.driver.under_way
            before = there.driver.done
            await asyncio.sleep(8)
            assert there.driver.done == before
        await there.goes_on()
        assert there.driver.cut == 0
        assert there.said == []


@jumping
async def test_a_transaction_that_does_not_end_is_cut_after_the_deadline(tmp_path: Path) -> None:
    async with street(tmp_path / "s", busy=1) as there:
        there.driver.busy = 3600
        await asyncio.sleep(2)
        began = asyncio.get_running_loop().time()
        async with held(there.path, "lend", wire="line"):
            assert asyncio.get_running_loop().time() - began <= LET_GO_WITHIN + 1
            assert there.driver.cut == 1
            there.driver.busy = 1
        await there.goes_on()


@jumping
async def test_one_borrower_at_a_time_and_not_every_wire(tmp_path: Path) -> None:
    async with street(tmp_path / "s") as there:
        async with held(there.path, "lend", wire="line", to="lampione scan (pid 7)"):
            with pytest.raises(CommandError, match=r"in use by lampione scan \(pid 7\)"):
                async with held(there.path, "lend", wire="line"):
                    pytest.fail("lent twice")
        with pytest.raises(CommandError, match="cs is no line"):
            async with held(there.path, "lend", wire="cs"):
                pytest.fail("lent")
        async with held(there.path, "lend", wire="/dev/ttyS77") as lent:
            assert lent == {"link": None}
            await there.goes_on()


@jumping
async def test_a_wire_that_stays_away_is_said_and_its_watchdog_kept_quiet(tmp_path: Path) -> None:
    async with street(tmp_path / "s") as there:
        async with held(there.path, "lend", wire="line", to="lampione scan (pid 7)"):
            for _ in range(20):
                await asyncio.sleep(QUIETLY)
                assert there.kept > asyncio.get_running_loop().time()
            assert there.said == ["line is lent to lampione scan (pid 7)."]
        await there.goes_on()


@jumping
async def test_a_borrower_who_hangs_loses_it_and_is_told(tmp_path: Path) -> None:
    async with street(tmp_path / "s") as there:
        reader, writer = await asyncio.open_unix_connection(there.path)
        writer.write(b'{"do": "lend", "wire": "line"}\n')
        assert json.loads(await reader.readline())["answer"]["link"] == "line"
        await there.goes_on()  # it says nothing more: the wire is taken back, its connection kept for a next request
        writer.close()


@jumping
async def test_a_gateway_that_ends_is_told_to_the_borrower(tmp_path: Path) -> None:
    async def borrow(path: Path) -> None:
        async with asyncio.timeout(60), held(path, "lend", wire="line"):
            (serving,) = [task for task in asyncio.all_tasks() if "Control.run" in repr(task.get_coro())]
            serving.cancel()
            await asyncio.sleep(30)

    async with street(tmp_path / "s") as there:
        with pytest.raises(LinkError, match="took its line back"):
            await borrow(there.path)


BORROWER = """
import asyncio, sys
from pathlib import Path
from gateway.control import held
async def main():
    async with held(Path(sys.argv[1]), "lend", wire="line", to="test"):
        print("lent", flush=True)
        await asyncio.sleep(60)
asyncio.run(main())
"""


async def test_a_borrower_that_is_killed_gives_it_back(tmp_path: Path) -> None:
    async with street(tmp_path / "s", busy=0.01) as there:
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-c", BORROWER, str(there.path), stdout=asyncio.subprocess.PIPE
        )
        assert child.stdout
        while not child.stdout.at_eof() and b"lent" not in await child.stdout.readline():
            pass
        assert not there.driver.under_way
        os.kill(child.pid, signal.SIGKILL)
        await there.goes_on()
        await child.wait()


def test_an_installed_gateway_listens_in_run(tmp_path: Path) -> None:
    assert str(socket_of(tmp_path.__class__("/var/lib/lampione"))) == "/run/lampione/control.sock"
    assert socket_of(tmp_path) == tmp_path / "control.sock"
