"""The composition root: makes a gateway of a site and keeps its parts running; alone in knowing everybody."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import structlog

from gateway import durable, load
from gateway.buffer import Buffer
from gateway.clock import SystemClock
from gateway.commands import Commands, Reach
from gateway.control import Control, plain, socket_of
from gateway.deadband import thinned
from gateway.delivery import Delivery
from gateway.errors import StorageError
from gateway.inventory import Inventory
from gateway.lending import Lending, Wire
from gateway.model import Device, Event, Json, Lane, Quality, Reading, Reason, Record
from gateway.notify import Notifier
from gateway.ports import Doorkeeper, Driver, Emit, Link, Platform, Uplink
from gateway.site import Credentials, Site, SiteLink, SiteUplink, keep_as_last_good, resolver
from gateway.status import LaneDepth, Status
from gateway.supervise import Watch, supervise
from gateway.timekeeping import Timekeeping

log = structlog.get_logger()

LAST_WORDS = 5.0
"""Seconds that delivery is given at the end to send what is committed."""
_LANE_EVERY = 1.0
_LANE_EVERY_UNSEEN = 20.0


class Gateway:
    """One site, running. `rejected` is one sentence on the site file that does not run, or ''."""

    def __init__(
        self, site: Site, state: Path, credentials: Credentials, *, clock: SystemClock | None = None, rejected: str = ""
    ) -> None:
        self.site, self.state, self.credentials = site, state, credentials
        self.clock = clock or SystemClock(trusted=site.gateway.clock == "trusted")
        self.watch = Watch()
        self._notifier = Notifier()
        self.status = Status(
            site.gateway.id,
            self.clock,
            {link.name: link.devices for link in site.links.values()},
            every=site.intervals(),
            uplinks=list(site.uplinks),
        )
        self.status.configuration(site.hash, rejected)
        self.addresses: dict[str, str] = {}
        """Where what listens is to be found: `links.cs`, `page` -> host:port or URL."""
        self._rejected = rejected
        self._stop = asyncio.Event()
        keys = site.buffer
        bounds = {Lane.BILLING: keys.billing, Lane.EVENT: keys.event, Lane.TELEMETRY: keys.telemetry}
        self.buffer = Buffer(
            state / "buffer",
            site.gateway.id,
            self.clock,
            commit_every=keys.commit_every,
            bounds=bounds,
            max_age=keys.max_age,
            keep_after_ack=keys.keep_after_ack,
            quotas={up.name: up.settings.keep for up in site.uplinks.values() if up.settings.keep},
        )
        state_of_gateway = self.buffer.state("gateway/")
        self._timekeeping = Timekeeping(
            self.clock, site.gateway.id, self._noting(state_of_gateway.emit), state_of_gateway
        )
        self.control = Control(socket_of(state))
        """Requests of `lampione` verbs."""
        self._drivers: dict[str, Driver] = {}
        self._wires: dict[str, Wire] = {}
        self._deliveries: dict[str, Delivery] = {}

    def stop(self) -> None:
        """End in order: no new readings, what is committed goes out for a few seconds, the buffer is closed."""
        self._stop.set()

    async def run(self) -> None:
        """Until `stop`. ConfigError: another process has the state folder. StorageError: the disk refuses."""
        await self.buffer.open()
        try:
            await self._run()
        finally:
            await self.buffer.close()

    async def _run(self) -> None:
        self.buffer.know([point for _, device in self.site.devices.values() for point in device.points.values()])
        for lane in self.buffer.lanes.values():
            starts = {up.name: up.settings.start for up in self.site.uplinks.values() if lane.lane in up.settings.lanes}
            await lane.enrol(starts)
            lane.alive = self.watch.alive(f"buffer-{lane.lane}")
        self._timekeeping.resume()
        async with asyncio.TaskGroup() as tasks:
            own = [tasks.create_task(self.buffer.run(), name="buffer")]
            await self._tell_start()
            commands = self._commands()
            self.control.answers("status", plain(self.status.snapshot))
            self.control.answers("buffer", self.buffer.answer)
            self.control.holds("lend", Lending(self._wires).lend)
            own += [
                tasks.create_task(work, name=name)
                for name, work in {
                    "commands": self._keep("commands", commands.run),
                    "control": self._keep("control", self.control.run),
                    "timekeeping": self._keep("timekeeping", self._timekeeping.run),
                    "lanes": self._keep("lanes", self._report_lanes),
                    "inventory": self._keep("inventory", self._renew_inventory),
                    "watchdog": self._feed_watchdog(),
                }.items()
            ]
            if self.site.page:
                own.append(tasks.create_task(self._keep("page", self._serve_page), name="page"))
            uplinks = [
                tasks.create_task(self._run_uplink(uplink, commands), name=f"uplink-{uplink.name}")
                for uplink in self.site.uplinks.values()
            ]
            links = [
                tasks.create_task(self._run_link(link), name=f"link-{link.name}") for link in self.site.links.values()
            ]
            await self._keep_site()
            self._notifier.ready()
            await self._stop.wait()
            self._notifier.stopping()
            await _end(links)
            with suppress(StorageError):
                await self._timekeeping.save()
            await self._say_last_words()
            await _end(uplinks + own)

    def _link(self, site_link: SiteLink) -> Link:
        place = f"links.{site_link.name}"
        return Link(
            name=site_link.name,
            settings=site_link.settings,
            devices=site_link.devices,
            clock=self.clock,
            state=self.buffer.state(f"{place}/"),
            alive=self.watch.alive(place),
            bound=lambda address: self._bound(place, address),
            secret=resolver(self.site, place, self.credentials),
        )

    def _commands(self) -> Commands:
        """Builds the drivers too: a command reaches a device through the driver that owns its wire."""
        reaches: dict[str, Reach] = {}
        for site_link in self.site.links.values():
            link = self._link(site_link)
            driver = load.driver_class(site_link.driver)(link)
            self._drivers[site_link.name] = driver
            self._wires[site_link.name] = Wire(site_link.name, site_link.settings, driver, link.alive)
            for device in site_link.devices:
                reaches[device.id] = Reach(device, partial(self.status.is_reachable, device.id), driver.execute)
        doors = [driver for driver in self._drivers.values() if isinstance(driver, Doorkeeper)]
        self.status.strangers = lambda: [stranger for door in doors for stranger in door.strangers()]
        state = self.buffer.state("commands/")
        return Commands(reaches, self._noting(state.emit), state, self.clock)

    async def _run_link(self, site_link: SiteLink) -> None:
        name = site_link.name
        emit = thinned(self.buffer.state(f"links.{name}/").emit, site_link.devices, self.status.note)
        up: bool | None = None

        async def emit_and_rise(
            records: Sequence[Record], *, lane: Lane = Lane.TELEMETRY, state: Mapping[str, Json] | None = None
        ) -> None:
            nonlocal up
            if not up:
                up = True
                self.status.link(name, up=True)
                await self._tell([Event("link_up", name, self.clock.boot())])
            await emit(records, lane=lane, state=state)
            if state:
                self._inventory.hear(state)

        async def fall(say: str) -> None:
            nonlocal up
            self.status.link(name, up=False, say=say)
            if up is not False:
                log.warning("link_down", link=name, say=say)
                await self._tell([Event("link_down", name, self.clock.boot(), say)])
                await self._invalidate(site_link.devices, emit)
            up = False

        run = partial(self._wires[name].run, emit_and_rise, fall)
        await supervise(f"links.{name}", run, watch=self.watch, down=fall)

    async def _invalidate(self, devices: Sequence[Device], emit: Emit) -> None:
        """Each point that had a value gets one record that it has none: silence must not look like the last value."""
        at = self.clock.boot()
        lost = [
            Reading(point.id, None, at, Quality.BAD, Reason.COMM_FAILURE)
            for device in devices
            for point in device.points.values()
            if (last := self.status.last(point.id)) is not None and last.quality is not Quality.BAD
        ]
        if lost:
            try:
                await emit(lost)
            except StorageError as error:
                log.error("not_stored", say=str(error))

    async def _run_uplink(self, up: SiteUplink, commands: Commands) -> None:
        place = f"uplinks.{up.name}"
        attention = ""

        def warn(say: str) -> None:
            nonlocal attention
            if say != attention:
                attention = say
                self.status.uplink(up.name, connected=True, say=say)
                log.warning("uplink_warning", uplink=up.name, say=say)

        platform = Platform(
            name=up.name,
            settings=up.settings,
            gateway=self.site.gateway.id,
            tenant=self.site.gateway.tenant,
            inventory=self._inventory,
            clock=self.clock,
            alive=self.watch.alive(place),
            secret=resolver(self.site, place, self.credentials),
            warn=warn,
        )
        told: dict[str, str] = {}

        async def receive(payload: bytes, retained: bool) -> None:
            await commands.receive(payload, retained, up.settings.commands)

        async def connect_and_deliver() -> None:
            uplink: Uplink = load.uplink(up.uplink).Uplink(platform)
            delivery = self._deliveries[up.name] = Delivery(
                up.name,
                uplink,
                self.buffer,
                gateway=self.site.gateway.id,
                lanes=up.settings.lanes,
                only=up.settings.only,
                inventory=lambda: self._inventory.version,
                fixes=self._timekeeping.fixes,
                acknowledged=lambda: self.status.acknowledged(up.name, self.clock.boot()),
            )
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(uplink.run(receive))
                await uplink.ready()
                self.status.uplink(up.name, connected=True, say=attention)
                told.pop(up.name, None)
                log.info("uplink_up", uplink=up.name)
                await delivery.run()

        async def fall(say: str) -> None:
            safe = "How many readings wait is not known."
            with suppress(StorageError):
                held, _, _ = await self.buffer.lanes[Lane.TELEMETRY].depth()
                safe = f"{held:,} readings are safe."
            if say != told.get(up.name):
                log.warning("uplink_down", uplink=up.name, say=say)
            told[up.name] = say
            self.status.uplink(up.name, connected=False, say=f"{say} {safe}")

        await supervise(place, connect_and_deliver, watch=self.watch, down=fall)

    async def _serve_page(self) -> None:
        from gateway.web.server import Page

        assert self.site.page is not None
        token = resolver(self.site, "page", self.credentials)("token")
        page = Page(
            self.status,
            token,
            self.site.page.listen,
            bound=lambda address: self._bound("page", f"http://{address}"),
            has_metrics=self.site.page.metrics,
        )
        await page.run()

    async def _keep_site(self) -> None:
        try:
            await asyncio.to_thread(keep_as_last_good, self.site, self.state)
        except OSError as error:
            say = f"This configuration is not kept as the last good one ({error.strerror}). Mend the disk and restart."
            log.warning("site_not_kept", say=say)

    async def _keep(self, name: str, run: Callable[[], Awaitable[None]]) -> None:
        async def down(say: str) -> None:
            log.warning("down", child=name, say=say)

        async def run_unwatched() -> None:
            # It waits for others, for hours if need be, and has promised nothing; who promises is watched again.
            self.watch.forget(name)
            await run()

        await supervise(name, run_unwatched, watch=self.watch, down=down)

    async def _tell_start(self) -> None:
        """The events of a start."""
        await self.buffer.tell_damage()
        state = self.buffer.state("gateway/")
        devices = self.site.devices.items()
        said = {one: self.buffer.state(f"links.{link.name}/").get(one) for one, (link, _) in devices}
        self._inventory = Inventory(self.site.inventory(0), state.get("inventory"), said)
        at, gateway = self.clock.boot(), self.site.gateway.id
        events = [Event("started", gateway, at, more={"config": self.site.hash, "boot": self.clock.boot_id})]
        if self._rejected:
            events.append(Event("config_rejected", gateway, at, self._rejected))
        if self._inventory.is_new:
            events.append(self._inventory_event())
        await self._tell(events, {"inventory": self._inventory.keep()})

    async def _renew_inventory(self) -> None:
        while True:
            await self._inventory.grow()
            await self._tell([self._inventory_event()], {"inventory": self._inventory.keep()})

    def _inventory_event(self) -> Event:
        return Event("inventory", self.site.gateway.id, self.clock.boot(), more=self._inventory.now)

    async def _tell(self, events: Sequence[Event], state: Mapping[str, Json] | None = None) -> None:
        """The gateway's own events; on a disk that refuses, what happens goes on without being told."""
        try:
            await self._noting(self.buffer.state("gateway/").emit)(events, lane=Lane.EVENT, state=state)
        except StorageError as error:
            log.error("not_stored", say=str(error))

    def _noting(self, emit: Emit) -> Emit:
        async def emit_and_note(
            records: Sequence[Record], *, lane: Lane = Lane.TELEMETRY, state: Mapping[str, Json] | None = None
        ) -> None:
            await emit(records, lane=lane, state=state)
            self.status.note(records)

        return emit_and_note

    async def _report_lanes(self) -> None:
        alive = self.watch.alive("lanes")
        while True:
            alive(60)
            now = self.clock.boot()
            for seen in await self.buffer.overview():
                oldest = None if seen.oldest is None else min(now, now - self.clock.wall() + seen.oldest)
                kept = (seen.dead, seen.quarantined, seen.full_ms)
                depth = LaneDepth(seen.waiting, oldest, seen.bytes, seen.committed, seen.error, *kept)
                self.status.lane(Lane(seen.lane), depth)
            await asyncio.sleep(_LANE_EVERY if self.site.page else _LANE_EVERY_UNSEEN)

    async def _feed_watchdog(self) -> None:
        """systemd's watchdog is fed while everybody is within the deadline that he set himself."""
        period = self._notifier.watchdog
        while period:
            late = self.watch.overdue()
            if late:
                log.error("overdue", children=late)
            else:
                self._notifier.alive()
            await asyncio.sleep(period / 3)

    def _bound(self, place: str, address: str) -> None:
        """Tell where we listen, in a file too: an emulator or a script cannot know an ephemeral port otherwise."""
        self.addresses[place] = address
        try:
            durable.replace(self.state / "addresses.json", json.dumps(self.addresses).encode(), flush=False)
        except OSError as error:
            log.warning("addresses_not_written", place=place, address=address, say=error.strerror)

    async def _say_last_words(self) -> None:
        """What is accepted is committed, and goes out if the platform answers."""
        try:
            async with asyncio.timeout(LAST_WORDS), asyncio.TaskGroup() as waits:
                for lane in self.buffer.lanes.values():
                    with suppress(StorageError):
                        await lane.flush()
                for delivery in self._deliveries.values():
                    waits.create_task(delivery.drained())
        except TimeoutError:
            log.info("left_in_buffer", records={name: lane.committed for name, lane in self.buffer.lanes.items()})


async def _end(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)
