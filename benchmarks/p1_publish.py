"""P1: publish with confirms, pipelined.

Every contender is handed the encoded body and an id per message and gives it type, trace header, persistence and the
mandatory flag by its own means, with at most WINDOW messages unconfirmed. Timed: from the first publish to the last
confirm, in the contender's process.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from benchmarks import message
from benchmarks.contest import Benchmark, Comparison, Sample, Target
from benchmarks.stage import Stage, check

WINDOW = 256
QUEUE = "bench.publish"


def measure(stage: Stage, contender: str) -> Sample:
    """Publish into a fresh queue and count what is in it."""
    full = {"faststream": 15_000, "aio-pika": 15_000}.get(contender, 60_000)
    count = stage.scale(full, full // 5)
    with stage.queue("bench", QUEUE) as queue:
        figures = stage.turn("p1_publish", contender, url=stage.rabbitmq.url, count=count)
        found = queue.settled_depth()
        check(found == count, f"{found} messages in the queue, not {count}")
    return {"rate": count / figures["seconds"]}


async def turn_spoolproof(url: str, count: int) -> dict[str, float]:
    """Our broker port: submit while there is room; the sink makes room."""
    from spoolproof.backoff import system_random
    from spoolproof.brokers.rabbitmq import RabbitMQBroker
    from spoolproof.clock import SystemClock
    from spoolproof.ports.broker import Confirmed, PublishOutcome, Topology

    clock, tasks = SystemClock(), asyncio.get_running_loop()
    broker = RabbitMQBroker(
        [url],
        clock=clock,
        random=system_random(),
        spawn=lambda work, name: tasks.create_task(work, name=name),
        retry_first_seconds=1.0,
        is_required=True,
        rounds_max=3,
    )
    await broker.start(Topology(service="bench", exchange="bench", queues=(), tiers_seconds=()))
    encoded, waiting = message.body(), message.message_ids(count)[::-1]
    confirmed, done = 0, asyncio.Event()

    def pump() -> None:
        for _ in range(min(broker.room(), len(waiting))):
            one = waiting.pop()
            broker.submit(message.outgoing(one, encoded, QUEUE), one, sink)

    def sink(results: Sequence[tuple[object, PublishOutcome]]) -> None:
        nonlocal confirmed
        for _, outcome in results:
            if not isinstance(outcome, Confirmed):
                raise RuntimeError(f"not confirmed: {outcome}")
        confirmed += len(results)
        if confirmed == count:
            done.set()
        pump()

    await broker.wait_for_room(10)
    started = time.perf_counter()
    pump()
    await done.wait()
    seconds = time.perf_counter() - started
    await broker.stop()
    return {"seconds": seconds}


async def turn_faststream(url: str, count: int) -> dict[str, float]:
    """`broker.publish` in WINDOW tasks under gather."""
    from faststream.rabbit import RabbitBroker

    encoded, headers = message.body(), {"traceparent": message.TRACEPARENT}
    async with RabbitBroker(url, logger=None) as broker:

        async def publish(one: str) -> Any:
            return await broker.publish(
                encoded,
                queue=QUEUE,
                message_id=one,
                message_type=message.TYPE,
                headers=headers,
                content_type="application/json",
                persist=True,
                mandatory=True,
            )

        await broker.ping(timeout=5.0)
        return {"seconds": await _gathered(publish, count)}


async def turn_aio_pika(url: str, count: int) -> dict[str, float]:
    """`exchange.publish` in WINDOW tasks under gather."""
    import aio_pika

    encoded, headers = message.body(), {"traceparent": message.TRACEPARENT}
    async with await aio_pika.connect_robust(url) as connection:
        channel = await connection.channel(publisher_confirms=True, on_return_raises=True)

        async def publish(one: str) -> Any:
            return await channel.default_exchange.publish(
                aio_pika.Message(
                    encoded,
                    message_id=one,
                    type=message.TYPE,
                    headers=headers,
                    content_type="application/json",
                    delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
                ),
                routing_key=QUEUE,
                mandatory=True,
            )

        return {"seconds": await _gathered(publish, count)}


def turn_raw(url: str, count: int) -> dict[str, float]:
    """Frames encoded before the clock starts."""
    from benchmarks.raw_amqp import publish_all

    return {"seconds": publish_all(url, QUEUE, count, WINDOW)}


async def _gathered(publish: Callable[[str], Awaitable[Any]], count: int) -> float:
    """Publish with WINDOW tasks that each wait for their confirm; return the seconds it took."""
    waiting = message.message_ids(count)

    async def run() -> None:
        while waiting:
            await publish(waiting.pop())

    started = time.perf_counter()
    await asyncio.gather(*(run() for _ in range(WINDOW)))
    return time.perf_counter() - started


BENCHMARK = Benchmark(
    id="P1",
    title="Publish with confirms, pipelined",
    contenders={
        "spoolproof": "RabbitMQBroker, submit and sink",
        "faststream": "FastStream, broker.publish under gather",
        "aio-pika": "aio-pika, exchange.publish under gather",
        "raw": "raw socket, frames encoded beforehand (the limit)",
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
        Comparison(
            ours="spoolproof",
            peer="raw",
            label="raw socket (the limit)",
            metric="rate",
            unit="messages/s",
            aim=Target(0.5),
        ),
    ),
    switches={
        "queue": "quorum, one node, x-overflow=reject-publish, fresh for every turn",
        "message": "256 bytes JSON, message id, type, traceparent; delivery_mode=2; mandatory",
        "confirms": f"on; at most {WINDOW} unconfirmed, for every contender",
        "check": "every message is in the queue afterwards",
        "event loop": "uvloop, for every contender; logging off",
    },
)
