"""What the gateway does about time: it notices that the clock is set, tells it once a boot, and remembers it.

An event `clock_anchor` joins the boot clock of one boot to UTC. It dates what this boot has recorded before: here, as
long as that is not sent, and at the platform, where it is.
"""

from collections.abc import Mapping
from typing import cast

from gateway.clock import CLOCK_ANCHOR, DRIFT_PPM, Fix, SystemClock
from gateway.model import ClockState, Event, Json, Lane
from gateway.ports import Clock, Emit, State
from gateway.steps import SetAlarm

LOOK_EVERY = 10.0
SAVE_EVERY = 600_000
"""Milliseconds between two savings of the time: how far the floor is behind after a power cut."""
_BOOTS = 16
"""Anchors of so many boots are kept: for what they recorded and nobody has taken yet."""
_FIXES, _SAVED = "clock/anchors", "clock/saved"
TRUSTED_WITHIN = 60_000
"""Milliseconds: a control that follows the time of day does no harm with a clock that is off by less."""


class Timekeeping:
    """Of one gateway. `fixes` (boot id -> Fix) grows while it runs. `emit` and `state` are the gateway's own."""

    def __init__(self, clock: SystemClock, gateway: str, emit: Emit, state: State) -> None:
        self._clock, self._gateway, self._emit, self._state = clock, gateway, emit, state
        self.fixes: dict[str, Fix] = {}
        self._told = ClockState.UNSYNCED
        self._is_anchored = False
        self._saved = -SAVE_EVERY

    def resume(self) -> None:
        """Take up what was known when the gateway stopped, before anything is recorded."""
        kept = cast("Mapping[str, list[int]]", self._state.get(_FIXES) or {})
        self.fixes |= {boot: Fix(*numbers) for boot, numbers in kept.items()}
        self._is_anchored = self._clock.boot_id in kept
        saved = cast("Mapping[str, int | str | None]", self._state.get(_SAVED) or {})
        compared = None
        if saved and saved["boot"] == self._clock.boot_id and saved["at"] is not None:
            compared = cast("int", saved["at"]), cast("int", saved["error"])
        past = [cast("int", saved["wall"])] if saved else []
        self._clock.resume(max([*past, *(fix.offset + fix.at for fix in self.fixes.values())], default=0), compared)
        self._told = self._clock.state()

    async def run(self) -> None:
        """Until cancelled. StorageError where what it tells cannot be kept: the anchor is then told again."""
        alarm, clock = SetAlarm(), self._clock
        with alarm.armed():
            while True:
                if step := clock.take_step():
                    await self._tell_step(step)
                await self._look()
                if clock.boot() - self._saved >= SAVE_EVERY:
                    await self.save()
                await alarm.wait(LOOK_EVERY)

    async def save(self) -> None:
        """With the next commit of telemetry, which comes anyway: no write of its own wears the card."""
        clock = self._clock
        self._saved = clock.boot()
        at, error = clock.compared or (None, None)
        saved: Json = {"wall": clock.wall(), "boot": clock.boot_id, "at": at, "error": error}
        await self._emit([], lane=Lane.TELEMETRY, state={_SAVED: saved})

    async def _look(self) -> None:
        """Tell what has become of the clock's state."""
        clock, before = self._clock, self._told
        self._told = state = clock.state()
        error = clock.error()
        if error is None:
            return
        if not self._is_anchored:
            await self._anchor(error)
        elif state is not before:
            say = "The clock is compared with the time server again."
            if state is ClockState.HOLDOVER:
                say = f"The clock runs on by itself and may be off by {error / 1000:,.1f} s. Connect network or GNSS."
            await self._tell(f"clock_{state}", say, {"error_ms": error, "drift_ppm": DRIFT_PPM})

    async def _anchor(self, error: int) -> None:
        clock = self._clock
        at = clock.boot()
        fix = Fix(clock.wall() - at, at, error)
        self.fixes[clock.boot_id] = fix
        for old in list(self.fixes)[:-_BOOTS]:
            del self.fixes[old]
        kept: Json = {boot: [each.offset, each.at, each.error] for boot, each in self.fixes.items()}
        more: dict[str, Json] = {
            "boot": clock.boot_id, "offset": fix.offset, "at": at, "error_ms": error, "drift_ppm": DRIFT_PPM,
        }  # fmt: skip
        await self._tell(CLOCK_ANCHOR, "The clock is set.", more, {_FIXES: kept})
        self._is_anchored = True

    async def _tell_step(self, by: int) -> None:
        seconds, way = abs(by) / 1000, "forward" if by > 0 else "back"
        await self._tell("clock_stepped", f"The clock was set {way} by {seconds:,.1f} s.", {"by_ms": by})

    async def _tell(
        self, kind: str, say: str, more: Mapping[str, Json], state: Mapping[str, Json] | None = None
    ) -> None:
        event = Event(kind, self._gateway, self._clock.boot(), say, more)
        await self._emit([event], lane=Lane.EVENT, state=state)


def is_trusted(clock: Clock, within: int = TRUSTED_WITHIN) -> bool:
    """Whether a control may follow the time of day. Where it is not, lamps stay lit and limits stay low."""
    state, error = clock.state(), clock.error()
    return state is ClockState.SYNCED or (error is not None and error <= within)
