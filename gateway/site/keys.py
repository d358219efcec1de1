"""The keys of a site file: what an integrator writes, and nothing that no code obeys."""

import ipaddress
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from gateway.diagnostic import Mistake
from gateway.fields import Duration, Secret, Size, Slug, Written
from gateway.model import Lane

VERSION = "1"
HERE = "here"
RESERVED = ("links", "uplinks", "page")
"""No asset is called so: secrets are named after places, and these places are taken."""


def _version(text: Any) -> str:
    if str(text) != VERSION:
        why = f"`version: {text}` is not a version that this gateway reads"
        raise Mistake(
            "unsupported_version", why, f"Write `version: {VERSION}`, or install the gateway it was made for."
        )
    return VERSION


class GatewayKeys(Written):
    """Who this gateway is."""

    id: Slug
    """Its name, once per tenant; `here` in this file."""
    tenant: Slug
    """Whose street it is: the topic level above the gateway."""
    clock: Literal["system", "trusted"] = "system"
    """`system`: readings say whether it is synchronised. `trusted`: something else answers for it (a container)."""


class Position(Written):
    """A place on the map, WGS 84."""

    lat: Annotated[float, Field(ge=-90, le=90, allow_inf_nan=False)]
    """Degrees north."""
    lon: Annotated[float, Field(ge=-180, le=180, allow_inf_nan=False)]
    """Degrees east."""


class AssetKeys(Written):
    """A thing on the map: lamp post, charge point, bay, cabinet."""

    later: ClassVar[Mapping[str, str]] = {
        "use": "Write the devices of this asset out for now.",
        "links": "Write the link under the file's own `links` for now.",
    }

    at: Position | None = None
    """Where it stands."""
    fed_by: str | None = None
    """The asset or device that its current comes from: `here/feeder`."""
    serves: str | Sequence[str] = ()
    """The assets that it is there for: a sensor's parking bays."""
    devices: Mapping[Slug, Mapping[str, Any]] = {}
    """What speaks in it, by name. Its id is `asset/device`."""


def _endpoint(text: Any) -> str:
    """`host:port`, `[v6]:port`."""
    match = re.fullmatch(r"(\[[0-9a-fA-F:]+\]|[A-Za-z0-9.-]+):(\d{1,5})", str(text))
    if not match or int(match[2]) > 65535:
        why = f"`{text}` is not an address and a port"
        raise Mistake("bad_value", why, "Write it like `127.0.0.1:8080`.")
    return str(text)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class PageKeys(Written):
    """The technician's page."""

    listen: Annotated[str, BeforeValidator(_endpoint), WithJsonSchema({"type": "string"})] = "127.0.0.1:8080"
    """Address and port; port 0 takes a free one."""
    token: Secret = Field("secret")
    """What a visitor must show on every request."""
    metrics: bool = False
    """Answer `/metrics` too, for Prometheus, with the same token."""
    unencrypted: bool = False
    """Accept that the token crosses the network readable, where `listen` is not the machine itself."""

    @model_validator(mode="after")
    def _stays_at_home(self) -> "PageKeys":
        host = self.listen.rpartition(":")[0]
        if not self.unencrypted and not _is_loopback(host):
            raise Mistake(
                "public_listen",
                f"`{self.listen}` is open to the network, and the page's token would cross it readable",
                "Keep 127.0.0.1 and go through `ssh -L 8080:127.0.0.1:8080` or a TLS proxy; on a network that "
                "nobody else is on, add `unencrypted: true`.",
                ("listen",),
            )
        return self


MB = 1024 * 1024
_Room = Annotated[Size, Field(ge=MB)]


class BufferKeys(Written):
    """The durable buffer on disk."""

    commit_every: Annotated[Duration, Field(ge=0.05, le=60)] = 1.0
    """Readings younger than this may be lost in a power cut; 5s spares an SD card. Billing and events never wait."""
    billing: _Room = 256 * MB
    """Room for charging transactions: when full, new sessions are refused; nothing is overwritten."""
    event: _Room = 128 * MB
    """Room for events and command replies: when full, the oldest go, and a record says so."""
    telemetry: _Room = 1024 * MB
    """Room for readings: at 80 % the oldest become one a minute, then one a quarter of an hour, then they go."""
    max_age: Annotated[Duration, Field(ge=3600)] = 90 * 86_400.0
    """Events and readings that have waited longer are dropped; time without power does not count."""
    keep_after_ack: Duration = 86_400.0
    """How long what every platform has is kept for `lampione buffer resend`; the first to go when room is short."""

    @property
    def bounds(self) -> dict[Lane, int]:
        """Bytes by lane."""
        return {Lane.BILLING: self.billing, Lane.EVENT: self.event, Lane.TELEMETRY: self.telemetry}


class SiteKeys(Written):
    """One gateway and all that hangs on it."""

    later: ClassVar[Mapping[str, str]] = {
        "base": "Put what the sites share into each of them for now.",
        "defaults": "Write `every` and the rest at each device for now.",
        "kinds": "Write the devices of each asset out for now.",
        "lighting": "Lamps keep their own programs for now.",
    }

    version: Annotated[str, BeforeValidator(_version), WithJsonSchema({"const": int(VERSION)})]
    """Of this format."""
    gateway: GatewayKeys
    """Who this gateway is."""
    links: Mapping[Slug, Mapping[str, Any]] = {}
    """The wires: one driver each."""
    assets: Mapping[Slug, AssetKeys] = {}
    """What stands in the street; `here` is the gateway's own cabinet."""
    uplinks: Mapping[Slug, Mapping[str, Any]] = {}
    """The platforms that records go to. The name is the identity: a renamed uplink starts anew."""
    page: PageKeys | None = None
    """The technician's page; left out, there is none."""
    buffer: BufferKeys = BufferKeys()
    """The durable buffer on disk."""

    @model_validator(mode="after")
    def _names_are_free(self) -> "SiteKeys":
        for name in RESERVED:
            if name in self.assets:
                raise Mistake(
                    "reserved_name", f"an asset cannot be called `{name}`", "Call it otherwise.", ("assets", name)
                )
        if self.gateway.id in self.assets and HERE in self.assets:
            why = f"`{self.gateway.id}` is this gateway, which stands here as `{HERE}` already"
            raise Mistake("duplicate_key", why, f"Move its devices under `{HERE}`.", ("assets", self.gateway.id))
        return self
