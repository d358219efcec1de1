"""The page's server: every route behind one door, static files from the package, changes as an event stream."""

import asyncio
import base64
import hashlib
import mimetypes
import re
from collections.abc import Awaitable, Callable, Sequence
from importlib import resources

import orjson
from aiohttp import web

from gateway.errors import LinkError
from gateway.status import Status
from gateway.web.entrance import Entrance, Patience, is_own_host, own_names
from gateway.web.metrics import MEDIA_TYPE, metrics

BEAT = 5.0
"""Longest silence on an event stream: the page takes more than three of it for a lost connection."""
_WRITE_WITHIN = 20.0
_STREAMS = 16
_LARGEST_REQUEST = 4096
_ENTRANCE = "enter.html"
_FRONT = "index.html"
_ENTERED = (
    b'<!doctype html><meta http-equiv="refresh" content="0;url=/"><title>Lampione</title><a href="/">Lampione</a>'
)

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Page:
    """`listen` is host:port, port 0 for any; `bound` is told where it listens; `names`: further names of this host."""

    def __init__(
        self,
        status: Status,
        token: str,
        listen: str,
        *,
        bound: Callable[[str], None],
        names: Sequence[str] = (),
        has_metrics: bool = False,
    ) -> None:
        self._status, self._listen, self._bound, self._has_metrics = status, listen, bound, has_metrics
        self._entrance, self._patience = Entrance(token), Patience()
        self._names = own_names(names)
        self._cookie = "lampione"
        self._streams = 0
        files = {file.name: file.read_bytes() for file in (resources.files(__package__) / "static").iterdir()}
        self._closed = files.pop(_ENTRANCE)
        self._files = files
        self._headers = _headers(self._closed.decode())

    async def run(self) -> None:
        """Until cancelled. LinkError: the address cannot be listened on."""
        runner = web.AppRunner(
            self.application(), access_log=None, handler_cancellation=True, shutdown_timeout=0.5, keepalive_timeout=30
        )
        await runner.setup()
        try:
            host, _, port = self._listen.rpartition(":")
            site = web.TCPSite(runner, host.strip("[]") or None, int(port))
            try:
                await site.start()
            except OSError as error:
                raise LinkError(
                    f"The page cannot listen on {self._listen}: {error.strerror}. "
                    "Stop what holds the port, or choose another for `page: listen`."
                ) from None
            host, port = runner.addresses[0][:2]
            # Cookies are not told apart by port: two gateways on one machine would put out each other's sessions.
            self._cookie = f"lampione-{port}"
            self._bound(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
            await asyncio.Event().wait()
        finally:
            await runner.cleanup()

    def application(self) -> web.Application:
        """The routes behind the door."""
        application = web.Application(middlewares=[self._door], client_max_size=_LARGEST_REQUEST)
        application.on_response_prepare.append(self._harden)
        application.router.add_get("/", self._front)
        application.router.add_post("/", self._front)
        application.router.add_get("/api/status", self._snapshot)
        application.router.add_get("/api/events", self._events, allow_head=False)
        if self._has_metrics:
            application.router.add_get("/metrics", self._metrics)
        for name in self._files:
            if name != _FRONT:
                application.router.add_get(f"/{name}", self._file)
        return application

    @web.middleware
    async def _door(self, request: web.Request, handler: Answer) -> web.StreamResponse:
        """Default deny: nothing is answered, not even that a path is unknown, before a token or session is shown."""
        if not is_own_host(request.headers.get("Host", ""), self._names):
            return web.Response(status=421, text="This is not the host that you asked for.")
        if self._entrance.is_session(request.cookies.get(self._cookie, "")):
            return await handler(request)
        kind, _, bearer = request.headers.get("Authorization", "").partition(" ")
        if kind.lower() == "bearer":
            return await self._judge(request, bearer.strip()) or await handler(request)
        offered = await _offered(request)
        if offered is None:
            return self._refuse(401)
        return await self._judge(request, offered) or self._let_in()

    async def _judge(self, request: web.Request, token: str) -> web.Response | None:
        """The refusal of a token, or None where it is the right one."""
        address, now = request.remote or "", asyncio.get_running_loop().time()
        pause = self._patience.pause(address, now)
        if pause > 0:
            return self._refuse(429, {"Retry-After": str(int(pause) + 1)})
        if not self._entrance.is_token(token):
            self._patience.wrong(address, now)
            return self._refuse(401)
        self._patience.right(address)
        return None

    def _refuse(self, status: int, headers: dict[str, str] | None = None) -> web.Response:
        return web.Response(
            status=status,
            body=self._closed,
            content_type="text/html",
            charset="utf-8",
            headers={"WWW-Authenticate": 'Bearer realm="lampione"'} | (headers or {}),
        )

    def _let_in(self) -> web.Response:
        """Sets the session and goes to `/`, so that the token leaves the address bar.

        Not a 303: a browser that came by a link elsewhere would follow it without a SameSite=Strict cookie.
        """
        response = web.Response(body=_ENTERED, content_type="text/html", charset="utf-8")
        response.set_cookie(self._cookie, self._entrance.session(), httponly=True, samesite="Strict", path="/")
        return response

    async def _harden(self, _request: web.Request, response: web.StreamResponse) -> None:
        response.headers.update(self._headers)

    async def _front(self, request: web.Request) -> web.Response:
        if request.method == "POST" or "token" in request.query:
            return self._let_in()
        return web.Response(body=self._files[_FRONT], content_type="text/html", charset="utf-8")

    async def _file(self, request: web.Request) -> web.Response:
        name = request.path.removeprefix("/")
        kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
        return web.Response(body=self._files[name], content_type=kind, charset="utf-8")

    async def _snapshot(self, _request: web.Request) -> web.Response:
        return web.Response(body=orjson.dumps(self._status.snapshot()), content_type="application/json")

    async def _metrics(self, _request: web.Request) -> web.Response:
        return web.Response(body=metrics(self._status.snapshot()).encode(), headers={"Content-Type": MEDIA_TYPE})

    async def _events(self, request: web.Request) -> web.StreamResponse:
        if self._streams >= _STREAMS:
            return web.Response(status=503, text="Too many pages are open.", headers={"Retry-After": "10"})
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
        self._streams += 1
        try:
            await response.prepare(request)
            await self._tell_changes(response)
        except (ConnectionError, TimeoutError):
            pass
        finally:
            self._streams -= 1
        return response

    async def _tell_changes(self, response: web.StreamResponse) -> None:
        """All first, then what changed, and at least every BEAT seconds that nothing did."""
        seen = 0
        await response.write(b"retry: 1000\n\n")
        while True:
            snapshot = self._status.snapshot(after=seen)
            seen = self._status.version
            async with asyncio.timeout(_WRITE_WITHIN):
                await response.write(b"data: " + orjson.dumps(snapshot) + b"\n\n")
            try:
                async with asyncio.timeout(BEAT):
                    await self._status.changed(seen)
            except TimeoutError:
                continue


async def _offered(request: web.Request) -> str | None:
    """The token in `/?token=…`, or in the entrance form that is posted to `/`."""
    if request.path != "/":
        return None
    if request.method == "POST":
        try:
            token = (await request.post()).get("token")
        except (ValueError, web.HTTPRequestEntityTooLarge):
            return None
        return token.strip() if isinstance(token, str) else None
    return request.query.get("token")


def _headers(closed: str) -> dict[str, str]:
    """Nothing from elsewhere, nothing inline but the entrance's own style, no framing, nothing kept or sniffed."""
    style = re.search(r"<style>(.*?)</style>", closed, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style[1].encode() if style else b"").digest()).decode()
    return {
        "Content-Security-Policy": "default-src 'self'; "
        f"style-src 'self' 'sha256-{digest}'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-store",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Server": "lampione",
    }
