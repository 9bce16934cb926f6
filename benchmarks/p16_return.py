"""P16: RabbitMQ killed under load and started again: from the broker taking connections to the first confirmed publish.

Both publishers send without a pause and write the moment of each confirm; an onlooker opens connections until one is
accepted, and compares. All clocks are the machine's monotonic one.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
import time
from pathlib import Path

import pika

from benchmarks import message
from benchmarks.contest import Benchmark, Comparison, Sample, Target
from benchmarks.p4_relay import QUEUE
from benchmarks.services import service_on
from benchmarks.stage import Stage, check

AWAY_SECONDS = 20.0


def measure(stage: Stage, contender: str) -> Sample:
    """Let it publish, kill the broker, start it, and wait for the next confirm."""
    _declare(stage.rabbitmq.url)
    with stage.directory() as directory:
        log = directory / "confirms"
        arguments = {"url": stage.rabbitmq.url, "log": str(log), "store": f"sqlite:///{directory}/store.db"}
        with stage.begin("p16_return", contender, **arguments):
            _until(lambda: log.exists() and log.stat().st_size > 0)
            stage.rabbitmq.kill()
            time.sleep(AWAY_SECONDS)
            down = log.stat().st_size
            stage.rabbitmq.start()
            accepting_at = _accepting_at(stage.rabbitmq.url)
            _until(lambda: log.stat().st_size > down)
            first = json.loads(log.read_bytes()[down:].splitlines()[0])
    return {"seconds": max(0.0, first - accepting_at)}


def _declare(url: str) -> None:
    # not the stage's own queue: its connection would die with the broker
    connection = pika.BlockingConnection(pika.URLParameters(url))
    connection.channel().queue_declare(QUEUE, durable=True, arguments={"x-queue-type": "quorum"})
    connection.close()


def _accepting_at(url: str) -> float:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with contextlib.suppress(Exception):
            connection = pika.BlockingConnection(pika.URLParameters(url))
            at = time.monotonic()
            connection.close()
            return at
        time.sleep(0.05)
    raise RuntimeError("the broker did not come back")


def _until(condition: object, seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        check(time.monotonic() < deadline, "no publish was confirmed")
        time.sleep(0.05)


async def turn_spoolproof(url: str, log: str, store: str) -> dict[str, float]:
    """Publish into the outbox; a row that is gone was confirmed. Ends when it is killed."""
    service = service_on(store=store, broker=url)
    await service.start(only=["relay"])
    onlooker = sqlite3.connect(store.removeprefix("sqlite:///"), isolation_level=None)
    with Path(log).open("a", buffering=1) as file:
        while True:
            await service.publish(message.order(), destination=f"queue:{QUEUE}")
            while onlooker.execute("select exists (select 1 from spoolproof_outbox)").fetchone()[0]:
                await asyncio.sleep(0.01)
            file.write(f"{time.monotonic()}\n")


async def turn_aio_pika(url: str, log: str, store: str) -> dict[str, float]:
    """`connect_robust`, one publish after the other, again after every error."""
    import aio_pika

    connection = await aio_pika.connect_robust(url)
    channel = await connection.channel()
    with Path(log).open("a", buffering=1) as file:
        while True:
            try:
                body = aio_pika.Message(message.body(), delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
                await asyncio.wait_for(channel.default_exchange.publish(body, QUEUE), 5)
            except Exception:
                await asyncio.sleep(0.05)
                continue
            file.write(f"{time.monotonic()}\n")


BENCHMARK = Benchmark(
    id="P16",
    title=f"RabbitMQ killed under load, away {AWAY_SECONDS:g} s: from its taking connections to a confirmed publish",
    contenders={"spoolproof": "outbox on SQLite, relay", "aio-pika": "connect_robust, publish again after an error"},
    measure=measure,
    comparisons=(
        Comparison(
            ours="spoolproof",
            peer=None,
            label="outbox and relay",
            metric="seconds",
            unit="s",
            target=Target(1, is_least=False),
        ),
        Comparison(ours="aio-pika", peer=None, label="aio-pika, connect_robust", metric="seconds", unit="s"),
    ),
    switches={
        "queue": "quorum, one node",
        "confirms": "on, for both",
        "ours": "seen when the confirmed row is deleted",
    },
    rounds_max=3,
)
