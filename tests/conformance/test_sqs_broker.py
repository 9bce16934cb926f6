"""The SQS adapter keeps the contracts of a broker that it claims, by the port's own suite, against moto's server."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import pytest

from spoolproof.backoff import system_random
from spoolproof.brokers.sqs import SqsBroker
from spoolproof.clock import SystemClock
from spoolproof.ports.broker import Topology
from spoolproof.testing.conformance import BrokerConformance
from spoolproof.testing.servers import MotoServer

pytestmark = pytest.mark.servers


def _spawn(work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
    return asyncio.get_running_loop().create_task(work, name=name)


class SqsBrokers:
    capabilities = SqsBroker.capabilities

    def __init__(self, url: str) -> None:
        self._url = url
        self._made: list[SqsBroker] = []

    def another(self) -> SqsBroker:
        broker = SqsBroker(
            self._url,
            clock=SystemClock(),
            random=system_random(),
            spawn=_spawn,
            retry_first_seconds=1.0,
            is_required=False,
            rounds_max=10,
        )
        self._made.append(broker)
        return broker

    async def start(self, topology: Topology) -> SqsBroker:
        broker = self.another()
        await broker.start(topology)
        return broker

    async def stop(self) -> None:
        await asyncio.gather(*(broker.stop() for broker in self._made))


@pytest.fixture
async def brokers(moto: MotoServer) -> AsyncIterator[SqsBrokers]:
    moto.start()
    made = SqsBrokers(moto.url_of(f"{uuid.uuid4().hex[:8]}-"))
    yield made
    await made.stop()


class TestSqsBroker(BrokerConformance):
    pass
