"""The receiver's MQTT side. A batch is answered on its gateway's own `ack` topic, whatever its response topic says."""

import asyncio
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiomqtt
import orjson
import structlog
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from gateway.batch import ENCODING, VERSION, BatchError, decode, decompress, encode_receipt, encode_refusal
from gateway.errors import LinkError, StorageError
from gateway.model import Receipt
from gateway.receiver.inbox import Inbox
from gateway.receiver.store import Arrival

VIA = "mqtt"
_ALL = f"lampione/{VERSION}/+/+"
_PORTS = {"mqtt": 1883, "mqtts": 8883}
_PAUSE = 1.0
_REFUSED = 0x80

_Answer = tuple[str, bytes | None, bytes]
"""Topic, correlation data, document."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class MqttIn:
    """A broker to listen at: `url` is mqtt://host:port or mqtts://. Receivers of one `share` divide the batches."""

    url: str
    username: str | None = None
    password: str | None = None
    ca: Path | None = None
    share: str | None = None


def address(url: str) -> tuple[str, int, bool]:
    """Host, port, and whether by TLS. LinkError: it is no address of a broker."""
    try:
        parts = urlsplit(url)
        if parts.scheme in _PORTS and parts.hostname and parts.port != 0:
            return parts.hostname, parts.port or _PORTS[parts.scheme], parts.scheme == "mqtts"
    except ValueError:  # a port that is none
        pass
    raise LinkError("this is not mqtt://host:port or mqtts://host:port")


class MqttSide:
    """One connection to the broker, made again for ever once it has stood."""

    def __init__(self, settings: MqttIn, inbox: Inbox) -> None:
        self.ready = asyncio.Event()
        self._settings, self._inbox = settings, inbox
        self._client: aiomqtt.Client | None = None

    async def run(self) -> None:
        """Until cancelled. LinkError where the very first connection does not come about."""
        while True:
            why: list[str] = []
            try:
                await self._session()
            except* (aiomqtt.MqttError, LinkError) as group:
                why = [str(error) for error in group.exceptions]
            finally:
                self._client = None
            if not self.ready.is_set():
                raise LinkError(f"{self._settings.url}: {why[0]}. Check the address, user name and password.")
            log.warning("broker_lost", why=why[0])
            await asyncio.sleep(_PAUSE)

    async def command(self, tenant: str, gateway: str, document: Mapping[str, Any], lives_s: int) -> None:
        """Publish a command that the broker forgets after `lives_s`. LinkError without a broker."""
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        properties.ContentType = "application/json"
        properties.MessageExpiryInterval = max(1, lives_s)
        topic = f"lampione/{VERSION}/{tenant}/{gateway}/cmd"
        if self._client is None:
            raise LinkError("There is no broker now to give the command to.")
        try:
            await self._client.publish(topic, orjson.dumps(document), qos=1, properties=properties)
        except aiomqtt.MqttError as error:
            raise LinkError(f"The broker did not take the command: {error}.") from None

    async def _session(self) -> None:
        settings = self._settings
        host, port, has_tls = address(settings.url)
        client = aiomqtt.Client(
            host,
            port,
            username=settings.username,
            password=settings.password,
            protocol=aiomqtt.ProtocolVersion.V5,
            keepalive=15,
            socket_options=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)],
            tls_context=ssl.create_default_context(cafile=settings.ca) if has_tls else None,
        )
        batches = f"{_ALL}/batch/+"
        shared = f"$share/{settings.share}/{batches}" if settings.share else batches
        answers: asyncio.Queue[_Answer] = asyncio.Queue()
        async with client:
            for topic in (shared, f"{_ALL}/inventory", f"{_ALL}/state"):
                for code in await client.subscribe(topic, qos=1):
                    if getattr(code, "value", code) >= _REFUSED:
                        raise LinkError(f"the broker does not let us read {topic}")
            self._client = client
            self.ready.set()
            async with asyncio.TaskGroup() as group:
                group.create_task(self._answer(client, answers))
                async for message in client.messages:
                    await self._take(message, answers)

    async def _take(self, message: aiomqtt.Message, answers: "asyncio.Queue[_Answer]") -> None:
        _, _, tenant, gateway, what, *lane = str(message.topic).split("/")
        topic = f"lampione/{VERSION}/{tenant}/{gateway}/ack"
        correlation = getattr(message.properties, "CorrelationData", None)
        try:
            payload = _plain(message)
            if what != "batch":
                now = self._inbox.clock.wall()
                text = payload.decode()
                # Whoever has left may come back another way before the broker says that he has.
                via = None if what == "state" and '"offline"' in text else VIA
                await self._inbox.ask(lambda store: store.tell(tenant, gateway, what, text, via, now))
                return
            arrival = Arrival(tenant, VIA, decode(payload))
            if (arrival.batch.gateway, [arrival.batch.lane]) != (gateway, lane):
                raise BatchError(f"it says that it is {arrival.batch.lane} of {arrival.batch.gateway}")
        except (BatchError, StorageError, UnicodeDecodeError) as error:
            log.warning("refused", topic=str(message.topic), why=str(error))
            if what == "batch" and isinstance(error, BatchError):
                answers.put_nowait((topic, correlation, encode_refusal(gateway, lane[0], str(error))))
            return

        def answer(receipt: "asyncio.Future[Receipt]") -> None:
            if not receipt.cancelled() and not receipt.exception():
                document = encode_receipt(gateway, arrival.batch.lane, receipt.result())
                answers.put_nowait((topic, correlation, document))

        self._inbox.put(arrival).add_done_callback(answer)

    async def _answer(self, client: aiomqtt.Client, answers: "asyncio.Queue[_Answer]") -> None:
        while True:
            topic, correlation, document = await answers.get()
            properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
            properties.ContentType = "application/json"
            if correlation is not None:
                properties.CorrelationData = correlation
            # QoS 0: an answer that is lost costs one repetition, one that waits in the broker is stale.
            await client.publish(topic, document, qos=0, properties=properties)


def _plain(message: aiomqtt.Message) -> bytes:
    if not isinstance(message.payload, bytes):
        raise BatchError("it has no payload")
    if ("content-encoding", ENCODING) in getattr(message.properties, "UserProperty", ()):
        return decompress(message.payload)
    return message.payload
