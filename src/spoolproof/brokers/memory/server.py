"""The memory broker itself: exchanges, queues, delays. Everything is synchronous, on the clock it is given.

Several `MemoryBroker`s may share one, so that two services of one process talk.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from spoolproof.brokers.given_up import dead_queue, unrouted_queue
from spoolproof.brokers.topics import topic_matches
from spoolproof.destination import Destination, Kind
from spoolproof.message import Message, Outgoing
from spoolproof.ports.broker import (
    CONFIRMED,
    PublishOutcome,
    Returned,
    Topology,
)

if TYPE_CHECKING:
    from spoolproof.brokers.memory.broker import MemoryBroker, MemorySubscription


@dataclass(order=True, slots=True)
class Entry:
    """A message in a queue; `place` orders it there."""

    place: int
    message: Message = field(compare=False)
    delivery_count: int = field(compare=False, default=0)
    dead_reason: str | None = field(compare=False, default=None)
    target: str | None = field(compare=False, default=None)  #: of a delayed copy
    routing_key: str = field(compare=False, default="")  #: "" for what was sent to a queue


@dataclass(order=True, slots=True)
class _Delayed:
    due: float
    order: int
    queue: str = field(compare=False)
    service: str = field(compare=False)
    message: Message = field(compare=False)


class Queue:
    def __init__(self, name: str, delivery_limit: int | None, *, is_ordered: bool) -> None:
        self.name = name
        self.is_ordered = is_ordered
        self.holder: MemoryBroker | None = None  #: of an ordered queue: whose service had a message last
        self.delivery_limit = delivery_limit
        self.ready: list[Entry] = []  # a heap
        self.consumers: deque[MemorySubscription] = deque()


class MemoryBrokerServer:
    """The queues that MemoryBrokers share. Lives on one event loop; everything is synchronous."""

    def __init__(self) -> None:
        self.queues: dict[str, Queue] = {}
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
            if spec.expires_seconds is None:
                self._add_queue(dead_queue(spec.name), None)
            change = bindings.difference_update if spec.is_leaving else bindings.update
            change([(pattern, spec.name) for pattern in spec.types])

    def _add_queue(self, name: str, delivery_limit: int | None, *, is_ordered: bool = False) -> None:
        self.queues.setdefault(name, Queue(name, delivery_limit, is_ordered=is_ordered))

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
        key = "" if destination.kind is Kind.QUEUE else routing_key
        for queue in queues:
            self.put(queue, Entry(next(self._places), outgoing.message, routing_key=key))
        return CONFIRMED if queues else Returned(f"no queue for {outgoing.destination} with key {routing_key!r}")

    def _queues_for(self, destination: Destination, own_exchange: str, routing_key: str) -> list[Queue]:
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
            self.put(queue, Entry(next(self._places), delayed.message, target=delayed.queue))

    def put(self, queue: Queue, entry: Entry) -> None:
        """Add an entry and hand it out in the loop's next turn."""
        heapq.heappush(queue.ready, entry)
        self.hand_out_soon(queue)

    def put_back(self, queue: Queue, entry: Entry) -> None:
        """Return an unsettled entry to its place, or give it up if it was delivered too often."""
        entry.delivery_count += 1
        if queue.delivery_limit is not None and entry.delivery_count > queue.delivery_limit:
            self.bury(queue, entry, "delivery_limit")
        elif self.queues.get(queue.name) is queue:
            self.put(queue, entry)

    def bury(self, queue: Queue, entry: Entry, reason: str) -> None:
        """Move an entry to the dead queue; in a queue that has none it stays, for nothing ends silently."""
        dead = self.queues.get(dead_queue(queue.name))
        if dead is None:
            self.put(queue, entry)
        else:
            self.put(dead, Entry(next(self._places), entry.message, dead_reason=reason, routing_key=entry.routing_key))

    def hand_out_soon(self, queue: Queue) -> None:
        asyncio.get_running_loop().call_soon(self._hand_out, queue)

    def _hand_out(self, queue: Queue) -> None:
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
