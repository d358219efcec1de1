"""A real Mosquitto for the demo and the tests: ephemeral port, passwords, access lists; never anonymous, never 1883."""

import base64
import getpass
import hashlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Self

_START_WITHIN = 10.0


def is_here() -> bool:
    """Whether Mosquitto is on the PATH."""
    return shutil.which("mosquitto") is not None


class Broker:
    """One Mosquitto on 127.0.0.1. `start` after `kill` takes the same port again, as a broker that reboots does."""

    def __init__(self, folder: Path, *, passwords: Mapping[str, str], access: str, options: str = "") -> None:
        self.folder, self.passwords, self.options = folder, dict(passwords), options
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "access").write_text(access)
        (folder / "access").chmod(0o600)

    @property
    def url(self) -> str:
        return f"mqtt://127.0.0.1:{self.port}"

    def start(self) -> Self:
        """Start, and return once it listens. RuntimeError with its log where it does not."""
        passwords = self.folder / "passwords"
        passwords.write_text("".join(f"{name}:{_hash(word)}\n" for name, word in self.passwords.items()))
        passwords.chmod(0o600)
        for _ in range(5):
            port = self.port or free_port()
            if self._listens(port):
                self.port = port
                return self
        raise RuntimeError((self.folder / "log").read_text())

    def stop(self) -> None:
        """End it as an administrator does."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it as a power cut does."""
        self._end(signal.SIGKILL)

    def freeze(self) -> None:
        """Let it be there and answer nothing: a half-open connection."""
        assert self._process
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process
        self._process.send_signal(signal.SIGCONT)

    def _listens(self, port: int) -> bool:
        program = shutil.which("mosquitto")
        if program is None:
            raise RuntimeError("mosquitto is missing; `python3 dev.py test` fetches it")
        (self.folder / "mosquitto.conf").write_text(
            f"user {getpass.getuser()}\nlistener {port} 127.0.0.1\nallow_anonymous false\n"
            f"password_file {self.folder}/passwords\nacl_file {self.folder}/access\npersistence false\n"
            f"set_tcp_nodelay true\n{self.options}\n"
        )
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [program, "-c", str(self.folder / "mosquitto.conf")], stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )
        give_up = time.monotonic() + _START_WITHIN
        while self._process.poll() is None and time.monotonic() < give_up:
            with socket.socket() as sock:
                if sock.connect_ex(("127.0.0.1", port)) == 0:
                    return True
            time.sleep(0.005)
        self.kill()
        return False

    def _end(self, with_signal: signal.Signals) -> None:
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.send_signal(with_signal)
            self._process.send_signal(signal.SIGCONT)
        self._process.wait(10)
        self._process = None


def free_port() -> int:
    """A TCP port of 127.0.0.1 that is free now; whoever takes it must be ready to be too late."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def _hash(password: str) -> str:
    """As mosquitto_passwd writes it: $7$ = PBKDF2 with SHA-512. Source: mosquitto_passwd(1), password_mosq.c."""
    salt = os.urandom(12)
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, 101)
    return f"$7$101${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}"
