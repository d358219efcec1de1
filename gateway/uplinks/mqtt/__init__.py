"""MQTT 5: batches up, the platform's acknowledgements, commands down.

A PUBACK is not delivery: it says that the broker has a message, not that a platform has stored it. So a
batch carries a response topic and correlation data, and only the platform's answer settles it.
`ack: puback` does without, for platforms that cannot answer, and is called degraded wherever it shows.
"""

import asyncio
import os
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import aiomqtt
import orjson
import structlog
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from pydantic import AfterValidator, Field

from gateway.batch import ENCODING, MEDIA_TYPE, VERSION, Batch, compress, encode
from gateway.certificates import Certificates
from gateway.errors import StorageError, UplinkError
from gateway.fields import Duration, Secret
from gateway.model import Json, Receipt
from gateway.ports import Platform, Receive
from gateway.uplinks import UplinkKeys, address, beating, receipt_of, together, unreachable
from gateway.uplinks.mqtt.connection import LOST, WINDOW, Connection, check

PORTS = {"mqtts": 8883, "mqtt": 1883}
_CONNECT, _LEAVE = 30.0, 3.0
_NO_SUBSCRIBERS = 0x10

log = structlog.get_logger()


def _mqtt_url(url: str) -> str:
    address(url, PORTS)
    return url


class Settings(UplinkKeys):
    """An uplink over MQTT 5. `mqtts://` is TLS; `certificate` and `key` are PEM texts, `ca` is a file."""

    url: Annotated[str, AfterValidator(_mqtt_url)]
    username: str | None = None
    password: Secret | None = None
    ca: Path | None = None
    certificate: Secret | None = None
    key: Secret | None = None
    ack: Literal["application", "puback"] = "application"
    ack_timeout: Duration = 15.0
    keepalive: Annotated[Duration, Field(ge=2, le=3600)] = 30.0
    """A connection in which nothing comes, or gets through, for so long is given up, at most half as much later."""
    session: Duration = 86_400.0
    """How long the broker keeps commands for a gateway that is away."""


class Uplink:
    """A `gateway.ports.Uplink` over one broker."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._settings: Settings = platform.settings
        self._root = f"lampione/{VERSION}/{platform.tenant}/{platform.gateway}"
        has_own = self._settings.certificate and self._settings.key
        self._certificates = Certificates(self._settings.ca, self._own if has_own else None)
        self._connection: Connection | None = None
        self._open = asyncio.Event()
        self._waiting: dict[bytes, tuple[Batch, asyncio.Future[Receipt]]] = {}
        # Random, so that an answer which the broker kept from an earlier process never matches.
        self._correlation = int.from_bytes(os.urandom(8))

    @property
    def window(self) -> int:
        """Batches that the broker takes at once; it grants them anew at each connection."""
        return self._connection.window if self._connection else WINDOW

    async def ready(self) -> None:
        """Return as soon as batches can be sent."""
        await self._open.wait()

    async def run(self, receive: Receive) -> None:
        """Hold one connection until cancelled. UplinkError says in one sentence why there is none."""
        connection = await self._dial()
        with beating(self._platform):
            await self._enter(connection)
            try:
                inventory = self._platform.inventory.now
                await self._introduce(connection, inventory)
                self._connection = connection
                self._open.set()
                self._certificates.peer = connection.peer
                await together(
                    self._certificates.watch(self._platform),
                    self._take_commands(connection, receive),
                    self._keep_introduced(connection, inventory["version"]),
                )
            finally:
                self._open.clear()
                self._connection = None
                self._fail_waiters()
                connection.say(f"{self._root}/state", self._state("offline"))
                await self._leave(connection)

    async def send(self, batch: Batch) -> Receipt:
        """What the platform settled of `batch`. UplinkError: nothing is known, send it again."""
        connection = self._connection
        if connection is None:
            raise UplinkError(LOST)
        self._correlation = (self._correlation + 1) % 2**64
        correlation = self._correlation.to_bytes(8)
        payload, properties = _envelope(encode(batch), MEDIA_TYPE)
        properties.ResponseTopic = f"{self._root}/ack"
        properties.CorrelationData = correlation
        topic = f"{self._root}/batch/{batch.lane}"
        wait = self._settings.ack_timeout
        answer: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
        self._waiting[correlation] = (batch, answer)
        try:
            # However slow the line is; whether it is dead the connection notices by itself.
            puback = await connection.hand_over(topic, payload, properties)
            async with asyncio.timeout(wait):
                if check(await puback, topic) == _NO_SUBSCRIBERS:
                    raise UplinkError("The broker has nobody to give our batches to. Start the platform's receiver.")
                if self._settings.ack == "puback":
                    return Receipt(batch.epoch, (batch.span,))
                return await answer
        except TimeoutError:
            raise UplinkError(
                f"The broker takes our batches, but no platform answers within {wait:g} s. Check its receiver."
            ) from None
        finally:
            del self._waiting[correlation]
            answer.cancel()

    def _settled(self, message: aiomqtt.Message) -> None:
        correlation = getattr(message.properties, "CorrelationData", None)
        batch, answer = self._waiting.get(correlation or b"", (None, None))
        if batch is None or answer is None or answer.done():
            return
        try:
            answer.set_result(receipt_of(message.payload, batch))
        except UplinkError as error:
            if error.code:
                answer.set_exception(error)
                return
            log.warning("acknowledgement_ignored", uplink=self._platform.name, why=str(error))

    def _fail_waiters(self) -> None:
        for _, answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(UplinkError(LOST))

    async def _take_commands(self, connection: Connection, receive: Receive) -> None:
        while message := await connection.arrived.get():
            try:
                await receive(message.payload, message.retain)
            except StorageError as error:
                # Not acknowledged: the broker has it still, and gives it again at the next connection.
                log.warning("command_not_journalled", uplink=self._platform.name, why=str(error))
            else:
                connection.acknowledge(message)
        raise UplinkError(LOST)

    async def _introduce(self, connection: Connection, inventory: Mapping[str, Json]) -> None:
        try:
            async with asyncio.timeout(_CONNECT):
                await connection.listen(f"{self._root}/ack", qos=0)
                await connection.listen(f"{self._root}/cmd", qos=1)
                await self._tell_inventory(connection, inventory)
                payload, properties = _envelope(self._state("online"), "application/json")
                await connection.deliver(f"{self._root}/state", payload, properties, retain=True)
        except (aiomqtt.MqttError, TimeoutError):
            raise UplinkError(LOST) from None

    async def _tell_inventory(self, connection: Connection, inventory: Mapping[str, Json]) -> None:
        payload, properties = _envelope(orjson.dumps(dict(inventory)), "application/json")
        await connection.deliver(f"{self._root}/inventory", payload, properties, retain=True)

    async def _keep_introduced(self, connection: Connection, told: object) -> None:
        """A device has said who it is: the broker keeps the inventory of now. `told`: the version that it has."""
        while True:
            inventory = await self._platform.inventory.other_than(told)
            try:
                async with asyncio.timeout(_CONNECT):
                    await self._tell_inventory(connection, inventory)
            except (aiomqtt.MqttError, TimeoutError):
                raise UplinkError(LOST) from None
            told = inventory["version"]

    def _state(self, state: str) -> bytes:
        return orjson.dumps({"v": VERSION, "gw": self._platform.gateway, "state": state})

    async def _dial(self) -> Connection:
        """The connection to be, not yet opened."""
        settings, secret = self._settings, self._platform.secret
        url = address(settings.url, PORTS)
        stays = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        stays.SessionExpiryInterval = round(settings.session)
        connection = Connection(
            url.hostname or "",
            url.port or PORTS[url.scheme],
            identifier=f"lampione-{self._platform.tenant}-{self._platform.gateway}-{self._platform.name}",
            username=settings.username,
            password=secret("password") if settings.password else None,
            will=aiomqtt.Will(f"{self._root}/state", self._state("offline"), qos=1, retain=True),
            keepalive=settings.keepalive,
            clean_start=False,
            properties=stays,
            tls_context=await asyncio.to_thread(self._certificates.context) if url.scheme == "mqtts" else None,
        )
        connection.routes[f"{self._root}/ack"] = self._settled
        return connection

    def _own(self) -> tuple[str, str]:
        return self._platform.secret("certificate"), self._platform.secret("key")

    async def _enter(self, connection: Connection) -> None:
        try:
            async with asyncio.timeout(_CONNECT):
                await connection.__aenter__()
        except aiomqtt.MqttCodeError as error:
            raise UplinkError(_refusal(error, self._settings)) from None
        except (aiomqtt.MqttError, TimeoutError):
            cause = connection.cause
            is_about_tls = isinstance(cause, ssl.SSLError | ConnectionAbortedError | ConnectionResetError)
            ended = self._certificates.warning(self._platform.clock, days=0) if is_about_tls else ""
            raise UplinkError(ended or _silence(cause, self._settings)) from None

    async def _leave(self, connection: Connection) -> None:
        try:
            async with asyncio.timeout(_LEAVE):
                await connection.__aexit__(None, None, None)
        except (aiomqtt.MqttError, TimeoutError) as error:
            log.debug("disconnect", uplink=self._platform.name, why=str(error))


def _envelope(plain: bytes, media_type: str) -> tuple[bytes, Properties]:
    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    properties.ContentType = media_type
    packed = compress(plain)
    if packed is None:
        return plain, properties
    properties.UserProperty = ("content-encoding", ENCODING)
    return packed, properties


def _refusal(error: aiomqtt.MqttCodeError, settings: Settings) -> str:
    code = getattr(error.rc, "value", error.rc)
    match code:
        case 0x86 | 0x87 if settings.password:
            return "The broker refuses our password. Re-enter it."
        case 0x86 | 0x87 if settings.certificate:
            return "The broker refuses our certificate. Have it renewed, or allowed there."
        case 0x86 | 0x87:
            return "The broker lets nobody in without a password. Add `username` and `password: secret`."
        case 0x84 | 0x01:
            return "The broker does not speak MQTT 5. Update it, or use another uplink."
        case 0x85:
            return "The broker refuses our client name. Let it accept long names, or another uplink have this one."
        case 0x8A:
            return "The broker has banned us. Ask whoever runs it."
        case _:
            return f"The broker refuses us for now ({error}). It is tried again by itself."


def _silence(cause: OSError | None, settings: Settings) -> str:
    """Why there was no answer to our CONNECT."""
    if cause is None or (isinstance(cause, ConnectionAbortedError) and settings.url.startswith("mqtt:")):
        return f"{settings.url} does not answer as an MQTT broker. Check the port, and mqtt:// or mqtts://."
    if isinstance(cause, ConnectionAbortedError):
        return "The broker ends TLS at once. If it wants our certificate, add `certificate` and `key`, or renew them."
    return unreachable("broker", cause, settings.url)
