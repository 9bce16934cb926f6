"""What the broker suites share: the fixture they expect, and recorders for outcomes and deliveries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import pytest

from spoolproof.message import Outgoing
from spoolproof.ports.broker import (
    Broker,
    Capabilities,
    Incoming,
    PublishOutcome,
    QueueSpec,
    Source,
    Subscription,
    Topology,
)
from spoolproof.testing.conformance._messages import IDS
from spoolproof.testing.conformance._wait import eventually

CONNECT_SECONDS = 20.0
"""Declaring a topology of quorum queues on a busy machine takes seconds."""
DELIVERY_SECONDS = 10.0


class Brokers(Protocol):
    """The fixture `brokers`: makes brokers of one server (or file, or memory) and stops them all at teardown."""

    capabilities: Capabilities

    def another(self) -> Broker:
        """Return a new broker that was not started; it sees the same queues as the others if `is_shared`."""

    async def start(self, topology: Topology) -> Broker:
        """Return `another()` after its `start(topology)`."""


class BrokerSuite:
    """Base of the broker suites."""

    def needs(self, brokers: Brokers, capability: str) -> None:
        """Skip the test on a broker that does not claim a capability."""
        if not getattr(brokers.capabilities, capability):
            pytest.skip(f"this broker does not claim {capability}")


class Outcomes:
    """A sink that remembers every (token, outcome) pair."""

    def __init__(self) -> None:
        self.pairs: list[tuple[object, PublishOutcome]] = []

    def __call__(self, pairs: Sequence[tuple[object, PublishOutcome]]) -> None:
        self.pairs.extend(pairs)

    def by_token(self) -> dict[object, PublishOutcome]:
        """Return token → outcome. Raises AssertionError if a token was answered twice."""
        answers = dict(self.pairs)
        assert len(answers) == len(self.pairs), "a submit had more than one outcome"
        return answers


class Arrivals:
    """A receiver that remembers every delivery, unsettled."""

    def __init__(self) -> None:
        self.all: list[Incoming] = []

    def __call__(self, delivery: Incoming) -> None:
        self.all.append(delivery)

    @property
    def ids(self) -> list[str]:
        """The message ids in order of arrival."""
        return [delivery.message.id for delivery in self.all]

    async def reach(self, count: int, seconds: float = DELIVERY_SECONDS) -> list[Incoming]:
        """Return the deliveries as soon as there are `count` of them."""
        await eventually(lambda: len(self.all) >= count, seconds)
        return list(self.all)


def make_topology(
    *types: str,
    queues: dict[str, tuple[str, ...]] | None = None,
    exchange: str | None = None,
    delivery_limit: int = 20,
    is_ordered: bool = False,
) -> Topology:
    """Return a topology with names of its own: `queues` maps a short name to its types; or one queue for `types`."""
    mark = IDS.message_id().replace("-", "")[-16:]
    specs = queues if queues is not None else {"q": types or ("test.happened",)}
    return Topology(
        service=f"conf-{mark}",
        exchange=exchange or f"conf-{mark}.events",
        queues=tuple(
            QueueSpec(name=f"conf-{mark}.{name}", types=bound, delivery_limit=delivery_limit, is_ordered=is_ordered)
            for name, bound in specs.items()
        ),
        tiers_seconds=(1,),
    )


async def start(brokers: Brokers, topology: Topology) -> Broker:
    """Return a started broker that takes publishes."""
    broker = await brokers.start(topology)
    assert await broker.wait_for_room(CONNECT_SECONDS), broker.status()
    return broker


async def publish(broker: Broker, *sent: Outgoing) -> list[PublishOutcome]:
    """Submit messages as the window has room; return their outcomes in the order of `sent`."""
    outcomes = Outcomes()
    for token, outgoing in enumerate(sent):
        assert await broker.wait_for_room(CONNECT_SECONDS), broker.status()
        broker.submit(outgoing, token, outcomes)
    await eventually(lambda: len(outcomes.pairs) >= len(sent), CONNECT_SECONDS)
    answers = outcomes.by_token()
    return [answers[token] for token in range(len(sent))]


async def consume(broker: Broker, source: Source, prefetch: int = 100) -> tuple[Arrivals, Subscription]:
    """Subscribe a recorder to a queue, or to what was given up."""
    arrivals = Arrivals()
    subscription = await broker.subscribe(source, prefetch, arrivals)
    await eventually(lambda: subscription.is_active, CONNECT_SECONDS)
    return arrivals, subscription
