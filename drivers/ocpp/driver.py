"""The listener that chargers call: who they are, whether they may, and one socket for each.

Source: OCPP-J 1.6 §3 (identity at the end of the path, percent-encoded; subprotocol; 404 for who is not known)
and the OCA whitepaper on security, profiles 1 and 2 (basic authentication: user name = identity).
"""

import asyncio
import base64
import binascii
import contextlib
import hmac
import os
import ssl
from collections.abc import Iterator, Sequence
from functools import partial
from urllib.parse import unquote

from aiohttp import web

from drivers.ocpp import orders
from drivers.ocpp.billing import Billing
from drivers.ocpp.charger import Charger
from drivers.ocpp.connection import CLOSE_WITHIN, Connection
from drivers.ocpp.prepare import prepare
from drivers.ocpp.rpc import MAX_FRAME
from drivers.ocpp.settings import DeviceSettings, Settings, split
from drivers.ocpp.strangers import HANDSHAKE_WITHIN, Door, Quarantine
from drivers.ocpp.tags import Cards
from drivers.ocpp.transactions import Ids, Transaction
from gateway.errors import CommandError, ConfigError, LinkError, StorageError
from gateway.model import Command, Device, Event, Json, Lane, Reply
from gateway.ports import Emit, Link

ALIVE = 30.0


class Driver:
    """One listener and the chargers of one link."""

    def __init__(self, link: Link) -> None:
        assert isinstance(link.settings, Settings)
        self._link, self._settings = link, link.settings
        self._devices: dict[str, Device] = {}
        for device in link.devices:
            name = identity(device)
            if name in self._devices:
                why = f"{self._devices[name].id} and {device.id} on `{link.name}` are both the charger `{name}`."
                raise ConfigError(f"{why} Give one of them an `identity` of its own.")
            self._devices[name] = device
        self._chargers: dict[str, Charger] = {}
        self._emit: Emit | None = None
        self._cards: Cards | None = None
        self._quarantine: Quarantine | None = None
        self._refused: set[str] = set()

    async def run(self, emit: Emit) -> None:
        """Listen until cancelled. LinkError: the address cannot be taken. ConfigError: a secret is missing."""
        self._emit = emit
        billing = Billing(self._link, emit)
        self._quarantine = quarantine = Quarantine(self._link, emit)
        self._cards = Cards(self._link, partial(billing.keep, []))
        ids = Ids(self._link.state)
        self._chargers = {
            name: Charger(
                device, self._link, emit, ids=ids, cards=self._cards, billing=billing, elsewhere=self._elsewhere
            )
            for name, device in self._devices.items()
        }
        tls = self._tls()
        self._door = Door(partial(self._serve, quarantine), len(self._chargers))
        host, port = split(self._settings.listen)
        # asyncio refuses a limit for a handshake without TLS.
        within = HANDSHAKE_WITHIN if tls else None
        listening = asyncio.get_running_loop().create_server
        try:
            server = await listening(self._door, host, port, ssl=tls, ssl_handshake_timeout=within)
        except OSError as error:
            why = f"`{self._link.name}` cannot listen on {self._settings.listen}: {error.strerror or error}."
            raise LinkError(f"{why} See `ss -ltnp` for who has it.") from None
        try:
            bound = server.sockets[0].getsockname()
            self._link.bound(f"[{bound[0]}]:{bound[1]}" if ":" in bound[0] else f"{bound[0]}:{bound[1]}")
            while True:
                self._link.alive(ALIVE)
                await asyncio.sleep(ALIVE / 3)
        finally:
            server.close()
            async with asyncio.TaskGroup() as closing:
                for charger in self._chargers.values():
                    if connection := charger.forget():
                        closing.create_task(connection.close())
            await self._door.shutdown(CLOSE_WITHIN)

    async def execute(self, command: Command) -> Reply:
        """See `verbs` and `orders`."""
        charger = next((one for one in self._chargers.values() if one.device.id == command.on), None)
        if charger is None or self._cards is None or self._emit is None:
            raise CommandError("not_connected", f"`{self._link.name}` is not listening; {command.on} cannot be told.")
        return await orders.execute(charger, command, self._cards, self._emit, self._link.clock)

    def strangers(self) -> Sequence[Json]:
        """See `ports.Doorkeeper`."""
        return self._quarantine.listed() if self._quarantine else ()

    def _elsewhere(self) -> Iterator[Transaction]:
        """Open transactions, where a tag may not charge twice."""
        if self._settings.concurrent == "refused":
            for charger in self._chargers.values():
                yield from charger.open_transactions()

    async def _serve(self, quarantine: Quarantine, request: web.BaseRequest) -> web.StreamResponse:
        name = unquote(request.raw_path.partition("?")[0].rstrip("/").rpartition("/")[2])
        charger = self._chargers.get(name)
        if charger is None:
            await quarantine.note(name, _address(request), request.headers.get("Sec-WebSocket-Protocol", ""))
            return _ended(web.Response(status=404, text="This charger is not known here.\n"))
        if self._settings.security != "0" and (why := self._why_not(request, name, charger)):
            await self._note_refused(name, charger, why)
            return _ended(web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="OCPP"'}))
        self._refused.discard(name)
        subprotocol = charger.profile.subprotocol
        socket = web.WebSocketResponse(
            protocols=(subprotocol,), autoping=False, compress=False, max_msg_size=2 * MAX_FRAME, timeout=CLOSE_WITHIN
        )
        if not socket.can_prepare(request).ok:
            return _ended(web.Response(status=426, headers={"Upgrade": "websocket"}))
        await socket.prepare(request)
        if socket.ws_protocol != subprotocol:
            # 101 without a protocol, then close: OCPP-J 1.6 §3.2.
            await socket.close(code=1002)
            await charger.malformed(f"no offer of the subprotocol {subprotocol}; choose OCPP 1.6 JSON in its settings")
            return socket
        self._door.admit(request)
        assert request.transport, "it has just been written to"
        connection = Connection(socket, charger, request.transport.abort)
        await charger.connected(connection)
        try:
            await connection.run(prepare(charger, connection, self._link.clock))
        finally:
            await charger.gone(connection)
        return socket

    def _why_not(self, request: web.BaseRequest, name: str, charger: Charger) -> str:
        """'' where the charger has shown its key, else a sentence."""
        wrong = f"{charger.device.id} reached us but its key is wrong. Enter the same key in the charger and here."
        try:
            key = self._link.secret(f"{charger.device.id}.key")
        except ConfigError as error:
            return f"{charger.device.id} reached us but has no key here. {error}"
        scheme, _, encoded = request.headers.get("Authorization", "").partition(" ")
        try:
            given = base64.b64decode(encoded.strip(), validate=True)
        except (binascii.Error, ValueError):
            return wrong
        # The key may also be sent as the bytes that its hexadecimal digits stand for (A00.FR.205 of OCPP 2.0.1,
        # and what 1.6 chargers with the security extension do).
        allowed = [key.encode()]
        if len(key) % 2 == 0 and all(digit in "0123456789abcdefABCDEF" for digit in key):
            allowed.append(bytes.fromhex(key))
        user, _, password = given.partition(b":")
        right = [hmac.compare_digest(password, one) for one in allowed]
        is_right = scheme.lower() == "basic" and hmac.compare_digest(user, name.encode()) and any(right)
        return "" if is_right else wrong

    async def _note_refused(self, name: str, charger: Charger, why: str) -> None:
        if name not in self._refused:
            self._refused.add(name)
            await self._note(Event("wrong_key", charger.device.id, self._link.clock.boot(), why))

    async def _note(self, event: Event) -> None:
        assert self._emit
        with contextlib.suppress(StorageError):  # the refusal stands without it
            await self._emit([event], lane=Lane.EVENT)

    def _tls(self) -> ssl.SSLContext | None:
        if self._settings.security != "2":
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        # OpenSSL loads a key only from a file: this one is in memory and has no name.
        file = os.memfd_create("certificate", os.MFD_CLOEXEC)
        try:
            pem = f"{self._link.secret('certificate')}\n{self._link.secret('key')}\n"
            with os.fdopen(file, "wb", closefd=False) as sink:
                sink.write(pem.encode())
            context.load_cert_chain(f"/proc/self/fd/{file}")
        except (ssl.SSLError, ValueError) as error:
            why = f"the certificate and key of `{self._link.name}` do not make a pair of PEM texts"
            raise ConfigError(f"{why} ({error}). Store them again.") from None
        finally:
            os.close(file)
        return context


def _address(request: web.BaseRequest) -> str:
    return str(request.remote or "an address that is not known")


def _ended(response: web.Response) -> web.Response:
    """Who is refused calls anew; nobody keeps a connection without being let in."""
    response.force_close()
    return response


def identity(device: Device) -> str:
    """What the charger calls itself: its `identity`, else the asset's id."""
    assert isinstance(device.settings, DeviceSettings)
    return device.settings.identity or device.id.partition("/")[0]
