"""P6: from the commit of a publish to the handler, on a system with nothing else to do.

A message every 50 ms. On PostgreSQL and RabbitMQ in one process; on SQLite and the embedded broker from one process to
another, where no notification of a server helps.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time

import msgspec

from benchmarks import message
from benchmarks.contest import Benchmark, Comparison, Sample, Target
from benchmarks.services import service_on
from benchmarks.stage import Stage

MESSAGES = 200
WARM_UP = 20
QUEUE = "bench.latency"


def measure(stage: Stage, contender: str) -> Sample:
    """Publish one by one."""
    count = stage.scale(MESSAGES, 60)
    if contender == "embedded":
        with stage.directory() as directory:
            return stage.turn("p6_latency", "embedded", folder=str(directory), count=count)
    database = f"p6_{stage.serial()}"
    try:
        url = stage.postgres.create_database(database)
        return stage.turn("p6_latency", "servers", store=url, broker=stage.rabbitmq.url, count=count)
    finally:
        stage.postgres.drop_database(database)


class _Handled:
    """When each message reached its handler, in monotonic seconds, which all processes of a machine share."""

    def __init__(self, store: str, broker: str) -> None:
        self.at: dict[str, float] = {}
        self.service = service_on(store=store, broker=broker)

        @self.service.on(message.OrderPlaced, queue=QUEUE)
        async def handle(order: message.OrderPlaced) -> None:
            self.at[order.order_id] = time.monotonic()

    async def until(self, count: int) -> None:
        while len(self.at) < count:
            await asyncio.sleep(0.05)


async def _publish(service: object, count: int) -> dict[str, float]:
    committed = {}
    for n in range(count):
        order = msgspec.structs.replace(message.order(), order_id=str(n))
        await service.publish(order, destination=f"queue:{QUEUE}")  # type: ignore[attr-defined]
        committed[str(n)] = time.monotonic()
        await asyncio.sleep(0.05)
    return committed


def _figures(committed: dict[str, float], handled: dict[str, float]) -> dict[str, float]:
    # the handler may be done before the publisher runs again
    laps = [max(0.0, handled[n] - at) * 1000 for n, at in committed.items()][WARM_UP:]
    return {"p50": statistics.median(laps), "p99": statistics.quantiles(laps, n=100)[98]}


async def turn_servers(store: str, broker: str, count: int) -> dict[str, float]:
    """One process: relay and consumer."""
    handled = _Handled(store, broker)
    await handled.service.start()
    committed = await _publish(handled.service, count)
    await handled.until(count)
    await handled.service.stop()
    return _figures(committed, handled.at)


async def turn_embedded(folder: str, count: int) -> dict[str, float]:
    """This process publishes and relays, another handles."""
    arguments = json.dumps({"folder": folder, "count": count})
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.turn", "p6_latency", "handler", arguments), stdout=asyncio.subprocess.PIPE
    )
    assert child.stdout is not None
    await child.stdout.readline()  # it is ready
    service = service_on(store=f"sqlite:///{folder}/store.db", broker=f"embedded:///{folder}/broker.db")
    await service.start(only=["relay"])
    committed = await _publish(service, count)
    handled = json.loads(await child.stdout.readline())
    await child.wait()
    await service.stop()
    return _figures(committed, handled)


async def turn_handler(folder: str, count: int) -> dict[str, float]:
    """The other process."""
    handled = _Handled(f"sqlite:///{folder}/store.db", f"embedded:///{folder}/broker.db")
    await handled.service.start(only=["consumer"])
    print("ready", flush=True)
    await handled.until(count)
    await handled.service.stop()
    return handled.at


BENCHMARK = Benchmark(
    id="P6",
    title="Commit to handler, idle system",
    contenders={
        "servers": "PostgreSQL and RabbitMQ, one process",
        "embedded": "SQLite and the embedded broker, from one process to another",
    },
    measure=measure,
    comparisons=(
        Comparison(
            ours="servers",
            peer=None,
            label="PostgreSQL and RabbitMQ, p50",
            metric="p50",
            unit="ms",
            target=Target(5, is_least=False),
        ),
        Comparison(
            ours="embedded",
            peer=None,
            label="embedded, across processes, p50",
            metric="p50",
            unit="ms",
            target=Target(10, is_least=False),
        ),
        Comparison(ours="servers", peer=None, label="PostgreSQL and RabbitMQ, p99", metric="p99", unit="ms"),
        Comparison(ours="embedded", peer=None, label="embedded, across processes, p99", metric="p99", unit="ms"),
    ),
    switches={"load": "one message every 50 ms", "inbox": "on", "PostgreSQL": "fsync=on"},
    rounds_max=3,
)
