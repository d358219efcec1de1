"""What the page knows as Prometheus text, exposition format 0.0.4: lanes and uplinks, never a reading."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from gateway.model import Json

MEDIA_TYPE = "text/plain; version=0.0.4"
_LANES = {
    "records": ("lampione_buffer_records", "Records that wait for a platform."),
    "bytes": ("lampione_buffer_bytes", "Bytes that a lane uses on disk."),
    "committed": ("lampione_buffer_committed", "Records committed in this epoch."),
    "oldest_ms": ("lampione_buffer_oldest_seconds", "Age of the oldest record that waits."),
    "dead": ("lampione_buffer_dead_letters", "Records that a platform refused for good."),
    "quarantined": ("lampione_buffer_quarantined", "Damaged files that are kept aside."),
    "full_ms": ("lampione_buffer_full_in_seconds", "Until the lane is full, at the pace of late."),
    "error": ("lampione_buffer_failing", "1 while commits fail."),
}
_UPLINKS = {
    "connected": ("lampione_uplink_connected", "1 while connected."),
    "restarts": ("lampione_uplink_restarts", "Connections that ended since the start."),
    "acknowledged_ms": ("lampione_uplink_acknowledged_seconds", "Since the platform last settled records."),
}


def metrics(snapshot: Mapping[str, Json]) -> str:
    """The text of one scrape, from `Status.snapshot`. What is not known has no line."""
    families = [
        *_family("lane", cast("Sequence[Mapping[str, Any]]", snapshot["lanes"]), _LANES),
        *_family("uplink", cast("Sequence[Mapping[str, Any]]", snapshot["uplinks"]), _UPLINKS),
    ]
    return "".join(f"{line}\n" for line in families)


def _family(label: str, rows: Sequence[Mapping[str, Any]], names: Mapping[str, tuple[str, str]]) -> Iterator[str]:
    for key, (name, words) in names.items():
        yield f"# HELP {name} {words}"
        yield f"# TYPE {name} gauge"
        for row in rows:
            value = bool(row[key]) if key == "error" else row[key]
            if value is not None:
                number = value / 1000 if key.endswith("_ms") else int(value)
                yield f'{name}{{{label}="{row["name"]}"}} {number}'
