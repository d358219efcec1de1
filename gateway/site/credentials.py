"""Credentials by name: from systemd's credentials folder, else from a folder of files that nobody else may read."""

import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from shlex import quote

from gateway import durable
from gateway.diagnostic import Diagnostic
from gateway.errors import ConfigError
from gateway.fields import CREDENTIAL
from gateway.site.site import Site

MAX_BYTES = 1024 * 1024


class CredentialError(ConfigError):
    """A credential that cannot be had: why, and what to type."""

    def __init__(self, why: str, fix: str) -> None:
        super().__init__(f"{why}. {fix}")
        self.why, self.fix = why, fix


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
        """The credential, without the line end at its end. CredentialError says what is wrong and what to type."""
        passed = os.environ.get("CREDENTIALS_DIRECTORY")
        # systemd guards its own folder; with an access list, its files look readable by the group.
        # The unit loads the whole folder /etc/lampione/secrets, whose files systemd then calls secrets_<name>.
        for file in (name, f"secrets_{name}"):
            if passed and (path := Path(passed) / file).is_file():
                return self._text(path, name)
        path = self.folder / name
        try:
            mode = path.stat().st_mode
        except FileNotFoundError:
            raise CredentialError(f"The secret `{name}` is not set", self._set(name)) from None
        except OSError as error:
            raise self._unreadable(name, path, error) from None
        if mode & 0o077:
            why = f"Others can read the secret `{name}` in {path}"
            fix = f"Type: chmod 600 {quote(str(path))}; then change the secret, for it may be known."
            raise CredentialError(why, fix)
        return self._text(path, name)

    def fault(self, name: str) -> CredentialError | None:
        """What `read` would raise."""
        try:
            self.read(name)
        except CredentialError as error:
            return error
        return None

    def write(self, name: str, value: str) -> Path:
        """Store the credential. ConfigError: no name for one, an empty value, or a folder that refuses."""
        self.check_name(name)
        if not value.strip():
            raise ConfigError("An empty secret is none; nothing is stored.")
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
        """The credentials that the site refers to and that cannot be had, each where it refers to it."""
        return [
            replace(place, why=fault.why, fix=fault.fix)
            for name, place in site.secrets.items()
            if (fault := self.fault(name))
        ]

    def _set(self, name: str) -> str:
        usual = Path("/etc/lampione/secrets")
        where = "" if self.folder == usual else f" --secrets {quote(str(self.folder))}"
        return f"Type: lampione secret set {name}{where}"

    def _unreadable(self, name: str, path: Path, error: OSError) -> CredentialError:
        why = f"The secret `{name}` cannot be read from {path}: {error.strerror}"
        return CredentialError(why, "The file must belong to the user that the gateway runs as.")

    def _text(self, path: Path, name: str) -> str:
        try:
            with path.open("rb") as file:
                raw = file.read(MAX_BYTES + 1)
            text = raw.decode()
        except OSError as error:
            raise self._unreadable(name, path, error) from None
        except UnicodeDecodeError:
            raise CredentialError(f"The secret `{name}` in {path} is not text", self._set(name)) from None
        text = text.removesuffix("\n").removesuffix("\r")
        if not text or len(raw) > MAX_BYTES:
            why = f"The secret `{name}` in {path} is empty, or larger than {MAX_BYTES} bytes"
            raise CredentialError(why, self._set(name))
        return text


def resolver(site: Site, place: str, credentials: Credentials) -> Callable[[str], str]:
    """What `Link.secret` and `Platform.secret` are: `place` is `links.cs`, `uplinks.city` or `page`.

    The function takes a settings key (`key`), or a device's (`cp-1/evse.key`), and reads the credential anew
    each time. ConfigError: none is named there, or it cannot be had.
    """

    def secret(key: str) -> str:
        where = key if "/" in key else f"{place}.{key}"
        name = site.references.get(where)
        if name is None:
            owner, _, word = where.rpartition(".")
            raise ConfigError(f"{owner} names no secret. Add `{word}: secret` to it in {site.path}.")
        return credentials.read(name)

    return secret
