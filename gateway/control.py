"""The control socket: how `lampione` verbs ask the running gateway, instead of fighting it for ports and files.

A Unix socket that only the gateway's own user and root can open. One JSON object a line: `{"do": "status"}` is
answered `{"answer": …}`, or `{"code": …, "say": …}` where it is refused. A request that holds something (`lend`)
holds it as long as its connection lives and says an empty line now and then: who dies or hangs gives it back.
"""

import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, suppress
from pathlib import Path

from gateway.errors import CommandError, ConfigError, LampioneError, LinkError
from gateway.model import Json
from gateway.supervise import ungrouped

HELD = 10.0
"""Seconds of silence after which the gateway takes back what a connection holds."""
LONGEST_REQUEST = 64 * 1024
LONGEST_ANSWER = 64 * 1024 * 1024
_BEAT = HELD / 5
_SERVED_WITHIN = 60.0
_MOST = 16
_INSTALLED, _RUN = Path("/var/lib/lampione"), Path("/run/lampione")

Answer = Callable[[Mapping[str, Json]], Awaitable[Json]]
"""What a request says to what is answered. LampioneError: it is refused, and why."""
Hold = Callable[[Mapping[str, Json]], AbstractAsyncContextManager[Json]]
"""The same for what is held; left when the connection ends."""


def plain(say: Callable[[], Json]) -> Answer:
    """The answer to a request that has nothing to say."""

    async def answer(_: Mapping[str, Json]) -> Json:
        return say()

    return answer


class NoGatewayError(LampioneError):
    """No gateway runs on this state folder."""


def socket_of(state: Path) -> Path:
    """Where the socket of the gateway with this state folder is: an installed one listens even on a read-only disk."""
    return (_RUN if state == _INSTALLED else state) / "control.sock"


class Control:
    """The gateway's side. Register what is served, then `run`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._answers: dict[str, Answer] = {}
        self._holds: dict[str, Hold] = {}
        self._open = 0

    def answers(self, do: str, answer: Answer) -> None:
        self._answers[do] = answer

    def holds(self, do: str, hold: Hold) -> None:
        self._holds[do] = hold

    async def run(self) -> None:
        """Until cancelled. LinkError: the socket cannot be made."""
        with _bound(self._path) as listening:
            async with asyncio.TaskGroup() as tasks:

                def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                    tasks.create_task(self._serve(reader, writer))

                server = await asyncio.start_unix_server(serve, sock=listening, limit=LONGEST_REQUEST)
                async with server:
                    await server.serve_forever()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open += 1
        try:
            if self._open > _MOST:
                await _say(writer, {"code": "busy", "say": "Too many ask the gateway at once. Try again."})
                return
            async with asyncio.timeout(_SERVED_WITHIN) as limit:
                while line := await reader.readline():
                    limit.reschedule(asyncio.get_running_loop().time() + _SERVED_WITHIN)
                    await self._reply(line, reader, writer, limit)
        except ValueError:
            await _say(writer, {"code": "bad_request", "say": f"A request has at most {LONGEST_REQUEST} bytes."})
        except (OSError, TimeoutError):
            return  # who does not read or speak any more is not waited for
        finally:
            self._open -= 1
            writer.close()

    async def _reply(
        self, line: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, limit: asyncio.Timeout
    ) -> None:
        try:
            do, args = _parsed(line)
            if answer := self._answers.get(do):
                await _say(writer, {"answer": await answer(args)})
            elif hold := self._holds.get(do):
                async with hold(args) as held:
                    await _say(writer, {"answer": held})
                    limit.reschedule(None)
                    await _while_held(reader)
                limit.reschedule(asyncio.get_running_loop().time() + _SERVED_WITHIN)
            else:
                raise CommandError("unknown_verb", f"This gateway serves no `{do}`. Is it of another version?")
        except CommandError as error:
            await _say(writer, {"code": error.code, "say": str(error)})
        except LampioneError as error:
            await _say(writer, {"code": "failed", "say": str(error)})


async def ask(path: Path, do: str, **args: Json) -> Json:
    """What the gateway at `path` answers. NoGatewayError: none runs; CommandError: it refuses."""
    async with _connected(path) as (reader, writer):
        return await _exchange(reader, writer, do, args)


@asynccontextmanager
async def held(path: Path, do: str, **args: Json) -> AsyncIterator[Json]:
    """Hold something of the gateway's, as long as the block runs. Errors as of `ask`; LinkError: it was taken back."""
    async with _connected(path) as (reader, writer):
        answer = await _exchange(reader, writer, do, args)
        with ungrouped():
            async with asyncio.TaskGroup() as tasks:
                keeper = tasks.create_task(_keep(reader, writer))
                yield answer
                keeper.cancel()


def _parsed(line: bytes) -> tuple[str, Mapping[str, Json]]:
    try:
        said = json.loads(line)
    except ValueError:
        said = None
    if not isinstance(said, dict) or not isinstance(said.get("do"), str):
        raise CommandError("bad_request", 'A request is one line of JSON: {"do": "status"}.')
    return said.pop("do"), said


async def _while_held(reader: asyncio.StreamReader) -> None:
    with suppress(TimeoutError):
        while True:
            async with asyncio.timeout(HELD):
                if await reader.readline() != b"\n":
                    return


async def _keep(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Say that we live; whatever the gateway says now is that it is over."""
    while True:
        writer.write(b"\n")
        try:
            async with asyncio.timeout(_BEAT):
                await reader.readline()
        except TimeoutError:
            continue
        except OSError:
            pass
        raise LinkError("The gateway took its line back. Start again when it runs.")


async def _exchange(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, do: str, args: Mapping[str, Json]
) -> Json:
    try:
        async with asyncio.timeout(_SERVED_WITHIN):
            await _say(writer, {**args, "do": do})
            line = await reader.readline()
    except (OSError, TimeoutError):
        line = b""
    if not line:
        raise LinkError("The gateway does not answer on its control socket. Look at its log.")
    reply = json.loads(line)
    if "answer" not in reply:
        raise CommandError(reply["code"], reply["say"])
    answer: Json = reply["answer"]
    return answer


async def _say(writer: asyncio.StreamWriter, said: Mapping[str, Json]) -> None:
    writer.write(json.dumps(said, separators=(",", ":")).encode() + b"\n")
    await writer.drain()


@asynccontextmanager
async def _connected(path: Path) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    none = f"No gateway runs here ({path})."
    connecting = socket.socket(socket.AF_UNIX)
    try:
        with _short(path) as name:
            connecting.connect(name)
    except PermissionError:
        connecting.close()
        raise ConfigError(f"{path} may be opened by root and the gateway's own user only. Use `sudo`.") from None
    except OSError:
        connecting.close()
        raise NoGatewayError(none) from None
    reader, writer = await asyncio.open_unix_connection(sock=connecting, limit=LONGEST_ANSWER)
    try:
        yield reader, writer
    finally:
        writer.close()


@contextmanager
def _bound(path: Path) -> Iterator[socket.socket]:
    """A socket that nobody can connect to before it is ours alone: it listens only when its mode is set."""
    listening = socket.socket(socket.AF_UNIX)
    try:
        try:
            path.parent.mkdir(mode=0o700, exist_ok=True)
            path.unlink(missing_ok=True)
            with _short(path) as name:
                listening.bind(name)
            path.chmod(0o600)
        except OSError as error:
            raise LinkError(
                f"The control socket {path} cannot be made ({error.strerror}): `lampione` cannot ask this gateway."
            ) from None
        yield listening
    finally:
        listening.close()
        with suppress(OSError):
            path.unlink()


@contextmanager
def _short(path: Path) -> Iterator[str]:
    """A name for `path` that fits into the 108 bytes of a socket address, however deep its folder lies."""
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
