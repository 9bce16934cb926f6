"""P8: the outbox insert inside the user's own transaction, over the bare INSERT of the same row.

Timed twice in every transaction: the insert alone, which is the call `service.publish(event, transaction=handle)` on
our side and `execute(INSERT, values made beforehand)` on the bare side; and the whole transaction, BEGIN and COMMIT
included. The target is judged on both: the insert alone is the strict reading, the whole is what a user waits for.
Ours encodes the payload, makes id and time, checks every limit, and makes the row; the bare side has all of that ready.
"""

from __future__ import annotations

import sqlite3
import statistics
import time
from typing import Any

from benchmarks import message
from benchmarks.contest import Benchmark, Comparison, Sample, Target
from benchmarks.services import service_on
from benchmarks.stage import Stage

TRANSACTIONS = 4000
WARM_UP = 300


def measure(stage: Stage, contender: str) -> Sample:
    """Run transactions in a fresh database."""
    count = stage.scale(TRANSACTIONS, TRANSACTIONS // 5)
    if contender.startswith("postgres"):
        database = f"p8_{stage.serial()}"
        try:
            return stage.turn("p8_insert", contender, url=stage.postgres.create_database(database), count=count)
        finally:
            stage.postgres.drop_database(database)
    with stage.directory() as directory:
        return stage.turn("p8_insert", contender, path=str(directory / "store.db"), count=count)


class _Laps:
    """Medians of two intervals, in microseconds."""

    def __init__(self) -> None:
        self._inserts: list[float] = []
        self._wholes: list[float] = []

    def add(self, begun: float, before: float, after: float, ended: float) -> None:
        self._inserts.append(after - before)
        self._wholes.append(ended - begun)

    def figures(self) -> dict[str, float]:
        return {
            "insert": statistics.median(self._inserts[WARM_UP:]) * 1e6,
            "whole": statistics.median(self._wholes[WARM_UP:]) * 1e6,
        }


async def turn_postgres_spoolproof(url: str, count: int) -> dict[str, float]:
    """`service.publish(event, transaction=connection)` on an asyncpg connection."""
    import asyncpg

    service = service_on(store=url, broker="memory://")
    await service.start(only=[])
    connection = await asyncpg.connect(url)
    payload, laps, clock = message.order(), _Laps(), time.perf_counter
    for _ in range(count + WARM_UP):
        begun = clock()
        async with connection.transaction():
            before = clock()
            await service.publish(payload, transaction=connection)
            after = clock()
        laps.add(begun, before, after, clock())
    await connection.close()
    await service.stop()
    return laps.figures()


async def turn_postgres_bare(url: str, count: int) -> dict[str, float]:
    """The same row by `connection.execute(INSERT)` on an asyncpg connection."""
    import asyncpg

    service = service_on(store=url, broker="memory://")
    await service.start(only=[])
    await service.publish(message.order())
    await service.stop()
    connection = await asyncpg.connect(url)
    columns = "shard, message_id, destination, type, routing_key, ordering_key, headers, body"
    row = await connection.fetchrow(f"select {columns} from spoolproof.outbox")
    insert = f"insert into spoolproof.outbox ({columns}) values ($1, $2, $3, $4, $5, $6, $7, $8)"
    ids = message.message_ids(count + WARM_UP)
    laps, clock = _Laps(), time.perf_counter
    for one in ids:
        values = (row[0], one, *tuple(row)[2:])
        begun = clock()
        async with connection.transaction():
            before = clock()
            await connection.execute(insert, *values)
            after = clock()
        laps.add(begun, before, after, clock())
    await connection.close()
    return laps.figures()


async def turn_sqlite_spoolproof(path: str, count: int) -> dict[str, float]:
    """`service.publish(event, transaction=connection)` on a sqlite3 connection."""
    service = service_on(store=f"sqlite:///{path}", broker="memory://")
    await service.start(only=[])
    connection = _connect(path)
    payload, laps, clock = message.order(), _Laps(), time.perf_counter
    for _ in range(count + WARM_UP):
        begun = clock()
        connection.execute("begin immediate")
        before = clock()
        await service.publish(payload, transaction=connection)
        after = clock()
        connection.execute("commit")
        laps.add(begun, before, after, clock())
    connection.close()
    await service.stop()
    return laps.figures()


async def turn_sqlite_bare(path: str, count: int) -> dict[str, float]:
    """The same row by `connection.execute(INSERT)` on a sqlite3 connection."""
    from benchmarks.p7_publish_sqlite import row_of_ours

    row = await row_of_ours(path)
    connection = _connect(path)
    insert = f"insert into spoolproof_outbox ({', '.join(row)}) values ({', '.join('?' * len(row))})"
    position, values = list(row).index("message_id"), list(row.values())
    laps, clock = _Laps(), time.perf_counter
    for one in message.message_ids(count + WARM_UP):
        values[position] = one
        begun = clock()
        connection.execute("begin immediate")
        before = clock()
        connection.execute(insert, values)
        after = clock()
        connection.execute("commit")
        laps.add(begun, before, after, clock())
    connection.close()
    return laps.figures()


def _connect(path: str) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("pragma journal_mode = wal")
    connection.execute("pragma synchronous = full")
    return connection


def _comparisons() -> list[Comparison]:
    found = []
    for store, driver in (("postgres", "asyncpg"), ("sqlite", "sqlite3")):
        ends: dict[str, Any] = {"ours": f"{store}-spoolproof", "peer": f"{store}-bare", "unit": "µs"}
        found.append(
            Comparison(
                **ends,
                label=f"{driver}: transaction with one insert",
                metric="whole",
                target=Target(1.4, is_least=False),
                aim=Target(1.3, is_least=False),
            )
        )
        found.append(
            Comparison(
                **ends,
                label=f"{driver}: the insert alone",
                metric="insert",
                target=Target(1.4, is_least=False),
                aim=Target(1.3, is_least=False),
            )
        )
    return found


BENCHMARK = Benchmark(
    id="P8",
    title="The outbox insert inside the user's own transaction, over the bare INSERT of the same row",
    contenders={
        "postgres-spoolproof": "publish(event, transaction=asyncpg connection)",
        "postgres-bare": "asyncpg, bare INSERT",
        "sqlite-spoolproof": "publish(event, transaction=sqlite3 connection)",
        "sqlite-bare": "sqlite3, bare INSERT",
    },
    measure=measure,
    comparisons=_comparisons(),
    switches={
        "PostgreSQL": "fsync=on, synchronous_commit=on; asyncpg, prepared on both sides",
        "SQLite": "journal_mode=WAL, synchronous=FULL, begin immediate, on both sides",
        "row": "the same columns in the same table; the bare side has all values beforehand",
        "event loop": "uvloop; logging off",
        "figures": "median of one process, one transaction at a time",
    },
)
