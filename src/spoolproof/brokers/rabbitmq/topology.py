"""What must exist in the broker, as a pure plan, and how it comes to exist.

::

    <exchange> ──type──▶ <queue> ──rejected, limit passed──▶ <queue>.dead       (through the default exchange)
    <service>.delay.<t> (fanout ▶ queue with a TTL) ──▶ <service>.retry ──queue name──▶ <queue>
                                                              └─ no such queue ──▶ <service>.unrouted

Every queue is a quorum queue that refuses publishes when full and dead-letters at least once. One fixed TTL per delay
queue: nothing waits behind a longer delay. `<service>.retry` has an alternate exchange because a copy without a queue
would otherwise stop its whole tier.

Nothing is deleted, and arguments are never changed: a queue that exists with others is used as it is and listed.

What was declared and is gone later is declared again, loudly: it is looked for after every reconnect, once a minute,
and whenever a publish or a consumer misses something. A binding cannot be looked for; it is simply made again, which
costs nothing when it is there. So the queue of a service that only consumes is bound again to an exchange that another
service has made anew.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from spoolproof import limits
from spoolproof.brokers.given_up import dead_queue, unrouted_queue
from spoolproof.brokers.rabbitmq.events import (
    ExchangeMissing,
    QueueMissing,
    TopologyAsPlanned,
    TopologyDrifted,
    TopologyRefused,
)
from spoolproof.brokers.rabbitmq.pika_internals import Connection
from spoolproof.brokers.rabbitmq.rpc import ChannelClosed, RpcChannel
from spoolproof.brokers.topics import topic_matches
from spoolproof.clock import Clock
from spoolproof.destination import Kind
from spoolproof.message import Outgoing
from spoolproof.ports.broker import QueueSpec, Topology
from spoolproof.telemetry.events import emit

_NOT_FOUND, _PRECONDITION_FAILED = 404, 406
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


@dataclass(frozen=True, slots=True)
class Plan:
    """In the order of declaration. queues: each after the queues it dead-letters to."""

    exchanges: tuple[ExchangePlan, ...]
    queues: tuple[QueuePlan, ...]
    bindings: tuple[BindingPlan, ...]


def plan_of(topology: Topology) -> Plan:
    """Return everything a topology needs."""
    service = topology.service
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
            QueuePlan(unrouted, {"x-queue-type": "quorum"}),
            *(plan for queue in topology.queues for plan in _queue_plans(queue)),
            *(
                QueuePlan(name, {**_RELIABLE, "x-dead-letter-exchange": retry, "x-message-ttl": seconds * 1000})
                for name, seconds in tiers.items()
            ),
        ),
        bindings=(
            BindingPlan(unrouted, unrouted, ""),
            *(BindingPlan(queue.name, topology.exchange, type) for queue in topology.queues for type in queue.types),
            *(BindingPlan(queue.name, retry, queue.name) for queue in topology.queues),
            *(BindingPlan(name, name, "") for name in tiers),
        ),
    )


def _queue_plans(queue: QueueSpec) -> tuple[QueuePlan, QueuePlan]:
    dead = dead_queue(queue.name)
    arguments = {
        **_RELIABLE,
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": dead,
        "x-delivery-limit": queue.delivery_limit,
    }
    if queue.is_ordered:
        arguments["x-single-active-consumer"] = True
    return QueuePlan(dead, {"x-queue-type": "quorum"}), QueuePlan(queue.name, arguments)


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
    patterns = [pattern for queue in topology.queues for pattern in queue.types]

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


class Declarer:
    """Brings a plan into being on a connection and remembers what was not as it should be."""

    def __init__(self, topology: Topology, clock: Clock) -> None:
        self._plan = plan_of(topology)
        self._clock = clock
        self._lock = asyncio.Lock()  # one at a time: several subscriptions may miss their queues at once
        self._has_declared = False
        self._checked_at = -math.inf
        self._gone: set[str] = set()
        self._refused: dict[str, str] = {}
        self._vanished: dict[str, tuple[str, float]] = {}
        self.as_is: set[str] = set()
        """Queues that exist with other arguments than ours."""

    def issues(self) -> list[str]:
        """Return a sentence for all that is not as it should be, or was not a few minutes ago."""
        since = self._clock.monotonic() - limits.VANISHED_KEPT_SECONDS
        self._vanished = {what: kept for what, kept in self._vanished.items() if kept[1] >= since}
        return [*(text for text, _ in self._vanished.values()), *self._refused.values()]

    async def apply(self, connection: Connection) -> None:
        """Declare everything; after a reconnect, first look what has vanished.

        Raises BrokerUnavailable, or ChannelClosed with code 0, when the connection is gone.
        """
        async with self._lock:
            declaring = _Declaring(connection)
            if self._has_declared:
                await self._missing(declaring)
            await self._declare(declaring, self._plan)
            declaring.close()
            self._has_declared = True

    async def check(self, connection: Connection) -> None:
        """Look whether everything is still there and declare again what is not. Raises as `apply`."""
        asked_at = self._clock.monotonic()
        async with self._lock:
            if self._checked_at > asked_at:
                return  # somebody else has looked meanwhile
            declaring = _Declaring(connection)
            began_at = self._clock.monotonic()
            missing = await self._missing(declaring)
            await self._declare(declaring, missing)
            declaring.close()
            self._checked_at = began_at

    async def _missing(self, declaring: _Declaring) -> Plan:
        """Return what is not there, and every binding."""
        plan = self._plan
        return Plan(
            exchanges=tuple([one for one in plan.exchanges if not await self._is_there(declaring, one)]),
            queues=tuple([one for one in plan.queues if not await self._is_there(declaring, one)]),
            bindings=plan.bindings,
        )

    async def _is_there(self, declaring: _Declaring, plan: ExchangePlan | QueuePlan) -> bool:
        kind = "queue" if isinstance(plan, QueuePlan) else "exchange"
        name = {kind: plan.name}
        refusal = await declaring.ask(f"{kind}_declare", limits.RPC_SECONDS, **name, passive=True)
        if refusal is None or refusal.code != _NOT_FOUND:
            self._gone.discard(plan.name)
            return True
        lost = "; what was in it is lost" if kind == "queue" else ", with what was bound to it"
        text = f"{kind} {plan.name} had vanished{lost}; it is declared again"
        if plan.name not in self._gone:
            self._gone.add(plan.name)
            emit(QueueMissing(queue=plan.name) if kind == "queue" else ExchangeMissing(exchange=plan.name))
        self._vanished[plan.name] = (text, self._clock.monotonic())
        return False

    async def _declare(self, declaring: _Declaring, plan: Plan) -> None:
        for exchange in plan.exchanges:
            await self._declare_exchange(declaring, exchange)
        for queue in plan.queues:
            await self._declare_queue(declaring, queue)
        for binding in plan.bindings:
            await self._bind(declaring, binding)

    async def _declare_exchange(self, declaring: _Declaring, plan: ExchangePlan) -> None:
        refusal = await declaring.ask(
            "exchange_declare",
            exchange=plan.name,
            exchange_type=plan.kind,
            durable=True,
            arguments=plan.arguments or None,
        )
        self._note(f"exchange {plan.name}", refusal)

    async def _declare_queue(self, declaring: _Declaring, plan: QueuePlan) -> None:
        refusal = await declaring.ask("queue_declare", queue=plan.name, durable=True, arguments=plan.arguments)
        self._note(f"queue {plan.name}", refusal)
        if refusal is not None:
            self.as_is.add(plan.name)
        else:
            self.as_is.discard(plan.name)

    async def _bind(self, declaring: _Declaring, plan: BindingPlan) -> None:
        refusal = await declaring.ask("queue_bind", queue=plan.queue, exchange=plan.exchange, routing_key=plan.key)
        self._note(f"binding of {plan.queue} to {plan.exchange} by {plan.key!r}", refusal)

    def _note(self, what: str, refusal: ChannelClosed | None) -> None:
        if refusal is None:
            if self._refused.pop(what, None) is not None:
                emit(TopologyAsPlanned(what=what))
        elif what not in self._refused:
            is_drift = refusal.code == _PRECONDITION_FAILED
            self._refused[what] = f"{what} {'is used as it is' if is_drift else 'cannot be declared'}: {refusal}"
            emit((TopologyDrifted if is_drift else TopologyRefused)(what=what, error=str(refusal)))


class _Declaring:
    """Throw-away channels: the broker answers a question it refuses by closing the channel."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._channel: RpcChannel | None = None

    async def ask(
        self, method: str, timeout_seconds: float = limits.DECLARE_SECONDS, **arguments: Any
    ) -> ChannelClosed | None:
        """Ask; return None when the broker agreed, else its refusal. Raises BrokerUnavailable when it is gone."""
        try:
            if self._channel is None:
                self._channel = await RpcChannel.open(self._connection)
            await self._channel.call(method, timeout_seconds=timeout_seconds, **arguments)
        except ChannelClosed as refusal:
            self._channel = None
            if refusal.code == 0:
                raise
            return refusal
        return None

    def close(self) -> None:
        if self._channel is not None:
            self._channel.close()
