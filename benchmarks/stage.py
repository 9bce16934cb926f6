"""Where contenders meet: private servers, started when first needed, and a process per turn."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import pika

from spoolproof.brokers.rabbitmq.topology import plan_of
from spoolproof.ports.broker import QueueSpec, Topology
from spoolproof.testing.servers import PostgresServer, RabbitMQServer, RedisServer

TURN_SECONDS_MAX = 600.0


class Stage:
    """The servers and directories of one run. quick: short turns, for developing."""

    def __init__(self, *, quick: bool) -> None:
        self.quick = quick
        self._exits = contextlib.ExitStack()
        self._serial = 0

    def __enter__(self) -> Stage:
        return self

    def __exit__(self, *_: object) -> None:
        self._exits.close()

    @cached_property
    def rabbitmq(self) -> RabbitMQServer:
        """A private RabbitMQ node."""
        return self._exits.enter_context(RabbitMQServer())

    @cached_property
    def postgres(self) -> PostgresServer:
        """A private PostgreSQL server with fsync."""
        return self._exits.enter_context(PostgresServer())

    @cached_property
    def redis(self) -> RedisServer:
        """A private Redis."""
        return self._exits.enter_context(RedisServer())

    def scale(self, full: int, quick: int) -> int:
        """Return how much work a turn does."""
        return quick if self.quick else full

    def serial(self) -> int:
        """Return a number never returned before."""
        self._serial += 1
        return self._serial

    @contextlib.contextmanager
    def directory(self) -> Iterator[Path]:
        """Make a directory for one turn, on the disk that holds the temporary files."""
        with tempfile.TemporaryDirectory(prefix="spoolproof-bench-") as path:
            yield Path(path)

    # --- turns -------------------------------------------------------------------------------------------------------

    def turn(self, module: str, contender: str, **arguments: Any) -> dict[str, float]:
        """Run one contender to its end in a process of its own; return its figures."""
        with self.begin(module, contender, **arguments) as process:
            output, _ = process.communicate(timeout=TURN_SECONDS_MAX)
        if process.returncode != 0:
            raise RuntimeError(f"{module} {contender} ended with {process.returncode}")
        figures: dict[str, float] = json.loads(output.splitlines()[-1])
        return figures

    @contextlib.contextmanager
    def begin(self, module: str, contender: str, **arguments: Any) -> Iterator[subprocess.Popen[str]]:
        """Start one contender in a process of its own, which is gone when the block ends."""
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.turn", module, contender, json.dumps(arguments)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONHASHSEED": "0"},
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()

    # --- RabbitMQ ----------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def queue(self, service: str, name: str) -> Iterator[Queue]:
        """Make a fresh quorum queue, with the arguments our topology gives it, and delete it afterwards."""
        spec = QueueSpec(name=name, types=(), delivery_limit=50)
        plan = plan_of(Topology(service=service, exchange="bench", queues=(spec,), tiers_seconds=()))
        arguments = next(queue.arguments for queue in plan.queues if queue.name == name)
        connection = pika.BlockingConnection(pika.URLParameters(self.rabbitmq.url))
        channel = connection.channel()
        channel.queue_delete(name)
        channel.queue_declare(name, durable=True, arguments=arguments)
        try:
            yield Queue(name, connection, channel)
        finally:
            channel.queue_delete(name)
            connection.close()


class Queue:
    """A queue as a neutral onlooker sees it."""

    def __init__(self, name: str, connection: Any, channel: Any) -> None:
        self.name = name
        self._connection = connection
        self._channel = channel

    def depth(self) -> int:
        """Return how many messages are ready in it."""
        count: int = self._channel.queue_declare(self.name, passive=True).method.message_count
        return count

    def settled_depth(self) -> int:
        """Return its depth once it no longer changes."""
        before = -1
        while (now := self.depth()) != before:
            before = now
            time.sleep(0.5)
        return now


def check(condition: bool, what: str) -> None:
    """Raise when a contender did not do what it is paid for."""
    if not condition:
        raise RuntimeError(f"the turn is void: {what}")
