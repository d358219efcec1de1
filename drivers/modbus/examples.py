"""A profile's own examples: what they give in truth, and what they do not bear out."""

import math
import re
from collections.abc import Mapping

from drivers.modbus import identify
from drivers.modbus.codec import Field, decode, precision
from drivers.modbus.settings import Profile, Registers
from gateway.document import Location
from gateway.model import Reason
from gateway.quantities import convert


def self_test(profile: Profile) -> list[tuple[Location, str]]:
    """What the profile's own examples and refusals do not bear out: place in the document, and one sentence."""
    fields = dict((*profile.fields(), *profile.writable()))
    found: list[tuple[Location, str]] = []
    for number, example in enumerate(profile.examples):
        for slug, text in example.expect.items():
            if why := _differs(profile, fields, example.regs, slug, text):
                found.append((("examples", number, "expect", slug), why))
        if example.identifies and not identify.matches([profile], identify.bank(example.regs)):
            found.append((("examples", number, "identifies"), "these registers are not what `match` looks for"))
    if profile.match and not any(example.identifies for example in profile.examples):
        found.append((("match",), "no example shows registers that `match` finds; mark one with `identifies: true`"))
    for number, refusal in enumerate(profile.refusals):
        for slug, reason in refusal.because.items():
            if why := _accepts(fields, refusal.regs, slug, reason):
                found.append((("refusals", number, "because", slug), why))
    return found


def _differs(profile: Profile, fields: Mapping[str, Field], regs: Registers, slug: str, text: str) -> str:
    words = registers(fields, regs, slug)
    if isinstance(words, str):
        return words
    field = fields[slug]
    place = profile.points.get(slug) or profile.writes[slug]
    value, reason = decode(field, words)
    if isinstance(value, str):
        return "" if value == text else f"`{slug}` says `{value}`, the example says `{text}`"
    said = re.fullmatch(r"\s*([-+]?[0-9.]+(?:[eE][-+]?[0-9]+)?)\s*(\S*)\s*", text)
    if not said:
        return f"`{text}` is not a number with a unit"
    try:
        wanted = float(said[1])
        factor, offset = convert(said[2], place.canonical_unit) if said[2] else place.conversion
    except ValueError as error:
        return f"`{text}`: {error}"
    wanted = wanted * factor + offset
    if value is None:
        return f"`{slug}` says no value ({reason}), the example says {text}"
    if not math.isclose(value, wanted, rel_tol=precision(field.kind), abs_tol=1e-12):
        return f"`{slug}` says {value:.9g} {place.canonical_unit}, the example says {text}"
    return ""


def _accepts(fields: Mapping[str, Field], regs: Registers, slug: str, reason: Reason) -> str:
    words = registers(fields, regs, slug)
    if isinstance(words, str):
        return words
    value, why = decode(fields[slug], words)
    if why is reason:
        return ""
    said = f"no value ({why})" if value is None else value if isinstance(value, str) else f"{value:.9g}"
    return f"`{slug}` says {said}; it should say no value ({reason})"


def registers(fields: Mapping[str, Field], regs: Registers, slug: str) -> list[int] | str:
    """The registers of a point as an example gives them, or why they are not there."""
    if slug not in fields:
        return f"there is no point `{slug}`"
    field = fields[slug]
    given = identify.bank(regs).get(field.fc, {})
    wanted = range(field.addr, field.end)
    if missing := [addr for addr in needed(field) if addr not in given]:
        return f"`{slug}` lies in function {field.fc} at {field.addr:#06x}; register {missing[0]:#06x} is not given"
    return [given.get(addr, 0) for addr in wanted]


def needed(field: Field) -> list[int]:
    """The registers that its value depends on; those that lie between them may stay out of an example."""
    special = field.special
    if special is None:
        return list(range(field.addr, field.end))
    singles = [at for at in (special.exponent_at, special.scale_at, special.status_at) if at is not None]
    singles += [at for at, _ in special.marks]
    starts = [special.at] if special.minus_at is None else [special.at, special.minus_at]
    return [field.addr + at for at in (*(start + n for start in starts for n in range(special.size)), *singles)]
