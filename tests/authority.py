"""An authority of certificates for tests, made by the openssl program: each ends when a test wants it to."""

import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

_CONFIGURATION = """\
[ca]
default_ca = authority
[authority]
database = index
new_certs_dir = .
rand_serial = yes
unique_subject = no
default_md = sha256
policy = any
[any]
commonName = supplied
"""
TEN_YEARS = timedelta(days=3650)


class Authority:
    """Signs with a key of its own in `folder`; `ca` is its certificate."""

    def __init__(self, folder: Path, *, ends: timedelta = TEN_YEARS) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        (folder / "configuration").write_text(_CONFIGURATION)
        (folder / "index").touch()
        self.ca = self._sign("ca", ends, "basicConstraints=critical,CA:TRUE", "-selfsign", "-keyfile", "ca-key.pem")

    def issue(self, name: str, *, ends: timedelta = TEN_YEARS) -> tuple[Path, Path]:
        """(certificate, key) of a client or server called `name`, at 127.0.0.1, that end so long from now."""
        extensions = "basicConstraints=CA:FALSE\nsubjectAltName=IP:127.0.0.1"
        certificate = self._sign(name, ends, extensions, "-cert", "ca.pem", "-keyfile", "ca-key.pem")
        return certificate, self.folder / f"{name}-key.pem"

    def _sign(self, name: str, ends: timedelta, extensions: str, *signer: str) -> Path:
        key, request, signed = f"{name}-key.pem", f"{name}.csr", f"{name}.pem"
        self._openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", key)
        self._openssl("req", "-new", "-key", key, "-subj", f"/CN={name}", "-out", request)
        (self.folder / "extensions").write_text(extensions + "\n")
        now = datetime.now(UTC)
        begins, ends_at = (f"{at:%Y%m%d%H%M%SZ}" for at in (now - TEN_YEARS, now + ends))
        self._openssl(
            "ca", "-batch", "-notext", "-config", "configuration", *signer, "-in", request, "-out", signed,
            "-startdate", begins, "-enddate", ends_at, "-extfile", "extensions",
        )  # fmt: skip
        return self.folder / signed

    def _openssl(self, *arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=self.folder, check=True, capture_output=True)
