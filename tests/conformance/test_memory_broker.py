"""The memory broker keeps every contract of a broker, by the port's own suite; and obeys its commands."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import pytest

from spoolproof import limits
from spoolproof.brokers.memory import MemoryBroker, MemoryBrokerServer
from spoolproof.clock import Clock, SystemClock
from spoolproof.errors import BrokerBlocked, BrokerUnavailable
from spoolproof.ports.broker import NACKED, Confirmed, ConnectionState, Topology, Unknown
from spoolproof.testing.clock import ManualClock
from spoolproof.testing.conformance import BrokerConformance, eventually
from spoolproof.testing.conformance._broker import Outcomes, consume, make_topology, publish, start
from spoolproof.testing.conformance._messages import make_outgoing


def _spawn(work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
    return asyncio.get_running_loop().create_task(work, name=name)


class MemoryBrokers:
    capabilities = MemoryBroker.capabilities

    def __init__(self, clock: Clock) -> None:
        self.server = MemoryBrokerServer()
        self._clock = clock
        self._made: list[MemoryBroker] = []

    def another(self) -> MemoryBroker:
        self._made.append(MemoryBroker(clock=self._clock, spawn=_spawn, server=self.server))
        return self._made[-1]

    async def start(self, topology: Topology) -> MemoryBroker:
        broker = self.another()
        await broker.start(topology)
        return broker

    async def stop(self) -> None:
        for broker in self._made:
            await broker.stop()


@pytest.fixture
async def brokers() -> AsyncIterator[MemoryBrokers]:
    made = MemoryBrokers(SystemClock())
    yield made
    await made.stop()


class TestMemoryBroker(BrokerConformance):
    pass


async def test_a_blocked_broker_takes_no_publish_and_confirms_what_was_under_way_when_unblocked(
    brokers: MemoryBrokers,
) -> None:
    """As RabbitMQ under a resource alarm: the window is kept, so an alarm makes no duplicates."""
    broker = await brokers.start(make_topology())
    outcomes = Outcomes()
    broker.submit(make_outgoing(), 1, outcomes)

    broker.block()
    with pytest.raises(BrokerBlocked):
        broker.submit(make_outgoing(), 2, outcomes)
    assert broker.status().is_blocked
    assert not await broker.wait_for_room(0.05)
    assert [] == outcomes.pairs
    broker.unblock()

    assert await broker.wait_for_room(1.0)
    await eventually(lambda: outcomes.pairs == [(1, Confirmed())])


@pytest.mark.parametrize("has_arrived", [True, False])
async def test_a_lost_connection_makes_publishes_unknown_and_deliveries_stale(
    brokers: MemoryBrokers, has_arrived: bool
) -> None:
    """Unknown is the truth: the message may be there or not. What was unsettled is delivered again."""
    topology = make_topology()
    broker = await brokers.start(topology)
    first, second = make_outgoing(), make_outgoing()
    await publish(broker, first)
    arrivals, subscription = await consume(broker, topology.queues[0].name)
    (delivery,) = await arrivals.reach(1)
    outcomes = Outcomes()
    broker.submit(second, 1, outcomes)

    broker.lose_connection("cable cut", has_arrived=has_arrived)

    assert [(1, Unknown("cable cut"))] == outcomes.pairs
    assert not delivery.ack()
    assert not subscription.is_active
    assert ConnectionState.DISCONNECTED == broker.status().state
    with pytest.raises(BrokerUnavailable):
        broker.submit(second, 2, outcomes)
    broker.restore_connection()
    await arrivals.reach(3 if has_arrived else 2)
    assert [first.message.id] * 2 + [second.message.id] * has_arrived == arrivals.ids
    assert 1 == arrivals.all[1].delivery_count


async def test_nacks_on_command_are_as_many_as_asked_for(brokers: MemoryBrokers) -> None:
    """A full queue declines; when there is room again it takes."""
    broker = await start(brokers, make_topology())

    broker.nack_next(2)

    assert [NACKED, NACKED, Confirmed()] == await publish(broker, *(make_outgoing() for _ in range(3)))


async def test_delays_run_on_the_injected_clock() -> None:
    """Six hours of retries take no time in a simulation, and end neither early nor by another's stop."""
    clock = ManualClock()
    brokers = MemoryBrokers(clock)
    topology = make_topology()
    publisher, consumer = await brokers.start(topology), await brokers.start(topology)
    arrivals, _ = await consume(consumer, topology.queues[0].name)
    await publish(publisher, make_outgoing(destination="delay:1", routing_key=topology.queues[0].name))
    await publisher.stop()

    await clock.advance(0.9)
    before = list(arrivals.ids)
    await clock.advance(0.2)

    await arrivals.reach(1)
    assert [] == before
    await brokers.stop()


async def test_the_window_is_the_brokers_limit(brokers: MemoryBrokers) -> None:
    """The same as RabbitMQ's, so that what fits here fits there."""
    broker = await brokers.start(make_topology())

    assert limits.PUBLISH_WINDOW == broker.room()
