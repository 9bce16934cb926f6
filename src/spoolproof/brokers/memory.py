"""A broker in this process's memory, with RabbitMQ's semantics on the injected clock, for tests and simulations.

MemoryBrokerServer is the broker: exchanges, queues, delays. MemoryBroker is one service's connection to it; several
may share a server, so that two services of one process talk. What happens to a connection in production can be
commanded: `block`, `lose_connection`, `nack_next`.

A publish travels for one turn of the event loop: until then it is unanswered, and a connection lost in between leaves
its outcome unknown, whether it arrived or not. A message that goes back keeps its place in the queue.

Nothing here survives the process, and nothing here is for production.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from spoolproof import limits
from spoolproof.brokers.events import ReceiverFailed
from spoolproof.brokers.given_up import Place, dead_queue, place_of, unrouted_queue
from spoolproof.brokers.topics import topic_matches
from spoolproof.clock import Clock
from spoolproof.destination import Destination, Kind
from spoolproof.errors import BrokerBlocked, BrokerUnavailable, WindowFull
from spoolproof.message import Message, Outgoing
from spoolproof.ports.broker import (
    CONFIRMED,
    NACKED,
    BrokerStatus,
    Capabilities,
    ConnectionState,
    ConnectionStatus,
    OnIncoming,
    PublishOutcome,
    Returned,
    Sink,
    Source,
    Spawn,
    Topology,
    Unknown,
)
from spoolproof.telemetry.events import emit


@dataclass(order=True, slots=True)
class _Entry:
    """A message in a queue; `place` orders it there."""

    place: int
    message: Message = field(compare=False)
    delivery_count: int = field(compare=False, default=0)
    dead_reason: str | None = field(compare=False, default=None)
    target: str | None = field(compare=False, default=None)  #: of a delayed copy


@dataclass(order=True, slots=True)
class _Delayed:
    due: float
    order: int
    queue: str = field(compare=False)
    service: str = field(compare=False)
    message: Message = field(compare=False)


class _Queue:
    def __init__(self, name: str, delivery_limit: int | None, *, is_ordered: bool) -> None:
        self.name = name
        self.is_ordered = is_ordered
        self.holder: MemoryBroker | None = None  #: of an ordered queue: whose service had a message last
        self.delivery_limit = delivery_limit
        self.ready: list[_Entry] = []  # a heap
        self.consumers: deque[MemorySubscription] = deque()


class MemoryBrokerServer:
    """The queues that MemoryBrokers share. Lives on one event loop; everything is synchronous."""

    def __init__(self) -> None:
        self.queues: dict[str, _Queue] = {}
        self.brokers: set[MemoryBroker] = set()
        self._bindings: dict[str, set[tuple[str, str]]] = {}
        self._tiers: set[tuple[str, int]] = set()
        self._delayed: list[_Delayed] = []  # a heap
        self._places = itertools.count()

    def declare(self, topology: Topology) -> None:
        """Make what is missing; leave the rest as it is."""
        self._add_queue(unrouted_queue(topology.service), None)
        self._tiers.update((topology.service, seconds) for seconds in topology.tiers_seconds)
        bindings = self._bindings.setdefault(topology.exchange, set())
        for spec in topology.queues:
            self._add_queue(spec.name, spec.delivery_limit, is_ordered=spec.is_ordered)
            self._add_queue(dead_queue(spec.name), None)
            change = bindings.difference_update if spec.is_leaving else bindings.update
            change([(pattern, spec.name) for pattern in spec.types])

    def _add_queue(self, name: str, delivery_limit: int | None, *, is_ordered: bool = False) -> None:
        self.queues.setdefault(name, _Queue(name, delivery_limit, is_ordered=is_ordered))

    def delete_queue(self, name: str) -> None:
        """Drop a queue with its messages and bindings, as an operator's mistake would."""
        self.queues.pop(name, None)
        for bindings in self._bindings.values():
            bindings.difference_update([binding for binding in bindings if binding[1] == name])

    def depth(self, queue: str) -> int:
        """Return how many messages of a queue are with no consumer."""
        return len(self.queues[queue].ready)

    def taken_from(self) -> list[str]:
        """Return the queues that have a message and a consumer with room for it."""
        return [
            name
            for name, queue in self.queues.items()
            if queue.ready and any(consumer.has_room for consumer in queue.consumers)
        ]

    def publish(self, outgoing: Outgoing, topology: Topology, now: float) -> PublishOutcome:
        """Put a message into every queue it belongs in."""
        routing_key = outgoing.message.type if outgoing.routing_key is None else outgoing.routing_key
        destination = outgoing.destination
        if destination.kind is Kind.DELAY:
            if (topology.service, destination.seconds) not in self._tiers:
                return Returned(f"there is no delay tier of {destination.seconds} s")
            due = now + destination.seconds
            delayed = _Delayed(due, next(self._places), routing_key, topology.service, outgoing.message)
            heapq.heappush(self._delayed, delayed)
            for broker in self.brokers:
                broker.release_at(due)
            return CONFIRMED
        queues = self._queues_for(destination, topology.exchange, routing_key)
        for queue in queues:
            self.put(queue, _Entry(next(self._places), outgoing.message))
        return CONFIRMED if queues else Returned(f"no queue for {outgoing.destination} with key {routing_key!r}")

    def _queues_for(self, destination: Destination, own_exchange: str, routing_key: str) -> list[_Queue]:
        name = own_exchange if destination.kind is Kind.EVENTS else destination.name
        if destination.kind is Kind.QUEUE:
            return [self.queues[name]] if name in self.queues else []
        names = {queue for pattern, queue in self._bindings.get(name, ()) if topic_matches(pattern, routing_key)}
        return [self.queues[queue] for queue in sorted(names)]

    def due_times(self) -> list[float]:
        """Return when delayed messages come back, by the clock's monotonic reading."""
        return [delayed.due for delayed in self._delayed]

    def release_due(self, now: float) -> None:
        """Send delayed messages whose time has passed back to their queue, or to the unrouted ones if it is gone."""
        while self._delayed and self._delayed[0].due <= now:
            delayed = heapq.heappop(self._delayed)
            queue = self.queues.get(delayed.queue) or self.queues[unrouted_queue(delayed.service)]
            self.put(queue, _Entry(next(self._places), delayed.message, target=delayed.queue))

    def put(self, queue: _Queue, entry: _Entry) -> None:
        """Add an entry and hand it out in the loop's next turn."""
        heapq.heappush(queue.ready, entry)
        self.hand_out_soon(queue)

    def put_back(self, queue: _Queue, entry: _Entry) -> None:
        """Return an unsettled entry to its place, or give it up if it was delivered too often."""
        entry.delivery_count += 1
        if queue.delivery_limit is not None and entry.delivery_count > queue.delivery_limit:
            self.bury(queue, entry, "delivery_limit")
        elif self.queues.get(queue.name) is queue:
            self.put(queue, entry)

    def bury(self, queue: _Queue, entry: _Entry, reason: str) -> None:
        """Move an entry to the dead queue; in a queue that has none it stays, for nothing ends silently."""
        dead = self.queues.get(dead_queue(queue.name))
        if dead is None:
            self.put(queue, entry)
        else:
            self.put(dead, _Entry(next(self._places), entry.message, dead_reason=reason))

    def hand_out_soon(self, queue: _Queue) -> None:
        asyncio.get_running_loop().call_soon(self._hand_out, queue)

    def _hand_out(self, queue: _Queue) -> None:
        while queue.ready:
            holder = queue.holder if queue.holder is not None and queue.holder.holds_of(queue.name) else None
            able = (one for one in queue.consumers if one.has_room and holder in (None, one.owner))
            taker = next(able, None)
            if taker is None:
                return
            queue.holder = taker.owner if queue.is_ordered else None
            queue.consumers.remove(taker)  # to the end of the line
            queue.consumers.append(taker)
            taker.deliver(queue, heapq.heappop(queue.ready))


class MemoryIncoming:
    """One message with one consumer."""

    fault: str | None = None

    def __init__(self, subscription: MemorySubscription, queue: _Queue, entry: _Entry) -> None:
        self.message = entry.message
        self.queue, self.dead_reason = subscription.place.origin(entry.dead_reason, entry.target)
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

    def deliver(self, queue: _Queue, entry: _Entry) -> None:
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
        has_returns=True, keeps_order=True, counts_deliveries=True, survives_restart=True, is_shared=True
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
        self._topology = None
        if self._is_connected:
            self._disconnect("the broker was stopped", has_arrived=False)
        self._subscriptions.clear()
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
