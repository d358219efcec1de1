"""Modbus/TCP Security: TLS around the same frames, with our own certificate where the far end asks for one.

Source: MODBUS/TCP Security Protocol Specification V36 (2021-07-30): port 802, TLS 1.2 or newer, both sides show
X.509v3 certificates.
"""

import asyncio
import ipaddress
import os
import ssl
from collections.abc import Callable
from pathlib import Path

from drivers.modbus.link import Settings
from gateway.errors import ConfigError, LinkError

_REQUEST = """\
[req]
prompt = no
distinguished_name = name
x509_extensions = device
[name]
commonName = lampione simulate
[device]
basicConstraints = critical, CA:FALSE
subjectKeyIdentifier = hash
subjectAltName = {kind}:{name}
"""
_OPENSSL = (
    "openssl req -x509 -nodes -days 3650 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -config request "
    "-keyout key.pem -out certificate.pem"
)


def context(settings: Settings, secret: Callable[[str], str]) -> ssl.SSLContext:
    """What we trust and what we show, read anew. LinkError: it is not there, or not usable; ConfigError: no secret."""
    try:
        found = ssl.create_default_context(cafile=settings.ca)
        found.minimum_version = ssl.TLSVersion.TLSv1_2
        if settings.certificate:
            # OpenSSL reads them from a file only; this one never touches a disk.
            memory = os.memfd_create("certificate")
            with os.fdopen(memory, "w") as pem:
                pem.write(f"{secret('certificate')}\n{secret('key')}\n")
                pem.flush()
                found.load_cert_chain(f"/proc/self/fd/{memory}")
    except FileNotFoundError:
        raise LinkError(f"The authority's certificate {settings.ca} is not there. Put it in place.") from None
    except ssl.SSLError as error:
        raise LinkError(f"Our certificate, key or `ca` is not usable PEM ({error.reason}). Renew it.") from None
    return found


async def far_end(settings: Settings, secret: Callable[[str], str] | None, folder: Path) -> tuple[ssl.SSLContext, Path]:
    """What an emulated device shows, and the file in `folder` by which that is trusted: a certificate of its own, for
    the name that the gateway looks for. It takes nobody's but the gateway's, where the gateway has one to show.

    ConfigError: there is no `openssl` program, or the gateway's certificate cannot be had.
    """
    name = settings.server_name or "127.0.0.1"
    (folder / "request").write_text(_REQUEST.format(name=name, kind="IP" if _is_address(name) else "DNS"))
    try:
        openssl = await asyncio.create_subprocess_exec(*_OPENSSL.split(), cwd=folder, stderr=asyncio.subprocess.PIPE)
    except FileNotFoundError:
        raise ConfigError("The openssl program makes the certificate of a device. Type: apt install openssl.") from None
    _, said = await openssl.communicate()
    if openssl.returncode:
        raise ConfigError(f"openssl makes no certificate for {name}: {said.decode().strip()}.")
    shown = folder / "certificate.pem"
    found = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    found.load_cert_chain(shown, folder / "key.pem")
    if settings.certificate:
        assert secret
        try:
            found.load_verify_locations(cadata=secret("certificate"))
        except (ssl.SSLError, ValueError):
            raise ConfigError("Our certificate is not usable PEM. Renew it.") from None
        found.verify_mode = ssl.CERT_REQUIRED
        found.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # it stands for itself: its authority is not here
    return found, shown


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def why_not(peer: str, error: Exception) -> str | None:
    """One sentence where TLS is the reason that there is no connection to `peer`, or no longer."""
    match error:
        case ssl.SSLCertVerificationError():
            return (
                f"{peer} shows a certificate that is not trusted: {error.verify_message}. Put its authority's file in "
                "`ca`, or the name that stands in it in `server_name`."
            )
        case ssl.SSLError() if error.reason and "ALERT" in error.reason:
            return (
                f"{peer} refuses our certificate ({error.reason.lower()}). Add `certificate` and `key`, or have them "
                "allowed there."
            )
        case ssl.SSLError():
            return f"{peer} does not speak TLS ({error.reason}). Check the port, or remove `tls`."
        case TimeoutError():
            return (
                f"{peer} does not answer, or not with TLS. Check its power and cable, and whether the port takes TLS."
            )
        case _:
            return None
