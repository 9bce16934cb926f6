"""A broker behind its breaker is still a broker: the port's own suite, around the memory broker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import pytest

from spoolproof.brokers.memory import MemoryBroker, MemoryBrokerServer
from spoolproof.clock import SystemClock
from spoolproof.policies import Registry
from spoolproof.ports.broker import Topology
from spoolproof.protected import ProtectedBroker
from spoolproof.testing.conformance import BrokerConformance


def _spawn(work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
    return asyncio.get_running_loop().create_task(work, name=name)


class ProtectedBrokers:
    capabilities = MemoryBroker.capabilities

    def __init__(self) -> None:
        self._server = MemoryBrokerServer()
        self._made: list[ProtectedBroker] = []

    def another(self) -> ProtectedBroker:
        inner = MemoryBroker(clock=SystemClock(), spawn=_spawn, server=self._server)
        self._made.append(ProtectedBroker(inner, Registry(environ={})))
        return self._made[-1]

    async def start(self, topology: Topology) -> ProtectedBroker:
        broker = self.another()
        await broker.start(topology)
        return broker

    async def stop(self) -> None:
        for broker in self._made:
            await broker.stop()


@pytest.fixture
async def brokers() -> AsyncIterator[ProtectedBrokers]:
    made = ProtectedBrokers()
    yield made
    await made.stop()


class TestProtectedBroker(BrokerConformance):
    pass
