"""What is asked of a charger that has called in: who it is, what its connectors do, and to keep to its safe share.

A charger that only lost its network does not boot again (OCPP-J): what it told before still holds, what it has not told
since the gateway started is asked for. Some chargers drop a call that comes on the heels of the handshake, so each has
a little time first.
"""

import asyncio
import contextlib
from collections.abc import Mapping

from drivers.ocpp import limits
from drivers.ocpp.charger import Charger
from drivers.ocpp.connection import Connection, GoneError, RefusedError
from gateway.model import Json
from gateway.ports import Clock

BOOT_WITHIN = 10.0
SETTLE = 2.0


async def prepare(charger: Charger, connection: Connection, clock: Clock) -> None:
    """Ends when all is asked, or with the connection."""
    with contextlib.suppress(GoneError):
        if not await _is_booted(charger) and charger.profile.triggers:
            await _trigger(connection, {"requestedMessage": "BootNotification"})
            await _is_booted(charger)
        await asyncio.sleep(SETTLE)
        if charger.profile.triggers:
            for connector in range(1, charger.settings.connectors + 1):
                if connector not in charger.heard:
                    asked: dict[str, Json] = {"requestedMessage": "StatusNotification", "connectorId": connector}
                    await _trigger(connection, asked)
        await _keep_safe(charger, connection, clock)


async def _keep_safe(charger: Charger, connection: Connection, clock: Clock) -> None:
    """The safe share, in the charger itself. It survives a power cut there, so it is installed when the charger has
    booted and when the share has changed, not with each connection: it is written to the charger's flash.
    """
    key = f"base/{charger.device.id}"
    amps = charger.settings.safe_current
    if charger.recall(key) == amps and not charger.is_fresh:
        charger.has_base = True
        return
    refusal = await limits.install_base(charger, connection, clock)
    if refusal:
        say = (
            f"{charger.device.id} takes no limit: {refusal}. Without its gateway it draws what its fuse carries;"
            " set its current in the charger itself."
        )
        await charger.tell("limit_refused", say)
    else:
        await charger.tell("safe_share", f"{charger.device.id} keeps to {amps:g} A when nobody tells it otherwise.")
    charger.is_fresh = False
    await charger.remember({key: amps})


async def _is_booted(charger: Charger) -> bool:
    try:
        async with asyncio.timeout(BOOT_WITHIN):
            await charger.booted.wait()
    except TimeoutError:
        if not charger.is_told_to_wait:
            return False
        await charger.booted.wait()
    return True


async def _trigger(connection: Connection, asked: Mapping[str, Json]) -> None:
    with contextlib.suppress(RefusedError):
        await connection.call("TriggerMessage", asked)
