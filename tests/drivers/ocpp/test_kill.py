"""The gateway dies at each await of a session in turn, the charger tells again what was not answered: one record."""

from __future__ import annotations

import asyncio
import base64
from typing import TYPE_CHECKING, Any

import aiohttp
import orjson
import pytest

from drivers.ocpp import connection, driver
from tests.drivers.ocpp.chargers import KEY
from tests.drivers.ocpp.killing import Mortal, stepped_tasks

if TYPE_CHECKING:
    from pathlib import Path

MINUTES = ("10:01", "10:02", "10:03")


def sample(wh: int) -> dict[str, str]:
    return {"value": str(wh)}


class Charger:
    """What a charger keeps: its queue and the transaction's id. It sends in order, and again under new message ids."""

    def __init__(self) -> None:
        values = [
            {
                "connectorId": 1,
                "meterValue": [{"timestamp": f"2026-11-22T{at}:00Z", "sampledValue": [{"value": str(wh)}]}],
            }
            for at, wh in zip(MINUTES, (1100, 1200, 1300), strict=True)
        ]
        start = {"connectorId": 1, "idTag": "04A1B2C3", "meterStart": 1000, "timestamp": "2026-11-22T10:00:00Z"}
        stop = {"meterStop": 1400, "timestamp": "2026-11-22T10:04:00Z", "reason": "Local"}
        self.queue: list[tuple[str, dict[str, Any]]] = [
            ("StartTransaction", start), *(("MeterValues", value) for value in values), ("StopTransaction", stop),
        ]  # fmt: skip
        self.number: int | None = None
        self._ids = 0

    async def talk(self, session: aiohttp.ClientSession, address: str) -> None:
        """Until all is answered. aiohttp.ClientError, ConnectionError: the gateway is gone."""
        words = base64.b64encode(f"cp-1:{KEY}".encode()).decode()
        headers = {"Authorization": f"Basic {words}"}
        async with session.ws_connect(f"ws://{address}/cp-1", protocols=["ocpp1.6"], headers=headers) as socket:
            await self._ask(socket, "BootNotification", {"chargePointVendor": "V", "chargePointModel": "M"})
            await self._ask(socket, "Authorize", {"idTag": "04A1B2C3"})
            while self.queue:
                action, payload = self.queue[0]
                if action != "StartTransaction":
                    payload = {**payload, "transactionId": self.number}
                answer = await self._ask(socket, action, payload)
                self.number = answer.get("transactionId", self.number)
                del self.queue[0]

    async def _ask(self, socket: aiohttp.ClientWebSocketResponse, action: str, payload: dict[str, Any]) -> Any:
        self._ids += 1
        await socket.send_str(orjson.dumps([2, f"m{self._ids}", action, payload]).decode())
        while True:
            message = await socket.receive()
            if message.type is not aiohttp.WSMsgType.TEXT:
                raise ConnectionError
            kind, answered, content, *_ = orjson.loads(message.data)
            if kind == 3 and answered == f"m{self._ids}":
                return content


async def live(folder: Path, blows: int | None) -> tuple[int, list[dict[str, Any]], int | None]:
    """(steps of the gateway that died, what is billed in the end, the id that the charger learnt)."""
    charger = Charger()
    first = Mortal(folder / "first", blows)
    async with aiohttp.ClientSession() as session:
        await first.start()
        if first.address:
            talk = asyncio.create_task(charger.talk(session, first.address))
            dying = asyncio.create_task(first.fuse.blown.wait())
            await asyncio.wait([talk, dying], timeout=20, return_when=asyncio.FIRST_COMPLETED)
            assert talk.done() or dying.done()
            for task in (talk, dying):
                task.cancel()
            await asyncio.wait([talk, dying])
        await first.image(folder / "second")
        steps = first.fuse.steps
        await first.bury()
        second = Mortal(folder / "second")
        await second.start()
        async with asyncio.timeout(10):
            await charger.talk(session, second.address)
        billed = await second.billed()
        await second.bury()
    return steps, billed, charger.number


def is_complete_and_single(billed: list[dict[str, Any]], number: int | None) -> None:
    kinds = [row["event"] for row in billed if "event" in row]
    assert kinds == ["transaction_begin", "session"]
    session = next(row["more"] for row in billed if row.get("event") == "session")
    values = [row["value"] for row in billed if "value" in row]
    assert values == [1100, 1200, 1300]
    assert {row["transaction"] for row in billed if "value" in row} == {str(number)}
    assert {key: session[key] for key in ("transaction", "connector", "energy", "readings", "reason", "doubts")} == {
        "transaction": str(number), "connector": 1, "energy": 400, "readings": 3, "reason": "Local", "doubts": [],
    }  # fmt: skip
    assert session["end"] - session["begin"] == 240_000
    assert session["gaps"] == []


def at_step(folder: Path, blows: int | None) -> int:
    folder.mkdir()
    with asyncio.Runner() as runner:
        runner.get_loop().set_task_factory(stepped_tasks)
        steps, billed, number = runner.run(live(folder, blows))
    is_complete_and_single(billed, number)
    return steps


@pytest.mark.slow
def test_a_gateway_that_dies_at_any_await_leaves_one_complete_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (connection, driver):  # how politely the dead are buried is not looked at
        monkeypatch.setattr(module, "CLOSE_WITHIN", 0.05)
    most = at_step(tmp_path / "whole", None)
    assert most > 40, "the steps of the gateway are not counted"
    for blows in range(1, most + 2):
        at_step(tmp_path / str(blows), blows)


def test_the_test_can_fail(tmp_path: Path) -> None:
    """A gateway that answers before it keeps would lose a record at some step."""
    with pytest.raises(AssertionError):
        is_complete_and_single([{"event": "transaction_begin", "more": {}}], 1)
