"""Turning what a user publishes into outbox rows.

Everything that can be wrong with a message is found here, in the caller's own call, and never in the relay. Nothing
here talks to the broker: a publish is done when its row is durable, or will be when the caller's transaction commits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar
from datetime import datetime, timedelta
from functools import partial
from typing import Any, ClassVar, Protocol, TypeVar

import msgspec

from spoolproof.clock import Clock
from spoolproof.codec import EventType, encode_payload, event_type_of, is_mapping
from spoolproof.destination import EVENTS, Destination, Kind, destination_of
from spoolproof.errors import InvalidMessage, InvalidSchedule, StoreUnavailable, UnknownType
from spoolproof.failpoints import failpoint
from spoolproof.ids import Ids
from spoolproof.message import (
    Message,
    Outgoing,
    check_message,
    check_short_text,
    check_user_headers,
)
from spoolproof.outbox.around import Keep, PublishAround
from spoolproof.outbox.events import ScheduleCancelled
from spoolproof.outbox.options import PublishOptions, check_names, due_of, expires_at
from spoolproof.outbox.receipt import Place, Receipt
from spoolproof.ports.schedule import Schedule
from spoolproof.ports.store import Store
from spoolproof.ports.transaction import StoreTransaction
from spoolproof.telemetry import tracing
from spoolproof.telemetry.events import emit

T = TypeVar("T")


class Unit(Protocol):
    """A unit of work that takes messages until it is written. is_transaction: one of the store is open for it."""

    is_transaction: ClassVar[bool]

    @property
    def messages(self) -> int: ...  # noqa: D102

    async def collect(self, outgoing: Outgoing) -> Receipt: ...  # noqa: D102

    async def cancel(self, id: str) -> bool | None: ...  # noqa: D102


class Beside(Protocol):
    """A place beside the store, for messages that it does not take; set by the part that has one.

    is_quiet: it holds nothing back, and nothing is held against the store. patience_seconds: what the store gets.
    has_webhooks: somebody besides the broker waits for events, or may do.
    """

    is_quiet: bool
    patience_seconds: float
    has_webhooks: bool

    async def keep(self, records: Sequence[Outgoing], store: Callable[[], Awaitable[None]]) -> Place:
        """Keep messages here or, by calling `store`, there."""

    async def keep_instead(self, records: Sequence[Outgoing], error: Exception) -> Place:
        """Keep what the store has failed to take, or may have taken. Raises SpoolFull, StoreUnavailable."""


class Bridge(Protocol):
    """Has the event loop do something, from a thread that waits for it."""

    def __call__(self, make: Callable[[], Awaitable[T]]) -> T: ...  # noqa: D102


class Running:
    """A handler while it runs: the message that causes what it publishes, and the unit of work that this joins.

    Tasks started inside a handler inherit this, and many outlive it: a batcher, a poller, a task nobody waits for. From
    the handler's end on they publish for themselves. What they published before is part of the attempt; if that fails,
    it must not be lost with it, so `outlived` tells it apart.
    """

    def __init__(self, message: Message | None, unit: Unit | None) -> None:
        """message: None where many run at once, and none of them alone causes what is published."""
        self.message = message
        self.unit: Unit | None = unit
        self._of_tasks: list[tuple[asyncio.Task[Any], Outgoing]] = []
        self._task = asyncio.current_task()
        self.bridge: Bridge | None = None  #: from the thread of a handler that is a plain function
        self.is_over = False

    @property
    def messages(self) -> int:
        """How many the unit of work holds."""
        return 0 if self.unit is None else self.unit.messages

    @property
    def has_transaction(self) -> bool:
        """Whether a transaction of the store is open for as long as it runs."""
        return not self.is_over and self.unit is not None and self.unit.is_transaction

    async def join(self, outgoing: Outgoing) -> Receipt | None:
        """Add a message to the unit of work; None if it has ended or there is none, and the message stands alone."""
        if self.is_over or self.unit is None:
            return None
        task = asyncio.current_task()
        if task is not None and task is not self._task:
            self._of_tasks.append((task, outgoing))
        return await self.unit.collect(outgoing)

    async def cancel(self, id: str) -> bool | None:
        """Take back a scheduled message with the unit of work; None where `join` says so, too."""
        return None if self.is_over or self.unit is None else await self.unit.cancel(id)

    def end(self) -> None:
        """The handler has returned or raised."""
        self.is_over = True

    def outlived(self) -> list[Outgoing]:
        """Hand over, once, what tasks published that still run."""
        of_tasks, self._of_tasks = self._of_tasks, []
        return [outgoing for task, outgoing in of_tasks if not task.done()]


handling: ContextVar[Running | None] = ContextVar("spoolproof_handling", default=None)
"""The handler in whose context code runs, perhaps over by now."""


class Publisher:
    """Builds messages of one service and writes them to its outbox."""

    def __init__(
        self, store: Store, *, source: str, clock: Clock, ids: Ids, around: PublishAround | None = None
    ) -> None:
        self._store = store
        self.bells: list[Callable[[], None]] = []  #: rung beside the store's own
        self._around = around
        self._source = source
        self._clock = clock
        self._ids = ids
        self.beside: Beside | None = None
        self.place = Place.STORED  #: what the store's outbox is
        self.is_store_reached = True

    def outgoing(self, payload: object, options: PublishOptions) -> Outgoing:
        """Return the message of a payload, checked against every limit. Raises as `Service.publish`."""
        return compose(payload, options, source=self._source, clock=self._clock, ids=self._ids)

    async def keep(self, outgoing: Outgoing, keep: Keep) -> Receipt:
        """Keep a message by these means, through what the application has put around that."""
        return await (self._around.through(outgoing, keep) if self._around else keep(outgoing))

    async def store(self, records: Sequence[Outgoing]) -> Place:
        """Keep messages in a transaction of their own; durable on return, at the place that is returned.

        Raises OutboxFull, StoreUnavailable, SpoolFull.
        """
        beside = self.beside
        if beside is None:
            await self._append_alone(records)
            return self.place
        if not beside.is_quiet:
            return await beside.keep(records, partial(self._append_alone, records))
        try:
            async with asyncio.timeout(beside.patience_seconds):
                await self._append_alone(records)
        except (StoreUnavailable, TimeoutError) as error:  # it may have committed: the same id tells receivers
            return await beside.keep_instead(records, error)
        return Place.STORED

    async def _append_alone(self, records: Sequence[Outgoing]) -> None:
        self._check_reached()
        await self._append(records, None)
        self.wake()

    def _check_reached(self) -> None:
        if not self.is_store_reached:  # rows would go into the block of another service
            raise StoreUnavailable("the store was not reached since this process started")

    async def append(self, records: Sequence[Outgoing], tx: StoreTransaction) -> None:
        """Keep messages in an open transaction."""
        self._check_reached()
        await self._append(records, tx)
        failpoint("outbox.after_append")

    async def _append(self, records: Sequence[Outgoing], tx: StoreTransaction | None) -> None:
        later = [outgoing for outgoing in records if outgoing.due is not None]
        if not later:
            await self._store.outbox.append(records, tx)
            return
        if self.place is Place.SPOOLED:
            raise InvalidSchedule("at", later[0].due, "cannot be kept: SPOOLPROOF_STORE=none has no table for it")
        await self._store.outbox.append([outgoing for outgoing in records if outgoing.due is None], tx)
        await self._store.port(Schedule).add(later, tx)

    async def cancel(self, id: str, tx: StoreTransaction | None) -> bool:
        """Take back what is scheduled under this id. Raises StoreUnavailable."""
        cancelled = await self._store.port(Schedule).cancel(id, self._source, tx)
        if cancelled:
            emit(ScheduleCancelled(id=id, service=self._source))
        return cancelled > 0

    async def append_through(self, handle: object, records: Sequence[Outgoing]) -> None:
        """Keep messages in the user's own open transaction. Raises TransactionError's kinds."""
        await self.append(records, await self._store.adopt(handle))
        # their commit is not seen here: ringing now makes the relay poll fast again, which finds the row soon after
        self.wake()

    def wake(self) -> None:
        """Tell the relays that rows may be waiting."""
        self._store.wakeup.notify()
        for ring in self.bells:
            ring()


def compose(payload: object, options: PublishOptions, *, source: str, clock: Clock, ids: Ids) -> Outgoing:
    """Return the message of a payload, checked against every limit. Raises as `Service.publish`."""
    check_names(options)
    event_type = _event_type(payload, options.get("type"))
    if (headers := options.get("headers")) is not None:
        check_user_headers(headers)
    now = clock.now()
    id, expires, at, delay = options.get("id"), options.get("expires"), options.get("at"), options.get("delay")
    due = None if at is None and delay is None else due_of(at, delay, now)
    message = Message(
        id=ids.message_id(now) if id is None else id,
        type=event_type.name,
        source=source,
        time=now,
        body=encode_payload(payload),
        subject=options.get("subject"),
        schemaversion=event_type.version,
        key=options.get("key"),
        correlation_id=None if (given := options.get("correlation_id")) == "" else given,
        expires_at=None if expires is None else _expires_at(expires, now, due),
        headers=dict(headers) if headers else {},
    )
    running = handling.get()
    if running is not None and not running.is_over and running.message is not None:
        message = _caused(message, running.message)
    check_message(message)
    if (routing_key := options.get("routing_key")) is not None:
        check_short_text("routing_key", routing_key)
    given = options.get("destination")
    destination = EVENTS if given is None else _destination(given)
    if tracing.tracer() is not None:
        message = _traced(message, destination)
    return Outgoing(
        message=message,
        destination=destination,
        routing_key=routing_key,
        may_be_unrouted=event_type.may_be_unrouted,
        due=due,
    )


def _expires_at(expires: float | timedelta | datetime, now: datetime, due: datetime | timedelta | None) -> datetime:
    """Return when a message expires; what is due later has its seconds from then on."""
    starts_at = now if due is None else due if isinstance(due, datetime) else now + due
    ends_at = expires_at(expires, starts_at)
    if due is not None and ends_at <= starts_at:
        raise InvalidSchedule("expires", expires, f"is before the message is due, {starts_at}; give a later time")
    return ends_at


def _event_type(payload: object, type_name: str | None) -> EventType:
    model = type(payload)
    if is_mapping(model):
        if type_name is None:
            raise UnknownType("a dict has no wire name; publish(..., type='your.event.name')")
        return EventType(type_name)
    if isinstance(payload, type):
        raise UnknownType(f"{payload.__qualname__} is a class; publish an instance of it")
    event_type = event_type_of(model)
    if type_name is not None and type_name != event_type.name:
        raise InvalidMessage("type", type_name, f"{model.__qualname__} is published as {event_type.name!r}")
    return event_type


def _caused(message: Message, cause: Message) -> Message:
    """Return a message that tells which one it comes from."""
    return msgspec.structs.replace(
        message,
        correlation_id=message.correlation_id or cause.correlation_id or cause.id or None,
        causation_id=cause.id or None,
        tenant=cause.tenant,
        traceparent=cause.traceparent,
        tracestate=cause.tracestate,
    )


def _traced(message: Message, destination: Destination) -> Message:
    traceparent, tracestate = tracing.published(message.type, message.id, str(destination))
    return msgspec.structs.replace(message, traceparent=traceparent, tracestate=tracestate) if traceparent else message


def _destination(text: str) -> Destination:
    check_short_text("destination", text)
    found = destination_of(text)
    if found.kind not in (Kind.EVENTS, Kind.EXCHANGE, Kind.QUEUE) or " " in text:
        raise InvalidMessage("destination", text, "must be 'events', 'exchange:NAME' or 'queue:NAME', without spaces")
    return found
