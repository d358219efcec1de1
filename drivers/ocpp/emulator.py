"""Chargers that call a gateway: sessions come and go, limits are obeyed, transactions survive a lost connection."""

import asyncio
import base64
import random
import ssl
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import aiohttp

from drivers.ocpp import codec, rpc
from drivers.ocpp.charge_point import Charge, Controls
from drivers.ocpp.samples import PHASES, Route
from drivers.ocpp.scenario import Quirk, Scenario, distorted
from drivers.ocpp.settings import DeviceSettings, Profile, Settings
from drivers.ocpp.tags import parse
from gateway.clock import SystemClock
from gateway.model import Device, DeviceId

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


class Emulator:
    """The chargers of one link. `pace` 1: a session takes 10 to 20 s, with meter values every 2 to 5 s."""

    def __init__(
        self,
        settings: Settings,
        devices: Sequence[Device],
        address: str | None,
        secret: Callable[[str], str] | None = None,
        *,
        seed: int = 0,
        pace: float = 1.0,
        scenario: Scenario = USUAL,
    ) -> None:
        if address is None:
            raise ValueError("a charger must be told where its gateway listens")
        self.points = {
            device.id: ChargePoint(
                settings, device, address, secret, random.Random(f"{seed}/{device.id}"), pace, scenario
            )
            for device in devices
        }

    async def start(self) -> Mapping[str, str]:
        """A charger calls in: it changes nothing in the site file."""
        return {}

    async def run(self) -> None:
        """Until cancelled; a gateway that is away is called for ever."""
        async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as group:
            for point in self.points.values():
                group.create_task(point.run(session), name=f"emulated-{point.device.id}")

    def produced(self) -> Mapping[DeviceId, int]:
        """Statuses and meter values that the gateway has answered, by device."""
        return {name: point.values for name, point in self.points.items()}

    @property
    def confirmed(self) -> list[str]:
        """Ids of the transactions whose start the gateway has answered."""
        return [number for point in self.points.values() for number in point.confirmed]


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
        self.controls = Controls(self._own.connectors, int(self._own.phases))
        if Quirk.WATTS_ONLY in self._quirks:
            self.controls.configuration["ChargingScheduleAllowedChargingRateUnit"] = "Power"
        self.values, self.lost = 0, 0
        self.confirmed: list[str] = []
        self.statuses = dict.fromkeys(range(self._own.connectors + 1), "Available")
        self._unsent = set(self.statuses)
        self._queue: deque[_Message] = deque()
        self._triggered: deque[Mapping[str, Any]] = deque()
        self._news = asyncio.Event()
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._outbound = rpc.Outbound(f"{self._identity[:16]}-")
        self._pending: asyncio.Future[rpc.CallResult | rpc.CallError] | None = None
        self._one_call = asyncio.Lock()
        self._register = float(dice.randrange(20_000, 900_000))

    async def run(self, session: aiohttp.ClientSession) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._stay_connected(session))
            group.create_task(self._lose_connections())
            for connector in range(1, self._own.connectors + 1):
                group.create_task(self._use(connector))

    def wall(self) -> int:
        """UTC milliseconds by the charger's clock, which follows its gateway's."""
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
                answer = self.controls.answer(action, payload, self.wall())
                if answer is None:
                    await socket.send_str(rpc.error(message_id, rpc.ErrorCode.NOT_SUPPORTED, ""))
                else:
                    await socket.send_str(rpc.result(message_id, answer))
                if action == "TriggerMessage" and answer and answer["status"] == "Accepted":
                    self._triggered.append(payload)
                    self._news.set()
            case rpc.CallResult() if self._dice.random() < self._scenario.lost_answers:
                self.lost += 1
            case rpc.CallResult() | rpc.CallError() as answer:
                if self._outbound.settles(answer) and self._pending and not self._pending.done():
                    self._pending.set_result(answer)
            case _:
                pass

    async def _converse(self) -> None:
        if not (self._has_booted and Quirk.BOOTS_ONCE in self._quirks):
            await self._boot()
        self._unsent |= set(self.statuses)
        while True:
            while self._triggered:
                await self._do_triggered(self._triggered.popleft())
            while self._unsent:
                await self._tell_status(self._unsent.pop())
            while self._queue:
                await self._deliver(self._queue[0])
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
        connectors = [asked["connectorId"]] if "connectorId" in asked else list(self.statuses)
        match asked["requestedMessage"]:
            case "BootNotification":
                await self._boot()
            case "Heartbeat":
                await self._call("Heartbeat", {})
            case "StatusNotification":
                self._unsent |= set(connectors) & set(self.statuses)
            case "MeterValues":
                for connector in set(connectors) & set(range(1, self._own.connectors + 1)):
                    await self._tell_register(connector)

    async def _tell_register(self, connector: int) -> None:
        sampled = {"measurand": "Energy.Active.Import.Register", "value": f"{self._register:.1f}", "unit": "Wh",
                   "context": "Trigger", "location": "Outlet"}  # fmt: skip
        meter = [{"timestamp": codec.iso(self.wall()), "sampledValue": [sampled]}]
        if isinstance(await self._call("MeterValues", {"connectorId": connector, "meterValue": meter}), rpc.CallResult):
            self.values += Route("Energy.Active.Import.Register", None, "Outlet", "trigger") in self._routes

    async def _tell_status(self, connector: int) -> None:
        payload = {"connectorId": connector, "status": self.statuses[connector], "errorCode": "NoError",
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

    async def _use(self, connector: int) -> None:
        """People come, plug in, charge and leave, whether or not the gateway can be reached."""
        while True:
            await self._pause(2, 8)
            self._show(connector, "Preparing")
            tag = self._dice.choice(self._tags())
            await self._pause(0.5, 1.5)
            if await self._may_charge(tag):
                await self._charge(connector, tag)
                await self._pause(0.5, 2)
            self._show(connector, "Available")

    async def _may_charge(self, tag: str) -> bool:
        """Asked of the gateway; where it is away, everybody may (AllowOfflineTxForUnknownId)."""
        try:
            answer = await self._call("Authorize", {"idTag": tag})
        except (OSError, TimeoutError):
            return True
        return isinstance(answer, rpc.CallResult) and answer.payload["idTagInfo"]["status"] == "Accepted"

    async def _charge(self, connector: int, tag: str) -> None:
        loop = asyncio.get_running_loop()
        if Quirk.REGISTER_PER_SESSION in self._quirks:
            self._register = 0.0
        charge = Charge(self._dice, self._own.max_current, int(self._own.phases), self.wall())
        start = {"connectorId": connector, "idTag": tag, "meterStart": int(self._register),
                 "timestamp": codec.iso(charge.began)}  # fmt: skip
        self._enqueue(_Message("StartTransaction", start, charge))
        self._show(connector, "Charging")
        ends = loop.time() + self._dice.uniform(10, 20) / self._pace
        while loop.time() < ends and charge.is_accepted:
            before = loop.time()
            await self._pause(2, 5)
            limit = self.controls.profiles.amps(connector, self.wall(), charge.began)
            charge.advance(loop.time() - before, limit)
            self._register += charge.gained
            self._show(connector, "Charging" if charge.amps else "SuspendedEVSE")
            self._measure(connector, charge)
        stop = {"meterStop": int(self._register), "timestamp": codec.iso(self.wall()), "idTag": tag,
                "reason": "Local" if charge.is_accepted else "DeAuthorized"}  # fmt: skip
        self._enqueue(_Message("StopTransaction", stop, charge))
        self._show(connector, "Finishing")

    def _measure(self, connector: int, charge: Charge) -> None:
        sampled = [
            sample
            for sample in charge.samples(self._register)
            for phase in [PHASES.get(sample.get("phase", ""))]
            if Route(sample["measurand"], phase, sample["location"], None) in self._routes
        ]
        meter = [{"timestamp": codec.iso(self.wall()), "sampledValue": sampled}]
        payload = {"connectorId": connector, "meterValue": meter}
        self._enqueue(_Message("MeterValues", payload, charge, len(sampled)))

    def _enqueue(self, message: _Message) -> None:
        self._queue.append(message)
        self._news.set()

    def _show(self, connector: int, status: str) -> None:
        if self.statuses[connector] != status:
            self.statuses[connector] = status
            self._unsent.add(connector)
            self._news.set()

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
