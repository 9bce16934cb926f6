"""Where messages go and come from.

Every publish ends in exactly one outcome: confirmed, returned, nacked, barred, refused or unknown. Only confirmed means
the broker has it. A delivery is settled by one ack, nack or reject; there is no cumulative ack.

`submit` makes no task and no future per message: answers come in batches through the sink the caller gave.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol

from spoolproof.message import Message, Outgoing


@dataclass(frozen=True, slots=True)
class Confirmed:
    """The broker has the message in every queue it belongs in."""


@dataclass(frozen=True, slots=True)
class Returned:
    """No queue is bound for it (or its exchange does not exist); the broker has it nowhere."""

    detail: str


@dataclass(frozen=True, slots=True)
class Nacked:
    """The broker declined: a queue is full or could not store it. Not the message's fault."""


@dataclass(frozen=True, slots=True)
class Barred:
    """The broker takes no message of this kind now: permission refused, its exchange missing, or a queue of this
    service's own missing, which is then made again. Not the message's fault."""

    detail: str


@dataclass(frozen=True, slots=True)
class Refused:
    """The broker closes channel or connection over this very message, each time. code: the protocol's, 0 for none."""

    code: int
    detail: str


@dataclass(frozen=True, slots=True)
class Unknown:
    """No answer: it may or may not have arrived. is_silence: False when the broker did speak: it closed the channel."""

    detail: str
    is_silence: bool = True


@dataclass(frozen=True, slots=True)
class Failed:
    """The receiver of a webhook did not take it. is_final: it never will. at_least_seconds: when it asked to be left
    alone until then. spread: what the wait before the next attempt is multiplied by, so that not all come back at once.
    """

    detail: str
    is_final: bool = False
    at_least_seconds: float = 0.0
    spread: float = 1.0


PublishOutcome = Confirmed | Returned | Nacked | Barred | Refused | Unknown | Failed
CONFIRMED = Confirmed()
NACKED = Nacked()

Sink = Callable[[Sequence[tuple[object, PublishOutcome]]], None]
"""Takes (token, outcome) pairs. Called on the event loop; must not block or raise."""


class Incoming(Protocol):
    """One message from a queue, unsettled until ack, nack or reject, each at most once.

    All three are synchronous and return False when the delivery is stale: its channel is gone, or it was settled;
    the broker then delivers it again by itself.
    """

    @property
    def message(self) -> Message:
        """The message; a foreign one may have an empty id or type."""

    @property
    def queue(self) -> str:
        """The queue it belongs to: it came from there, or the broker gave it up there, or on its way there."""

    @property
    def routing_key(self) -> str:
        """What it was published with, as far as the broker says; "" or the queue's name for what was sent to a queue,
        as retry copies and replays are."""

    @property
    def delivery_count(self) -> int:
        """How often the broker has delivered it before, as far as it counts (0 on the first delivery)."""

    @property
    def fault(self) -> str | None:
        """Why its properties could not be read, else None; body and raw bytes are in `message` even so."""

    @property
    def dead_reason(self) -> str | None:
        """Why the broker gave it up: `rejected`, `delivery_limit`, `unrouted`, …; None unless GivenUp is consumed."""

    @property
    def is_stale(self) -> bool:
        """Whether settling it would do nothing: its channel is gone, or it was settled."""

    def ack(self) -> bool:
        """Settled: the broker forgets it."""

    def nack(self) -> bool:
        """Not done: the broker delivers it again."""

    def reject(self) -> bool:
        """Refused: the broker gives it up, for a subscription to GivenUp of its queue."""


OnIncoming = Callable[[Incoming], None]
"""Takes one delivery on the event loop; must not block or raise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueSpec:
    """A queue to declare and consume. types: wire names it is bound to on the service's exchange; patterns may use
    `*` and `#`. delivery_limit: redeliveries before the broker gives the message up by itself. is_ordered: messages are
    with one process at a time, and one that goes back keeps its place; on some brokers that is asked of each key.
    is_leaving: nothing shall come into it any more but what is addressed to it: it is unbound from `types`.
    expires_seconds: of a process's own queue, which is in no topology but made when it is subscribed to: for how long,
    at most, it outlives the process."""

    name: str
    types: tuple[str, ...]
    delivery_limit: int
    is_ordered: bool = False
    is_leaving: bool = False
    expires_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class GivenUp:
    """What the broker gave up on by itself. queue: in which; None: retry copies of this service whose queue is gone."""

    queue: str | None


Source = str | GivenUp | QueueSpec
"""What can be consumed: a queue by its name, what was given up, or a queue of this process's own (`has_own_queues`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Topology:
    """Everything a service needs to exist in the broker.

    Besides each queue: a place for what the broker gives up there, a delay queue per tier, and a place for copies whose
    queue is gone. Their names are the adapter's own.
    """

    service: str
    exchange: str
    queues: tuple[QueueSpec, ...]
    tiers_seconds: tuple[int, ...]


class ConnectionState(StrEnum):
    """disconnected: none, waiting or stopped; connecting: an attempt runs; connected; failed: gave up."""

    DISCONNECTED = "disconnected"
    CONNECTING = "connecting"
    CONNECTED = "connected"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionStatus:
    """One connection. purpose: publish or consume. url: without password. attempt: of the current outage, from 1.
    last_error: in one line. retry_at: when the next attempt starts, None when none is planned.
    blocked_seconds: for how long it was blocked, all in all."""

    name: str
    purpose: str
    state: ConnectionState
    is_blocked: bool
    url: str
    since: datetime
    attempt: int
    last_error: str | None
    retry_at: datetime | None
    blocked_seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerStatus:
    """The broker as this process sees it: connected while one connection of each purpose is."""

    kind: str  #: rabbitmq, sqs, embedded or memory
    state: ConnectionState
    is_blocked: bool
    connections: tuple[ConnectionStatus, ...]
    issues: tuple[str, ...] = ()  #: sentences for the health body: a vanished queue, a blocked connection
    consumer_timeout_seconds: float | None = None  #: after which it has taken deliveries back; None if it never did


class Subscription(Protocol):
    """A running consumer; survives reconnects."""

    @property
    def is_active(self) -> bool:
        """Whether the broker is delivering to it now."""

    async def cancel(self) -> None:
        """Take no further deliveries; returns when none can arrive. Unsettled ones stay valid. Idempotent."""

    async def give_back(self) -> None:
        """Take no further deliveries and send all unsettled ones back at once, each to its place: they are stale, and
        none overtakes another. Idempotent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a broker can do, as data for the conformance suite."""

    has_returns: bool
    keeps_order: bool
    counts_deliveries: bool
    survives_restart: bool
    is_shared: bool  #: other processes see the same queues
    has_own_queues: bool  #: that go by themselves when their process has
    tells_routing_key: bool  #: with each delivery, what it was published with


class Outlet(Protocol):
    """Where a relay ships rows: a broker, or the endpoints of webhooks."""

    def submit(self, outgoing: Outgoing, token: object, sink: Sink) -> None:
        """Send one message, mandatory and persistent; `sink` gets (token, outcome) exactly once, never from within
        this call. A second submit of an id that is still unanswered is taken and sent after that answer. Raises
        WindowFull, BrokerBlocked, BrokerUnavailable or EncodeError, and then nothing was sent."""

    def room(self) -> int:
        """Return how many submits would be taken now; 0 when not connected or blocked."""

    async def wait_for_room(self, timeout_seconds: float) -> bool:
        """Return True as soon as room() is above 0, or False after `timeout_seconds`."""


class Broker(Outlet, Protocol):
    """What the relay and the consumers need from a broker."""

    capabilities: Capabilities

    async def start(self, topology: Topology) -> None:
        """Begin to connect, in the background, and declare the topology on every connect. Returns at once, unless the
        broker is required: then it returns when connected, or raises BrokerUnavailable after the configured rounds."""

    async def subscribe(self, source: Source, prefetch: int, on_delivery: OnIncoming) -> Subscription:
        """Consume a queue of the topology, or what was given up there, at most `prefetch` unsettled at once. With the
        broker away it begins when the broker is back."""

    async def depth(self, queue: str) -> int | None:
        """Return how many messages a queue holds, those with a consumer counted or not, or None if there is none of
        that name; also for queues outside the topology. Raises BrokerUnavailable."""

    async def remove(self, queue: str) -> int:
        """Delete a queue, the place of what was given up there, and whatever binds it; returns how many messages went
        with them, 0 if there was none of that name. For one that is empty and leaving. Raises BrokerUnavailable."""

    def status(self) -> BrokerStatus:
        """Return the state of every connection; no I/O."""

    async def stop(self) -> None:
        """Close every connection; unsettled deliveries go back, unanswered publishes end as unknown. Idempotent,
        safe before start."""


Spawn = Callable[[Coroutine[Any, Any, None], str], "asyncio.Task[None]"]
"""Starts a named background task that its giver supervises and cancels at stop; adapters make no tasks themselves."""
