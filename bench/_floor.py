"""The least that the same work can cost: a bare script, for bench/end_to_end.py to compare with. No product code.

Polls Modbus TCP devices each second in one block, keeps the values in SQLite (WAL, synchronous=FULL, one commit
a second), publishes one message a second at QoS 1, and deletes what the broker has taken. It validates nothing,
knows no units, no health, no commands, no reconnection, and takes a broker's PUBACK for delivery.
"""

import asyncio
import json
import sqlite3
import struct
import sys
import time

import aiomqtt
from pymodbus.client import AsyncModbusTcpClient


async def main(modbus_port: int, units: int, broker_port: int, user: str, password: str, database: str) -> None:
    db = sqlite3.connect(database, isolation_level=None)
    db.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;")
    db.execute("CREATE TABLE reading(id INTEGER PRIMARY KEY, unit INT, point INT, time INT, value REAL)")
    meter = AsyncModbusTcpClient("127.0.0.1", port=modbus_port)
    await meter.connect()
    async with aiomqtt.Client("127.0.0.1", broker_port, username=user, password=password) as broker:
        due = time.monotonic()
        while True:
            rows = []
            for unit in range(1, units + 1):
                answer = await meter.read_input_registers(0, count=40, device_id=unit)
                values = struct.unpack(">20f", struct.pack(">40H", *answer.registers))
                now = time.time_ns() // 1_000_000
                rows += [(unit, point, now, value) for point, value in enumerate(values)]
            db.execute("BEGIN")
            db.executemany("INSERT INTO reading(unit, point, time, value) VALUES(?, ?, ?, ?)", rows)
            db.execute("COMMIT")
            held = db.execute("SELECT * FROM reading ORDER BY id").fetchall()
            await broker.publish("floor", json.dumps(held), qos=1)
            db.execute("DELETE FROM reading WHERE id <= ?", (held[-1][0],))
            due += 1
            await asyncio.sleep(due - time.monotonic())


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:7]))
