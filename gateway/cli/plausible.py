"""What a meter says, held against what a street's mains can be: is the profile right, and is it wired right? Pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from gateway.model import Point

VOLTS, HERTZ = (180.0, 280.0), (45.0, 65.0)
"""Between phase and neutral: 230 V with what a long line and a bad transformer do to it; the grids of the world."""
DEAD = 50.0
"""Volts below which a phase is not connected."""
IDLE = 20.0
"""Watts below which a sign means nothing."""
SUM_OFF = 0.05
"""How far the phases may be from the total, as a part of all that flows: they are measured one after the other."""
_PHASES = ("L1", "L2", "L3")


@dataclass(frozen=True, slots=True)
class Verdict:
    """`checks`: how much could be compared; `wrong`: one sentence and one action each."""

    checks: int
    wrong: Sequence[str]

    def confidence(self, of_profile: float) -> float:
        """How far the profile is to be believed now that its values are known."""
        if not self.checks:
            return of_profile
        return of_profile / 2 if self.wrong else of_profile + (1 - of_profile) / 2


def judge(name: str, points: Mapping[str, Point], values: Mapping[str, float]) -> Verdict:
    """`values` by slug, in each point's unit."""
    told = list(_checks(name, _by_phase(points, values)))
    return Verdict(len(told), [say for say in told if say])


def _by_phase(points: Mapping[str, Point], values: Mapping[str, float]) -> dict[tuple[str, str], float]:
    """By quantity and phase ('' for the whole); what is a part, an average or one direction only is no proof."""
    return {
        (point.quantity, point.phase or ""): values[slug]
        for slug, point in points.items()
        if slug in values and point.part is None and point.statistic is None
    }


def _checks(name: str, of: Mapping[tuple[str, str], float]) -> Iterator[str]:
    """One for each comparison: what is wrong, or ''."""
    volts = {phase: of["voltage", phase] for phase in ("", *_PHASES) if ("voltage", phase) in of}
    lives = any(VOLTS[0] <= each <= VOLTS[1] for each in volts.values())
    for phase, volt in volts.items():
        where = f"{name} {phase}".strip()
        if VOLTS[0] <= volt <= VOLTS[1]:
            yield ""
        elif abs(volt) < DEAD and lives:
            yield f"{where} has no voltage ({volt:g} V). Check its fuse and its tap."
        else:
            yield f"{where} says {volt:g} V, which no mains has. Choose another profile."
    if (hertz := of.get(("frequency", ""))) is not None:
        fits = HERTZ[0] <= hertz <= HERTZ[1]
        yield "" if fits else f"{name} says {hertz:g} Hz, which no grid has. Choose another profile."
    powers = {phase: of["power_active", phase] for phase in _PHASES if ("power_active", phase) in of}
    total = of.get(("power_active", ""))
    if total is not None and len(powers) == 3:
        yield from _phases(name, powers, total)


def _phases(name: str, powers: Mapping[str, float], total: float) -> Iterator[str]:
    flows = sum(abs(each) for each in powers.values())
    off = abs(sum(powers.values()) - total)
    if off > max(IDLE, SUM_OFF * flows):
        summed = sum(powers.values())
        yield f"{name}: the phases make {summed:g} W, the total says {total:g} W. Choose another profile."
    else:
        yield ""
    turned = [phase for phase, each in powers.items() if each < -IDLE]
    drawing = [phase for phase, each in powers.items() if each > IDLE]
    if turned and drawing and total > 0:
        for phase in turned:
            yield f"{name} {phase} power is negative while importing. Turn its clamp round."
    elif turned and not drawing:
        yield f"{name} says that all its power goes out ({total:g} W). If nothing feeds in here, turn its clamps round."
    else:
        yield ""
