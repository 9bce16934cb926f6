"""Whether a queue can be consumed, tried on a connection that nobody else needs.

Asking RabbitMQ for a queue without a leader ends the connection it is asked on. What is delivered before the trial ends
goes back to the queue with the connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from spoolproof import limits
from spoolproof.backoff import RandomSource
from spoolproof.brokers.rabbitmq.connection import BrokerConnection
from spoolproof.brokers.rabbitmq.pika_internals import Connection
from spoolproof.brokers.rabbitmq.rpc import RpcChannel
from spoolproof.brokers.rabbitmq.urls import Address
from spoolproof.clock import Clock
from spoolproof.ports.broker import Spawn


class _Trial:
    """The user of a connection that takes one delivery at most, and settles none."""

    def __init__(self, queue: str) -> None:
        self._queue = queue

    async def opened(self, connection: Connection) -> None:
        channel = await RpcChannel.open(connection)
        await channel.call("basic_qos", prefetch_count=1, global_qos=False)
        await channel.call(
            "basic_consume",
            timeout_seconds=limits.TRIAL_SECONDS,
            queue=self._queue,
            on_message_callback=lambda *_: None,
        )

    def lost(self, reason: str) -> None:
        pass

    def blocked(self, is_blocked: bool) -> None:
        pass


async def try_out(
    queue: str, addresses: Sequence[Address], *, identity: str, clock: Clock, random: RandomSource, spawn: Spawn
) -> str | None:
    """Return why a queue cannot be consumed, at the first address that says so; None when it can."""
    connection = BrokerConnection(
        *("trial-0", "trial"),
        addresses[:1],
        _Trial(queue),
        identity=identity,
        clock=clock,
        random=random,
        retry_first_seconds=limits.CONNECT_SECONDS,
        rounds_max=1,
        is_told=False,
    )
    work = spawn(connection.run(), f"rabbitmq.trial.connection.{queue}")
    try:
        await connection.start_settled.wait()
    finally:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        await connection.stop()
    return None if connection.start_error is None else connection.status().last_error
