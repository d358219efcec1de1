"""What the demo shows: the street as it runs, and the closing account, device by device and lane by lane."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TextIO

from gateway.cli.columns import columns
from gateway.receiver import DeviceRow, Receiver, StreamRow

_COLOUR = {"green": "\033[32m", "amber": "\033[33m", "red": "\033[31m"}
_PLAIN = "\033[0m"
_PLAIN_EVERY = 5.0


@dataclass(frozen=True, slots=True)
class DeviceAccount:
    """Readings of one device: put on the wire, accepted by the gateway, held by the platform. Times in ms."""

    device: str
    produced: int
    accepted: int
    delivered: int
    duplicates: int
    missing: int
    p50_ms: int | None
    p99_ms: int | None


@dataclass(frozen=True, slots=True)
class LaneAccount:
    """Records of one lane by identity: every sequence number is either held, skipped with a reason, or missing."""

    lane: str
    committed: int
    received: int
    skipped: int
    rejected: int
    duplicates: int
    missing: int


@dataclass(frozen=True, slots=True)
class Account:
    devices: tuple[DeviceAccount, ...]
    lanes: tuple[LaneAccount, ...]
    is_brief: bool = False
    """The end came before every device had said something that could be taken."""

    @property
    def is_complete(self) -> bool:
        """Whether nothing is missing, and something came of every device that spoke."""
        missing = sum(row.missing for row in self.devices) + sum(row.missing for row in self.lanes)
        return missing == 0 and (self.is_brief or all(row.delivered > 0 for row in self.devices if row.produced))

    def json(self) -> dict[str, Any]:
        return {
            "devices": [asdict(row) for row in self.devices],
            "lanes": [asdict(row) for row in self.lanes],
            "complete": self.is_complete,
        }

    def text(self) -> str:
        head = ("device", "produced", "accepted", "delivered", "duplicates", "missing", "p50 ms", "p99 ms")
        rows = [tuple(_cell(value) for value in asdict(row).values()) for row in self.devices]
        lane_head = ("lane", "committed", "received", "skipped", "rejected", "duplicates", "missing")
        lanes = [tuple(_cell(value) for value in asdict(row).values()) for row in self.lanes]
        missing = sum(row.missing for row in self.lanes)
        total = sum(row.received for row in self.lanes)
        verdict = f"{total:,} records delivered, {missing:,} missing." + ("" if self.is_complete else " FAILED")
        note = "accepted counts what the gateway took, and one record for each value that was lost with its device."
        return "\n".join([*columns(head, rows), note, "", *columns(lane_head, lanes), "", verdict])


def account(
    produced: Mapping[str, int],
    snapshot: Mapping[str, Any],
    committed: Mapping[str, int],
    streams: Sequence[StreamRow],
    delivered: Sequence[DeviceRow],
    *,
    is_brief: bool = False,
) -> Account:
    """The account of a run, from the emulators' counts, the gateway's own view, and the platform's database."""
    arrived = {row.device: row for row in delivered}
    devices = []
    for device in snapshot["devices"]:
        row = arrived.get(device["id"])
        accepted, held = device["readings"], row.delivered if row else 0
        devices.append(
            DeviceAccount(
                device["id"],
                produced.get(device["id"], 0),
                accepted,
                held,
                row.duplicates if row else 0,
                max(0, accepted - held),
                row.p50_ms if row else None,
                row.p99_ms if row else None,
            )
        )
    lanes = []
    for name, count in committed.items():
        of_lane = [row for row in streams if row.lane == name]
        received = sum(row.received for row in of_lane)
        skipped = sum(sum(row.skipped.values()) for row in of_lane)
        rejected = sum(sum(row.rejected.values()) for row in of_lane)
        holes = sum(row.missing for row in of_lane)
        missing = max(holes, count - received - skipped - rejected, 0)
        duplicates = sum(row.duplicates for row in of_lane)
        lanes.append(LaneAccount(name, count, received, skipped, rejected, duplicates, missing))
    return Account(tuple(devices), tuple(lanes), is_brief)


class Screen:
    """A live table on a terminal; a line now and then elsewhere."""

    def __init__(self, out: TextIO) -> None:
        self._out, self._is_terminal = out, out.isatty()
        self._lines = 0
        self._said = -_PLAIN_EVERY

    def show(
        self, snapshot: Mapping[str, Any], platform: Receiver, elapsed: float, of: float | None, *, is_cut: bool
    ) -> None:
        head = self._headline(snapshot, platform, elapsed, of, is_cut=is_cut)
        width, height = shutil.get_terminal_size()
        if not self._is_terminal:
            if elapsed - self._said >= _PLAIN_EVERY:
                self._said = elapsed
                print(head, file=self._out, flush=True)
            return
        lines = [head[: width - 1], ""]
        for device in snapshot["devices"]:
            dot = f"{_COLOUR[device['colour']]}●{_PLAIN}"
            told = [point for point in device["points"] if point["value"] is not None]
            told.sort(key=lambda point: point["phase"] is not None)
            values = "  ".join(_value(point) for point in told[:4])
            line = f"{device['id']:<16} {device['readings']:>7}  {device['say'] or values}"
            lines.append(f"{dot} {line[: width - 3]}")
        del lines[max(2, height - 1) :]  # what has wrapped or left the screen cannot be drawn over
        self._out.write(f"\033[{self._lines}F\033[J" if self._lines else "")
        self._out.write("\n".join(lines) + "\n")
        self._out.flush()
        self._lines = len(lines)

    def close(self) -> None:
        self._out.flush()

    def _headline(
        self, snapshot: Mapping[str, Any], platform: Receiver, elapsed: float, of: float | None, *, is_cut: bool
    ) -> str:
        held = sum(lane["records"] for lane in snapshot["lanes"])
        time = f"{elapsed:4.0f}" + (f" of {of:.0f} s" if of else " s")
        line = f"{time} | buffered {held:>6,} | platform {platform.counts.records:>8,}"
        return f"{line} | {'PLATFORM CUT OFF' if is_cut else 'platform connected'}"


def _value(point: Mapping[str, Any]) -> str:
    value = point["value"]
    number = f"{value:g}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value)
    unit = point["unit"] if point["unit"] not in ("1", "enum") else ""
    return f"{point['id'].rpartition('/')[2]} {number} {unit}".rstrip()


def _cell(value: object) -> str:
    return "-" if value is None else f"{value:,}" if isinstance(value, int) else str(value)
