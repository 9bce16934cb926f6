"""A limit of ours: whoever meets it waits for room, and the world is not called again in the meantime."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import msgspec
import pytest

from spoolproof import Delivery, Service, StoreUnavailable, Transaction, event
from spoolproof.brokers.memory import MemoryBroker
from spoolproof.destination import to_queue
from spoolproof.errors import StoreBusy, TransactionTooLong
from spoolproof.health.verdict import issues_of
from spoolproof.ids import Ids
from spoolproof.message import Message, Outgoing
from spoolproof.ports.dead_letters import DeadLetterFilter, DeadLetterRecord
from spoolproof.ports.outbox import RowRef
from spoolproof.settings import Settings
from spoolproof.stores.memory import MemoryStore
from spoolproof.testing.clock import ManualClock

QUEUE = "full.orders"
ROWS_MAX = 10


@event("full.order")
class Order(msgspec.Struct):
    n: int


@event("full.paid", may_be_unrouted=True)
class Paid(msgspec.Struct):
    n: int


class Full:
    """A service whose handler calls the world and publishes two events, and whose outbox a test fills. Its clock jumps;
    its relay stands still."""

    def __init__(self, mode: str, *, publishes: int = 2) -> None:
        self.clock = ManualClock()
        settings = Settings(store="memory://", broker="memory://", outbox_rows_max=1000)
        self.service = Service("full", settings=settings, clock=self.clock)
        self.calls: list[int] = []
        self.quiet: list[int] = []

        async def call_the_world(order: Order) -> None:
            self.calls.append(order.n)
            for n in range(publishes):
                await self.service.publish(Paid(n))

        if mode == "with tx":

            @self.service.on(Order, queue=QUEUE)
            async def handle(order: Order, tx: Transaction) -> None:
                await call_the_world(order)
        else:
            dedupe = "none" if mode == "none" else "inbox"

            @self.service.on(Order, queue=QUEUE, dedupe=dedupe)
            async def handle_outside(order: Order, delivery: Delivery) -> None:
                await call_the_world(order)

        @self.service.on(Order, queue="full.quiet")
        async def note(order: Order, tx: Transaction) -> None:
            self.quiet.append(order.n)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Full]:
        async with self.clock.auto_advance():
            await self.service.start(only=["consumer"])
            try:
                self.store.outbox.rows_max = ROWS_MAX
                yield self
            finally:
                await self.service.stop()

    @property
    def store(self) -> MemoryStore:
        store = self.service.runtime.store
        assert isinstance(store, MemoryStore)
        return store

    async def fill(self, rows: int) -> None:
        ids = Ids(self.clock)
        filler = [
            Outgoing(message=Message(id=ids.message_id(), type="x", source="x", time=self.clock.now(), body=b"{}"))
            for _ in range(rows)
        ]
        await self.store.outbox.append(filler, None)

    async def empty(self, rows: int) -> None:
        first = sorted(self.store.table("outbox"))[:rows]
        await self.store.outbox.remove([RowRef(0, id) for id in first])

    @property
    def broker(self) -> MemoryBroker:
        broker = self.service.runtime.broker.inner
        assert isinstance(broker, MemoryBroker)
        return broker

    def reconnect(self) -> None:
        self.broker.lose_connection()
        self.broker.restore_connection()

    def deliver(self, *numbers: int, queue: str = QUEUE) -> None:
        ids = Ids(self.clock)
        for n in numbers:
            message = Message(
                id=ids.message_id(),
                type="full.order",
                source="test",
                time=self.clock.now(),
                body=msgspec.json.encode(Order(n)),
            )
            self.broker.server.publish(
                Outgoing(message=message, destination=to_queue(queue)),
                self.service.runtime.topology(),
                self.clock.monotonic(),
            )

    async def pass_seconds(self, seconds: float) -> None:
        """Let virtual time go by."""
        until = self.clock.monotonic() + seconds
        async with asyncio.timeout(20):
            while self.clock.monotonic() < until:
                await asyncio.sleep(0.001)

    async def letters(self) -> list[DeadLetterRecord]:
        return list(await self.store.dead_letters.search(DeadLetterFilter()))

    def handled(self) -> int:
        return sum(queue == QUEUE for queue, _ in self.store.table("inbox"))


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("mode", ["with tx", "without tx"])
async def test_a_handler_that_met_a_full_outbox_runs_again_when_there_is_room_and_not_before(mode: str) -> None:
    """It may call the world each time: four times a second is not patience. Without `tx` it has succeeded already, and
    only its record and publishes are tried again."""
    async with Full(mode).running() as full:
        await full.fill(ROWS_MAX - 1)
        full.deliver(1)
        await full.pass_seconds(1000)  # held so long, it also goes through a delay queue and comes back
        assert [1] == full.calls

        await full.empty(ROWS_MAX - 1)
        await until(lambda: full.handled() == 1)

        assert ([1] if mode == "without tx" else [1, 1]) == full.calls
        assert 2 == len(full.store.table("outbox"))
        assert [] == await full.letters()


@pytest.mark.parametrize("why", ["held for long", "connection lost"])
async def test_what_comes_again_waits_until_the_success_is_recorded(why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy of it, or the same delivery anew, while the success is still to be recorded. Whoever of the two finds room
    first, the world is called once."""
    async with Full("without tx").running() as full:
        has_room, is_for_second = full.store.outbox.has_room, True
        asked: list[asyncio.Task[None] | None] = []

        async def has_room_for_the_second(messages: int) -> bool:
            asked.append(asyncio.current_task())
            if is_for_second and asked[0] is asyncio.current_task():
                return False
            return await has_room(messages)

        monkeypatch.setattr(full.store.outbox, "has_room", has_room_for_the_second)
        await full.fill(ROWS_MAX - 1)
        full.deliver(1)
        await until(lambda: full.calls)
        await full.empty(ROWS_MAX - 1)
        if why == "connection lost":
            full.reconnect()
        await full.pass_seconds(1000)
        assert [1] == full.calls

        is_for_second = False
        await until(lambda: full.handled() == 1)
        await full.pass_seconds(120)

        assert [1] == full.calls
        assert 2 == len(full.store.table("outbox"))


async def test_other_deliveries_of_that_queue_wait_and_other_queues_go_on() -> None:
    """What empties the broker may be a handler that publishes nothing; and ten lanes need not try in vain."""
    async with Full("with tx").running() as full:
        await full.fill(ROWS_MAX)
        full.deliver(1)
        await until(lambda: full.calls)
        full.deliver(2, 3, 4)
        full.deliver(1, 2, queue="full.quiet")
        await until(lambda: len(full.quiet) == 2)
        await full.pass_seconds(30)
        assert [1] == full.calls

        await full.empty(ROWS_MAX)
        await until(lambda: full.handled() == 4)

        assert [1, 1, 2, 3, 4] == sorted(full.calls)


async def test_waiting_for_room_is_said_once_and_shows_in_health(caplog: pytest.LogCaptureFixture) -> None:
    """Somebody has to know why a healthy process does nothing."""
    caplog.set_level(logging.WARNING, "spoolproof.consumer")
    async with Full("with tx").running() as full:
        await full.fill(ROWS_MAX)
        full.deliver(1, 2)
        await full.pass_seconds(60)

        text = f"queue {QUEUE}: the outbox is full; its handler runs again when there is room"
        assert text in [issue.text for issue in issues_of(full.service.runtime.monitor.snapshot())]
        await full.empty(ROWS_MAX)
        await until(lambda: full.handled() == 2)
        assert text not in [issue.text for issue in issues_of(full.service.runtime.monitor.snapshot())]

    lines = [record.getMessage().split()[0] for record in caplog.records if "outbox" in record.getMessage()]
    assert ["consumer.outbox_full", "consumer.outbox_has_room"] == lines


async def test_what_can_never_fit_is_a_failure_and_waits_for_nothing() -> None:
    """More messages than the outbox may hold at all."""
    async with Full("with tx", publishes=ROWS_MAX + 1).running() as full:
        full.deliver(1)
        await until(lambda: len(full.calls) == 8)
        async with asyncio.timeout(10):
            while not await full.letters():
                await asyncio.sleep(0.001)

        (letter,) = await full.letters()
        assert "spoolproof.errors.OutboxFull" == letter.error_class


async def test_a_publish_that_stands_alone_in_a_handler_waits_for_room_as_well() -> None:
    """With dedupe="none" it fails inside the handler."""
    async with Full("none").running() as full:
        await full.fill(ROWS_MAX)
        full.deliver(1)
        await full.pass_seconds(60)
        assert [1] == full.calls

        await full.empty(ROWS_MAX)
        await until(lambda: len(full.store.table("outbox")) == 2)

        assert [1, 1] == full.calls


@pytest.mark.parametrize(
    "error",
    [StoreUnavailable("planted"), StoreBusy(1, 1), TransactionTooLong("planted")],
    ids=lambda e: type(e).__name__,
)
async def test_only_the_record_of_a_success_is_tried_again(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """The handler without `tx` has called the world; that the store answered late must not make it call again."""
    async with Full("without tx").running() as full:
        record, failures = full.store.inbox.record, 5

        async def fails_at_first(*args: object) -> bool:
            nonlocal failures
            if failures:
                failures -= 1
                raise error
            return await record(*args)  # type: ignore[arg-type]

        monkeypatch.setattr(full.store.inbox, "record", fails_at_first)
        full.deliver(1)

        await until(lambda: full.handled() == 1)

        assert [1] == full.calls
        assert 2 == len(full.store.table("outbox"))


async def test_the_record_of_a_success_outlasts_a_long_outage(monkeypatch: pytest.MonkeyPatch) -> None:
    """Held for five minutes a delivery goes to a delay queue; the record must still come first, or it runs again."""
    async with Full("without tx").running() as full:
        store, is_away = full.store, True
        record, contains, put = store.inbox.record, store.inbox.contains, store.state.put

        def unless_away(method: Callable[..., Awaitable[object]]) -> Callable[..., Awaitable[object]]:
            async def call(*args: object) -> object:
                if is_away and full.calls:
                    raise StoreUnavailable("planted")
                return await method(*args)

            return call

        monkeypatch.setattr(store.inbox, "record", unless_away(record))
        monkeypatch.setattr(store.inbox, "contains", unless_away(contains))
        monkeypatch.setattr(store.state, "put", unless_away(put))
        full.deliver(1)
        await full.pass_seconds(2000)
        is_away = False

        await until(lambda: full.handled() == 1)
        await full.pass_seconds(120)

        assert [1] == full.calls
        assert 2 == len(store.table("outbox"))


async def test_the_bridge_keeps_what_it_cannot_record_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy store is a limit too; and a message sent back would come again at once, thousands of times."""
    async with Full("with tx").running() as full:
        add, tries = full.store.dead_letters.add, 0

        async def busy(record: DeadLetterRecord) -> bool:
            nonlocal tries
            tries += 1
            if tries < 4:
                raise StoreBusy(1, 1)
            return await add(record)

        monkeypatch.setattr(full.store.dead_letters, "add", busy)
        full.deliver(1, queue=f"{QUEUE}.dead")
        async with asyncio.timeout(10):
            while not await full.letters():
                await asyncio.sleep(0.001)

        (letter,) = await full.letters()
        assert (QUEUE, 4) == (letter.consumer, tries)
