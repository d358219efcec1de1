"""What a site file says of a Modbus link: an endpoint that speaks Modbus TCP, or an RS-485 line."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, model_validator
from pydantic import Field as Key

from gateway import tty
from gateway.document import Mistake
from gateway.fields import Duration, Secret, Whole
from gateway.profile import LinkKeys


def _port(written: object) -> object:
    if not isinstance(written, str):
        return written
    if not written.isdigit():
        return tty.checked(
            written, "Write a TCP port, `/dev/serial/by-id/…` (see `ls /dev/serial/by-id`) or `tcp://host:port`."
        )
    if not 1 <= int(written) <= 65535:
        fix = "Write the port that it listens on; most use 502."
        raise Mistake("bad_port", f"`{written}` is no TCP port: 1 to 65535", fix)
    return int(written)


class Settings(LinkKeys):
    """A Modbus TCP endpoint (`host`), or an RS-485 line (`port`) with meters on it."""

    host: str | None = None
    """Name or address of what speaks Modbus TCP; left out for a line."""
    port: Annotated[int | str, BeforeValidator(_port)] = 502
    """With `host` a TCP port, 802 with `tls`; else the line: `/dev/serial/by-id/…`, or `tcp://host:port` of a serial
    server that passes bytes through (RTU over TCP)."""
    tls: bool = False
    """Modbus/TCP Security, with `host`: the connection is encrypted, and the device shows a certificate."""
    ca: Path | None = None
    """Certificates that are trusted, PEM; left out, the system's authorities."""
    server_name: str | None = None
    """The name in the device's certificate, where it is not `host`."""
    certificate: Secret | None = None
    """What we show the device, PEM."""
    key: Secret | None = None
    """The private key of `certificate`, PEM."""
    baud: Annotated[Whole, Key(gt=0)] = 9600
    """Bits per second of the line; behind a serial server, as set there: the gaps follow from it."""
    format: Literal["8N1", "8N2", "8E1", "8E2", "8O1", "8O2"] = "8N1"
    """Data bits (RTU has 8), parity, stop bits."""
    timeout: Annotated[Duration, Key(gt=0, le=60)] = 1.0
    """How long a connection or an answer may take; on a line, what its slowest device needs."""

    @model_validator(mode="after")
    def _is_one_wire(self) -> "Settings":
        is_line = isinstance(self.port, str)
        if self.host and is_line:
            why = f"`host` is for Modbus TCP, `port: {self.port}` is a serial line"
            raise Mistake("bad_port", why, "Remove `host`, or write a number as `port`.")
        if not self.host and not is_line:
            fix = "Write `host:` for Modbus TCP, or `port: /dev/serial/by-id/…` or `port: tcp://host:port` for a line."
            raise Mistake("missing_key", "neither `host` nor a line's `port` says where the devices are", fix)
        of_tls = self.model_fields_set & {"ca", "server_name", "certificate", "key"}
        if of_tls and not self.tls:
            raise Mistake("missing_key", f"`{min(of_tls)}` is for TLS", "Add `tls: true`, or remove it.")
        if self.tls and not self.host:
            raise Mistake("not_our_line", "a line has no TLS", "Remove `tls`, or write `host:`.", ("tls",))
        if (self.certificate is None) != (self.key is None):
            raise Mistake("missing_key", "`certificate` and `key` go together", "Add the other one: `secret`.")
        if self.host and (found := self.model_fields_set & {"baud", "format"}):
            why = f"Modbus TCP has no `{min(found)}`"
            raise Mistake("not_our_line", why, "Remove it, or write `port: tcp://host:port` for a serial server.")
        return self

    @property
    def endpoint(self) -> tuple[str, int]:
        """Host and TCP port of what speaks Modbus TCP."""
        assert self.host
        assert isinstance(self.port, int)
        return self.host, 802 if self.tls and "port" not in self.model_fields_set else self.port

    @property
    def character(self) -> float:
        """Seconds that a byte takes on the line: a start bit, data, parity, stop bits."""
        return (1 + int(self.format[0]) + (self.format[1] != "N") + int(self.format[2])) / self.baud
