"""How long a command may still be carried out. The wall clock is asked once, when it is accepted; then the boot clock
counts, so that nobody who sets the clock brings an order back to life, or kills one.
"""

from collections.abc import Mapping
from typing import Any

from gateway.model import ClockState, Command, Json
from gateway.ports import Clock


def is_too_late(command: Command, clock: Clock) -> bool:
    """As it arrives. In holdover the clock's error counts against the command."""
    error = clock.error() if clock.state() is ClockState.HOLDOVER else None
    return command.expires <= clock.wall() + (error or 0)


def end(command: Command, clock: Clock) -> int | None:
    """Boot clock at which it expires; None where nobody knows the time: then it is one that does no harm later."""
    return None if clock.state() is ClockState.UNSYNCED else clock.boot() + command.expires - clock.wall()


def written(ends: int | None, clock: Clock) -> dict[str, Json]:
    """For the journal."""
    return {"ends": ends, "boot_id": clock.boot_id}


def resumed(entry: Mapping[str, Any], command: Command, clock: Clock) -> int | None:
    """`end` of a command in the journal. After a reboot the wall clock is asked again; one that is not set ends it."""
    if entry.get("boot_id") == clock.boot_id or entry.get("ends") is None:
        return entry.get("ends")
    return clock.boot() if clock.state() is ClockState.UNSYNCED else end(command, clock)
