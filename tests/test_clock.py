"""The machine's clocks, and what is said of them."""

import ctypes
import struct
import subprocess
import sys
from dataclasses import dataclass, field

from gateway.clock import Fix, RealMachine, SystemClock, built
from gateway.model import ClockState

HOUR = 3_600_000
NOW = 1_795_305_600_000
YEAR_1970 = 60_000


@dataclass
class Told:
    """A machine that says what it is told to say."""

    wall_less_boot: int = NOW
    up: int = 60_000
    touch: int | None = None
    kernel: int | None = None
    boot_id: str = field(default="b007b007")

    def wall(self) -> int:
        return self.wall_less_boot + self.up

    def boot(self) -> int:
        return self.up

    def touched(self) -> int | None:
        return self.touch

    def bound(self) -> int | None:
        return self.kernel

    def pass_(self, milliseconds: int) -> None:
        self.up += milliseconds


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
    assert SystemClock(trusted=True).error() is None
    told = RealMachine().bound()
    assert (SystemClock().state() is ClockState.UNSYNCED) == (told is None and RealMachine().touched() is None)


def test_the_kernels_bound_is_what_adjtimex_says() -> None:
    timex = ctypes.create_string_buffer(256)
    result = ctypes.CDLL(None).adjtimex(timex)
    _, _, _, maxerror, _, status = struct.unpack_from("@illlli", timex)
    assert (result == 5) == bool(status & 0x40), "TIME_ERROR goes with STA_UNSYNC"
    told = RealMachine().bound()
    assert told is None if status & 0x40 else told is not None and abs(told - maxerror // 1000) < 100


def test_a_clock_is_set_once_timesyncd_says_so_and_not_before() -> None:
    machine = Told()
    clock = SystemClock(machine)
    assert (clock.state(), clock.error()) == (ClockState.UNSYNCED, None)
    machine.pass_(HOUR)
    assert clock.state() is ClockState.UNSYNCED, "however long it has run"
    machine.touch = machine.wall()
    machine.pass_(10_000)
    assert clock.state() is ClockState.SYNCED
    assert clock.since() == machine.up
    assert clock.error() == 501


def test_a_clock_is_set_once_chrony_has_told_the_kernel() -> None:
    machine = Told(kernel=20)
    clock = SystemClock(machine)
    assert clock.state() is ClockState.SYNCED
    assert clock.error() == 500 + 20 * 2000 * 100 // 1_000_000


def test_silence_of_the_time_server_is_holdover_with_an_error_that_grows_and_ends_with_its_return() -> None:
    machine = Told()
    machine.touch = machine.wall()
    clock = SystemClock(machine)
    errors = []
    for _ in range(25):
        clock.state()
        errors.append(clock.error())
        machine.pass_(HOUR)
    assert clock.state() is ClockState.HOLDOVER
    assert errors == [500 + 360 * hour for hour in range(25)], "100 ppm is 0.36 s an hour"
    assert clock.since() == 60_000 + 2 * HOUR, "one answer may be lost before it counts as silence"
    machine.touch = machine.wall()
    machine.pass_(10_000)
    assert clock.state() is ClockState.SYNCED
    assert clock.error() == 501


def test_a_kernel_that_nobody_tells_any_more_is_holdover_before_it_says_so_itself() -> None:
    machine = Told(kernel=10)
    clock = SystemClock(machine)
    states = []
    for second in range(0, 40_000, 600):
        states.append(clock.state())
        machine.pass_(600_000)
        bound = 10 + second // 2
        machine.kernel = bound if bound < 16_000 else None
    assert states[:7] == [ClockState.SYNCED] * 7
    assert states[9:] == [ClockState.HOLDOVER] * len(states[9:])
    drifted = 40_000 // 10
    assert drifted + 400 < (clock.error() or 0) < drifted + 2_200, "what the kernel allowed for, and the drift since"


def test_a_gateway_that_starts_long_after_the_last_comparison_knows_how_long_ago_it_was() -> None:
    machine = Told(up=10 * HOUR)
    machine.touch = machine.wall() - 8 * HOUR
    clock = SystemClock(machine)
    assert clock.state() is ClockState.HOLDOVER
    assert clock.error() == 500 + 8 * 360
    late = SystemClock(Told(up=10 * HOUR, kernel=14_000))
    assert late.state() is ClockState.HOLDOVER
    assert (late.error() or 0) >= 14_000


def test_no_clock_is_before_the_build_nor_before_what_was_saved() -> None:
    machine = Told(wall_less_boot=0, up=YEAR_1970)
    clock = SystemClock(machine)
    assert clock.wall() == built()
    saved = built() + 24 * HOUR
    clock.resume(saved, None)
    assert clock.wall() == saved
    machine.pass_(5_000)
    assert clock.wall() == saved + 5_000, "it runs on from there"
    assert clock.state() is ClockState.UNSYNCED
    machine.wall_less_boot = saved + HOUR
    assert clock.wall() == machine.wall(), "later than the floor is what the kernel has"


def test_a_floor_that_was_wrong_does_not_hold_back_a_clock_that_is_set() -> None:
    machine = Told(kernel=5)
    clock = SystemClock(machine)
    clock.resume(NOW + 1000 * HOUR, None)
    assert clock.state() is ClockState.SYNCED
    assert clock.wall() == machine.wall()


def test_a_restart_within_the_boot_goes_on_from_the_last_comparison() -> None:
    clock = SystemClock(Told(up=3 * HOUR))
    clock.resume(NOW, (HOUR, 700))
    assert clock.state() is ClockState.HOLDOVER
    assert clock.error() == 700 + 2 * 360


def test_who_sets_a_clock_in_holdover_by_hand_adds_to_its_error_until_it_is_compared_again() -> None:
    machine = Told()
    machine.touch = machine.wall()
    clock = SystemClock(machine)
    clock.state()
    machine.pass_(3 * HOUR)
    machine.wall_less_boot += 90_000
    assert clock.state() is ClockState.HOLDOVER
    assert clock.error() == 500 + 3 * 360 + 90_000
    machine.wall_less_boot -= 90_000
    machine.touch = machine.wall()
    assert clock.state() is ClockState.SYNCED, "it is asked at once when the clock is set"
    assert clock.error() == 500


def test_what_is_reckoned_from_a_fix_is_less_sure_the_farther_it_is() -> None:
    fix = Fix(offset=NOW, at=HOUR, error=500)
    assert [fix.error_at(at) for at in (HOUR, 0, 2 * HOUR)] == [500, 860, 860]


def test_a_step_is_noticed_by_whoever_asks_first_and_drift_is_none() -> None:
    machine = Told()
    machine.touch = machine.wall()
    clock = SystemClock(machine)
    assert clock.state() is ClockState.SYNCED
    machine.wall_less_boot += 3_600_000
    machine.pass_(100)
    assert clock.state() is ClockState.HOLDOVER
    assert (clock.error() or 0) >= 3_600_000, "not a record is stamped as sure after it"
    machine.wall_less_boot -= 1_000
    assert clock.take_step() == 3_599_000, "all since it was last asked"
    for _ in range(100):
        machine.wall_less_boot += 400
        machine.pass_(10_000)
        assert clock.take_step() == 0
