"""P17: the memory of a worker while 1,000,000 rows wait in its store.

The worker is a whole service (relay, one consumer, housekeeping). Its peak resident memory (VmHWM, from the start of
the process, imports included) is read after OBSERVED_SECONDS: with the broker away, when everything waits, and with
the broker there, when it ships as fast as it can and consumes what it ships.
"""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

from benchmarks import message
from benchmarks.contest import Benchmark, Comparison, Sample, Target
from benchmarks.p4_relay import QUEUE as RELAY_QUEUE
from benchmarks.services import service_on
from benchmarks.stage import Stage
from spoolproof.testing.servers.ports import free_port, release_port

ROWS = 1_000_000
OBSERVED_SECONDS = 20


def measure(stage: Stage, contender: str) -> Sample:
    """Let a worker run on a copy of the filled database."""
    rows = stage.scale(ROWS, ROWS // 10)
    template = f"p17_{rows}"
    if stage.postgres.psql(f"select 1 from pg_database where datname = '{template}'").strip() != "1":
        stage.turn("p4_relay", "fill_spoolproof", url=stage.postgres.create_database(template), rows=rows)
    database = f"p17_{stage.serial()}"
    url = stage.postgres.create_database(database, template)
    port = free_port()
    away = f"amqp://guest:guest@127.0.0.1:{port}/"
    try:
        with stage.queue("bench", RELAY_QUEUE):
            return stage.turn(
                "p17_memory",
                "worker",
                postgres=url,
                amqp=away if contender == "away" else stage.rabbitmq.url,
                seconds=stage.scale(OBSERVED_SECONDS, 8),
                rows=rows,
                must_ship=contender == "shipping",
            )
    finally:
        release_port(port)
        stage.postgres.drop_database(database)


async def turn_worker(postgres: str, amqp: str, seconds: float, rows: int, must_ship: bool) -> dict[str, float]:
    """Run a whole service for a while; return its peak memory and how many rows it shipped."""
    import asyncpg

    service = service_on(store=postgres, broker=amqp)

    @service.on(message.OrderPlaced, queue=RELAY_QUEUE)
    async def handle(order: message.OrderPlaced) -> None:
        pass

    await service.start()
    await asyncio.sleep(seconds)
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    await service.stop()
    connection = await asyncpg.connect(postgres)
    left = await connection.fetchval("select count(*) from spoolproof.outbox")
    await connection.close()
    if peak is None or (left < rows) != must_ship:
        raise RuntimeError(f"{left} of {rows} rows are left")
    return {"peak": int(peak[1]) / 1024, "shipped": rows - left}


BENCHMARK = Benchmark(
    id="P17",
    title="Memory of a worker while 1,000,000 rows wait in its store",
    contenders={
        "away": "RabbitMQ away, everything waits",
        "shipping": "RabbitMQ there, shipping and consuming",
    },
    measure=measure,
    comparisons=(
        Comparison(
            ours="away", peer=None, label="broker away", metric="peak", unit="MiB", target=Target(120, is_least=False)
        ),
        Comparison(
            ours="shipping", peer=None, label="shipping", metric="peak", unit="MiB", target=Target(120, is_least=False)
        ),
    ),
    switches={
        "store": "PostgreSQL, 1,000,000 standard rows in the outbox",
        "worker": "one process: relay, one consumer with inbox, housekeeping",
        "figure": f"VmHWM after {OBSERVED_SECONDS} s: the peak of the whole process, interpreter included",
    },
    rounds_max=3,
)
