"""What waits in the queues is counted for the metrics, and what cannot be told is missing, not old."""

from __future__ import annotations

import asyncio
from random import Random

from spoolproof.brokers.memory import MemoryBroker
from spoolproof.consumer.depths import QueueDepths
from spoolproof.lifecycle.supervisor import Supervisor
from spoolproof.ports.broker import QueueSpec, Topology
from spoolproof.testing.clock import ManualClock
from spoolproof.testing.conformance._messages import make_outgoing


async def test_depths_follow_the_broker_and_go_with_it() -> None:
    clock = ManualClock()
    supervisor = Supervisor(clock, Random(7))
    broker = MemoryBroker(clock=clock, spawn=supervisor.spawn)
    spec = QueueSpec(name="shop.q", types=("test.happened",), delivery_limit=20)
    await broker.start(Topology(service="shop", exchange="e", queues=(spec,), tiers_seconds=()))
    depths = QueueDepths(("shop.q", "shop.gone"), broker, clock=clock)

    async def seen() -> list[tuple[tuple[str, ...], float]]:
        turn = asyncio.create_task(depths.run_once())
        await clock.advance(10)
        await turn
        return [(labels, value) for _, labels, value in depths.measures()]

    before = await seen()
    for n in range(3):
        broker.submit(make_outgoing("test.happened"), n, lambda results: None)
    await clock.advance(1)
    filled = await seen()
    broker.lose_connection()
    lost = await seen()
    await broker.stop()
    await supervisor.stop()

    assert [(("shop.q",), 0)] == before
    assert [(("shop.q",), 3)] == filled
    assert [] == lost
