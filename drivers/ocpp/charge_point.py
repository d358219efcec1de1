"""One emulated charger on its connection: what it tells, and again until it is answered, and what it does when told."""

import asyncio
import base64
import contextlib
import random
import ssl
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import aiohttp

from drivers.ocpp import codec, rpc
from drivers.ocpp.bays import Bay, Bays
from drivers.ocpp.charge import Charge
from drivers.ocpp.controls import Controls
from drivers.ocpp.samples import PHASES, Route
from drivers.ocpp.scenario import Quirk, Scenario, distorted
from drivers.ocpp.settings import DeviceSettings, Profile, Settings
from drivers.ocpp.tags import parse
from gateway.clock import SystemClock
from gateway.model import Device

USUAL = Scenario()
ATTEMPTS = 3
"""How often a transaction message is sent that is answered with an error (TransactionMessageAttempts)."""


@dataclass(slots=True)
class _Message:
    """What must reach the gateway, however long that takes."""

    action: str
    payload: dict[str, Any]
    charge: Charge
    values: int = 0
    attempts: int = field(default=0, compare=False)


class ChargePoint:
    """One charger. What belongs to a transaction is queued and sent in order, again until it is answered (§3.7.1)."""

    def __init__(
        self,
        settings: Settings,
        device: Device,
        address: str,
        secret: Callable[[str], str] | None,
        dice: random.Random,
        pace: float,
        scenario: Scenario = USUAL,
    ) -> None:
        assert isinstance(device.settings, DeviceSettings)
        assert isinstance(device.profile, Profile)
        self.device, self._settings, self._secret = device, settings, secret
        self._own = device.settings
        self._dice, self._pace, self._scenario = dice, pace, scenario
        self._quirks, self._has_booted = scenario.quirks, False
        self._routes, self._unmeasured = device.profile.routes, device.profile.unmeasured
        self._identity = self._own.identity or device.id.partition("/")[0]
        scheme = "wss" if settings.security == "2" else "ws"
        self._url = f"{scheme}://{address}/{quote(self._identity, safe='')}"
        self._clock, self._ahead = SystemClock(), 0
        self.controls = Controls(self._own.connectors, int(self._own.phases), self._quirks)
        self.values, self.lost = 0, 0
        self.confirmed: list[str] = []
        self.bays = Bays([float(dice.randrange(20_000, 900_000)) for _ in range(self._own.connectors)])
        self._unsent = set(range(self._own.connectors + 1))
        self._reset = ""
        self._queue: deque[_Message] = deque()
        self._triggered: deque[Mapping[str, Any]] = deque()
        self._news = asyncio.Event()
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._outbound = rpc.Outbound(f"{self._identity[:16]}-")
        self._pending: asyncio.Future[rpc.CallResult | rpc.CallError] | None = None
        self._one_call = asyncio.Lock()

    async def run(self, session: aiohttp.ClientSession) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._stay_connected(session))
            group.create_task(self._lose_connections())
            for bay in self.bays.all:
                group.create_task(self._use(bay))

    def wall(self) -> int:
        """UTC milliseconds by the charger's clock, which follows its gateway's."""
        if Quirk.CLOCK_UNSET in self._quirks:
            return round(asyncio.get_running_loop().time() * 1000)
        return self._clock.wall() + self._ahead

    async def drop(self) -> None:
        """Lose the connection, as a charger's modem does now and then."""
        if self._socket:
            await self._socket.close()

    async def _lose_connections(self) -> None:
        while every := self._scenario.drops_every:
            await asyncio.sleep(every / self._pace)
            await self.drop()

    async def _stay_connected(self, session: aiohttp.ClientSession) -> None:
        while True:
            try:
                async with session.ws_connect(
                    self._url, protocols=["ocpp1.6"], headers=self._credentials(), ssl=self._tls(), compress=0
                ) as socket:
                    await self._talk(socket)
            except* (aiohttp.ClientError, OSError, TimeoutError):
                pass  # it calls again
            self._socket = None
            await asyncio.sleep(self._dice.uniform(0.5, 1.5) / self._pace)

    async def _talk(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        async with asyncio.TaskGroup() as group:
            talk = group.create_task(self._converse())
            async for message in socket:
                if message.type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
                    await self._take(socket, message.data)
            talk.cancel()

    async def _take(self, socket: aiohttp.ClientWebSocketResponse, frame: str | bytes) -> None:
        match rpc.parse(frame):
            case rpc.Call(message_id, action, payload):
                answer = self._obey(action, payload)
                if answer is None:
                    await socket.send_str(rpc.error(message_id, rpc.ErrorCode.NOT_SUPPORTED, ""))
                else:
                    await socket.send_str(rpc.result(message_id, answer))
                self._news.set()
            case rpc.CallResult() if self._dice.random() < self._scenario.lost_answers:
                self.lost += 1
            case rpc.CallResult() | rpc.CallError() as answer:
                if self._outbound.settles(answer) and self._pending and not self._pending.done():
                    self._pending.set_result(answer)
            case _:
                pass

    def _obey(self, action: str, payload: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """The answer to a command; what follows from it is done by those who wait for it."""
        answer = self.controls.answer(action, payload, self.wall())
        if answer is None and action not in self.controls.unsupported:
            answer = self.bays.answer(action, payload, self.wall())
            self._unsent |= self.bays.changed
            self.bays.changed.clear()
        if answer and answer.get("status") == "Accepted":
            match action:
                case "TriggerMessage":
                    self._triggered.append(payload)
                case "ReserveNow":
                    until = codec.moment(payload["expiryDate"], codec.Remarks()) or 0
                    seconds = (until - self.wall()) / 1000
                    asyncio.get_running_loop().call_later(seconds, self._tell_of, payload["connectorId"])
                case "Reset":
                    self._reset = payload["type"]
                    self.bays.stop(self.bays.all, f"{self._reset}Reset")
        return answer

    async def _converse(self) -> None:
        if not (self._has_booted and Quirk.BOOTS_ONCE in self._quirks):
            await self._boot()
        self._unsent |= set(range(self._own.connectors + 1))
        while True:
            while self._triggered:
                await self._do_triggered(self._triggered.popleft())
            while self._unsent:
                await self._tell_status(self._unsent.pop())
            while self._queue:
                await self._deliver(self._queue[0])
            if self._reset == "Hard" or (self._reset and not any(bay.charge for bay in self.bays.all)):
                # What it has not told by then, it tells when it has started again.
                self._reset, self._has_booted = "", False
                await self.drop()
            try:
                async with asyncio.timeout(max(1.0, float(self.controls.configuration["HeartbeatInterval"]))):
                    await self._news.wait()
            except TimeoutError:
                await self._call("Heartbeat", {})
            self._news.clear()

    async def _boot(self) -> None:
        boot = {"chargePointVendor": "Lampione", "chargePointModel": "Emulated", "firmwareVersion": "1.0",
                "chargePointSerialNumber": self._identity[:25]}  # fmt: skip
        answer = await self._call("BootNotification", boot)
        while isinstance(answer, rpc.CallResult) and answer.payload.get("status") == "Pending":
            await asyncio.sleep(answer.payload.get("interval") or 60)
            answer = await self._call("BootNotification", boot)
        self._has_booted = True
        if isinstance(answer, rpc.CallResult):
            self.controls.configuration["HeartbeatInterval"] = str(answer.payload.get("interval") or 60)
            told = codec.moment(answer.payload.get("currentTime"), codec.Remarks())
            self._ahead = 0 if told is None else told - self._clock.wall()

    async def _do_triggered(self, asked: Mapping[str, Any]) -> None:
        known = range(self._own.connectors + 1)
        connectors = {asked["connectorId"]} & {*known} if "connectorId" in asked else {*known}
        match asked["requestedMessage"]:
            case "BootNotification":
                await self._boot()
            case "Heartbeat":
                await self._call("Heartbeat", {})
            case "StatusNotification":
                self._unsent |= connectors
            case "MeterValues":
                for bay in self.bays.all:
                    if bay.connector in connectors:
                        await self._tell_register(bay)

    async def _tell_register(self, bay: Bay) -> None:
        sampled = {"measurand": "Energy.Active.Import.Register", "value": f"{bay.register:.1f}", "unit": "Wh",
                   "context": "Trigger", "location": "Outlet"}  # fmt: skip
        meter = [{"timestamp": codec.iso(self.wall()), "sampledValue": [sampled]}]
        told = {"connectorId": bay.connector, "meterValue": meter}
        if isinstance(await self._call("MeterValues", told), rpc.CallResult):
            self.values += Route("Energy.Active.Import.Register", None, "Outlet", "trigger") in self._routes

    async def _tell_status(self, connector: int) -> None:
        payload = {"connectorId": connector, "status": self.bays.status(connector, self.wall()), "errorCode": "NoError",
                   "timestamp": codec.iso(self.wall())}  # fmt: skip
        if isinstance(await self._call("StatusNotification", payload), rpc.CallResult):
            self.values += ("connector_status" if connector else "device_status") in self._unmeasured

    async def _deliver(self, message: _Message) -> None:
        if message.action != "StartTransaction":
            message.payload["transactionId"] = message.charge.transaction
        answer = await self._call(message.action, message.payload)
        if isinstance(answer, rpc.CallError):
            message.attempts += 1
            if message.attempts < ATTEMPTS:
                return
        else:
            self.values += message.values
            if message.action == "StartTransaction":
                message.charge.transaction = answer.payload["transactionId"]
                message.charge.is_accepted = answer.payload["idTagInfo"]["status"] == "Accepted"
                self.confirmed.append(str(message.charge.transaction))
        self._queue.popleft()

    async def _call(self, action: str, payload: Mapping[str, Any]) -> rpc.CallResult | rpc.CallError:
        """ConnectionError or TimeoutError: it was not answered."""
        async with self._one_call:
            socket = self._socket
            if socket is None or socket.closed:
                raise ConnectionError
            self._pending = asyncio.get_running_loop().create_future()
            try:
                async with asyncio.timeout(self._scenario.answer_within):
                    await socket.send_str(self._outbound.begin(action, distorted(payload, self._quirks)))
                    return await self._pending
            except TimeoutError:
                await socket.close()
                raise
            finally:
                self._outbound.give_up()
                self._pending = None

    async def _use(self, bay: Bay) -> None:
        """People come, plug in, charge and leave, whether or not the gateway can be reached."""
        while True:
            self._show(bay, bay.resting(self.wall()))
            tag, is_sent = await self._next(bay)
            if self._reset or not bay.takes(tag, self.wall()):
                continue
            self._show(bay, "Preparing")
            await self._pause(0.5, 1.5)
            asks = not is_sent or self.controls.configuration["AuthorizeRemoteTxRequests"] == "true"
            if not asks or await self._may_charge(tag):
                await self._charge(bay, tag)
                await self._pause(0.5, 2)

    async def _next(self, bay: Bay) -> tuple[str, bool]:
        """Whose tag comes next, and whether a command has sent it."""
        comes = self._dice.uniform(2, 8) / self._pace
        try:
            async with asyncio.timeout(comes if self._scenario.visits else None):
                return await bay.sent.get(), True
        except TimeoutError:
            return self._dice.choice(self._tags()), False

    async def _may_charge(self, tag: str) -> bool:
        """Asked of the gateway; where it is away, everybody may (AllowOfflineTxForUnknownId)."""
        try:
            answer = await self._call("Authorize", {"idTag": tag})
        except (OSError, TimeoutError):
            return True
        return isinstance(answer, rpc.CallResult) and answer.payload["idTagInfo"]["status"] == "Accepted"

    async def _charge(self, bay: Bay, tag: str) -> None:
        loop = asyncio.get_running_loop()
        if Quirk.REGISTER_PER_SESSION in self._quirks:
            bay.register = 0.0
        bay.charge = charge = Charge(
            self._dice, self._own.max_current, int(self._own.phases), self.wall(), self._scenario.car
        )
        start = {"connectorId": bay.connector, "idTag": tag, "meterStart": int(bay.register),
                 "timestamp": codec.iso(charge.began)}  # fmt: skip
        if bay.is_kept(self.wall()):
            start["reservationId"] = bay.used()
        self._enqueue(_Message("StartTransaction", start, charge))
        self._show(bay, "Charging")
        ends = loop.time() + (self._scenario.lasts or self._dice.uniform(10, 20)) / self._pace
        while loop.time() < ends and charge.is_accepted and not charge.stopped.is_set():
            before = loop.time()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._dice.uniform(2, 5) / self._pace):
                    await charge.stopped.wait()
            limit = self.controls.profiles.amps(bay.connector, self.wall(), charge.began)
            charge.advance((loop.time() - before) * self._pace, limit)
            bay.register += charge.gained
            self._show(bay, charge.status)
            self._measure(bay, charge)
        stop = {"meterStop": int(bay.register), "timestamp": codec.iso(self.wall()), "idTag": tag,
                "reason": charge.reason or ("Local" if charge.is_accepted else "DeAuthorized")}  # fmt: skip
        bay.charge = None
        self._enqueue(_Message("StopTransaction", stop, charge))
        self._show(bay, "Finishing")

    def _measure(self, bay: Bay, charge: Charge) -> None:
        sampled = [
            sample
            for sample in charge.samples(bay.register)
            for phase in [PHASES.get(sample.get("phase", ""))]
            if Route(sample["measurand"], phase, sample["location"], None) in self._routes
        ]
        meter = [{"timestamp": codec.iso(self.wall()), "sampledValue": sampled}]
        payload = {"connectorId": bay.connector, "meterValue": meter}
        self._enqueue(_Message("MeterValues", payload, charge, len(sampled)))

    def _enqueue(self, message: _Message) -> None:
        self._queue.append(message)
        self._news.set()

    def _tell_of(self, connector: int) -> None:
        self._unsent.add(connector)
        self._news.set()

    def _show(self, bay: Bay, status: str) -> None:
        if bay.status != status:
            bay.status = status
            self._tell_of(bay.connector)

    def _tags(self) -> list[str]:
        listed = list(parse(self._secret("tags"))) if self._settings.tags and self._secret else []
        return [tag.upper() for tag in listed] or ["04A1B2C3D4E5F6", "0453B2C3D4E5F7"]

    def _credentials(self) -> dict[str, str]:
        if self._settings.security == "0" or self._secret is None:
            return {}
        words = f"{self._identity}:{self._secret(f'{self.device.id}.key')}"
        return {"Authorization": f"Basic {base64.b64encode(words.encode()).decode()}"}

    def _tls(self) -> ssl.SSLContext | bool:
        if self._settings.security != "2" or self._secret is None:
            return True
        context = ssl.create_default_context(cadata=self._secret("certificate"))
        context.check_hostname = False  # the certificate is for the street, the address for this machine
        return context

    async def _pause(self, shortest: float, longest: float) -> None:
        await asyncio.sleep(self._dice.uniform(shortest, longest) / self._pace)
