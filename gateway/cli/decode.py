"""`lampione decode`: a value that somebody knows, in every type and word order, one address up and down."""

import argparse
import asyncio
import json
import math
import re
import sys
from contextlib import suppress

from drivers.modbus.driver import wire as modbus_wire
from drivers.modbus.frames import NoAnswer, Refused
from drivers.modbus.guess import TOLERANCE, Guess, guesses
from drivers.modbus.scan import Wire
from gateway.cli import wire
from gateway.errors import ConfigError, LinkError

WIDEST = 4
SHOWN = 12


def add(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "Exit codes: 0 one way at least says the value, 1 none does, 2 usage or configuration, 3 no answer. "
        "Mains volts and hertz are known without a meter: lampione decode 230 line --unit 1 --register 4:0x0000"
    )
    parser.add_argument("value", type=_finite, metavar="VALUE", help="what the meter's display shows")
    parser.add_argument("wire", nargs="?", metavar="WIRE", help=wire.WIRE)
    parser.add_argument("--unit", type=int, metavar="N", help="unit id")
    parser.add_argument("--register", metavar="FC:ADDR", help="function and address on the wire: 4:0x0034, 3:52")
    parser.add_argument("--words", metavar="HEX", help="registers that were read already, without a wire: 4366 3334")
    parser.add_argument(
        "--within", type=_finite, default=100 * TOLERANCE, metavar="PERCENT", help="how far off it may be (5)"
    )
    parser.add_argument("--json", action="store_true", help="as JSON")
    wire.add(parser)


def run(args: argparse.Namespace) -> int:
    fc, addr = _place(args.register or "3:0")
    if args.words:
        registers = dict(enumerate(_words(args.words), addr))
    elif args.wire and args.unit is not None and args.register:
        registers = asyncio.run(_read(args, fc, addr))
    else:
        raise ConfigError("Write WIRE, --unit and --register; or --words where they were read already.")
    found = guesses(fc, registers, args.value, tolerance=args.within / 100)
    if args.json:
        print(json.dumps({"registers": registers, "found": [_entry(each) for each in found]}))
        return 0 if found else 1
    print("registers  " + "  ".join(f"{at:#06x} {word:04X}" for at, word in sorted(registers.items())))
    for each in found[:SHOWN]:
        shift = f"{each.addr - addr:+d}" if each.addr != addr else "  "
        print(f"{shift:2}  {each.value:<14.9g} {each.place}")
    if not found:
        print("Nothing there says it. Check the value, the function and the address.", file=sys.stderr)
    return 0 if found else 1


def _finite(written: str) -> float:
    if not math.isfinite(value := float(written)):
        raise ValueError(written)
    return value


def _entry(each: Guess) -> dict[str, object]:
    return {
        "fc": each.fc, "addr": each.addr, "type": each.kind.value, "word_order": each.word_order,
        "scale": each.scale, "value": each.value, "off": each.off,
    }  # fmt: skip


async def _read(args: argparse.Namespace, fc: int, addr: int) -> dict[int, int]:
    """From one before to one behind the widest value; what is refused together is asked for in pieces."""
    async with wire.reached(args, args.wire) as reach:
        if reach.driver != "modbus":
            raise ConfigError(f"{reach.link.name} is for {reach.driver}: registers are Modbus.")
        opened = modbus_wire(reach.link, {})
        try:
            return await _around(opened, args.unit, fc, addr)
        except NoAnswer as error:
            raise LinkError(f"Unit {args.unit} at {opened.peer}: {error}. {error.fix}") from None
        finally:
            opened.close()


async def _around(opened: Wire, unit: int, fc: int, addr: int) -> dict[int, int]:
    found: dict[int, int] = {}
    refused: Refused | None = None
    first = max(0, addr - 1)
    for at, count in ((first, WIDEST + 2), (addr, WIDEST), (addr, 2), (first, 2), (addr + 1, 2), (addr, 1)):
        if all(each in found for each in range(at, at + count)):
            continue
        try:
            found |= enumerate(await opened.read(unit, fc, at, count), at)
        except Refused as error:
            refused = error
    if not found and refused:
        raise refused
    return found


def _place(written: str) -> tuple[int, int]:
    match = re.fullmatch(r"([34]):(0[xX][0-9a-fA-F]+|[0-9]+)", written)
    if match:
        with suppress(ValueError):
            return int(match[1]), int(match[2], 0)
    raise ConfigError(f"`{written}` is no register. Write function and address on the wire: 4:0x0034.")


def _words(written: str) -> list[int]:
    parts = re.findall(r"[0-9a-fA-F]{4}", written)
    if not parts or re.sub(r"[0-9a-fA-F\s]", "", written):
        raise ConfigError(f"`{written}` is no list of registers. Write four hexadecimal digits for each: 4366 3334.")
    return [int(part, 16) for part in parts]
