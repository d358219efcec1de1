"""MQTT 5: batches up, the platform's acknowledgements, commands down.

A PUBACK is not delivery: it says that the broker has a message, not that a platform has stored it. So a
batch carries a response topic and correlation data, and only the platform's answer settles it.
`ack: puback` does without, for platforms that cannot answer, and is called degraded wherever it shows.
"""

import asyncio
import os
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import aiomqtt
import orjson
import structlog
from paho.mqtt.client import MQTT_ERR_SUCCESS
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions
from pydantic import AfterValidator

from gateway.batch import ENCODING, MEDIA_TYPE, VERSION, Batch, compress, encode
from gateway.errors import REFUSED, TOO_LARGE, StorageError, UplinkError
from gateway.fields import Duration, Secret
from gateway.model import Receipt
from gateway.ports import Platform, Receive
from gateway.uplinks import UplinkKeys, address, beating, receipt_of, unreachable

PORTS = {"mqtts": 8883, "mqtt": 1883}
WINDOW = 32
"""Most messages that the broker has not yet acknowledged; fewer where it says so itself."""
LOST = "The connection to the broker is lost. It is tried again by itself."
_CONNECT, _LEAVE = 30.0, 3.0
_NO_SUBSCRIBERS, _REFUSED = 0x10, 0x80
_ABOUT_THE_MESSAGE = {0x95: TOO_LARGE, 0x99: REFUSED}
"""PUBACK reason codes that another message would not get: packet too large, payload format invalid."""
_RETAINED_ONCE = 1

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
    keepalive: Duration = 30.0
    session: Duration = 86_400.0
    """How long the broker keeps commands for a gateway that is away."""


class Connection(aiomqtt.Client):
    """aiomqtt as delivery needs it; one object is one connection, so that nothing old is ever sent again by paho.

    aiomqtt 2.5 takes a refused PUBACK for success, leaves publishers waiting when the connection is lost,
    and acknowledges a message before anybody has stored it.
    """

    def __init__(self, hostname: str, port: int, **options: Any) -> None:
        super().__init__(hostname, port, protocol=aiomqtt.ProtocolVersion.V5, max_inflight_messages=0, **options)
        self._client.manual_ack_set(on=True)
        self.cause: OSError | None = None
        """What stopped the connection attempt, which aiomqtt reduces to a text."""
        self.routes: dict[str, Callable[[aiomqtt.Message], None]] = {}
        """Topics whose messages are taken at once, with QoS 0."""
        self.arrived: asyncio.Queue[aiomqtt.Message | None] = asyncio.Queue()
        """All other messages, each to be given to `acknowledge`; None once the connection is lost."""
        self.largest = 0xFFFFFFF
        self._window = asyncio.Semaphore(WINDOW)
        self._answers: dict[int, asyncio.Future[int]] = {}
        self._abandoned = False

    async def __aenter__(self) -> Self:
        entered = False
        try:
            await super().__aenter__()
            entered = True
        finally:
            if not entered:
                self._abandon()
        self._disconnected.add_done_callback(self._fail_waiters)
        return self

    async def __aexit__(self, *exception: Any) -> None:  # noqa: PYI036 - handed on as they come
        try:
            await super().__aexit__(*exception)
        finally:
            self._abandon()

    async def deliver(self, topic: str, payload: bytes, properties: Properties, *, retain: bool = False) -> int:
        """Publish with QoS 1 and return the PUBACK's reason code, 0 or 0x10. UplinkError: refused, or lost."""
        if len(payload) + 1024 > self.largest:
            raise UplinkError(
                f"The broker takes {self.largest} bytes at most, this message has {len(payload)}. Raise its limit.",
                TOO_LARGE,
            )
        await self._window.acquire()
        sent = self._client.publish(topic, payload, 1, retain, properties)
        if sent.rc != MQTT_ERR_SUCCESS:
            self._window.release()
            raise UplinkError(LOST)
        answer = self._answers[sent.mid] = asyncio.get_running_loop().create_future()
        code: int = await answer
        if code in _ABOUT_THE_MESSAGE:
            raise UplinkError(f"The broker refuses a message on {topic} ({code:#04x}).", _ABOUT_THE_MESSAGE[code])
        if code >= _REFUSED:
            raise UplinkError(f"The broker does not let us publish on {topic} ({code:#04x}). Correct its access list.")
        return code

    def say(self, topic: str, payload: bytes) -> None:
        """Hand a retained message to the connection without waiting for anything."""
        self._client.publish(topic, payload, 0, True)  # noqa: FBT003 - paho's order: qos, retain

    async def listen(self, topic: str, *, qos: int) -> None:
        """Subscribe. UplinkError where the broker refuses."""
        options = SubscribeOptions(qos=qos, retainAsPublished=True, retainHandling=_RETAINED_ONCE)
        for code in await self.subscribe(topic, options=options):
            if getattr(code, "value", code) >= _REFUSED:
                raise UplinkError(f"The broker does not let us read {topic}. Correct its access list.")

    def acknowledge(self, message: aiomqtt.Message) -> None:
        """Tell the broker that it may forget the message."""
        self._client.ack(message.mid, message.qos)

    def _client_connect(self) -> None:
        try:
            super()._client_connect()
        except OSError as error:
            self.cause = error.with_traceback(None)  # whose frames hold a socket that paho has not closed
            raise

    def _on_socket_open(self, client: Any, userdata: Any, sock: Any) -> None:
        # Runs in a thread that goes on when the attempt was cancelled: a late socket must not live on,
        # or the broker would give our session to it.
        if self._abandoned:
            sock.close()
            raise OSError("nobody waits for this connection any more")
        super()._on_socket_open(client, userdata, sock)

    def _on_connect(self, client: Any, userdata: Any, flags: Any, reason_code: Any, properties: Any = None) -> None:
        self._window = asyncio.Semaphore(min(WINDOW, getattr(properties, "ReceiveMaximum", WINDOW)))
        self.largest = getattr(properties, "MaximumPacketSize", self.largest)
        super()._on_connect(client, userdata, flags, reason_code, properties)

    def _on_disconnect(self, client: Any, userdata: Any, flags: Any, reason_code: Any, properties: Any = None) -> None:
        if not self._connected.done():
            self.cause = ConnectionAbortedError()
            self._connected.set_exception(aiomqtt.MqttError("closed before it answered"))
        super()._on_disconnect(client, userdata, flags, reason_code, properties)

    def _on_publish(self, _client: Any, _userdata: Any, mid: int, reason_code: Any, _properties: Any) -> None:
        answer = self._answers.pop(mid, None)
        if answer is None:
            return
        self._window.release()
        if not answer.done():
            answer.set_result(reason_code.value)

    def _on_message(self, _client: Any, _userdata: Any, message: Any) -> None:
        mine = aiomqtt.Message._from_paho_message(message)  # noqa: SLF001 - as our base class does
        self.routes.get(message.topic, self.arrived.put_nowait)(mine)

    def _fail_waiters(self, _: asyncio.Future[None]) -> None:
        answers, self._answers = self._answers, {}
        for answer in answers.values():
            # Whoever waits for a place in the window gets one, and fails in turn.
            self._window.release()
            if not answer.done():
                answer.set_exception(UplinkError(LOST))
        self.arrived.put_nowait(None)

    def _abandon(self) -> None:
        self._abandoned = True
        self._client._sock_close()  # noqa: SLF001 - paho has no public way to close without a DISCONNECT
        for future in (self._connected, self._disconnected):
            if future.done() and not future.cancelled():
                future.exception()


class Uplink:
    """A `gateway.ports.Uplink` over one broker."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._settings: Settings = platform.settings
        self._root = f"lampione/{VERSION}/{platform.tenant}/{platform.gateway}"
        self._connection: Connection | None = None
        self._open = asyncio.Event()
        self._waiting: dict[bytes, tuple[Batch, asyncio.Future[Receipt]]] = {}
        # Random, so that an answer which the broker kept from an earlier process never matches.
        self._correlation = int.from_bytes(os.urandom(8))

    async def ready(self) -> None:
        """Return as soon as batches can be sent."""
        await self._open.wait()

    async def run(self, receive: Receive) -> None:
        """Hold one connection until cancelled. UplinkError says in one sentence why there is none."""
        connection = await self._dial()
        with beating(self._platform):
            await self._enter(connection)
            try:
                await self._introduce(connection)
                self._connection = connection
                self._open.set()
                await self._take_commands(connection, receive)
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
            async with asyncio.timeout(wait):
                if await connection.deliver(topic, payload, properties) == _NO_SUBSCRIBERS:
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

    async def _introduce(self, connection: Connection) -> None:
        try:
            async with asyncio.timeout(_CONNECT):
                await connection.listen(f"{self._root}/ack", qos=0)
                await connection.listen(f"{self._root}/cmd", qos=1)
                if self._platform.inventory:
                    payload, properties = _envelope(orjson.dumps(dict(self._platform.inventory)), "application/json")
                    await connection.deliver(f"{self._root}/inventory", payload, properties, retain=True)
                payload, properties = _envelope(self._state("online"), "application/json")
                await connection.deliver(f"{self._root}/state", payload, properties, retain=True)
        except (aiomqtt.MqttError, TimeoutError):
            raise UplinkError(LOST) from None

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
            # paho notices a silent peer after two of its intervals; ours promises one and a half.
            keepalive=max(1, int(settings.keepalive / 2)),
            clean_start=False,
            properties=stays,
            # Without it each small packet waits for the acknowledgement of the one before, up to 40 ms.
            socket_options=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)],
            tls_context=await asyncio.to_thread(self._tls) if url.scheme == "mqtts" else None,
        )
        connection.routes[f"{self._root}/ack"] = self._settled
        return connection

    def _tls(self) -> ssl.SSLContext:
        settings, secret = self._settings, self._platform.secret
        try:
            context = ssl.create_default_context(cafile=settings.ca)
            if settings.certificate and settings.key:
                # OpenSSL reads them from a file only; this one never touches a disk.
                memory = os.memfd_create("certificate")
                with os.fdopen(memory, "w") as pem:
                    pem.write(f"{secret('certificate')}\n{secret('key')}\n")
                    pem.flush()
                    context.load_cert_chain(f"/proc/self/fd/{memory}")
        except FileNotFoundError:
            raise UplinkError(f"The authority's certificate {settings.ca} is not there. Put it in place.") from None
        except ssl.SSLError as error:
            raise UplinkError(f"Our certificate, key or `ca` is not usable PEM ({error.reason}). Renew it.") from None
        return context

    async def _enter(self, connection: Connection) -> None:
        try:
            async with asyncio.timeout(_CONNECT):
                await connection.__aenter__()
        except aiomqtt.MqttCodeError as error:
            raise UplinkError(_refusal(error, self._settings)) from None
        except (aiomqtt.MqttError, TimeoutError):
            raise UplinkError(_silence(connection.cause, self._settings)) from None

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
