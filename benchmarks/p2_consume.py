"""P2: consume, decode, call an empty handler, ack each.

The queue is filled before the clock starts. Timed: from the first call of the handler to the last, in the contender's
process; afterwards the queue must be empty, so every message was acked. Ours decodes into a typed Struct, the peers
into a dict, which is cheaper for them.
"""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

from benchmarks import message
from benchmarks.contest import Benchmark, Comparison, Sample, Target
from benchmarks.raw_amqp import consume_all, publish_all
from benchmarks.stage import Stage, check

PREFETCH = 200
CONCURRENCY = 100
SERVICE = "bench"
QUEUE = "bench.handle"


def measure(stage: Stage, contender: str) -> Sample:
    """Fill a fresh queue, let the contender empty it, and look."""
    full = {"faststream": 15_000, "aio-pika": 20_000, "raw": 100_000}.get(contender, 40_000)
    count = stage.scale(full, full // 5)
    with stage.queue(SERVICE, QUEUE) as queue:
        publish_all(stage.rabbitmq.url, QUEUE, count, window=1024)
        found = queue.settled_depth()
        check(found == count, f"{found} messages before the start, not {count}")
        figures = stage.turn("p2_consume", contender, url=stage.rabbitmq.url, count=count)
        left = queue.settled_depth()
        check(left == 0, f"{left} messages were not acked")
    return {"rate": (count - 1) / figures["seconds"]}


class Counter:
    """Counts calls of a handler; `seconds` from the first to the last."""

    def __init__(self, count: int) -> None:
        self._left = count
        self._started = 0.0
        self.seconds = 0.0
        self.done = asyncio.Event()

    def hit(self) -> None:
        self._started = self._started or time.perf_counter()
        self._left -= 1
        if self._left == 0:
            self.seconds = time.perf_counter() - self._started
            self.done.set()


async def turn_spoolproof(url: str, count: int, concurrency: int = CONCURRENCY) -> dict[str, float]:
    """A service with `dedupe="none"`, consumer only."""
    from spoolproof import Service
    from spoolproof.settings import Settings

    counter = Counter(count)
    # no inbox, so the store is never asked
    settings = Settings(_env_file=None, store="memory://", broker=url, exchange="bench")
    service = Service(SERVICE, settings=settings)

    @service.on(message.OrderPlaced, queue=QUEUE, dedupe="none", concurrency=concurrency, prefetch=PREFETCH)
    async def handle(order: message.OrderPlaced) -> None:
        counter.hit()

    await service.start(only=["consumer"])
    await counter.done.wait()
    await service.drain()
    await service.stop()
    return {"seconds": counter.seconds}


async def turn_faststream(url: str, count: int) -> dict[str, float]:
    """A subscriber that takes a dict."""
    from faststream.rabbit import Channel, RabbitBroker, RabbitQueue

    counter = Counter(count)
    broker = RabbitBroker(url, logger=None, default_channel=Channel(prefetch_count=PREFETCH))

    @broker.subscriber(RabbitQueue(QUEUE, declare=False))
    async def handle(order: dict[str, Any]) -> None:
        counter.hit()

    async with broker:
        await broker.start()
        await counter.done.wait()
    return {"seconds": counter.seconds}


async def turn_aio_pika(url: str, count: int) -> dict[str, float]:
    """A consumer callback that decodes, and acks through `message.process()`."""
    import aio_pika

    counter = Counter(count)

    async def handle(order: dict[str, Any]) -> None:
        counter.hit()

    async def on_message(delivery: aio_pika.abc.AbstractIncomingMessage) -> None:
        async with delivery.process():
            await handle(json.loads(delivery.body))

    async with await aio_pika.connect_robust(url) as connection:
        channel = await connection.channel()
        await channel.set_qos(prefetch_count=PREFETCH)
        queue = await channel.get_queue(QUEUE)
        tag = await queue.consume(on_message)
        await counter.done.wait()
        await queue.cancel(tag)
        await asyncio.sleep(0.5)  # a quorum queue forgets acks that it has not applied when their channel closes
    return {"seconds": counter.seconds}


def turn_raw(url: str, count: int) -> dict[str, float]:
    """Frames parsed by hand, nothing decoded, an ack frame per message."""
    return {"seconds": consume_all(url, QUEUE, count, PREFETCH)}


BENCHMARK = Benchmark(
    id="P2",
    title="Consume, decode, call an empty handler, ack each",
    contenders={
        "spoolproof": 'Service, handler with dedupe="none"',
        "faststream": "FastStream subscriber",
        "aio-pika": "aio-pika consumer callback",
        "raw": "raw socket, nothing decoded (the limit)",
    },
    measure=measure,
    comparisons=(
        Comparison(
            ours="spoolproof",
            peer="faststream",
            label="FastStream",
            metric="rate",
            unit="messages/s",
            target=Target(4),
            aim=Target(5),
        ),
        Comparison(ours="spoolproof", peer="aio-pika", label="aio-pika", metric="rate", unit="messages/s"),
        Comparison(ours="spoolproof", peer="raw", label="raw socket (the limit)", metric="rate", unit="messages/s"),
    ),
    switches={
        "queue": "quorum, one node, filled beforehand",
        "message": "256 bytes JSON, message id, type, traceparent; delivery_mode=2",
        "ack": f"one per message, after the handler; prefetch {PREFETCH}, for every contender",
        "concurrency": f"ours {CONCURRENCY} lanes; the peers one task per delivery, so {PREFETCH}",
        "payload": "ours a typed Struct; FastStream and aio-pika a dict; raw not decoded",
        "inbox": "none, on every side",
        "check": "the queue is empty afterwards",
        "event loop": "uvloop, for every contender; logging off (FastStream logs two lines a message by default)",
    },
)
