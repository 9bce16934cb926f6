"""A publish that outlives its handler: never lost, and never part of what it does not belong to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import msgspec
import pytest

from spoolproof import Receipt, Service, StoreUnavailable, Transaction, event
from spoolproof.brokers.memory import MemoryBroker
from spoolproof.consumer.part import ConsumerPart
from spoolproof.destination import to_queue
from spoolproof.ids import Ids
from spoolproof.message import Message, Outgoing
from spoolproof.outbox.receipt import Place
from spoolproof.settings import Settings
from spoolproof.stores.memory import MemoryStore
from spoolproof.testing.clock import ManualClock

MODES = ("with tx", "without tx", "none")


@event("outlive.job")
class Job(msgspec.Struct):
    n: int


@event("outlive.done", may_be_unrouted=True)
class Done(msgspec.Struct):
    n: int


class Outliving:
    """A service without a relay, so that what was published stays in the outbox; its handler does what a test says."""

    def __init__(self, mode: str) -> None:
        self.clock = ManualClock()
        self.service = Service("outlive", settings=Settings(store="memory://", broker="memory://"), clock=self.clock)
        self.behaviour: Callable[[int], Awaitable[object]]
        self.receipts: list[Receipt] = []
        self.tasks: list[asyncio.Task[None]] = []
        self.go = asyncio.Event()
        self.runs = 0
        dedupe = "none" if mode == "none" else "inbox"

        async def run() -> object:
            self.runs += 1
            return await self.behaviour(self.runs)

        if mode == "with tx":

            @self.service.on(Job, queue="outlive.jobs", attempts=3, timeout=5)
            async def handle(job: Job, tx: Transaction) -> object:
                return await run()
        else:

            @self.service.on(Job, queue="outlive.jobs", attempts=3, timeout=5, dedupe=dedupe)
            async def handle_outside(job: Job) -> object:
                return await run()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Outliving]:
        async with self.clock.auto_advance():
            await self.service.start(only=["consumer"])
            try:
                yield self
            finally:
                for task in self.tasks:
                    task.cancel()
                await asyncio.gather(*self.tasks, return_exceptions=True)
                await self.service.stop()

    @property
    def store(self) -> MemoryStore:
        store = self.service.runtime.store
        assert isinstance(store, MemoryStore)
        return store

    def deliver(self) -> None:
        broker = self.service.runtime.broker.inner
        assert isinstance(broker, MemoryBroker)
        message = Message(
            id=Ids(self.clock).message_id(), type="outlive.job", source="test", time=self.clock.now(), body=b'{"n":1}'
        )
        outgoing = Outgoing(message=message, destination=to_queue("outlive.jobs"))
        broker.server.publish(outgoing, self.service.runtime.topology(), self.clock.monotonic())

    async def publish(self, n: int) -> None:
        self.receipts.append(await self.service.publish(Done(n)))

    def start_task(self, work: Awaitable[None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        self.tasks.append(task)
        return task

    def is_idle(self) -> bool:
        return not any(worker.in_flight for worker in self.service.runtime.part(ConsumerPart).workers)

    def published(self) -> list[Message]:
        return [row.outgoing.message for row in self.store.table("outbox").values()]

    def numbers(self) -> list[int]:
        return sorted(msgspec.json.decode(message.body)["n"] for message in self.published())


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("mode", MODES)
async def test_a_publish_after_the_handlers_end_is_stored_before_it_returns(mode: str) -> None:
    """Fifty of fifty returned a receipt and were lost. Nor is it caused by a delivery that is over."""
    rig = Outliving(mode)

    async def starts_a_task(run: int) -> None:
        async def later() -> None:
            await rig.go.wait()
            await rig.publish(1)

        rig.start_task(later())

    rig.behaviour = starts_a_task
    async with rig.running():
        rig.deliver()
        await until(lambda: rig.runs == 1 and rig.is_idle())
        rig.go.set()
        await until(lambda: rig.receipts)

        (message,) = rig.published()
        assert Place.STORED == rig.receipts[0].place
        assert (None, None) == (message.causation_id, message.correlation_id)


@pytest.mark.parametrize("mode", MODES[:2])
async def test_tasks_a_handler_waits_for_are_part_of_it(mode: str) -> None:
    """gather, wait_for and task groups are how people write handlers; a failure undoes theirs too."""
    rig = Outliving(mode)

    async def fans_out(run: int) -> None:
        await asyncio.gather(rig.publish(1), rig.publish(2))
        await asyncio.wait_for(rig.publish(3), 5)
        async with asyncio.TaskGroup() as group:
            group.create_task(rig.publish(4))
        if run == 1:
            raise ValueError("all of it again")

    rig.behaviour = fans_out
    async with rig.running():
        rig.deliver()
        await until(lambda: len(rig.published()) >= 4 and rig.runs == 2)

        assert [1, 2, 3, 4] == rig.numbers()
        assert {Place.TRANSACTION} == {receipt.place for receipt in rig.receipts}
        assert all(message.causation_id for message in rig.published())


@pytest.mark.parametrize("ending", ["fails", "is cut off", "meets an outage", "succeeds"])
@pytest.mark.parametrize("mode", MODES[:2])
async def test_what_a_running_task_published_outlives_the_failure_of_the_attempt(mode: str, ending: str) -> None:
    """A batcher that was started in a handler has nothing to do with that handler's failure. It has a receipt."""
    rig = Outliving(mode)
    published = asyncio.Event()

    async def starts_a_batcher(run: int) -> None:
        if run > 1:
            return

        async def batcher() -> None:
            await rig.publish(7)
            published.set()
            await asyncio.Event().wait()

        rig.start_task(batcher())
        await published.wait()
        await rig.publish(1)
        if ending == "is cut off":
            await asyncio.Event().wait()
        if ending == "meets an outage":
            raise StoreUnavailable("planted")
        if ending == "fails":
            raise ValueError("planted")

    rig.behaviour = starts_a_batcher
    async with rig.running():
        rig.deliver()
        if ending == "succeeds":
            await until(lambda: len(rig.published()) == 2)
            assert [1, 7] == rig.numbers()
        else:
            await until(lambda: rig.runs == 2 and rig.is_idle())
            assert [7] == rig.numbers()


async def test_an_outage_does_not_lose_what_outlives_the_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is kept in memory until the store takes it; the failure is dealt with after that."""
    rig = Outliving("without tx")
    published = asyncio.Event()

    async def starts_a_batcher(run: int) -> None:
        if run > 1:
            return

        async def batcher() -> None:
            await rig.publish(7)
            published.set()
            await asyncio.Event().wait()

        rig.start_task(batcher())
        await published.wait()
        raise ValueError("planted")

    rig.behaviour = starts_a_batcher
    async with rig.running():
        append, failures = rig.store.outbox.append, 5

        async def away(*args: object) -> None:
            nonlocal failures
            failures -= 1
            if failures > 0:
                assert rig.runs == 1
                raise StoreUnavailable("planted")
            await append(*args)  # type: ignore[arg-type]

        monkeypatch.setattr(rig.store.outbox, "append", away)
        rig.deliver()

        await until(lambda: rig.runs == 2)

        assert [7] == rig.numbers()
