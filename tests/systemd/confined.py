"""Runs a command under the system call filter, without capabilities and without writable code, as the unit asks.

    python confined.py systemd/lampione.service [drop-in.conf …] -- command [argument …]

No service manager runs where the tests run, so the part of the sandbox that a program notices is built here,
by libseccomp as systemd does it, from the unit's own lines and systemd's own groups.
"""

import ctypes
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

PR_CAPBSET_DROP, PR_SET_MDWE, MDWE_REFUSE_EXEC_GAIN = 24, 65, 1
ALLOW, ERRNO, EPERM = 0x7FFF0000, 0x00050000, 1


def groups() -> dict[str, list[str]]:
    """systemd's groups of system calls, as this systemd has them."""
    listing = subprocess.run(
        ["systemd-analyze", "syscall-filter", "--no-pager"], capture_output=True, text=True, check=True
    )
    found: dict[str, list[str]] = {}
    name = ""
    for line in listing.stdout.splitlines():
        if line.startswith("@"):
            name = line.strip()
            found[name] = []
        elif line.startswith("    ") and not line.strip().startswith("#"):
            found[name].append(line.strip())
    return found


def expand(words: Iterable[str], known: dict[str, list[str]]) -> set[str]:
    calls: set[str] = set()
    for word in words:
        calls |= expand(known[word], known) if word.startswith("@") else {word}
    return calls


def allowed(files: Iterable[Path]) -> set[str]:
    """The calls that the unit and its drop-ins leave: an allow list, from which a `~` line takes away."""
    known = groups()
    calls = expand(["@default"], known)
    for file in files:
        for line in file.read_text().splitlines():
            key, _, value = line.partition("=")
            if key == "SystemCallFilter":
                change = expand(value.lstrip("~").split(), known)
                calls = calls - change if value.startswith("~") else calls | change
    return calls


def confine(calls: set[str]) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    for capability in range(64):
        libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
    if libc.prctl(PR_SET_MDWE, MDWE_REFUSE_EXEC_GAIN, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "PR_SET_MDWE")
    seccomp = ctypes.CDLL("libseccomp.so.2")
    seccomp.seccomp_init.restype = ctypes.c_void_p
    context = ctypes.c_void_p(seccomp.seccomp_init(ctypes.c_uint32(ERRNO | EPERM)))
    for name in sorted(calls):
        number = seccomp.seccomp_syscall_resolve_name(name.encode())
        if number >= 0 and seccomp.seccomp_rule_add(context, ctypes.c_uint32(ALLOW), number, 0) != 0:
            raise OSError(f"no rule for {name}")
    if seccomp.seccomp_load(context) != 0:
        raise OSError("the filter does not load")


if __name__ == "__main__":
    split = sys.argv.index("--")
    confine(allowed(Path(name) for name in sys.argv[1:split]))
    os.execv(sys.argv[split + 1], sys.argv[split + 1 :])
