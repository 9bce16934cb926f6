"""What the RabbitMQ tests share: a maker of brokers that stops them all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest

from spoolproof.backoff import system_random
from spoolproof.brokers.rabbitmq import RabbitMQBroker
from spoolproof.clock import SystemClock


@pytest.fixture
async def make_broker(rabbitmq_url: str) -> AsyncIterator[Callable[..., RabbitMQBroker]]:
    """Takes URLs (the test's own virtual host if none) and returns a broker whose start waits until it is connected."""
    made: list[RabbitMQBroker] = []

    def spawn(work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        return asyncio.get_running_loop().create_task(work, name=name)

    def make(*urls: str, is_required: bool = True) -> RabbitMQBroker:
        broker = RabbitMQBroker(
            urls or [rabbitmq_url],
            clock=SystemClock(),
            random=system_random(),
            spawn=spawn,
            retry_first_seconds=1.0,
            is_required=is_required,
            rounds_max=10,
        )
        made.append(broker)
        return broker

    yield make
    for broker in made:
        await broker.stop()
