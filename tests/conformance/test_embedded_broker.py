"""The embedded broker keeps every contract of a broker, by the port's own suite."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any

import pytest

from spoolproof.brokers.embedded import EmbeddedBroker
from spoolproof.clock import SystemClock
from spoolproof.ids import Ids
from spoolproof.ports.broker import Topology
from spoolproof.testing.conformance import BrokerConformance


def _spawn(work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
    return asyncio.get_running_loop().create_task(work, name=name)


class EmbeddedBrokers:
    capabilities = EmbeddedBroker.capabilities

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._made: list[EmbeddedBroker] = []

    def another(self) -> EmbeddedBroker:
        clock = SystemClock()
        path = self._directory / "broker.db"
        self._made.append(EmbeddedBroker(path, clock=clock, ids=Ids(clock), spawn=_spawn))
        return self._made[-1]

    async def start(self, topology: Topology) -> EmbeddedBroker:
        broker = self.another()
        await broker.start(topology)
        return broker

    async def stop(self) -> None:
        for broker in self._made:
            await broker.stop()


@pytest.fixture
async def brokers(tmp_path: Path) -> AsyncIterator[EmbeddedBrokers]:
    made = EmbeddedBrokers(tmp_path)
    yield made
    await made.stop()


class TestEmbeddedBroker(BrokerConformance):
    pass
