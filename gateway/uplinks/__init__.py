"""Ways to a platform, one file each: `Settings` for the site file and `Uplink`, a `gateway.ports.Uplink`.

Here is what they share: the keys that every uplink has, what an address must look like, the watchdog's
beat, and the platform's answer to one batch.
"""

import asyncio
import socket
import ssl
from collections.abc import Coroutine, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal
from urllib.parse import SplitResult, urlsplit

from pydantic import Field

from gateway.batch import Batch, BatchError, BatchRefusedError, decode_receipt
from gateway.diagnostic import Mistake
from gateway.errors import REFUSED, UplinkError
from gateway.fields import Size, Slug, Written
from gateway.model import Lane, Receipt
from gateway.ports import Platform

_BEAT = 10.0
_DEADLINE = 30.0


class UplinkKeys(Written):
    """Keys that every uplink in a site file has; `gateway/uplinks/<name>.py` subclasses it with its own."""

    uplink: Slug
    lanes: tuple[Lane, ...] = Field(tuple(Lane), min_length=1)
    only: tuple[str, ...] = ("*",)
    """Globs over device ids: `here/*`."""
    commands: Mapping[Slug, tuple[Slug, ...]] = Field(default_factory=dict)
    """Issuer -> the verbs it may send over this uplink. Nobody may send anything unless named here."""
    start: Literal["oldest", "now"] = Field("oldest", alias="from")
    """Where a new uplink starts in the buffer."""
    keep: Size | None = None
    """Room that each lane may hold for this platform: beyond it, the oldest are given up for it alone."""


def address(url: str, ports: Mapping[str, int]) -> SplitResult:
    """`url` taken apart. `ports`: the schemes that are taken, with their default ports. Mistake says what is wrong."""
    example = f"{next(iter(ports))}://usp.example"
    parts = urlsplit(url)
    if parts.scheme not in ports or not parts.hostname:
        raise Mistake("bad_url", f"`{url}` is not an address of {' or '.join(ports)}", f"Write it like `{example}`.")
    if parts.username is not None or parts.password is not None:
        raise Mistake("clear_text_secret", "a user name or password stands in the url", "Give them their own keys.")
    try:
        known = parts.port
    except ValueError:
        known = 0
    if known == 0:
        raise Mistake("bad_url", f"`{url}` has no port between 1 and 65535", f"Write it like `{example}:8883`.")
    try:
        parts.hostname.encode("idna")
    except UnicodeError:
        raise Mistake("bad_url", f"`{parts.hostname}` cannot be a host's name", f"Write it like `{example}`.") from None
    return parts


@contextmanager
def beating(platform: Platform) -> Iterator[None]:
    """Within it the watchdog hears of this uplink: waiting for a silent platform is not being stuck."""
    loop = asyncio.get_running_loop()

    def beat() -> None:
        platform.alive(_DEADLINE)
        timers[:] = [loop.call_later(_BEAT, beat)]

    timers: list[asyncio.TimerHandle] = []
    beat()
    try:
        yield
    finally:
        timers[0].cancel()


async def together(*works: Coroutine[Any, Any, None]) -> None:
    """Run until one ends by UplinkError, which comes out as itself, not in a group."""
    failed: BaseException | None = None
    try:
        async with asyncio.TaskGroup() as group:
            for work in works:
                group.create_task(work)
    except* UplinkError as errors:
        failed = errors.exceptions[0]
    if failed is not None:
        raise failed


def receipt_of(payload: bytes, batch: Batch) -> Receipt:
    """The acknowledgement in `payload`. UplinkError where it refuses, does not read, or is of another epoch."""
    try:
        receipt = decode_receipt(payload)
    except BatchRefusedError as error:
        raise UplinkError(f"The platform cannot read a batch: {error}. Ask whoever runs it.", REFUSED) from None
    except BatchError as error:
        raise UplinkError(f"The platform's answer makes no sense: {error}. Ask whoever runs it.") from None
    if receipt.epoch != batch.epoch:
        raise UplinkError(
            f"The platform answered for epoch {receipt.epoch}, not {batch.epoch}. The batch is sent again."
        )
    return receipt


def unreachable(whom: str, cause: OSError, url: str) -> str:
    """Why a connection to `url`, the `whom` of the sentence, does not come about, and what to do."""
    parts = urlsplit(url)
    where = f"{parts.hostname}:{parts.port}" if parts.port else parts.hostname
    match cause:
        case socket.gaierror():
            return f"The name {parts.hostname} is not found. Check the url, and that the network has a name server."
        case ssl.SSLCertVerificationError():
            return f"The {whom}'s certificate is not trusted: {cause.verify_message}. Put its authority's file in `ca`."
        case ssl.SSLError():
            return f"TLS with {where} does not come about ({cause.reason}). Check the port, and whether it takes TLS."
        case ConnectionResetError() if parts.scheme.endswith("s"):
            return f"{where} breaks off when TLS begins. Check the port, and whether it takes TLS."
        case ConnectionRefusedError():
            return f"Nothing listens at {where}. Start the {whom}, or correct the url."
        case TimeoutError():
            return f"{where} does not answer. Check the network, the firewall and the url."
        case _:
            return f"{where} cannot be reached: {cause.strerror or cause}. Check the network."
