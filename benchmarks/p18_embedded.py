"""P18: the embedded broker between two processes: publish to handled, each message once, on SQLite.

Timed by an onlooker's clock: from the first publish to the last call of the handler. The publisher waits for each
receipt, which comes after fsync; the handler's inbox row and the ack are committed too.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

from benchmarks import message
from benchmarks.contest import Benchmark, Comparison, Sample, Target
from benchmarks.p2_consume import Counter
from benchmarks.services import service_on
from benchmarks.stage import Stage

CALLERS = 200
QUEUE = "bench.embedded"


def measure(stage: Stage, contender: str) -> Sample:
    """Run two processes on one folder."""
    count = stage.scale(30_000, 6_000)
    with stage.directory() as directory:
        figures = stage.turn("p18_embedded", "publisher", folder=str(directory), count=count)
    return {"rate": count / figures["seconds"]}


async def turn_publisher(folder: str, count: int) -> dict[str, float]:
    """Publish and relay; ends with the handler's process."""
    arguments = json.dumps({"folder": folder, "count": count})
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.turn", "p18_embedded", "handler", arguments),
        stdout=asyncio.subprocess.PIPE,
    )
    assert child.stdout is not None
    await child.stdout.readline()  # it is ready
    service = service_on(store=f"sqlite:///{folder}/store.db", broker=f"embedded:///{folder}/broker.db")
    await service.start(only=["relay"])
    payload, left = message.order(), count

    async def call() -> None:
        nonlocal left
        while left:
            left -= 1
            await service.publish(payload, destination=f"queue:{QUEUE}")

    began = time.monotonic()
    await asyncio.gather(*(call() for _ in range(CALLERS)))
    ended_at = json.loads(await child.stdout.readline())["ended_at"]
    await child.wait()
    await service.stop()
    return {"seconds": ended_at - began}


async def turn_handler(folder: str, count: int) -> dict[str, float]:
    """Handle as many messages."""
    counter = Counter(count)
    service = service_on(store=f"sqlite:///{folder}/store.db", broker=f"embedded:///{folder}/broker.db")

    @service.on(message.OrderPlaced, queue=QUEUE, concurrency=100, prefetch=200)
    async def handle(order: message.OrderPlaced) -> None:
        counter.hit()

    await service.start(only=["consumer"])
    print("ready", flush=True)
    await counter.done.wait()
    ended_at = time.monotonic()  # one clock for all processes of a machine
    await service.drain()
    await service.stop()
    return {"ended_at": ended_at}


BENCHMARK = Benchmark(
    id="P18",
    title="Embedded broker, two processes, publish to handled",
    contenders={"embedded": f"{CALLERS} callers in one process, a handler with an inbox in another"},
    measure=measure,
    comparisons=(
        Comparison(
            ours="embedded", peer=None, label="two processes", metric="rate", unit="messages/s", target=Target(5_000)
        ),
    ),
    switches={"SQLite": "journal_mode=WAL, synchronous=FULL, both files", "inbox": "on", "outbox": "on"},
)
