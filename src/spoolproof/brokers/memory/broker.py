"""A broker in this process's memory, with RabbitMQ's semantics on the injected clock, for tests and simulations.

MemoryBrokerServer is the broker: exchanges, queues, delays. MemoryBroker is one service's connection to it; several
may share one. What happens to a connection in production can be
commanded: `block`, `lose_connection`, `nack_next`.

A publish travels for one turn of the event loop: until then it is unanswered, and a connection lost in between leaves
its outcome unknown, whether it arrived or not. A message that goes back keeps its place in the queue.

Nothing here survives the process, and nothing here is for production.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from spoolproof import limits
from spoolproof.brokers.events import ReceiverFailed
from spoolproof.brokers.given_up import Place, dead_queue, place_of
from spoolproof.brokers.memory.server import Entry, MemoryBrokerServer, Queue
from spoolproof.clock import Clock
from spoolproof.destination import Kind
from spoolproof.errors import BrokerBlocked, BrokerUnavailable, WindowFull
from spoolproof.message import Outgoing
from spoolproof.ports.broker import (
    NACKED,
    BrokerStatus,
    Capabilities,
    ConnectionState,
    ConnectionStatus,
    OnIncoming,
    PublishOutcome,
    QueueSpec,
    Sink,
    Source,
    Spawn,
    Topology,
    Unknown,
)
from spoolproof.telemetry.events import emit


class MemoryIncoming:
    """One message with one consumer."""

    fault: str | None = None

    def __init__(self, subscription: MemorySubscription, queue: Queue, entry: Entry) -> None:
        self.message = entry.message
        self.queue, self.dead_reason = subscription.place.origin(entry.dead_reason, entry.target)
        self.routing_key = entry.routing_key
        self.delivery_count = entry.delivery_count
        self._subscription = subscription
        self._origin = queue
        self._entry = entry

    @property
    def is_stale(self) -> bool:
        return not self._subscription.holds(self)

    def ack(self) -> bool:
        return self._subscription.settle(self)

    def nack(self) -> bool:
        settled = self._subscription.settle(self)
        if settled:
            self.go_back()
        return settled

    def reject(self) -> bool:
        settled = self._subscription.settle(self)
        if settled:
            self._subscription.server.bury(self._origin, self._entry, "rejected")
        return settled

    def go_back(self) -> None:
        self._subscription.server.put_back(self._origin, self._entry)


class MemorySubscription:
    """One consumer of one queue, across reconnects."""

    def __init__(self, owner: MemoryBroker, place: Place, prefetch: int, on_delivery: OnIncoming) -> None:
        self.owner = owner
        self.server = owner.server
        self.place = place
        self._queue = place.name
        self._prefetch = prefetch
        self._on_delivery = on_delivery
        self._unsettled: dict[MemoryIncoming, None] = {}  # in order of delivery
        self._is_cancelled = False

    @property
    def is_active(self) -> bool:
        queue = self.server.queues.get(self._queue)
        return queue is not None and self in queue.consumers

    @property
    def has_room(self) -> bool:
        return len(self._unsettled) < self._prefetch

    def open(self) -> None:
        """Begin to consume, if the queue exists."""
        queue = self.server.queues.get(self._queue)
        if queue is not None and not self._is_cancelled and self not in queue.consumers:
            queue.consumers.append(self)
            self.server.hand_out_soon(queue)

    def close(self) -> None:
        """Consume no more and send what is unsettled back."""
        self._leave()
        unsettled, self._unsettled = self._unsettled, {}
        for delivery in unsettled:
            delivery.go_back()

    async def cancel(self) -> None:
        self._is_cancelled = True
        self._leave()

    async def give_back(self) -> None:
        self._is_cancelled = True
        self.close()

    @property
    def has_unsettled(self) -> bool:
        return bool(self._unsettled)

    def _leave(self) -> None:
        if self.is_active:
            self.server.queues[self._queue].consumers.remove(self)

    def deliver(self, queue: Queue, entry: Entry) -> None:
        delivery = MemoryIncoming(self, queue, entry)
        self._unsettled[delivery] = None
        try:
            self._on_delivery(delivery)
        except Exception as error:  # as with a real broker: the receiver's mistake must not stop the other consumers
            emit(ReceiverFailed(queue=self._queue), error=error)

    def holds(self, delivery: MemoryIncoming) -> bool:
        """Whether it is unsettled."""
        return delivery in self._unsettled

    def settle(self, delivery: MemoryIncoming) -> bool:
        """Forget an unsettled delivery; False if it is no longer one."""
        if delivery not in self._unsettled:
            return False
        del self._unsettled[delivery]
        queue = self.server.queues.get(self._queue)
        if queue is not None:
            self.server.hand_out_soon(queue)
        return True


class MemoryBroker:
    """One service's connection to a MemoryBrokerServer; its own server unless one is given."""

    capabilities = Capabilities(
        has_own_queues=True,
        tells_routing_key=True,
        has_returns=True,
        keeps_order=True,
        counts_deliveries=True,
        survives_restart=True,
        is_shared=True,
    )

    def __init__(self, *, clock: Clock, spawn: Spawn, server: MemoryBrokerServer | None = None) -> None:
        self.server = server or MemoryBrokerServer()
        self._service = ""  #: known from its topology on
        self._clock = clock
        self._spawn = spawn
        self._topology: Topology | None = None
        self._is_connected = False
        self._is_blocked = False
        self._since: datetime = clock.now()
        self._last_error: str | None = None
        self._nacks = 0
        self._travelling: list[tuple[Outgoing, object, Sink]] = []  # bounded by the window
        self._subscriptions: list[MemorySubscription] = []
        self._timers: set[asyncio.Task[None]] = set()
        self._room_changed = asyncio.Event()

    # --- for tests

    @property
    def moving(self) -> list[str]:
        """What is on its way now, in words: publishes without an answer, messages that a consumer is about to take."""
        publishes = [f"{len(self._travelling)} publishes travel"] if self._travelling else []
        return publishes + [f"queue {name!r} has messages" for name in self.server.taken_from()]

    def block(self) -> None:
        """Stop reading publishes, as a resource alarm does; consumers go on."""
        self._is_blocked = True

    def unblock(self) -> None:
        """Read publishes again; what was travelling arrives."""
        self._is_blocked = False
        self._arrive_soon()
        self._room_changed.set()

    def nack_next(self, count: int) -> None:
        """Decline the next `count` publishes that arrive, as a full queue does."""
        self._nacks = count

    def lose_connection(self, error: str = "connection reset by peer", *, has_arrived: bool = False) -> None:
        """Cut the connection: deliveries go back, unanswered publishes are unknown. has_arrived: whether the broker
        got them before the cut."""
        if self._is_connected:
            self._last_error = error
            self._disconnect(error, has_arrived=has_arrived)

    def restore_connection(self) -> None:
        """Connect again: declare the topology, reopen the subscriptions."""
        if self._topology is None or self._is_connected:
            return
        self._is_connected = True
        self._since = self._clock.now()
        self.server.declare(self._topology)
        self.server.brokers.add(self)
        for due in self.server.due_times():
            self.release_at(due)
        for subscription in self._subscriptions:
            subscription.open()
        self._room_changed.set()

    # --- the port

    async def start(self, topology: Topology) -> None:
        self._topology, self._service = topology, topology.service
        self.restore_connection()

    def submit(self, outgoing: Outgoing, token: object, sink: Sink) -> None:
        if not self._is_connected:
            raise BrokerUnavailable("the memory broker is not connected")
        if self._is_blocked:
            raise BrokerBlocked("the memory broker has stopped reading publishes")
        if self.room() == 0:
            raise WindowFull(len(self._travelling), limits.PUBLISH_WINDOW)
        if outgoing.destination.kind in (Kind.UNKNOWN, Kind.WEBHOOK):
            raise outgoing.destination.unknown()
        self._travelling.append((outgoing, token, sink))
        if len(self._travelling) == 1:
            self._arrive_soon()

    def room(self) -> int:
        if not self._is_connected or self._is_blocked:
            return 0
        return limits.PUBLISH_WINDOW - len(self._travelling)

    async def wait_for_room(self, timeout_seconds: float) -> bool:
        try:
            async with asyncio.timeout(timeout_seconds):
                while self.room() == 0:
                    self._room_changed.clear()
                    await self._room_changed.wait()
        except TimeoutError:
            return False
        return True

    async def subscribe(self, source: Source, prefetch: int, on_delivery: OnIncoming) -> MemorySubscription:
        place = place_of(source, self._service)
        if isinstance(source, QueueSpec) and self._topology is not None:
            self._topology = replace(self._topology, queues=(*self._topology.queues, source))
            self.server.declare(self._topology)
        subscription = MemorySubscription(self, place, prefetch, on_delivery)
        self._subscriptions.append(subscription)
        if self._is_connected:
            subscription.open()
        return subscription

    async def depth(self, queue: str) -> int | None:
        if not self._is_connected:
            raise BrokerUnavailable("the memory broker is not connected")
        return self.server.depth(queue) if queue in self.server.queues else None

    async def remove(self, queue: str) -> int:
        names = (queue, dead_queue(queue))
        held = [await self.depth(name) or 0 for name in names]
        for name in names:
            self.server.delete_queue(name)
        return sum(held)

    def status(self) -> BrokerStatus:
        state = ConnectionState.CONNECTED if self._is_connected else ConnectionState.DISCONNECTED
        connections = tuple(
            ConnectionStatus(
                name=f"{purpose}-0",
                purpose=purpose,
                state=state,
                is_blocked=self._is_blocked and purpose == "publish",
                url="memory://",
                since=self._since,
                attempt=0,
                last_error=self._last_error,
                retry_at=None,
            )
            for purpose in ("publish", "consume")
        )
        return BrokerStatus(kind="memory", state=state, is_blocked=self._is_blocked, connections=connections)

    async def stop(self) -> None:
        own = (
            [] if self._topology is None else [one for one in self._topology.queues if one.expires_seconds is not None]
        )
        self._topology = None
        if self._is_connected:
            self._disconnect("the broker was stopped", has_arrived=False)
        self._subscriptions.clear()
        for spec in own:
            self.server.delete_queue(spec.name)
        timers = list(self._timers)
        for timer in timers:
            timer.cancel()
        await asyncio.gather(*timers, return_exceptions=True)

    # --- inside

    def holds_of(self, queue: str) -> bool:
        """Whether a message of a queue is with one of its consumers."""
        return any(one.place.name == queue and one.has_unsettled for one in self._subscriptions)

    def release_at(self, due: float) -> None:
        """Have the server's delayed messages released once this broker's clock reads `due`."""
        timer = self._spawn(self._release_at(due), f"broker.memory.delay.{self._service}")
        self._timers.add(timer)
        timer.add_done_callback(self._timers.discard)

    async def _release_at(self, due: float) -> None:
        while (now := self._clock.monotonic()) < due:
            await self._clock.sleep(due - now)
        self.server.release_due(now)

    def _arrive_soon(self) -> None:
        asyncio.get_running_loop().call_soon(self._arrive)

    def _arrive(self) -> None:
        if self._is_connected and not self._is_blocked:
            self._answer([self._outcome_of(outgoing) for outgoing, _, _ in self._travelling])

    def _outcome_of(self, outgoing: Outgoing) -> PublishOutcome:
        if self._nacks > 0:
            self._nacks -= 1
            return NACKED
        if self._topology is None:
            return Unknown("the broker was stopped")
        return self.server.publish(outgoing, self._topology, self._clock.monotonic())

    def _answer(self, outcomes: Sequence[PublishOutcome]) -> None:
        """Give each travelling publish its outcome, one call per sink."""
        travelled, self._travelling = self._travelling, []
        batches: dict[Sink, list[tuple[object, PublishOutcome]]] = {}
        for (_, token, sink), outcome in zip(travelled, outcomes, strict=True):
            batches.setdefault(sink, []).append((token, outcome))
        self._room_changed.set()
        for sink, pairs in batches.items():
            sink(pairs)

    def _disconnect(self, error: str, *, has_arrived: bool) -> None:
        self._is_connected = False
        self._is_blocked = False
        self._since = self._clock.now()
        self.server.brokers.discard(self)
        for subscription in self._subscriptions:
            subscription.close()
        if has_arrived:
            for outgoing, _, _ in self._travelling:
                self._outcome_of(outgoing)
        self._answer([Unknown(error)] * len(self._travelling))
