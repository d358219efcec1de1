"""The machine's clocks, and what is said of them."""

import subprocess
import sys

from gateway.clock import SystemClock
from gateway.model import ClockState


def test_boot_time_never_goes_back_and_is_the_kernels() -> None:
    clock = SystemClock()
    with open("/proc/uptime") as uptime:  # noqa: PTH123 - a file of the kernel
        kernel = float(uptime.read().split()[0]) * 1000
    seen = [clock.boot() for _ in range(1000)]
    assert seen == sorted(seen)
    assert abs(seen[0] - kernel) < 2000


def test_wall_time_is_utc_milliseconds() -> None:
    told = int(subprocess.run(["date", "-u", "+%s"], capture_output=True, check=True, text=True).stdout) * 1000
    assert abs(SystemClock().wall() - told) < 2000


def test_the_boot_id_is_that_of_this_boot_in_every_process() -> None:
    code = "from gateway.clock import SystemClock; print(SystemClock().boot_id)"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout.strip()
    assert SystemClock().boot_id == other
    assert len(other) == 8


def test_a_trusted_clock_is_synchronised_and_another_is_what_the_kernel_says() -> None:
    assert SystemClock(trusted=True).state() is ClockState.SYNCED
    assert SystemClock().state() in (ClockState.SYNCED, ClockState.UNSYNCED)
