"""What must exist in the broker, as a pure plan.

::

    <exchange> ──type──▶ <queue> ──rejected, limit passed──▶ <queue>.dead       (through the default exchange)
    <service>.delay.<t> (fanout ▶ queue with a TTL) ──▶ <service>.retry ──queue name──▶ <queue>
                                                              └─ no such queue ──▶ <service>.unrouted

Every queue is a quorum queue that refuses publishes when full and dead-letters at least once. One fixed TTL per delay
queue: nothing waits behind a longer delay. `<service>.retry` has an alternate exchange because a copy without a queue
would otherwise stop its whole tier.

Nothing is deleted, and arguments are never changed: a queue that exists with others is used as it is and listed.

How it comes to exist is `declarer.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from spoolproof.brokers.given_up import dead_queue, unrouted_queue
from spoolproof.brokers.rabbitmq.versions import RELEASES, Release
from spoolproof.brokers.topics import topic_matches
from spoolproof.destination import Kind
from spoolproof.message import Outgoing
from spoolproof.ports.broker import QueueSpec, Topology

_RELIABLE: dict[str, Any] = {
    "x-queue-type": "quorum",
    "x-overflow": "reject-publish",
    "x-dead-letter-strategy": "at-least-once",
}


@dataclass(frozen=True, slots=True)
class ExchangePlan:
    name: str
    kind: str
    arguments: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class QueuePlan:
    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True, slots=True)
class BindingPlan:
    queue: str
    exchange: str
    key: str
    is_leaving: bool = False  #: it shall not be, rather than be


@dataclass(frozen=True, slots=True)
class Plan:
    """In the order of declaration. queues: each after the queues it dead-letters to."""

    exchanges: tuple[ExchangePlan, ...]
    queues: tuple[QueuePlan, ...]
    bindings: tuple[BindingPlan, ...]

    def bindings_of(self, queue: str) -> tuple[BindingPlan, ...]:
        """Return how a queue is bound."""
        return tuple(binding for binding in self.bindings if binding.queue == queue)


def plan_of(topology: Topology, release: Release = RELEASES[0]) -> Plan:
    """Return everything a topology needs on a broker of a release.

    Where a queue without a delivery limit is given one, the queues of what was given up say that they have none: what
    passed it there would be dropped, and nobody would know.
    """
    service = topology.service
    kept = {"x-queue-type": "quorum", **({} if release.delivery_limit is None else {"x-delivery-limit": -1})}
    retry, unrouted = f"{service}.retry", unrouted_queue(service)
    tiers = {tier_name(service, seconds): seconds for seconds in topology.tiers_seconds}
    return Plan(
        exchanges=(
            ExchangePlan(topology.exchange, "topic"),
            ExchangePlan(unrouted, "fanout"),
            ExchangePlan(retry, "direct", {"alternate-exchange": unrouted}),
            *(ExchangePlan(name, "fanout") for name in tiers),
        ),
        queues=(
            QueuePlan(unrouted, kept),
            *(plan for queue in topology.queues for plan in _queue_plans(queue, kept)),
            *(
                QueuePlan(name, {**_RELIABLE, "x-dead-letter-exchange": retry, "x-message-ttl": seconds * 1000})
                for name, seconds in tiers.items()
            ),
        ),
        bindings=(
            BindingPlan(unrouted, unrouted, ""),
            *(
                BindingPlan(queue.name, topology.exchange, type, queue.is_leaving)
                for queue in topology.queues
                for type in queue.types
            ),
            *(BindingPlan(queue.name, retry, queue.name) for queue in topology.queues if queue.expires_seconds is None),
            *(BindingPlan(name, name, "") for name in tiers),
        ),
    )


def _queue_plans(queue: QueueSpec, kept: dict[str, Any]) -> tuple[QueuePlan, ...]:
    if queue.expires_seconds is not None:
        return (QueuePlan(queue.name, {**kept, "x-expires": int(queue.expires_seconds * 1000)}),)
    dead = dead_queue(queue.name)
    arguments = {
        **_RELIABLE,
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": dead,
        "x-delivery-limit": queue.delivery_limit,
    }
    if queue.is_ordered:
        arguments["x-single-active-consumer"] = True
    return QueuePlan(dead, kept), QueuePlan(queue.name, arguments)


def tier_name(service: str, seconds: int) -> str:
    """Return the name of a tier's exchange and queue: `shop.delay.5m`."""
    for unit, length in (("h", 3600), ("m", 60)):
        if seconds % length == 0:
            return f"{service}.delay.{seconds // length}{unit}"
    return f"{service}.delay.{seconds}s"


def route_of(service: str, exchange: str) -> Callable[[Outgoing], tuple[str, str]]:
    """Return the function from an outgoing message to its exchange and routing key.

    It raises EncodeError for a destination this broker does not know.
    """

    def route(outgoing: Outgoing) -> tuple[str, str]:
        destination = outgoing.destination
        key = outgoing.message.type if outgoing.routing_key is None else outgoing.routing_key
        match destination.kind:
            case Kind.EVENTS:
                return exchange, key
            case Kind.EXCHANGE:
                return destination.name, key
            case Kind.QUEUE:
                return "", destination.name
            case Kind.DELAY:
                return tier_name(service, destination.seconds), key
            case _:
                raise destination.unknown()

    return route


def is_expected(topology: Topology) -> Callable[[Outgoing], bool]:
    """Return whether a message belongs in a queue of this topology: one that comes back says that it is incomplete."""
    names = {plan.name for plan in plan_of(topology).queues}
    patterns = [pattern for queue in topology.queues if not queue.is_leaving for pattern in queue.types]

    def expected(outgoing: Outgoing) -> bool:
        match outgoing.destination.kind:
            case Kind.EVENTS:
                key = outgoing.message.type if outgoing.routing_key is None else outgoing.routing_key
                return any(topic_matches(pattern, key) for pattern in patterns)
            case Kind.QUEUE:
                return outgoing.destination.name in names
            case kind:
                return kind is Kind.DELAY

    return expected
