"""The same batches over HTTPS: the body of the answer is the platform's acknowledgement.

Paths mirror the topics of MQTT, under `url`: POST batch/<lane> and inventory; GET cmd waits for commands,
and DELETE cmd/<id> says that one is journalled here. Only an uplink that may give commands asks for them.
"""

import asyncio
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from pathlib import Path
from typing import Annotated
from urllib.parse import quote

import aiohttp
import orjson
import structlog
from pydantic import AfterValidator

from gateway.batch import ENCODING, MEDIA_TYPE, VERSION, Batch, compress, encode
from gateway.certificates import Certificates
from gateway.errors import REFUSED, TOO_LARGE, StorageError, UplinkError
from gateway.fields import Duration, Secret
from gateway.model import Json, Receipt
from gateway.ports import Platform, Receive
from gateway.uplinks import UplinkKeys, address, beating, receipt_of, together, unreachable

PORTS = {"https": 443, "http": 80}
WINDOW = 8
"""Batches under way at once: each has a connection of its own."""
MAX_ANSWER = 1024 * 1024
LOST = "The connection to the platform is lost. It is tried again by itself."
_NOT_OFFERED = {HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.NOT_IMPLEMENTED}
_NOT_THE_BATCH = {
    HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED,
    HTTPStatus.PROXY_AUTHENTICATION_REQUIRED, HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.GONE, HTTPStatus.TOO_EARLY,
    HTTPStatus.TOO_MANY_REQUESTS,
}  # fmt: skip
_LONGEST_PAUSE = 600.0
JSON = "application/json"
_POLL = 30
"""Seconds that the platform may wait for a command before it answers that there is none."""
_AT_LEAST = 5.0
_ASK_AGAIN = 30.0

log = structlog.get_logger()


def _http_url(url: str) -> str:
    address(url, PORTS)
    return url.rstrip("/")


class Settings(UplinkKeys):
    """An uplink over HTTP 1.1. `ca` is a file with the certificate of the authority that signed the platform's."""

    url: Annotated[str, AfterValidator(_http_url)]
    token: Secret
    ca: Path | None = None
    timeout: Duration = 15.0


class _Refused(Exception):
    """An answer that is not 2xx; the text is its body."""

    def __init__(self, status: int, text: str, pause: float = 0.0) -> None:
        super().__init__(text)
        self.status, self.pause = status, pause

    def of_batch(self) -> UplinkError:
        """As delivery is told of it."""
        if self.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            return UplinkError(_why(self), TOO_LARGE)
        is_client = HTTPStatus.BAD_REQUEST <= self.status < HTTPStatus.INTERNAL_SERVER_ERROR
        return UplinkError(_why(self), REFUSED if is_client and self.status not in _NOT_THE_BATCH else "", self.pause)


class Uplink:
    """A `gateway.ports.Uplink` over HTTP."""

    window = WINDOW

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._settings: Settings = platform.settings
        self._root = f"{self._settings.url}/lampione/{VERSION}/{quote(platform.tenant)}/{quote(platform.gateway)}"
        self._certificates = Certificates(self._settings.ca)
        self._session: aiohttp.ClientSession | None = None
        self._token: str | None = None
        self._open = asyncio.Event()

    async def ready(self) -> None:
        """Return as soon as batches can be sent."""
        await self._open.wait()

    async def run(self, receive: Receive) -> None:
        """Until cancelled. UplinkError: the platform cannot be reached, or does not know us."""
        # Authorities are 30 ms of work to read: nothing for each try to reach a dead platform that has no TLS.
        tls = await asyncio.to_thread(self._certificates.context) if self._settings.url.startswith("https:") else True
        connector = aiohttp.TCPConnector(limit=WINDOW + 2, ssl=tls)
        with beating(self._platform):
            async with aiohttp.ClientSession(connector=connector) as session:
                self._session = session
                try:
                    inventory = self._platform.inventory.now
                    await self._introduce(inventory)
                    self._open.set()
                    await together(
                        self._certificates.watch(self._platform),
                        self._ask_for_commands(receive),
                        self._keep_introduced(inventory["version"]),
                    )
                except _Refused as refused:
                    raise UplinkError(_why(refused), pause=refused.pause) from None
                finally:
                    self._open.clear()
                    self._session = None

    async def send(self, batch: Batch) -> Receipt:
        """What the platform settled of `batch`. UplinkError: nothing is known, send it again."""
        try:
            answer = await self._ask("POST", f"batch/{batch.lane}", encode(batch), MEDIA_TYPE)
        except _Refused as refused:
            raise refused.of_batch() from None
        return receipt_of(answer, batch)

    async def _introduce(self, inventory: Mapping[str, Json]) -> None:
        try:
            await self._ask("POST", "inventory", orjson.dumps(dict(inventory)))
        except _Refused as refused:
            if refused.status not in _NOT_OFFERED:
                raise

    async def _keep_introduced(self, told: object) -> None:
        """`told`: the version that the platform has."""
        while True:
            inventory = await self._platform.inventory.other_than(told)
            try:
                await self._introduce(inventory)
            except _Refused as refused:
                raise UplinkError(_why(refused), pause=refused.pause) from None
            told = inventory["version"]

    async def _ask_for_commands(self, receive: Receive) -> None:
        try:
            while self._settings.commands:
                await self._take_commands(receive)
        except _Refused as refused:
            raise UplinkError(_why(refused), pause=refused.pause) from None

    async def _take_commands(self, receive: Receive) -> None:
        """Ask once, wait at the platform for commands, and have each journalled before it forgets them."""
        loop = asyncio.get_running_loop()
        ask_again = loop.time() + _AT_LEAST
        try:
            answer = await self._ask("GET", f"cmd?wait={_POLL}", wait=_POLL + self._settings.timeout)
            commands = orjson.loads(answer)["cmd"] if answer else []
            for command in commands:
                await receive(orjson.dumps(command), False)  # noqa: FBT003 - HTTP retains nothing
                await self._ask("DELETE", f"cmd/{quote(command['id'], safe='')}")
                ask_again = 0.0
        except StorageError as error:
            log.warning("command_not_journalled", uplink=self._platform.name, why=str(error))
            ask_again = loop.time() + _ASK_AGAIN
        except (orjson.JSONDecodeError, KeyError, TypeError) as error:
            log.warning("commands_not_understood", uplink=self._platform.name, why=repr(error))
            ask_again = loop.time() + _ASK_AGAIN
        except _Refused as refused:
            if refused.status not in _NOT_OFFERED:
                raise
            ask_again = loop.time() + _ASK_AGAIN
        await asyncio.sleep(max(0.0, ask_again - loop.time()))

    async def _ask(
        self, method: str, path: str, body: bytes | None = None, media_type: str = JSON, wait: float | None = None
    ) -> bytes:
        """The body of a 2xx answer. _Refused: any other status. UplinkError: no answer."""
        if self._session is None:
            raise UplinkError(LOST)
        self._token = self._token or self._platform.secret("token")
        headers = {"Authorization": f"Bearer {self._token}"}
        if body is not None:
            packed = compress(body)
            headers |= {"Content-Type": media_type} | ({"Content-Encoding": ENCODING} if packed else {})
            body = packed or body
        timeout = aiohttp.ClientTimeout(total=wait or self._settings.timeout)
        url = f"{self._root}/{path}"
        try:
            async with self._session.request(
                method, url, data=body, headers=headers, timeout=timeout, allow_redirects=False
            ) as response:
                answer = await _read(response)
        except aiohttp.ClientConnectorCertificateError as error:
            raise UplinkError(unreachable("platform", _certificate(error), self._settings.url)) from None
        except aiohttp.ClientConnectorError as error:
            raise UplinkError(unreachable("platform", error.os_error, self._settings.url)) from None
        except TimeoutError:
            raise UplinkError(unreachable("platform", TimeoutError(), self._settings.url)) from None
        except aiohttp.ClientError:
            raise UplinkError(LOST) from None
        if response.ok and response.status < HTTPStatus.MULTIPLE_CHOICES:
            return answer
        if response.status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            self._token = None
        raise _Refused(response.status, answer.decode(errors="replace").strip()[:200], _pause(response.headers))


def _pause(headers: Mapping[str, str]) -> float:
    """Seconds of Retry-After (RFC 9110, 10.2.3). A date counts from the answer's own."""
    wanted = headers.get("Retry-After", "").strip()
    if wanted.isdecimal():
        return min(float(wanted), _LONGEST_PAUSE)
    try:
        seconds = (parsedate_to_datetime(wanted) - parsedate_to_datetime(headers["Date"])).total_seconds()
    except (KeyError, TypeError, ValueError):
        return 0.0
    return min(max(0.0, seconds), _LONGEST_PAUSE)


async def _read(response: aiohttp.ClientResponse) -> bytes:
    answer = bytearray()
    async for chunk in response.content.iter_chunked(65536):
        answer += chunk
        if len(answer) > MAX_ANSWER:
            raise UplinkError("The platform's answer is too long to be an acknowledgement. Check the url.")
    return bytes(answer)


def _certificate(error: aiohttp.ClientConnectorCertificateError) -> OSError:
    cause = error.certificate_error
    return cause if isinstance(cause, OSError) else OSError(str(cause))


def _why(refused: _Refused) -> str:
    match refused.status:
        case HTTPStatus.UNAUTHORIZED | HTTPStatus.FORBIDDEN:
            return "The platform refuses our token. Re-enter it."
        case HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            return "The platform refuses our batches as too large. Raise its limit to 1 MB."
        case HTTPStatus.REQUEST_TIMEOUT | HTTPStatus.TOO_MANY_REQUESTS:
            return "The platform has too much to do. It is tried again by itself."
        case HTTPStatus.NOT_FOUND | HTTPStatus.METHOD_NOT_ALLOWED:
            return "The platform does not take batches at this address. Correct the url."
        case status if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return f"The platform is in trouble itself ({status}). It is tried again by itself."
        case status if status < HTTPStatus.BAD_REQUEST:
            return f"The platform has moved ({status}). Write its new address as url."
        case status:
            return f"The platform refuses a batch ({status}: {refused}). Ask whoever runs it."
