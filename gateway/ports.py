"""The seams: what a driver, an emulator, an uplink and a clock must be. Protocols and what they are given, no more."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from gateway.batch import Batch
from gateway.model import ClockState, Command, Device, Json, Lane, Receipt, Record, Reply


class Clock(Protocol):
    """The only source of time stamps. Durations come from the event loop, never from here."""

    boot_id: str
    """Random id of this boot of the machine."""

    def wall(self) -> int:
        """UTC, milliseconds."""

    def boot(self) -> int:
        """Milliseconds since boot, counting suspend; never steps."""

    def state(self) -> ClockState:
        """How far `wall` may be trusted."""

    def since(self) -> int:
        """Boot clock at which it began to be so."""

    def error(self) -> int | None:
        """Milliseconds that `wall` may be off; None where nobody knows. As of the last `state`."""


class Emit(Protocol):
    """Hand-over, durability and backpressure in one call (contract 5).

    Returns when the lane's promise holds: billing and event records and their `state` are on disk,
    telemetry is accepted and on disk within `commit_every`. Raises StorageError when it cannot; a peer
    that waits for the records must then not be answered. `state` (JSON values by key, None deletes) is
    committed in the same transaction as the records; a key belongs to one lane for ever. What is kept under a
    device's id may have `serial` and `firmware`: they go into the inventory.
    """

    async def __call__(
        self, records: Sequence[Record], *, lane: Lane = Lane.TELEMETRY, state: Mapping[str, Json] | None = None
    ) -> None: ...


class State(Protocol):
    """A link's own durable state, as last committed by `emit(…, state=…)`."""

    def get(self, key: str) -> Json:
        """The value, or None."""

    def keys(self) -> Sequence[str]: ...


@dataclass(frozen=True, slots=True)
class Link:
    """What a driver is given: one wire, the devices on it, and the gateway's services."""

    name: str
    settings: Any
    """The driver's own Settings model."""
    devices: Sequence[Device]
    clock: Clock
    state: State
    alive: Callable[[float], None]
    """`alive(30)`: I will call again within 30 s, or the watchdog may think me dead."""
    bound: Callable[[str], None]
    """`bound("127.0.0.1:43121")`: a listening driver says where it listens."""
    secret: Callable[[str], str]
    """The credential behind a settings key: `secret("key")` of the link, `secret("cp-1/evse.key")` of a
    device. Read anew each time; ConfigError says which one is missing and how to set it."""


class Driver(Protocol):
    """Owns one wire. Constructed as `Driver(link)`; `drivers/<name>/__init__.py` says what else a folder exports."""

    async def run(self, emit: Emit) -> None:
        """Until cancelled. LinkError: the wire is gone, back off and run again."""

    async def execute(self, command: Command) -> Reply:
        """Carry out a checked command and say what holds now. CommandError or DeviceError: it failed."""


@runtime_checkable
class Doorkeeper(Protocol):
    """A driver that is called, and not only by whom it knows."""

    def strangers(self) -> Sequence[Json]:
        """Who called and is not in the site file: `{"identity", "address", "protocols", "calls", "last"}` each, the
        latest first; `last` in UTC milliseconds.
        """


class Emulator(Protocol):
    """Plays the far end of one link in another process: constructed as
    `Emulator(link_settings, devices, address, secret)`, where `address` is None for an emulator that listens
    (it chooses an ephemeral one) and the gateway's own listening address for one that calls in: one whose
    driver's Settings have a `listen`. `secret` is as in `Link`: a charger knows its key.
    """

    async def start(self) -> Mapping[str, str]:
        """Start and return the link's settings to override in the site file ({"host": …, "port": …})."""

    async def run(self) -> None:
        """Until cancelled."""

    def produced(self) -> Mapping[str, int]:
        """Values put on the wire so far, by device id."""


class Inventory(Protocol):
    """What stands in the street: see gateway/inventory.py."""

    @property
    def now(self) -> Mapping[str, Json]:
        """The document, with its version."""

    async def other_than(self, version: object) -> Mapping[str, Json]:
        """The document, as soon as its version is not this one."""


Receive = Callable[[bytes, bool], Awaitable[None]]
"""`await receive(payload, retained)`: returns when the command's journal entry is durable."""


@dataclass(frozen=True, slots=True)
class Platform:
    """What an uplink is given."""

    name: str
    """The uplink's name in the site file: its identity."""
    settings: Any
    gateway: str
    tenant: str
    inventory: "Inventory"
    clock: Clock
    alive: Callable[[float], None]
    secret: Callable[[str], str]
    """The credential behind a settings key, as in `Link`."""
    warn: Callable[[str], None] = lambda _: None
    """`warn(sentence)`: it works, and somebody must act before it does no more; an empty one takes it back."""


class Uplink(Protocol):
    """Speaks to one platform. Constructed as `Uplink(platform)`."""

    @property
    def window(self) -> int:
        """Most batches that may be under way at once; holds for a connection, from `ready` on."""

    async def run(self, receive: Receive) -> None:
        """Hold the connection until cancelled. UplinkError: it is gone, back off and run again."""

    async def ready(self) -> None:
        """Return as soon as batches can be sent."""

    async def send(self, batch: Batch) -> Receipt:
        """Return what the platform settled. UplinkError: nothing is known of this batch, send it again."""
