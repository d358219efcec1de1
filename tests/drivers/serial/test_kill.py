"""Rain over a gateway that is killed: what fell is told once, whatever was on its way."""

import asyncio
import contextlib
import json
import os
import random
import signal
import sys
import tty
from pathlib import Path

import pytest

pytestmark = [pytest.mark.fault, pytest.mark.slow]  # quick: test_series.py, over a restart of the driver

SITE = """\
version: 1
gateway: {{id: cab-017, tenant: milan}}
links: {{air: {{driver: serial, port: {port}}}}}
assets: {{lp-1: {{devices: {{weather: {{link: air, profile: vaisala-wxt530}}}}}}}}
uplinks: {{file: {{uplink: file, path: {out}, from: oldest}}}}
"""


class Gauge:
    """The far end of the wire: fifty lines a second of what has fallen, in hundredths of a millimetre."""

    def __init__(self, master: int) -> None:
        self._master = master
        self.fallen = 400
        self.rains = False

    async def run(self) -> None:
        while True:
            self.fallen += self.rains
            with contextlib.suppress(OSError):  # nobody listens
                os.write(self._master, f"0R3,Rc={self.fallen / 100:.2f}M\r\n".encode())
            await asyncio.sleep(0.02)


def told(out: Path) -> list[tuple[float | None, str | None]]:
    """(growth of the rain in mm, reason) of each record that was delivered, once each."""
    rows: dict[tuple[str, int], tuple[float | None, str | None]] = {}
    for line in out.read_text().splitlines() if out.exists() else ():
        batch = json.loads(line)
        if batch["lane"] == "telemetry":
            for seq, point, _, value, *more in batch["r"]:
                assert batch["p"][point][:2] == ["lp-1/weather/rain", "precipitation"]
                rows[batch["ep"], seq] = value, more[1] if more else None
    return [rows[key] for key in sorted(rows, key=lambda key: key[1])]


async def more(out: Path, count: int, *, zeros: bool = False) -> None:
    """Until so many more were told; `zeros`: and the last of them say that it does not rain."""
    goal = len(told(out)) + count
    async with asyncio.timeout(30):
        while len(told(out)) < goal or (zeros and told(out)[-count:] != [(0.0, None)] * count):  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def test_rain_goes_on_over_a_killed_gateway(tmp_path: Path) -> None:
    dice = random.Random(8)
    master, slave = os.openpty()
    tty.setraw(slave)
    os.set_blocking(master, False)
    site, out = tmp_path / "site.yaml", tmp_path / "out.jsonl"
    site.write_text(SITE.format(port=os.ttyname(slave), out=out))
    os.close(slave)
    words = ("-m", "gateway", "run", str(site), "--state", str(tmp_path / "state"))

    async def started() -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(sys.executable, *words, stderr=asyncio.subprocess.DEVNULL)

    gauge = Gauge(master)
    raining = asyncio.create_task(gauge.run())
    try:
        for _ in range(3):
            process = await started()
            await more(out, 5)
            gauge.rains = True
            await asyncio.sleep(dice.uniform(0.1, 1.2))
            process.send_signal(signal.SIGKILL)
            await process.wait()
        process = await started()
        await more(out, 5)
        gauge.rains = False
        await more(out, 5, zeros=True)
    finally:
        raining.cancel()
        process.terminate()
        await process.wait()
        os.close(master)
    first, *rest = told(out)
    assert first == (None, "counter_reset"), "the first of all has nothing to grow from"
    assert {reason for _, reason in rest} == {None}
    assert min(grown for grown, _ in rest) >= 0
    assert gauge.fallen > 450, "it rained"
    assert sum(grown for grown, _ in rest) == pytest.approx((gauge.fallen - 400) / 100, abs=1e-6)
