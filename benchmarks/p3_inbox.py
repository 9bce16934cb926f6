"""P3: consume with an inbox on PostgreSQL, one commit a message; the peer has no inbox at all.

The queue is filled before the clock starts. Timed: from the first call of the handler to the last. Afterwards the queue
must be empty and the inbox must hold as many rows as there were messages.
"""

from __future__ import annotations

from benchmarks import message
from benchmarks.contest import Benchmark, Comparison, Sample, Target
from benchmarks.p2_consume import PREFETCH, QUEUE, SERVICE, Counter
from benchmarks.raw_amqp import publish_all
from benchmarks.services import service_on
from benchmarks.stage import Stage, check
from spoolproof import Transaction

CONCURRENCY = 100
BATCH = 100


def measure(stage: Stage, contender: str) -> Sample:
    """Fill a fresh queue, let the contender empty it, and look."""
    count = stage.scale(15_000, 5_000)
    database = f"p3_{stage.serial()}"
    url = stage.postgres.create_database(database)
    try:
        with stage.queue(SERVICE, QUEUE) as queue:
            publish_all(stage.rabbitmq.url, QUEUE, count, window=1024)
            check(queue.settled_depth() == count, "not all messages were there before the start")
            if contender == "faststream":
                figures = stage.turn("p2_consume", contender, url=stage.rabbitmq.url, count=count)
            else:
                figures = stage.turn("p3_inbox", contender, store=url, url=stage.rabbitmq.url, count=count)
                rows = int(stage.postgres.psql("select count(*) from spoolproof.inbox", database=database))
                check(rows == count, f"{rows} rows in the inbox")
            check(queue.settled_depth() == 0, "messages were not acked")
    finally:
        stage.postgres.drop_database(database)
    return {"rate": (count - 1) / figures["seconds"]}


async def turn_one(store: str, url: str, count: int) -> dict[str, float]:
    """A handler that takes the transaction: inbox row and effect in one commit each."""
    counter = Counter(count)
    service = service_on(store=store, broker=url)

    @service.on(message.OrderPlaced, queue=QUEUE, concurrency=CONCURRENCY, prefetch=PREFETCH)
    async def handle(order: message.OrderPlaced, tx: Transaction) -> None:
        counter.hit()

    await service.start(only=["consumer"])
    await counter.done.wait()
    await service.drain()
    await service.stop()
    return {"seconds": counter.seconds}


async def turn_batch(store: str, url: str, count: int) -> dict[str, float]:
    """A batch handler: many inbox rows in one commit."""
    counter = Counter(count)
    service = service_on(store=store, broker=url)

    @service.on(message.OrderPlaced, queue=QUEUE, batch=BATCH, prefetch=4 * BATCH)
    async def handle(orders: list[message.OrderPlaced], tx: Transaction) -> None:
        for _ in orders:
            counter.hit()

    await service.start(only=["consumer"])
    await counter.done.wait()
    await service.drain()
    await service.stop()
    return {"seconds": counter.seconds}


def _against(ours: str, label: str, bound: float) -> Comparison:
    return Comparison(ours=ours, peer="faststream", label=label, metric="rate", unit="messages/s", target=Target(bound))


BENCHMARK = Benchmark(
    id="P3",
    title="Consume with an inbox on PostgreSQL, against FastStream without any",
    contenders={
        "one": f"Service, inbox, one commit a message, {CONCURRENCY} lanes",
        "batch": f"Service, inbox, batch handler of at most {BATCH}",
        "faststream": "FastStream subscriber, no inbox",
    },
    measure=measure,
    comparisons=(
        _against("one", "FastStream without inbox; one commit a message", 1.5),
        _against("batch", "FastStream without inbox; batch handler", 4),
    ),
    switches={
        "queue": "quorum, one node, filled beforehand",
        "message": "256 bytes JSON, message id, type, traceparent; delivery_mode=2",
        "PostgreSQL": "fsync=on, synchronous_commit=on",
        "ack": "one per message, after the commit; FastStream after its handler",
        "check": "the queue is empty, and the inbox has a row for every message",
    },
)
