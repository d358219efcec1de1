"""The receiver's HTTP side: batches and inventories in, commands out by long poll. Every path wants a token."""

import asyncio
import hmac
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import orjson
from aiohttp import web

from gateway.batch import ENCODING, MAX_DECODED, VERSION, BatchError, decode, decompress, encode_receipt
from gateway.errors import CommandError, LinkError, StorageError
from gateway.receiver.inbox import Inbox
from gateway.receiver.store import Arrival

VIA = "http"
OPERATOR, ANY_GATEWAY = "operator", "*"
_GATEWAY = f"/lampione/{VERSION}/{{tenant}}/{{gateway}}"
_LONGEST_POLL = 60.0

Then = Callable[[web.Request], Awaitable[web.StreamResponse]]
Command = Callable[[str, Mapping[str, Any], str], Awaitable[None]]
"""`await command(gateway, document, tenant)`."""


@dataclass(frozen=True, slots=True)
class HttpIn:
    """Where to listen (port 0: any free one), and who may come.

    `tokens`: a gateway's id, `*` for any gateway, or `operator`, who may send commands and read the
    report, to the token each shows. Without `tls` it belongs behind a proxy, or on the loopback.
    """

    tokens: Mapping[str, str]
    host: str = "127.0.0.1"
    port: int = 0
    tls: ssl.SSLContext | None = None


class HttpSide:
    """The listener."""

    def __init__(self, settings: HttpIn, inbox: Inbox, command: Command, report: Callable[[], list[Any]]) -> None:
        self.ready = asyncio.Event()
        self.url = ""
        self._settings, self._inbox, self._command, self._report = settings, inbox, command, report
        self._ordered = asyncio.Event()

    def application(self) -> web.Application:
        """All routes, behind the one middleware that asks for the token."""
        application = web.Application(client_max_size=MAX_DECODED, middlewares=[self._admit])
        application.add_routes(
            [
                web.post(f"{_GATEWAY}/batch/{{lane}}", self._take_batch),
                web.post(f"{_GATEWAY}/inventory", self._take_inventory),
                web.get(f"{_GATEWAY}/cmd", self._give_commands, allow_head=False),
                web.delete(f"{_GATEWAY}/cmd/{{id}}", self._forget_command),
                web.post(f"{_GATEWAY}/cmd", self._order),
                web.get(f"/lampione/{VERSION}/report", self._tell_report, allow_head=False),
            ]
        )
        return application

    async def run(self) -> None:
        """Until cancelled. LinkError where the address cannot be listened at."""
        # A poll ends with its connection, not half a minute later; what was put into the inbox goes on without it.
        runner = web.AppRunner(
            self.application(), access_log=None, shutdown_timeout=1.0, auto_decompress=False, handler_cancellation=True
        )
        await runner.setup()
        try:
            site = web.TCPSite(runner, self._settings.host, self._settings.port, ssl_context=self._settings.tls)
            try:
                await site.start()
            except OSError as error:
                where = f"{self._settings.host}:{self._settings.port}"
                raise LinkError(f"{where} cannot be listened at: {error.strerror}. Choose another port.") from None
            scheme = "https" if self._settings.tls else "http"
            host, port = runner.addresses[0][:2]
            self.url = f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"
            self.ready.set()
            await asyncio.Event().wait()
        finally:
            await runner.cleanup()

    async def order(self, tenant: str, gateway: str, document: Mapping[str, Any]) -> None:
        """Keep a command until the gateway fetches it. StorageError where it cannot be kept."""
        await self._inbox.ask(lambda store: store.order(tenant, gateway, document))
        self._ordered.set()
        self._ordered = asyncio.Event()

    @web.middleware
    async def _admit(self, request: web.Request, handler: Then) -> web.StreamResponse:
        kind, _, token = request.headers.get("Authorization", "").partition(" ")
        shown = token.strip().encode()
        # All are compared, so that the time it takes tells nothing.
        who = [name for name, known in self._settings.tokens.items() if hmac.compare_digest(known.encode(), shown)]
        if kind.lower() != "bearer" or not shown or not who:
            raise web.HTTPUnauthorized(headers={"WWW-Authenticate": "Bearer"}, text="Show a valid token.")
        gateway = request.match_info.get("gateway")
        if request.match_info.handler in (self._order, self._tell_report):
            allowed = {OPERATOR}
        else:
            allowed = set(who) if gateway is None else {ANY_GATEWAY, gateway} - {OPERATOR}
        if not allowed & set(who):
            raise web.HTTPForbidden(text="This token is for something else.")
        try:
            return await handler(request)
        except StorageError as error:
            raise web.HTTPServiceUnavailable(text=str(error)) from None

    async def _take_batch(self, request: web.Request) -> web.Response:
        tenant, gateway, lane = (request.match_info[key] for key in ("tenant", "gateway", "lane"))
        try:
            arrival = Arrival(tenant, VIA, decode(await _plain(request)))
            if (arrival.batch.gateway, arrival.batch.lane) != (gateway, lane):
                raise BatchError(f"it says that it is {arrival.batch.lane} of {arrival.batch.gateway}")
        except BatchError as error:
            raise web.HTTPBadRequest(text=str(error)) from None
        receipt = await self._inbox.put(arrival)
        return _json(encode_receipt(gateway, arrival.batch.lane, receipt))

    async def _take_inventory(self, request: web.Request) -> web.Response:
        tenant, gateway = request.match_info["tenant"], request.match_info["gateway"]
        text = orjson.dumps(await _object(request)).decode()
        now = self._inbox.clock.wall()
        await self._inbox.ask(lambda store: store.tell(tenant, gateway, "inventory", text, VIA, now))
        return web.Response(status=204)

    async def _give_commands(self, request: web.Request) -> web.Response:
        tenant, gateway = request.match_info["tenant"], request.match_info["gateway"]
        try:
            wait = min(_LONGEST_POLL, max(0.0, float(request.query.get("wait", "0"))))
        except ValueError:
            raise web.HTTPBadRequest(text="wait is a number of seconds") from None
        give_up = asyncio.get_running_loop().time() + wait
        while True:
            ordered = self._ordered
            now = self._inbox.clock.wall()
            if waiting := await self._inbox.ask(lambda store: store.orders(tenant, gateway, now)):  # noqa: B023 - awaited
                return _json(orjson.dumps({"v": VERSION, "cmd": waiting}))
            try:
                async with asyncio.timeout_at(give_up):
                    await ordered.wait()
            except TimeoutError:
                return web.Response(status=204)

    async def _forget_command(self, request: web.Request) -> web.Response:
        tenant, gateway, command = (request.match_info[key] for key in ("tenant", "gateway", "id"))
        await self._inbox.ask(lambda store: store.ordered(tenant, gateway, command))
        return web.Response(status=204)

    async def _order(self, request: web.Request) -> web.Response:
        try:
            await self._command(request.match_info["gateway"], await _object(request), request.match_info["tenant"])
        except CommandError as error:
            raise web.HTTPUnprocessableEntity(text=str(error)) from None
        except LinkError as error:
            raise web.HTTPServiceUnavailable(text=str(error)) from None
        return web.Response(status=202)

    async def _tell_report(self, _: web.Request) -> web.Response:
        rows = await asyncio.to_thread(self._report)
        return _json(orjson.dumps([asdict(row) for row in rows]))


async def _plain(request: web.Request) -> bytes:
    """The body, unpacked with our own bound. BatchError where it does not unpack."""
    match request.headers.get("Content-Encoding", "identity"):
        case "identity":
            return await request.read()
        case encoding if encoding == ENCODING:
            return decompress(await request.read())
        case _:
            raise web.HTTPUnsupportedMediaType(text=f"Pack it with {ENCODING}, or not at all.")


async def _object(request: web.Request) -> dict[str, Any]:
    try:
        document = orjson.loads(await _plain(request))
    except (BatchError, orjson.JSONDecodeError) as error:
        raise web.HTTPBadRequest(text=f"not JSON: {error}") from None
    if not isinstance(document, dict):
        raise web.HTTPBadRequest(text="not a JSON object")
    return document


def _json(body: bytes) -> web.Response:
    return web.Response(body=body, content_type="application/json")
