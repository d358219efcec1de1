"""What people write about chargers: the listener in a site file, the charger, and the profile of what it measures."""

import functools
import ipaddress
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, StringConstraints, field_validator, model_validator

import config
from drivers.ocpp import verbs as orders
from drivers.ocpp.samples import CONTEXTS, DEFAULT_LOCATION, LOCATIONS, MEASURANDS, Route
from gateway import document
from gateway import profile as head
from gateway.document import Mistake, unknown
from gateway.fields import Duration, Secret, Slug, Whole, Written, amount
from gateway.model import DeviceId, Point, Verb
from gateway.profile import DeviceKeys, LinkKeys, ProfilePoint
from gateway.quantities import QUANTITIES

Amperes: Any = amount("A")
MIN_AMPS = 6.0
"""Below 6 A a car does not charge (IEC 61851-1); 0 A pauses it."""


def _listen(written: Any) -> str:
    try:
        host, port = split(str(written))
        ipaddress.ip_address(host)
        if not 0 <= port <= 65535:
            raise ValueError
    except ValueError:
        fix = "Write `127.0.0.1:8443`, `0.0.0.0:8443` or `[::]:8443`; port 0 takes any free one."
        raise Mistake("bad_listen", f"`{written}` is not an address and a port", fix) from None
    return str(written)


def split(listen: str) -> tuple[str, int]:
    """(host, port) of `127.0.0.1:8443` or `[::1]:8443`. ValueError where it is neither."""
    host, _, port = listen.rpartition(":")
    return host.removeprefix("[").removesuffix("]"), int(port)


class Settings(LinkKeys):
    """A listener for chargers. `security` is the OCPP security profile: 2 basic authentication inside TLS, 1 basic
    authentication in the clear, 0 none; 0 and 1 only where nobody else can reach it.
    """

    listen: Annotated[str, BeforeValidator(_listen)]
    security: Literal["0", "1", "2"] = "2"
    certificate: Secret | None = None
    """The gateway's certificate and its chain, PEM."""
    key: Secret | None = None
    """The certificate's private key, PEM."""
    tags: Secret | None = None
    """The local list: one `idTag[,group][,expiry]` a line."""
    authorise: Literal["list", "open", "platform"] = "list"
    """Who may charge: only tags of the list, everybody, or whom the platform lets, asked by pseudonym."""
    authorise_within: Duration = 5.0
    """How long the platform may take; then its last word on the tag holds for a week, else the list."""
    concurrent: Literal["allowed", "refused"] = "allowed"
    """Whether a tag may charge at two connectors at a time."""
    pseudonym: Secret | None = None
    """The key that turns tags into pseudonyms, former keys in the lines below it; left out, the gateway makes one."""

    @field_validator("security", mode="before")
    @classmethod
    def _as_text(cls, value: Any) -> Any:
        return str(value) if isinstance(value, int) else value

    @model_validator(mode="after")
    def _is_guarded(self) -> "Settings":
        if self.security != "2" and not ipaddress.ip_address(split(self.listen)[0]).is_loopback:
            why = f"security {self.security} on {self.listen}: keys and tags would cross the network unencrypted"
            raise Mistake("unguarded_listener", why, "Write `security: 2` with a certificate, or listen on 127.0.0.1.")
        if self.security == "2" and (self.certificate is None or self.key is None):
            why = "security 2 is TLS, which needs the gateway's certificate and its key"
            raise Mistake("missing_key", why, "Add `certificate: secret` and `key: secret`.")
        return self


class DeviceSettings(DeviceKeys):
    """A charger. `safe_current` is what it falls back to when a limit's lease ends or the gateway is gone."""

    profile: str = "ocpp-generic"
    identity: Annotated[str, StringConstraints(min_length=1, max_length=48)] | None = None
    """What the charger calls itself at the end of its address; left out, the asset's id."""
    key: Secret | None = None
    """Its password (OCPP `AuthorizationKey`), with security 1 and 2."""
    connectors: Annotated[Whole, Field(ge=1, le=16)] = 1
    max_current: Amperes = 32.0
    safe_current: Amperes = MIN_AMPS
    phases: Literal["1", "3"] = "3"
    """Of its supply: a charger that takes limits only in watts is told amperes * 230 V * phases."""
    admit: Literal["accepted", "pending", "rejected"] = "accepted"
    """What it is told when it boots: `pending` can be set up but not charge, `rejected` is out of service."""

    @field_validator("phases", mode="before")
    @classmethod
    def _as_text(cls, value: Any) -> Any:
        return str(value) if isinstance(value, int) else value

    @model_validator(mode="after")
    def _can_charge(self) -> "DeviceSettings":
        if not MIN_AMPS <= self.max_current <= 1000:
            why = f"max_current is {self.max_current:g} A; a car charges from {MIN_AMPS:g} A"
            raise Mistake("out_of_range", why, "Write what its fuse and cable carry, like `32 A`.")
        if self.safe_current != 0 and not MIN_AMPS <= self.safe_current <= self.max_current:
            why = f"safe_current is {self.safe_current:g} A; it must be 0 or {MIN_AMPS:g} to {self.max_current:g} A"
            raise Mistake("out_of_range", why, "Write `6 A`, or `0 A` to pause charging.")
        return self


_WITHOUT_MEASURAND = ("connector_status", "device_status", "charging_limit")


class ChargerPoint(ProfilePoint):
    """A measurand at a place, or what is known without one: the statuses and the limit that the charger confirmed."""

    measurand: str | None = None
    location: str | None = None
    """Left out: Outlet; for SoC EV, for Temperature Body."""
    context: Literal["clock_aligned"] | None = None
    """A series of its own for values taken at the full quarter of an hour; without it they join the other one."""

    @model_validator(mode="after")
    def _is_ocpp(self) -> "ChargerPoint":
        if self.measurand is None:
            if self.quantity not in _WITHOUT_MEASURAND:
                why = f"{self.quantity} is measured: it needs the measurand that carries it"
                raise Mistake("missing_key", why, "Add `measurand: …`.")
            return self
        if self.measurand not in MEASURANDS:
            why, fix = unknown(self.measurand, sorted(MEASURANDS))
            raise Mistake("unknown_word", f"measurand {why}", fix)
        means = QUANTITIES.get(MEASURANDS[self.measurand])
        if self.location is not None and self.location not in LOCATIONS:
            why, fix = unknown(self.location, LOCATIONS)
            raise Mistake("unknown_word", f"location {why}", fix)
        if self.unit is not None and means is not None:
            why = "the charger says its unit with every value"
            raise Mistake("bad_unit", why, "Leave `unit` out.")
        if means is not None and means.unit != self.canonical_unit:
            why = f"{self.measurand} is {means.name}, not {self.quantity}"
            raise Mistake("unknown_quantity", why, f"Write `quantity: {means.name}`.")
        if means is None and self.quantity != MEASURANDS[self.measurand]:
            # The energy of an interval is no counter, whatever its unit.
            why = f"{self.measurand} is {MEASURANDS[self.measurand]}, not {self.quantity}"
            raise Mistake("unknown_quantity", why, f"Write `quantity: {MEASURANDS[self.measurand]}`.")
        return self


class Example(Written):
    """A MeterValues.req and what it must give: `reads` by slug, as `7400 W`, or a reason (`not_a_number`)."""

    received: Mapping[str, Any]
    reads: Mapping[Slug, str]
    note: str = ""


class Refusal(Written):
    """A MeterValues.req that must give no good value."""

    received: Mapping[str, Any]
    because: str


def _usual_points() -> Mapping[str, ChargerPoint]:
    return _points_of(Path(config.__file__).parent / "profiles" / "ocpp-generic.yaml")


@functools.cache
def _points_of(file: Path) -> Mapping[str, ChargerPoint]:
    tree = document.read(file).tree["points"]
    return {slug: ChargerPoint.model_validate(point) for slug, point in tree.items()}


Steps: Any = Annotated[Sequence[Amperes], Field(min_length=1)]


class Profile(head.Profile):
    """What a kind of charger measures, per connector, and where it departs from the specification."""

    points: Annotated[Mapping[Slug, ChargerPoint], Field(min_length=1, default_factory=_usual_points)]
    """Left out: those of ocpp-generic."""
    subprotocol: Literal["ocpp1.6"] = "ocpp1.6"
    """The one it is spoken to in, whatever else it offers."""
    rate_unit: Literal["A", "W"] | None = None
    """The only unit of limits that it obeys; left out, it is asked."""
    steps: Steps | None = None
    """The only limits that it obeys besides 0; another is rounded down to one of them."""
    whole_amps: bool = False
    """It takes no tenths of an ampere."""
    register_kind: Annotated[Literal["lifetime", "session"] | None, Field(alias="register")] = None
    """Whether its energy register counts on for ever or from each start; left out, it is found out."""
    triggers: bool = True
    """Whether it may be sent a TriggerMessage."""
    examples: Sequence[Example] = ()
    refusals: Sequence[Refusal] = ()

    @functools.cached_property
    def routes(self) -> Mapping[Route, str]:
        """The slug for each value at a connector: clock-aligned ones go to the series of their own where there is one,
        and all others to that of their measurand.
        """
        own, joined = dict[Route, str](), dict[Route, str]()
        for slug, point in self.points.items():
            if point.measurand is not None:
                location = point.location or DEFAULT_LOCATION.get(point.measurand, "Outlet")
                for context in (point.context,) if point.context else CONTEXTS.values():
                    found = own if point.context else joined
                    found[Route(point.measurand, point.phase, location, context)] = slug
        return joined | own

    @functools.cached_property
    def unmeasured(self) -> Mapping[str, str]:
        """The slug for each quantity that is known without a measurand."""
        return {point.quantity: slug for slug, point in self.points.items() if point.measurand is None}


def _placed(profile: Profile, settings: DeviceSettings) -> Iterator[tuple[int, str, ChargerPoint]]:
    """(connector, slug, point)."""
    for slug, point in profile.points.items():
        if point.quantity == "device_status":
            yield 0, slug, point
            continue
        for connector in range(1, settings.connectors + 1):
            yield connector, slug_at(slug, connector), point


def points(device_id: DeviceId, profile: Profile, settings: DeviceSettings) -> dict[str, Point]:
    """By slug. The points of connectors 2 … have `part` 2 …"""
    return {
        slug: point.model_copy(update={"part": str(connector)} if connector > 1 else {}).point(device_id, slug)
        for connector, slug, point in _placed(profile, settings)
    }


def slug_at(slug: str, connector: int) -> str:
    """What the profile's point is called at a connector: the first one's have the profile's names."""
    return slug if connector == 1 else f"{slug}-{connector}"


def verbs(profile: Profile, settings: DeviceSettings) -> dict[str, Verb]:  # noqa: ARG001 - the same for all drivers
    """See `drivers.ocpp.verbs`."""
    return orders.verbs(settings.connectors, settings.max_current, settings.safe_current)


def address(settings: DeviceSettings) -> str | None:
    """The identity; None: the asset's id, which is unique by itself (the driver refuses two devices of one asset)."""
    return settings.identity
