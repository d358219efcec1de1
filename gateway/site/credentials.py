"""Credentials by name: from systemd's credentials folder, else from a folder of files that nobody else may read."""

import os
import re
from collections.abc import Callable
from pathlib import Path

from gateway.diagnostic import Diagnostic
from gateway.errors import ConfigError
from gateway.fields import CREDENTIAL
from gateway.site import durable
from gateway.site.site import Site

MAX_BYTES = 1024 * 1024


class Credentials:
    """`folder` holds one file per credential, mode 0600; for /etc/lampione/site.yaml it is /etc/lampione/secrets.

    What systemd passes in $CREDENTIALS_DIRECTORY goes first.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def beside(cls, site_file: Path, folder: Path | None = None) -> "Credentials":
        """Those of the site file at `site_file`: `folder`, else the folder `secrets` beside it."""
        return cls(folder or site_file.resolve().parent / "secrets")

    def read(self, name: str) -> str:
        """The credential, without the line end at its end. ConfigError says what is wrong and what to type."""
        passed = os.environ.get("CREDENTIALS_DIRECTORY")
        # systemd guards its own folder; with an access list, its files look readable by the group.
        if passed and (path := Path(passed) / name).is_file():
            return _text(path, name)
        path = self.folder / name
        try:
            mode = path.stat().st_mode
        except FileNotFoundError:
            raise ConfigError(f"The secret `{name}` is not set. Type: {self._set(name)}") from None
        except OSError as error:
            raise ConfigError(f"The secret `{name}` cannot be read from {path}: {error.strerror}.") from None
        if mode & 0o077:
            raise ConfigError(f"Others can read the secret in {path}. Type: chmod 600 {path}, and change the secret.")
        return _text(path, name)

    def fault(self, name: str) -> str:
        """Why `read` would fail, or ''."""
        try:
            self.read(name)
        except ConfigError as error:
            return str(error)
        return ""

    def write(self, name: str, value: str) -> Path:
        """Store the credential. ConfigError: no name for one, an empty value, or a folder that refuses."""
        self.check_name(name)
        if not value.strip():
            raise ConfigError("An empty secret is none.")
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            durable.replace(self.folder / name, value.encode())
        except OSError as error:
            raise ConfigError(f"The secret cannot be stored in {self.folder}: {error.strerror}.") from None
        return self.folder / name

    def check_name(self, name: str) -> None:
        """ConfigError: no name for a credential."""
        if not re.fullmatch(CREDENTIAL, name):
            raise ConfigError(f"`{name}` is no name for a secret: letters, digits, `.`, `-` and `_`.")

    def missing(self, site: Site) -> list[Diagnostic]:
        """The credentials that the site refers to and that cannot be read, each where it refers to it."""
        return [found for name, found in site.secrets.items() if self.fault(name)]

    def _set(self, name: str) -> str:
        usual = Path("/etc/lampione/secrets")
        return f"lampione secret set {name}" + ("" if self.folder == usual else f" --secrets {self.folder}")


def resolver(site: Site, place: str, credentials: Credentials) -> Callable[[str], str]:
    """What `Link.secret` and `Platform.secret` are: `place` is `links.cs`, `uplinks.city` or `page`.

    The function takes a settings key (`key`), or a device's (`cp-1/evse.key`), and reads the credential anew
    each time. ConfigError: none is named there, or it cannot be read.
    """

    def secret(key: str) -> str:
        where = key if "/" in key else f"{place}.{key}"
        name = site.references.get(where)
        if name is None:
            word = where.rpartition(".")[2]
            raise ConfigError(f"{where.rpartition('.')[0]} names no secret. Add `{word}: secret` to it in {site.path}.")
        return credentials.read(name)

    return secret


def _text(path: Path, name: str) -> str:
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
        text = raw.decode()
    except OSError as error:
        raise ConfigError(f"The secret `{name}` cannot be read from {path}: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise ConfigError(f"The secret `{name}` in {path} is not text.") from None
    if len(raw) > MAX_BYTES:
        raise ConfigError(f"The secret `{name}` in {path} is larger than {MAX_BYTES} bytes.")
    text = text.removesuffix("\n").removesuffix("\r")
    if not text:
        raise ConfigError(f"The secret `{name}` in {path} is empty. Type: lampione secret set {name}")
    return text
