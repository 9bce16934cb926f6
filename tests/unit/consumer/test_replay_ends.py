"""Every way an attempt can end, for every kind of handler, replayed or not: what the dead letter's state is after it.

A replay that ends must never leave its dead letter `replaying`: nobody would look at it again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta

import msgspec
import pytest

from spoolproof import Ack, DeadLetter, Defer, Delivery, RetryLater, Service, StoreUnavailable, Transaction, event
from spoolproof.brokers.memory import MemoryBroker
from spoolproof.consumer.part import ConsumerPart
from spoolproof.dead_letters.record import consumer_dead_letter
from spoolproof.dead_letters.replay import replay
from spoolproof.destination import to_queue
from spoolproof.message import Message, Outgoing
from spoolproof.ports.dead_letters import DeadLetterFilter, DeadLetterState
from spoolproof.settings import Settings
from spoolproof.stores.memory import MemoryStore
from spoolproof.testing.clock import ManualClock

QUEUE = "ends.orders"
ID = "0190a0b0-0000-7000-8000-000000000001"


@event("ends.order")
class Order(msgspec.Struct):
    n: int


Behaviour = Callable[[int], Awaitable[object]]


class Ends:
    """A service with one handler of the given kind, whose behaviour a test sets; on a clock that jumps."""

    def __init__(self, mode: str) -> None:
        self.clock = ManualClock()
        self.service = Service("ends", settings=Settings(store="memory://", broker="memory://"), clock=self.clock)
        self.runs = 0
        self.behaviour: Behaviour = returns
        options = {"queue": QUEUE, "attempts": 2, "delays": (1,), "timeout": 5, "dedupe": mode.split()[0]}

        async def run() -> object:
            self.runs += 1
            return await self.behaviour(self.runs)

        if mode.endswith("with tx"):

            @self.service.on(Order, **options)  # type: ignore[arg-type]
            async def handle(order: Order, tx: Transaction) -> object:
                return await run()
        else:

            @self.service.on(Order, **options)  # type: ignore[arg-type]
            async def handle_outside(order: Order, delivery: Delivery) -> object:
                return await run()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Ends]:
        async with self.clock.auto_advance():
            await self.service.start()
            try:
                yield self
            finally:
                await self.service.stop()

    @property
    def store(self) -> MemoryStore:
        store = self.service.runtime.store
        assert isinstance(store, MemoryStore)
        return store

    @property
    def broker(self) -> MemoryBroker:
        broker = self.service.runtime.broker.inner
        assert isinstance(broker, MemoryBroker)
        return broker

    def message(self, **fields: object) -> Message:
        values = {"id": ID, "type": "ends.order", "source": "test", "time": self.clock.now(), "body": b'{"n":1}'}
        return msgspec.convert({**values, **fields}, Message)

    async def send(self, message: Message) -> None:
        await self.store.outbox.append([Outgoing(message=message, destination=to_queue(QUEUE))], None)
        self.store.wakeup.notify()
        await self.until_idle()

    async def replay(self, message: Message) -> None:
        """Have a dead letter of the message, and send it again; also where the inbox says that it was handled."""
        record = consumer_dead_letter(
            id="0190a0b0-0000-7000-8000-00000000000f",
            queue=QUEUE,
            message=message,
            message_id=message.id,
            reason="handler",
            error=None,
            detail="planted",
            attempts=(),
            now=self.clock.now(),
        )
        async with self.store.transaction() as tx:
            self.store.dead_letters.upsert(tx, record)
        await replay(self.store, record.id, actor="ann", reason="why")
        await self.until_idle()

    async def until_idle(self) -> None:
        """Return when no message is on its way anywhere."""

        async def is_idle() -> bool:
            server = self.broker.server
            workers = self.service.runtime.part(ConsumerPart).workers
            return not (
                (await self.store.outbox.backlog()).rows
                or (QUEUE in server.queues and server.depth(QUEUE))
                or server.due_times()
                or any(worker.in_flight or worker._waiting.qsize() for worker in workers)
            )

        async with asyncio.timeout(60):
            while not await is_idle():
                await asyncio.sleep(0.002)

    async def states(self) -> list[DeadLetterState]:
        return [record.state for record in await self.store.dead_letters.search(DeadLetterFilter())]


async def returns(run: int) -> object:
    return None


async def raises_ack(run: int) -> object:
    raise Ack


async def returns_ack(run: int) -> object:
    return Ack()


async def raises(run: int) -> object:
    raise ValueError("always")


async def raises_once(run: int) -> object:
    if run == 1:
        raise ValueError("once")
    return None


async def hangs(run: int) -> object:
    await asyncio.Event().wait()
    return None


async def gives_up(run: int) -> object:
    return DeadLetter("never")


async def defers_in_place(run: int) -> object:
    return Defer(1) if run == 1 else None


async def defers_through_a_copy(run: int) -> object:
    return Defer(10) if run == 1 else None


async def retries_later(run: int) -> object:
    return RetryLater(10) if run == 1 else None


async def meets_an_outage(run: int) -> object:
    if run == 1:
        raise StoreUnavailable("planted")
    return None


@dataclass(frozen=True)
class Ending:
    """How an attempt ends, and what becomes of a dead letter. fields: of the message. is_overtaken: another copy of it
    succeeded before."""

    name: str
    is_success: bool
    behaviour: Behaviour = returns
    fields: tuple[tuple[str, object], ...] = ()
    is_overtaken: bool = False


ENDINGS = (
    Ending("returns", True),
    Ending("raises Ack", True, raises_ack),
    Ending("returns Ack", True, returns_ack),
    Ending("raises once", True, raises_once),
    Ending("raises always", False, raises),
    Ending("is cut off", False, hangs),
    Ending("DeadLetter", False, gives_up),
    Ending("Defer in place", True, defers_in_place),
    Ending("Defer through a copy", True, defers_through_a_copy),
    Ending("RetryLater", True, retries_later),
    Ending("outage", True, meets_an_outage),
    Ending("overtaken", True, is_overtaken=True),
    Ending("overtaken, and would fail", False, raises, is_overtaken=True),
    Ending("unreadable payload", False, fields=(("body", b'{"n":"seven"}'),)),
    Ending("unknown type", False, fields=(("type", "ends.unheard_of"),)),
    Ending("too large", False, fields=(("body", b" " * (1024 * 1024 + 1)),)),
    Ending("expired", False, fields=(("expires_at", "past"),)),
    Ending("overtaken, then expired", False, fields=(("expires_at", "past"),), is_overtaken=True),
)
MODES = ("inbox with tx", "inbox without tx", "none without tx")


@pytest.mark.parametrize("is_replay", [True, False], ids=["replay", "first"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("ending", ENDINGS, ids=lambda ending: ending.name)
async def test_no_end_of_an_attempt_leaves_a_dead_letter_replaying(ending: Ending, mode: str, is_replay: bool) -> None:
    """S10, S11: resolved by any success of the message, open again after any failure, and the same row throughout."""
    async with Ends(mode).running() as ends:
        fields = dict(ending.fields)
        if fields.get("expires_at") == "past":
            fields["expires_at"] = ends.clock.now() - timedelta(seconds=1)
        if ending.is_overtaken:
            await ends.send(ends.message())
        ends.runs, ends.behaviour = 0, ending.behaviour
        message = ends.message(**fields)

        if is_replay:
            await ends.replay(message)
        else:
            await ends.send(message)

        is_known_done = ending.is_overtaken and mode.startswith("inbox")
        if ending.is_success or is_known_done:
            expected = [DeadLetterState.RESOLVED] if is_replay else []
        else:
            expected = [DeadLetterState.OPEN]
        assert expected == await ends.states()


@pytest.mark.parametrize("mode", MODES)
async def test_the_dead_letter_of_a_message_without_an_id_is_resolved_by_its_replay(mode: str) -> None:
    """It gets an id as a dead letter, and keeps it."""
    async with Ends(mode).running() as ends:
        ends.behaviour = gives_up
        ends.broker.server.publish(
            Outgoing(message=ends.message(id=""), destination=to_queue(QUEUE)),
            ends.service.runtime.topology(),
            ends.clock.monotonic(),
        )
        async with asyncio.timeout(60):
            while not await ends.states():
                await asyncio.sleep(0.002)
        (letter,) = await ends.store.dead_letters.search(DeadLetterFilter())

        ends.behaviour = returns
        await replay(ends.store, letter.id, actor="ann", reason="why")
        await ends.until_idle()

        assert [DeadLetterState.RESOLVED] == await ends.states()


async def test_a_replay_the_relay_cannot_deliver_is_the_same_row_open_again() -> None:
    """The queue is gone: a second row of the relay's beside one that is replaying for ever would help nobody."""
    async with Ends("inbox with tx").running() as ends:
        ends.broker.server.delete_queue(QUEUE)
        await ends.replay(ends.message())

        (letter,) = await ends.store.dead_letters.search(DeadLetterFilter())
        assert (DeadLetterState.OPEN, QUEUE, "unroutable") == (letter.state, letter.consumer, letter.reason)


async def test_a_replay_reaches_the_consumer_that_failed_and_no_other() -> None:
    """L23: the others of its event have done their part, and would do it twice."""
    service, runs = Service("ends"), {"ends.first": 0, "ends.second": 0}
    for queue in runs:

        @service.on(Order, queue=queue, attempts=1)
        async def handle(order: Order, delivery: Delivery) -> None:
            runs[delivery.queue] += 1
            if delivery.queue == "ends.second" and runs[delivery.queue] == 1:
                raise RuntimeError("not now")

    async with service.test() as app:
        await app.publish(Order(1))
        await app.settled()
        (letter,) = app.dead_letters
        await replay(service.runtime.store, letter.id, actor="ann", reason="why")
        await app.settled()

        assert {"ends.first": 1, "ends.second": 2} == runs
        assert not app.dead_letters
