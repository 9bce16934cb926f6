"""The RabbitMQ adapter keeps every contract of a broker, by the port's own suite, against a real server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterator
from typing import Any

import pytest

from spoolproof.backoff import system_random
from spoolproof.brokers.rabbitmq import RabbitMQBroker
from spoolproof.clock import SystemClock
from spoolproof.ports.broker import Topology
from spoolproof.testing.conformance import BrokerConformance
from spoolproof.testing.servers import RabbitMQServer

pytestmark = pytest.mark.servers


def _spawn(work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
    return asyncio.get_running_loop().create_task(work, name=name)


class RabbitMQBrokers:
    capabilities = RabbitMQBroker.capabilities

    def __init__(self, url: str) -> None:
        self._url = url
        self._made: list[RabbitMQBroker] = []

    def another(self) -> RabbitMQBroker:
        broker = RabbitMQBroker(
            [self._url],
            clock=SystemClock(),
            random=system_random(),
            spawn=_spawn,
            retry_first_seconds=1.0,
            is_required=False,
            rounds_max=10,
        )
        self._made.append(broker)
        return broker

    async def start(self, topology: Topology) -> RabbitMQBroker:
        broker = self.another()
        await broker.start(topology)
        return broker

    async def stop(self) -> None:
        for broker in self._made:
            await broker.stop()


@pytest.fixture(scope="module")
def vhost_url(rabbitmq: RabbitMQServer) -> Iterator[str]:
    """One virtual host for the suite: every test's topology has names of its own, and making a host takes a while."""
    rabbitmq.start()
    yield rabbitmq.create_vhost("conformance")
    rabbitmq.start()
    rabbitmq.delete_vhost("conformance")


@pytest.fixture
async def brokers(vhost_url: str) -> AsyncIterator[RabbitMQBrokers]:
    made = RabbitMQBrokers(vhost_url)
    yield made
    await made.stop()


class TestRabbitMQBroker(BrokerConformance):
    pass
