"""What feeds what, and what is there for what: `fed_by` and `serves` name assets or devices of the same file."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gateway.diagnostic import Diagnostic, Location, unknown
from gateway.document import Document
from gateway.site.keys import HERE


@dataclass(frozen=True, slots=True)
class Names:
    """Names as a site file writes them, as ids: `here/feeder` is `cab-017/feeder`."""

    here: str

    def id(self, written: str) -> str:
        first, slash, rest = written.partition("/")
        return (self.here if first == HERE else first) + slash + rest

    def written(self, id: str) -> str:  # noqa: A002 - it is one
        first, slash, rest = id.partition("/")
        return (HERE if first == self.here else first) + slash + rest


def several(written: str | Sequence[str] | None) -> tuple[str, ...]:
    if written is None:
        return ()
    return (written,) if isinstance(written, str) else tuple(written)


@dataclass(frozen=True, slots=True)
class _Relation:
    of: str
    to: str
    kind: str
    at: Location


def mistakes(written: Document, names: Names, assets: Any) -> list[Diagnostic]:
    """Relations that name nothing, and circles in `fed_by`. `assets` is the raw tree, wrong parts and all."""
    if not isinstance(assets, Mapping):
        return []
    known = set(_ids(names, assets))
    found = []
    feeds: dict[str, _Relation] = {}
    for relation in _relations(names, assets):
        if relation.to not in known:
            why, fix = unknown(names.written(relation.to), sorted(map(names.written, known)))
            found.append(written.diagnostic("unknown_asset", relation.at, f"asset or device {why}", fix))
        elif relation.kind == "fed_by":
            feeds[relation.of] = relation
    return found + _circles(written, feeds)


def _ids(names: Names, assets: Mapping[str, Any]) -> Iterator[str]:
    yield names.here
    for asset, keys in assets.items():
        yield names.id(asset)
        devices = keys.get("devices") if isinstance(keys, Mapping) else None
        for device in devices if isinstance(devices, Mapping) else ():
            yield names.id(f"{asset}/{device}")


def _relations(names: Names, assets: Mapping[str, Any]) -> Iterator[_Relation]:
    for asset, keys in assets.items():
        if not isinstance(keys, Mapping):
            continue
        yield from _relations_of(names, asset, keys, ("assets", asset))
        devices = keys.get("devices")
        for device, inner in devices.items() if isinstance(devices, Mapping) else ():
            if isinstance(inner, Mapping):
                yield from _relations_of(names, f"{asset}/{device}", inner, ("assets", asset, "devices", device))


def _relations_of(names: Names, subject: str, keys: Mapping[str, Any], at: Location) -> Iterator[_Relation]:
    for kind in ("fed_by", "serves"):
        written = keys.get(kind)
        if isinstance(written, str):
            yield _Relation(names.id(subject), names.id(written), kind, (*at, kind))
        elif kind == "serves" and isinstance(written, list):
            for index, one in enumerate(written):
                if isinstance(one, str):
                    yield _Relation(names.id(subject), names.id(one), kind, (*at, kind, index))


def _circles(written: Document, feeds: Mapping[str, _Relation]) -> list[Diagnostic]:
    """Each circle once, where its first member stands."""
    found: list[Diagnostic] = []
    seen: set[str] = set()
    for start in feeds:
        path: list[str] = []
        at: str | None = start
        while at is not None and at not in seen and at not in path:
            path.append(at)
            at = _feeder(at, feeds)
        if at in path:
            circle = path[path.index(at) :]
            why = f"current goes round in a circle: {' <- '.join([*circle, circle[0]])}"
            fix = "Take `fed_by` away from the one that the mains feed."
            found.append(written.diagnostic("fed_by_cycle", (feeds.get(circle[0]) or feeds[start]).at, why, fix))
        seen.update(path)
    return found


def _feeder(one: str, feeds: Mapping[str, _Relation]) -> str | None:
    """What feeds it: its own `fed_by`, else its asset's, unless it is the very meter that feeds the asset."""
    relation = feeds.get(one)
    if relation is None and "/" in one:
        relation = feeds.get(one.partition("/")[0])
        if relation is not None and relation.to == one:
            return None
    return relation.to if relation else None
