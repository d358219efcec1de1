"""One connection to an MQTT 5 broker: aiomqtt as delivery needs it."""

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import Any, Self

import aiomqtt
from paho.mqtt.client import MQTT_ERR_SUCCESS
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from gateway.errors import REFUSED, TOO_LARGE, UplinkError

WINDOW = 128
"""Most messages that the broker has not yet acknowledged; fewer where it says so itself."""
LOST = "The connection to the broker is lost. It is tried again by itself."
_UNSENT = 32 * 1024
"""Bytes that may wait in the kernel for a slow line: nothing urgent overtakes them any more."""
_LOOKS_A_KEEPALIVE = 8
_REFUSED = 0x80
_ABOUT_THE_MESSAGE = {0x95: TOO_LARGE, 0x99: REFUSED}
"""PUBACK reason codes that another message would not get: packet too large, payload format invalid."""
_RETAINED_ONCE = 1


class Connection(aiomqtt.Client):
    """aiomqtt as delivery needs it; one object is one connection, so that nothing old is ever sent again by paho.

    aiomqtt 2.5 takes a refused PUBACK for success, leaves publishers waiting when the connection is lost,
    and acknowledges a message before anybody has stored it.

    `keepalive`, seconds: a peer that is silent for it is given up, at the latest after one and a half of it.
    """

    def __init__(self, hostname: str, port: int, *, keepalive: float, **options: Any) -> None:
        super().__init__(
            hostname,
            port,
            protocol=aiomqtt.ProtocolVersion.V5,
            max_inflight_messages=0,
            # paho gives a peer up after two of its intervals without a byte.
            keepalive=max(1, int(keepalive / 2)),
            socket_options=[
                # Without it each small packet waits for the acknowledgement of the one before, up to 40 ms.
                (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
                # What paho does not see: bytes still come in, ours do not get through.
                (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(keepalive * 1000)),
                (socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT),
            ],
            **options,
        )
        self._look_every = min(1.0, keepalive / _LOOKS_A_KEEPALIVE)
        self._client.manual_ack_set(on=True)
        self.cause: OSError | None = None
        """What stopped the connection attempt, which aiomqtt reduces to a text."""
        self.routes: dict[str, Callable[[aiomqtt.Message], None]] = {}
        """Topics whose messages are taken at once, with QoS 0."""
        self.arrived: asyncio.Queue[aiomqtt.Message | None] = asyncio.Queue()
        """All other messages, each to be given to `acknowledge`; None once the connection is lost."""
        self.largest = 0xFFFFFFF
        self.window = WINDOW
        """Messages that the broker takes before it has acknowledged the first of them."""
        self._places = asyncio.Semaphore(WINDOW)
        self._wire = asyncio.Lock()
        self._written = asyncio.Event()
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
        return check(await (await self.hand_over(topic, payload, properties, retain=retain)), topic)

    async def hand_over(
        self, topic: str, payload: bytes, properties: Properties, *, retain: bool = False
    ) -> "asyncio.Future[int]":
        """Publish with QoS 1 as soon as broker and line take it; the future PUBACK's reason code, for `check`.

        UplinkError: it is too large, or the connection is lost, which the future says too.
        """
        if len(payload) + 1024 > self.largest:
            raise UplinkError(
                f"The broker takes {self.largest} bytes at most, this message has {len(payload)}. Raise its limit.",
                TOO_LARGE,
            )
        await self._places.acquire()
        answer: asyncio.Future[int] | None = None
        try:
            async with self._wire:
                # One message is at paho's at a time: what it held would be neither ours nor the wire's.
                while self._client.want_write() and not self._disconnected.done():
                    self._written.clear()
                    await self._written.wait()
                sent = self._client.publish(topic, payload, 1, retain, properties)
                if sent.rc != MQTT_ERR_SUCCESS:
                    raise UplinkError(LOST)
                answer = self._answers[sent.mid] = asyncio.get_running_loop().create_future()
        finally:
            if answer is None:
                self._places.release()
        return answer

    def say(self, topic: str, payload: bytes) -> None:
        """Hand a retained message to the connection without waiting for anything."""
        self._client.publish(topic, payload, 0, True)  # noqa: FBT003 - paho's order: qos, retain

    async def listen(self, topic: str, *, qos: int) -> None:
        """Subscribe. UplinkError where the broker refuses."""
        options = SubscribeOptions(qos=qos, retainAsPublished=True, retainHandling=_RETAINED_ONCE)
        for code in await self.subscribe(topic, options=options):
            if getattr(code, "value", code) >= _REFUSED:
                raise UplinkError(f"The broker does not let us read {topic}. Correct its access list.")

    @property
    def peer(self) -> bytes:
        """The broker's certificate, DER; empty without TLS."""
        inside = self._client.socket()
        return (inside.getpeercert(binary_form=True) or b"") if isinstance(inside, ssl.SSLSocket) else b""

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

    def _on_socket_unregister_write(self, client: Any, userdata: Any, sock: Any) -> None:
        super()._on_socket_unregister_write(client, userdata, sock)
        self._written.set()

    async def _misc_loop(self) -> None:
        while self._client.loop_misc() == MQTT_ERR_SUCCESS:  # noqa: ASYNC110 - as our base class does, more often
            await asyncio.sleep(self._look_every)

    def _on_connect(self, client: Any, userdata: Any, flags: Any, reason_code: Any, properties: Any = None) -> None:
        self.window = min(WINDOW, getattr(properties, "ReceiveMaximum", WINDOW))
        self._places = asyncio.Semaphore(self.window)
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
        self._places.release()
        if not answer.done():
            answer.set_result(reason_code.value)

    def _on_message(self, _client: Any, _userdata: Any, message: Any) -> None:
        mine = aiomqtt.Message._from_paho_message(message)  # noqa: SLF001 - as our base class does
        self.routes.get(message.topic, self.arrived.put_nowait)(mine)

    def _fail_waiters(self, _: asyncio.Future[None]) -> None:
        answers, self._answers = self._answers, {}
        for answer in answers.values():
            # Whoever waits for a place in the window gets one, and fails in turn.
            self._places.release()
            if not answer.done():
                answer.set_exception(UplinkError(LOST))
        self._written.set()
        self.arrived.put_nowait(None)

    def _abandon(self) -> None:
        self._abandoned = True
        self._client._sock_close()  # noqa: SLF001 - paho has no public way to close without a DISCONNECT
        for future in (self._connected, self._disconnected):
            if future.done() and not future.cancelled():
                future.exception()


def check(code: int, topic: str) -> int:
    """The reason code of a PUBACK that took a message, 0 or 0x10. UplinkError for every other."""
    if code in _ABOUT_THE_MESSAGE:
        raise UplinkError(f"The broker refuses a message on {topic} ({code:#04x}).", _ABOUT_THE_MESSAGE[code])
    if code >= _REFUSED:
        raise UplinkError(f"The broker does not let us publish on {topic} ({code:#04x}). Correct its access list.")
    return code
