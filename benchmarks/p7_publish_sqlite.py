"""P7: `service.publish()` without a transaction into SQLite, 200 concurrent callers, acknowledged after fsync.

The peer is the fastest form of the straightforward way: one connection, one thread, a prepared INSERT of the same row
into the same table, one COMMIT each. The limit is an append-only file to which 200 records at a time are written and
then synchronised. Timed: from the first publish to the last acknowledgement.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from pathlib import Path

from benchmarks import message
from benchmarks.contest import Benchmark, Comparison, Sample, Target
from benchmarks.services import service_on
from benchmarks.stage import Stage, check

CALLERS = 200
COLUMNS = "shard, message_id, destination, type, routing_key, ordering_key, headers, body"


def measure(stage: Stage, contender: str) -> Sample:
    """Publish into a fresh file on the disk of the temporary files, and count its rows."""
    full = {"spoolproof": 60_000, "sqlite3": 20_000, "log": 400_000}[contender]
    count = stage.scale(full, full // 5)
    with stage.directory() as directory:
        figures = stage.turn("p7_publish_sqlite", contender, path=str(directory / "store.db"), count=count)
    check(figures["kept"] == count, f"{figures['kept']:.0f} are on disk, not {count}")
    return {"rate": count / figures["seconds"]}


async def turn_spoolproof(path: str, count: int) -> dict[str, float]:
    """CALLERS tasks that each publish and wait for the receipt; no relay runs."""
    service = service_on(store=f"sqlite:///{path}", broker="memory://")
    await service.start(only=[])
    payload, left = message.order(), count

    async def call() -> None:
        nonlocal left
        while left:
            left -= 1
            await service.publish(payload)

    started = time.perf_counter()
    await asyncio.gather(*(call() for _ in range(CALLERS)))
    seconds = time.perf_counter() - started
    await service.stop()
    return {"seconds": seconds, "kept": _rows(path)}


def turn_sqlite3(path: str, count: int) -> dict[str, float]:
    """One INSERT and COMMIT each, `journal_mode=WAL`, `synchronous=FULL`, in our table."""
    row = asyncio.run(row_of_ours(path))
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("pragma journal_mode = wal")
    connection.execute("pragma synchronous = full")
    ids = message.message_ids(count)
    insert = f"insert into spoolproof_outbox ({', '.join(row)}) values ({', '.join('?' * len(row))})"
    position = list(row).index("message_id")
    values = list(row.values())
    started = time.perf_counter()
    for one in ids:
        values[position] = one
        connection.execute(insert, values)  # autocommit: one transaction each
    seconds = time.perf_counter() - started
    connection.close()
    return {"seconds": seconds, "kept": _rows(path) - 1}


def turn_log(path: str, count: int) -> dict[str, float]:
    """CALLERS records per write and fdatasync."""
    record = message.body() + b" " * 256
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    started = time.perf_counter()
    for _ in range(count // CALLERS):
        os.write(log, b"".join([record] * CALLERS))
        os.fdatasync(log)
    seconds = time.perf_counter() - started
    os.close(log)
    return {"seconds": seconds, "kept": Path(path).stat().st_size / len(record)}


async def row_of_ours(path: str) -> dict[str, object]:
    """Make our schema, publish one message, and return the columns of its row that an insert names."""
    service = service_on(store=f"sqlite:///{path}", broker="memory://")
    await service.start(only=[])
    await service.publish(message.order())
    await service.stop()
    connection = sqlite3.connect(path)
    connection.row_factory = sqlite3.Row
    (row,) = connection.execute(f"select {COLUMNS} from spoolproof_outbox").fetchall()
    connection.close()
    return dict(row)


def _rows(path: str) -> float:
    connection = sqlite3.connect(path)
    (count,) = connection.execute("select count(*) from spoolproof_outbox").fetchone()
    connection.close()
    return float(count)


BENCHMARK = Benchmark(
    id="P7",
    title=f"publish() without a transaction into SQLite, {CALLERS} concurrent callers, acknowledged after fsync",
    contenders={
        "spoolproof": f"service.publish(event), {CALLERS} callers",
        "sqlite3": "stdlib sqlite3, the same row, one commit each",
        "log": f"append-only file, fdatasync per {CALLERS} records of 512 bytes (the limit)",
    },
    measure=measure,
    comparisons=(
        Comparison(
            ours="spoolproof",
            peer="sqlite3",
            label="sqlite3, one commit each",
            metric="rate",
            unit="messages/s",
            target=Target(4),
            aim=Target(5),
        ),
        Comparison(ours="spoolproof", peer="log", label="append-only log", metric="rate", unit="messages/s"),
    ),
    switches={
        "SQLite": "journal_mode=WAL, synchronous=FULL, on both sides; same table and indexes; a fresh file per turn",
        "ours": "payload encoded, checked and given an id inside the clock; no relay running",
        "peer": "one thread, one connection, row and ids made beforehand, nothing checked",
        "log": "O_APPEND, fdatasync",
        "check": "as many rows as acknowledgements in the closed file",
        "event loop": "uvloop; logging off",
    },
)
