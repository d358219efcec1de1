"""Modbus/TCP Security: TLS around the same frames, with our own certificate where the far end asks for one.

Source: MODBUS/TCP Security Protocol Specification V36 (2021-07-30): port 802, TLS 1.2 or newer, both sides show
X.509v3 certificates.
"""

import os
import ssl
from collections.abc import Callable

from drivers.modbus.link import Settings
from gateway.errors import LinkError


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
