"""`lampione receive`: the reference platform side, and the account of what it holds."""

import argparse
import asyncio
import ssl
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from signal import SIGINT, SIGTERM
from typing import Any

import orjson

from gateway.errors import ConfigError, LinkError, StorageError
from gateway.log import configure
from gateway.receiver import DeviceRow, HttpIn, MqttIn, Receiver, StreamRow, report
from gateway.receiver.mqtt import address

_EVERY = 5.0


def add(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "Exit codes: 0 ok, 1 records are missing or cannot be stored, 2 usage, 3 nowhere to listen."
    parser.add_argument("db", type=Path, metavar="DB", help="the SQLite file")
    parser.add_argument("--report", action="store_true", help="print what DB holds and what is missing, and end")
    parser.add_argument("--json", action="store_true", help="with --report: as JSON")
    parser.add_argument("--mqtt", metavar="URL", help="a broker, mqtt://host:port or mqtts://host:port")
    parser.add_argument("--user", metavar="NAME", help="user name at the broker")
    parser.add_argument("--password-file", type=Path, metavar="FILE", help="holds the password at the broker")
    parser.add_argument("--ca", type=Path, metavar="FILE", help="certificate of the authority that signed the broker's")
    parser.add_argument("--share", metavar="NAME", help="divide the batches with other receivers of this name")
    parser.add_argument("--http", metavar="HOST:PORT", help="listen there")
    parser.add_argument(
        "--token-file", type=Path, metavar="FILE", help="lines `WHO TOKEN`; WHO is a gateway's id, * or operator"
    )
    parser.add_argument("--certificate", type=Path, metavar="FILE", help="TLS certificate of --http")
    parser.add_argument("--key", type=Path, metavar="FILE", help="private key of --certificate")


def run(args: argparse.Namespace) -> int:
    if args.report:
        return _print_report(args.db, as_json=args.json)
    if not (args.mqtt or args.http):
        raise ConfigError("Say where to listen: --mqtt URL, --http HOST:PORT, or both.")
    configure()
    asyncio.run(_receive(Receiver(args.db, mqtt=_mqtt(args), http=_http(args))))
    return 0


async def _receive(receiver: Receiver) -> None:
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    assert task
    for signal in (SIGINT, SIGTERM):
        loop.add_signal_handler(signal, task.cancel)
    watching = asyncio.create_task(_watch(receiver))
    try:
        await receiver.run()
    except asyncio.CancelledError:
        pass  # told to stop: everything acknowledged is on the disk
    finally:
        watching.cancel()


async def _watch(receiver: Receiver) -> None:
    await receiver.ready()
    print(f"receiving{f' at {receiver.url}' if receiver.url else ''}", file=sys.stderr, flush=True)
    before = 0
    while True:
        await asyncio.sleep(_EVERY)
        counts = receiver.counts
        rate = (counts.records - before) / _EVERY
        before = counts.records
        print(
            f"{len(counts.gateways)} gateways, {counts.records} records ({rate:.0f}/s) in {counts.batches} batches, "
            f"{counts.duplicates} duplicates",
            file=sys.stderr,
            flush=True,
        )


def _mqtt(args: argparse.Namespace) -> MqttIn | None:
    if not args.mqtt:
        return None
    try:
        address(args.mqtt)
    except LinkError:
        raise ConfigError(
            f"{args.mqtt} is no address of a broker. Write mqtt://host:port or mqtts://host:port."
        ) from None
    if args.ca:
        try:
            ssl.create_default_context(cafile=args.ca)
        except OSError as error:  # ssl.SSLError is one
            raise ConfigError(f"{args.ca} is no certificate in PEM: {error.strerror or error}.") from None
    password = _text(args.password_file).strip() if args.password_file else None
    return MqttIn(args.mqtt, args.user, password, args.ca, args.share)


def _http(args: argparse.Namespace) -> HttpIn | None:
    if not args.http:
        return None
    if not args.token_file:
        raise ConfigError("--http needs --token-file: nothing unauthenticated listens.")
    host, _, port = args.http.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise ConfigError(f"--http {args.http} is not HOST:PORT.")
    tls = None
    if args.certificate:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        try:
            tls.load_cert_chain(args.certificate, args.key)
        except OSError as error:
            raise ConfigError(f"{args.certificate} or its key cannot be used: {error.strerror}.") from None
    return HttpIn(_tokens(args.token_file), host.strip("[]"), int(port), tls)


def _tokens(file: Path) -> dict[str, str]:
    tokens: dict[str, str] = {}
    for number, line in enumerate(_text(file).splitlines(), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if len(words) != 2:
            raise ConfigError(f"{file}:{number}: write `WHO TOKEN`; WHO is a gateway's id, * or operator.")
        tokens[words[0]] = words[1]
    if not tokens:
        raise ConfigError(f"{file} holds no token. Write lines `WHO TOKEN` into it.")
    return tokens


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{file} is not text. Check the path.") from None


def _print_report(db: Path, *, as_json: bool) -> int:
    try:
        streams, devices = report.streams(db), report.devices(db)
    except StorageError as error:
        raise ConfigError(str(error)) from None
    if as_json:
        tables = {"streams": [asdict(row) for row in streams], "devices": [asdict(row) for row in devices]}
        print(orjson.dumps(tables, option=orjson.OPT_INDENT_2).decode())
    else:
        _table(
            ("gateway", "lane", "epoch", "received", "twice", "skipped", "rejected", "missing", "to come"),
            [_stream_cells(row) for row in streams],
        )
        print()
        _table(("device", "delivered", "twice", "p50 ms", "p99 ms"), [_device_cells(row) for row in devices])
    return 1 if any(row.missing for row in streams) else 0


def _stream_cells(row: StreamRow) -> tuple[Any, ...]:
    skipped, rejected = (
        ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items())) or "0"
        for reasons in (row.skipped, row.rejected)
    )
    who = f"{row.tenant}/{row.gateway}"
    return (who, row.lane, row.epoch, row.received, row.duplicates, skipped, rejected, row.missing, row.to_come)


def _device_cells(row: DeviceRow) -> tuple[Any, ...]:
    p50, p99 = ("-" if ms is None else ms for ms in (row.p50_ms, row.p99_ms))
    return (f"{row.tenant}/{row.device}", row.delivered, row.duplicates, p50, p99)


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    lines = [[str(cell) for cell in row] for row in (head, *rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
