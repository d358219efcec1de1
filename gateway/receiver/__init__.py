"""The reference platform side: takes batches over MQTT and HTTP, stores each record once, commits, then acknowledges.

It is how anybody can see for himself that nothing was lost: `report` says what came, what came twice, what
was left out on purpose and why, and what is missing.
"""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gateway.clock import SystemClock
from gateway.errors import CommandError, LinkError
from gateway.ports import Clock
from gateway.receiver import report
from gateway.receiver.http import VIA as HTTP
from gateway.receiver.http import HttpIn, HttpSide
from gateway.receiver.inbox import Inbox
from gateway.receiver.mqtt import MqttIn, MqttSide
from gateway.receiver.report import DeviceRow, StreamRow
from gateway.receiver.store import Counts

__all__ = ["Counts", "DeviceRow", "HttpIn", "MqttIn", "Receiver", "StreamRow"]


class Receiver:
    """A platform with its database at `path`, listening at a broker, over HTTP, or both."""

    def __init__(
        self, path: Path, *, mqtt: MqttIn | None = None, http: HttpIn | None = None, clock: Clock | None = None
    ) -> None:
        self._path = path
        self._inbox = Inbox(path, clock or SystemClock())
        self._mqtt = MqttSide(mqtt, self._inbox) if mqtt else None
        self._http = HttpSide(http, self._inbox, self.command, self.report) if http else None

    async def run(self) -> None:
        """Until cancelled. LinkError where it cannot listen, StorageError where it cannot store."""
        await self._inbox.open()
        failure: BaseException | None = None
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._inbox.run())
                for side in (self._mqtt, self._http):
                    if side:
                        group.create_task(side.run())
        except* LinkError as failures:
            failure = failures.exceptions[0]
        finally:
            self._inbox.close()
        if failure:
            raise failure

    async def ready(self) -> None:
        """Return once it listens everywhere."""
        for side in (self._mqtt, self._http):
            if side:
                await side.ready.wait()

    @property
    def url(self) -> str:
        """Where its HTTP side listens, once ready."""
        return self._http.url if self._http else ""

    @property
    def counts(self) -> Counts:
        """What has come since `run`."""
        return self._inbox.counts

    def report(self) -> list[StreamRow]:
        """One row for each gateway, lane and epoch."""
        return report.streams(self._path)

    def per_device(self) -> list[DeviceRow]:
        """One row for each device."""
        return report.devices(self._path)

    def events(self) -> list[dict[str, Any]]:
        """Events and states of commands, as they came."""
        return report.events(self._path)

    async def command(self, gateway: str, document: Mapping[str, Any], tenant: str | None = None) -> None:
        """Send a command (config/schema/command.json) the way the gateway was last heard.

        CommandError: no such gateway, or no such document. LinkError: no broker now. Whether it is obeyed
        comes back as records on the event lane.
        """
        now = self._inbox.clock.wall()
        if not (isinstance(document.get("id"), str) and type(document.get("expires")) is int):
            raise CommandError("bad_command", "A command needs an `id` and `expires`, in UTC milliseconds.")
        lives = document["expires"] - now
        if lives <= 0:
            raise CommandError("expired", "The command has expired already. Issue it anew.")
        heard = await self._inbox.ask(lambda store: store.gateways(gateway))
        ways = [(whose, via) for whose, via in heard if tenant in (None, whose)]
        if len(ways) != 1:
            raise CommandError(
                "unknown_gateway", f"{len(ways)} gateways are called {gateway}. Name one that was heard."
            )
        whose, via = ways[0]
        if via == HTTP and self._http:
            await self._http.order(whose, gateway, document)
        elif self._mqtt:
            await self._mqtt.command(whose, gateway, document, lives // 1000)
        else:
            raise CommandError("no_way", f"{gateway} was last heard over {via}, where nobody listens now.")
