"""Retiring a queue that no handler reads any more: nothing more comes into it, what is in it moves, then it goes.

Each message is durable at its new place before the broker forgets it: a dead letter of the queue with the reason
`retired`, or a row of the outbox addressed to another queue, under its own id. What was held behind a key, and would
have run there by itself, is open for a person from then on. A queue is deleted only when it is empty; killed at any
line, the command can be given again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace

from spoolproof import limits
from spoolproof.clock import Clock
from spoolproof.consumer.events import QueueRetired
from spoolproof.consumer.queues import forget_queue, stranded_queues
from spoolproof.consumer.waiting import make_room
from spoolproof.dead_letters.keep import keep
from spoolproof.dead_letters.record import consumer_dead_letter, history_of
from spoolproof.destination import to_queue
from spoolproof.errors import BrokerUnavailable, Conflict, InvalidMessage
from spoolproof.failpoints import failpoint
from spoolproof.ids import Ids
from spoolproof.message import Outgoing
from spoolproof.ports.broker import Broker, GivenUp, Incoming, QueueSpec, Subscription, Topology
from spoolproof.ports.held_keys import HeldKeys
from spoolproof.ports.store import Store
from spoolproof.telemetry.events import emit

_PREFETCH = 50
_CONNECT_SECONDS = 30.0
_QUIET_SECONDS = 1.0  #: without an arrival, before the queue is asked whether it is empty


@dataclass(frozen=True, slots=True, kw_only=True)
class Retired:
    """What became of a queue. moved: messages that are at their new place. destroyed: those that came in between the
    last look and the deletion, addressed to the queue by name; 0 unless somebody still does that."""

    queue: str
    moved: int
    destroyed: int


async def retire(
    store: Store,
    broker: Broker,
    *,
    service: str,
    exchange: str,
    queue: str,
    types: Sequence[str] = (),
    to: str | None = None,
    clock: Clock,
    ids: Ids,
) -> Retired:
    """Retire a stranded queue of a service. broker: not started. types: what it is bound to, where that is not known.
    to: the queue its messages go to; None: they become dead letters.

    Raises Conflict for a queue that somebody reads, InvalidMessage, BrokerUnavailable, StoreUnavailable.
    """
    row = (await stranded_queues(store.state, service)).get(queue)
    if row is None:
        raise Conflict(
            f"queue {queue} of {service} is read by a process, was until a few minutes ago, or is not known: stop the "
            "release that reads it and wait three minutes; `spoolproof doctor` names the queues that nobody reads"
        )
    bound = tuple(types) or row.types
    if not bound:
        raise InvalidMessage("types", bound, "the release that read the queue did not note its types; give --type")
    await store.services.claim(service)
    spec = QueueSpec(name=queue, types=bound, delivery_limit=limits.DELIVERY_LIMIT, is_leaving=True)
    await broker.start(Topology(service=service, exchange=exchange, queues=(spec,), tiers_seconds=limits.TIERS_SECONDS))
    if not await broker.wait_for_room(_CONNECT_SECONDS):
        raise BrokerUnavailable(f"the broker was not reached within {_CONNECT_SECONDS:g} s")
    moved = await _Mover(store, queue, to, clock, ids).empty(broker)
    await open_held(store, queue)
    failpoint("queue.before_remove")
    destroyed = await broker.remove(queue)
    await forget_queue(store.state, service, queue)
    emit(QueueRetired(queue=queue, service=service, moved=moved, destroyed=destroyed))
    return Retired(queue=queue, moved=moved, destroyed=destroyed)


async def open_held(store: Store, queue: str) -> None:
    """Open what is held in a queue, so that it can be replayed elsewhere. Raises StoreUnavailable."""
    held_keys = store.port(HeldKeys)
    for one in await held_keys.all(queue, limits.HELD_MESSAGES_MAX):
        while (record := await held_keys.next(queue, one.key)) is not None:
            await keep(store.dead_letters, store.transaction, replace(record, reason="retired"))


class _Mover:
    def __init__(self, store: Store, queue: str, to: str | None, clock: Clock, ids: Ids) -> None:
        self._store = store
        self._queue = queue
        self._to = to
        self._clock = clock
        self._ids = ids
        self._arrived: asyncio.Queue[Incoming] = asyncio.Queue(maxsize=2 * _PREFETCH)  # of both subscriptions

    async def empty(self, broker: Broker) -> int:
        """Move everything; returns how many messages that was."""
        moved = 0
        while True:
            sources = (self._queue, GivenUp(self._queue))
            subscriptions = [await broker.subscribe(source, _PREFETCH, self._on_delivery) for source in sources]
            moved += await self._until_quiet(subscriptions)
            for subscription in subscriptions:
                await subscription.cancel()
            moved += await self._move_arrived()
            if not await broker.depth(self._queue):
                return moved

    def _on_delivery(self, delivery: Incoming) -> None:
        if make_room(self._arrived):
            self._arrived.put_nowait(delivery)
        else:
            delivery.nack()

    async def _until_quiet(self, subscriptions: Sequence[Subscription]) -> int:
        """Move what comes until nothing does while both are given out: what was given up is deleted with the queue."""
        moved, until = 0, self._clock.monotonic() + _CONNECT_SECONDS
        while True:
            was_active = all(one.is_active for one in subscriptions)
            arrived = await self._move_arrived()
            moved += arrived
            if was_active and not arrived and all(one.is_active for one in subscriptions):
                return moved
            if arrived:
                until = self._clock.monotonic() + _CONNECT_SECONDS
            elif self._clock.monotonic() >= until:
                raise BrokerUnavailable(f"the broker does not give out queue {self._queue}; give the command again")

    async def _move_arrived(self) -> int:
        moved = 0
        while True:
            try:
                async with asyncio.timeout(_QUIET_SECONDS):
                    delivery = await self._arrived.get()
            except TimeoutError:
                return moved
            if delivery.is_stale:
                continue  # it comes again
            await self._move(delivery)
            failpoint("queue.after_move")
            delivery.ack()
            moved += 1

    async def _move(self, delivery: Incoming) -> None:
        message = delivery.message
        if self._to is not None and delivery.dead_reason is None and delivery.fault is None and message.id:
            await self._store.outbox.append([Outgoing(message=message, destination=to_queue(self._to))], None)
            return
        reason = "retired" if delivery.dead_reason is None else f"broker:{delivery.dead_reason}"
        record = consumer_dead_letter(
            id=self._ids.message_id(),
            queue=self._queue,
            message=message,
            message_id=message.id or self._ids.message_id(),
            reason=reason,
            error=None,
            detail=f"queue {self._queue} was retired with this in it",
            attempts=history_of(message),
            now=self._clock.now(),
        )
        await keep(self._store.dead_letters, self._store.transaction, record)
