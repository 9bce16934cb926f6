"""The plan of queues and exchanges is the one the design promises, argument by argument."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from pika import spec

from spoolproof import limits
from spoolproof.brokers.rabbitmq import RabbitMQBroker
from spoolproof.brokers.rabbitmq.topology import (
    BindingPlan,
    ExchangePlan,
    QueuePlan,
    is_expected,
    plan_of,
    route_of,
    tier_name,
)
from spoolproof.destination import destination_of
from spoolproof.errors import EncodeError
from spoolproof.message import Message, Outgoing
from spoolproof.ports.broker import QueueSpec, Topology
from spoolproof.testing.clock import ManualClock
from spoolproof.testing.conformance import eventually

TOPOLOGY = Topology(
    service="shop",
    exchange="spoolproof.events",
    queues=(QueueSpec(name="shop.orders", types=("order.placed", "order.*"), delivery_limit=50),),
    tiers_seconds=(1, 300),
)


def test_a_topology_becomes_exactly_these_objects() -> None:
    """Arguments can never be changed once a queue exists, so a slip here is for ever."""
    plan = plan_of(TOPOLOGY)

    assert (
        ExchangePlan("spoolproof.events", "topic"),
        ExchangePlan("shop.unrouted", "fanout"),
        ExchangePlan("shop.retry", "direct", {"alternate-exchange": "shop.unrouted"}),
        ExchangePlan("shop.delay.1s", "fanout"),
        ExchangePlan("shop.delay.5m", "fanout"),
    ) == plan.exchanges
    tier = {
        "x-queue-type": "quorum",
        "x-overflow": "reject-publish",
        "x-dead-letter-strategy": "at-least-once",
        "x-dead-letter-exchange": "shop.retry",
    }
    assert (
        QueuePlan("shop.unrouted", {"x-queue-type": "quorum"}),
        QueuePlan("shop.orders.dead", {"x-queue-type": "quorum"}),
        QueuePlan(
            "shop.orders",
            {
                "x-queue-type": "quorum",
                "x-overflow": "reject-publish",
                "x-dead-letter-strategy": "at-least-once",
                "x-dead-letter-exchange": "",
                "x-dead-letter-routing-key": "shop.orders.dead",
                "x-delivery-limit": 50,
            },
        ),
        QueuePlan("shop.delay.1s", {**tier, "x-message-ttl": 1000}),
        QueuePlan("shop.delay.5m", {**tier, "x-message-ttl": 300_000}),
    ) == plan.queues
    assert (
        BindingPlan("shop.unrouted", "shop.unrouted", ""),
        BindingPlan("shop.orders", "spoolproof.events", "order.placed"),
        BindingPlan("shop.orders", "spoolproof.events", "order.*"),
        BindingPlan("shop.orders", "shop.retry", "shop.orders"),
        BindingPlan("shop.delay.1s", "shop.delay.1s", ""),
        BindingPlan("shop.delay.5m", "shop.delay.5m", ""),
    ) == plan.bindings


def test_tiers_are_named_for_people() -> None:
    """These names are in every operator's queue list."""
    names = [tier_name("s", seconds).removeprefix("s.delay.") for seconds in limits.TIERS_SECONDS]

    assert ["1s", "5s", "15s", "1m", "5m", "15m", "1h", "6h"] == names


@pytest.mark.parametrize(
    ("destination", "routing_key", "expected"),
    [
        ("events", None, ("spoolproof.events", "order.placed")),
        ("events", "by.key", ("spoolproof.events", "by.key")),
        ("exchange:legacy", "x", ("legacy", "x")),
        ("queue:shop.orders", None, ("", "shop.orders")),
        ("delay:300", "shop.orders", ("shop.delay.5m", "shop.orders")),
    ],
)
def test_destinations_lead_where_they_say(destination: str, routing_key: str | None, expected: tuple[str, str]) -> None:
    """A replay goes to the one queue that failed, never to the exchange."""
    assert expected == route_of("shop", "spoolproof.events")(outgoing(destination, routing_key))


@pytest.mark.parametrize("destination", ["", "queue:", "delay:soon", "webhook:x", "shop.orders"])
def test_a_destination_nobody_knows_is_refused(destination: str) -> None:
    """Guessing would lose the message."""
    with pytest.raises(EncodeError, match="destination="):
        route_of("shop", "spoolproof.events")(outgoing(destination, None))


@pytest.mark.parametrize(
    ("destination", "routing_key", "expected"),
    [
        ("events", None, True),
        ("events", "order.cancelled", True),
        ("events", "payment.taken", False),
        ("queue:shop.orders", None, True),
        ("queue:shop.orders.dead", None, True),
        ("queue:somebody.elses", None, False),
        ("exchange:legacy", "order.placed", False),
        ("delay:300", "shop.orders", True),
    ],
)
def test_what_belongs_in_our_own_queues_is_known(destination: str, routing_key: str | None, expected: bool) -> None:
    """One that comes back says that something of ours is gone; it is not an event nobody subscribes to."""
    assert expected is is_expected(TOPOLOGY)(outgoing(destination, routing_key))


async def test_the_topology_is_looked_at_every_minute(server: Any, broker: RabbitMQBroker, clock: ManualClock) -> None:
    """Bindings vanish with an exchange that another service then makes anew; nobody tells who only consumes."""
    server.asked.clear()

    await server.live_on(clock, limits.TOPOLOGY_CHECK_SECONDS + 1)
    await eventually(lambda: sum(isinstance(one, spec.Queue.Bind) for one in server.asked) == 4)

    declared = [one for one in server.asked if isinstance(one, spec.Queue.Declare | spec.Exchange.Declare)]
    assert (4 + 4, {True}) == (len(declared), {one.passive for one in declared})


def outgoing(destination: str, routing_key: str | None) -> Outgoing:
    message = Message(id="1", type="order.placed", source="s", time=datetime(2026, 1, 1, tzinfo=UTC), body=b"")
    return Outgoing(message=message, destination=destination_of(destination), routing_key=routing_key)
