"""`lampione monitor --raw`: what comes over a serial port, as bytes, frames and values side by side."""

import argparse
import asyncio
import contextlib
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import BinaryIO

from drivers.serial import Profile as SerialProfile
from drivers.serial import Settings, transport
from drivers.serial.codec import Codec, Heard
from drivers.serial.framing import Framer
from drivers.serial.settings import Line
from gateway.cli import SITE, add_state, check_seconds
from gateway.cli.wire import lent, load_profile, typed
from gateway.errors import ConfigError

WIDTH = 16
"""Bytes in a row."""


def add(parser: argparse.ArgumentParser) -> None:
    ports = "/dev/serial/by-id/… or tcp://host:port; beside a gateway, a link's name, too"
    parser.add_argument("--raw", required=True, metavar="PORT", help=ports)
    parser.add_argument("--profile", metavar="P", help="a profile's name or file: frames and values are shown, too")
    parser.add_argument("--baud", metavar="N", help="bits per second (the profile's, else 9600)")
    parser.add_argument("--format", metavar="F", help="data bits, parity, stop bits (the profile's, else 8N1)")
    parser.add_argument("--ask", action="store_true", help="send the questions of a profile that is polled")
    parser.add_argument("--address", metavar="A", help="the sensor's, where its profile shares the wire (with --ask)")
    parser.add_argument("--seconds", type=float, metavar="S", help="end after so many (else with Ctrl-C)")
    parser.add_argument("--save", type=Path, metavar="FILE", help="keep the bytes, for `lampione profiles new`")
    parser.add_argument(
        "--site", type=Path, default=SITE, metavar="SITE", help=f"profiles beside this site file come first ({SITE})"
    )
    add_state(parser, "state folder of the gateway that may be running")


def run(args: argparse.Namespace) -> int:
    """0: something was heard; 1: not one byte; 2: no such profile; 3: the port cannot be opened."""
    profile = _profile(args.profile, args.site) if args.profile else None
    line = profile.line if profile else Line(baud=9600)
    watched = Watched(profile)
    check_seconds(args.seconds)
    print(f"{'s':>8}  {'bytes':{3 * WIDTH - 1}}  {'text':{WIDTH}}  frames and values")
    with _saving(args.save) as file, contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_borrow_and_watch(line, watched, args, file))
    print(watched.summary(), file=sys.stderr)
    return 0 if watched.count else 1


async def _borrow_and_watch(line: Line, watched: "Watched", args: argparse.Namespace, file: BinaryIO | None) -> None:
    """A gateway that uses the port is asked for it, and has it back afterwards."""
    async with lent(args, args.raw) as found:
        known = found["settings"] if found["link"] else {"port": args.raw}
        keys = {key: known.get(key) for key in ("port", "baud", "format")}
        keys |= {key: one for key, one in {"baud": args.baud, "format": args.format}.items() if one}
        written = {"driver": "serial", **{key: str(one) for key, one in keys.items() if one}}
        await _watch(typed(Settings, written, "--raw"), line, watched, args, file)


def _saving(path: Path | None) -> contextlib.AbstractContextManager[BinaryIO | None]:
    """The file that keeps the bytes. ConfigError: it cannot be written."""
    try:
        return path.open("wb") if path else contextlib.nullcontext()
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}. Choose another with --save.") from None


async def _watch(
    settings: Settings, line: Line, watched: "Watched", args: argparse.Namespace, file: BinaryIO | None
) -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    questions = _questions(watched.profile, args.address) if args.ask and watched.profile else iter(())
    async with transport.opened("monitor", settings, line) as wire:
        due = began
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(args.seconds):
                while True:
                    if loop.time() >= due:
                        due = await _ask(wire, line, questions)
                    received = await _some(wire, watched.framer, due)
                    if received is None:
                        continue
                    for row in watched.rows(loop.time() - began, received):
                        print(row, flush=True)
                    if file:
                        file.write(received)


async def _some(wire: transport.Wire, framer: Framer | None, until: float) -> bytes | None:
    """What comes next; nothing, where a silence ends a frame; None: it is `until` (loop time)."""
    gap = framer.gap if framer else None
    quiet_at = math.inf if gap is None else asyncio.get_running_loop().time() + gap
    try:
        async with asyncio.timeout_at(min(quiet_at, until)):
            return await wire.read()
    except TimeoutError:
        return b"" if quiet_at <= until else None


async def _ask(wire: transport.Wire, line: Line, questions: Iterator[tuple[bytes, float]]) -> float:
    """When (loop time) the next question is due."""
    sent, pause = next(questions, (b"", math.inf))
    if sent:
        if line.wakes:
            await wire.wake(line.wakes)
        await wire.write(sent, 1)
    return asyncio.get_running_loop().time() + pause


def _questions(profile: SerialProfile, address: str | None) -> Iterator[tuple[bytes, float]]:
    """What to send and how long to wait behind it: first `init`, then a `poll` in each cadence."""
    codec, dialogue = Codec(profile), profile.dialogue

    def said(names: Sequence[str], rest: float) -> Iterator[tuple[bytes, float]]:
        for name in names:
            command = profile.commands[name]
            pause = max(command.wait, dialogue.gap, 0.1)
            yield codec.addressed(command.send, address), pause + (rest if name == names[-1] else 0.0)

    yield from said(dialogue.init, 0.0)
    while dialogue.poll:
        yield from said(dialogue.poll, profile.cadence)


def _profile(name: str, site: Path) -> SerialProfile:
    found = load_profile(name, site)
    if not isinstance(found, SerialProfile):
        raise ConfigError(f"{name} is for {found.driver}: it says nothing about bytes on a serial port.")
    return found


@dataclass
class Watched:
    """What has come, and what it means by `profile`."""

    profile: SerialProfile | None
    count: int = 0
    frames: int = 0
    framer: Framer | None = field(init=False)

    def __post_init__(self) -> None:
        self.framer = Framer(self.profile.frame) if self.profile else None
        self._codec = Codec(self.profile) if self.profile else None

    def rows(self, second: float, received: bytes) -> Iterator[str]:
        """One or more lines: time, bytes, text, and what was recognised."""
        self.count += len(received)
        parts = [received[at : at + WIDTH] for at in range(0, len(received), WIDTH)]
        for number, (part, found) in enumerate(zip_longest(parts, self._found(received))):
            when = f"{second:8.3f}" if number == 0 else " " * 8
            part = part or b""
            text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in part)
            yield f"{when}  {part.hex(' '):{3 * WIDTH - 1}}  {text:{WIDTH}}  {found or ''}".rstrip()

    def _found(self, received: bytes) -> list[str]:
        if self.framer is None or self._codec is None:
            return []
        refused = self.framer.refused.copy()
        frames = self.framer.feed(received) if received else self.framer.idle()
        self.frames += len(frames)
        found = [line for frame in frames for line in self._said(frame, self._codec.read(frame))]
        return found + [f"refused: {why}" for why in (self.framer.refused - refused).elements()]

    def _said(self, frame: bytes, heard: Heard) -> Iterator[str]:
        assert self.profile
        what = f" {heard.message}" if heard.message else ""
        if heard.refused or heard.means:
            yield f"[{len(frame)} B{what}] {heard.refused or heard.means}" + (f": {heard.say}" if heard.say else "")
            return
        yield f"[{len(frame)} B{what}]" + (f" {heard.say}" if heard.say else "")
        for slug, sample in heard.samples.items():
            unit = self.profile.points[slug].canonical_unit
            said = "no value" if sample.value is None else f"{sample.value} {unit}"
            yield f"  {slug} = {said}" + (f" ({sample.quality}, {sample.reason})" if sample.reason else "")

    def summary(self) -> str:
        if not self.count:
            return "Not one byte. Check power, plug and, if the sensor only answers, use --ask with its profile."
        if self.framer is None:
            return f"{self.count} bytes. With --profile, frames and values are shown, too."
        refused = ", ".join(f"{count} {why}" for why, count in self.framer.refused.items())
        return f"{self.count} bytes, {self.frames} frames, {self.framer.stray} stray bytes" + (
            f"; refused: {refused}." if refused else "."
        )
