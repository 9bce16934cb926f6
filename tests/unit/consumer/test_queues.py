"""What a renamed handler leaves behind is found, whoever else still runs; and nothing else is."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from random import Random
from uuid import UUID

import pytest

from spoolproof.brokers.memory import MemoryBroker
from spoolproof.clock import SystemClock
from spoolproof.consumer.queues import QueueWatch, stranded_queues
from spoolproof.errors import StoreUnavailable
from spoolproof.ids import Ids
from spoolproof.lifecycle.supervisor import Supervisor
from spoolproof.ports.broker import QueueSpec, Topology
from spoolproof.ports.leases import Process
from spoolproof.stores.memory import MemoryStore
from spoolproof.testing.clock import ManualClock
from spoolproof.testing.conformance._messages import make_outgoing

OLD, NEW = "shop.book", "shop.enter"
TYPES = ("order.placed",)
MINUTE = 60.0


class World:
    """A store and a broker in which `shop` has had a handler `book`; each watch is one process with its release."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.supervisor = Supervisor(self.clock, Random(7))
        self.store = MemoryStore(clock=self.clock, ids=Ids(SystemClock()), outbox_rows_max=10)
        self.broker = MemoryBroker(clock=self.clock, spawn=self.supervisor.spawn)
        self.processes = 0

    async def start(self) -> None:
        await self.store.start()
        specs = tuple(QueueSpec(name=name, types=("order.placed",), delivery_limit=20) for name in (OLD, NEW))
        await self.broker.start(Topology(service="shop", exchange="e", queues=specs, tiers_seconds=()))

    async def stop(self) -> None:
        await self.broker.stop()
        await self.store.stop()
        await self.supervisor.stop()

    async def process(self, *queues: str) -> tuple[QueueWatch, asyncio.Task[None]]:
        """Let a process live that reads these queues; cancelled, it is gone."""
        self.processes += 1
        id = UUID(int=self.processes)
        watch = QueueWatch(
            "shop", dict.fromkeys(queues, TYPES), self.store.state, self.store.leases, self.broker, clock=self.clock
        )

        async def live() -> None:
            process = Process(id=id, service="shop", host="h", pid=1, roles=("outbox",))
            await self.store.leases.beat(process, 1e6)
            try:
                while True:
                    await watch.run_once()
            finally:
                await self.store.leases.beat(process, 0.0)

        task = self.supervisor.spawn(live(), f"process {self.processes}")
        await asyncio.sleep(0)
        return watch, task

    async def end(self, task: asyncio.Task[None]) -> None:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def fill(self, queue: str, count: int) -> None:
        for _ in range(count):
            self.broker.submit(make_outgoing(destination=f"queue:{queue}"), None, lambda results: None)
        await asyncio.sleep(0)

    async def stranded(self) -> dict[str, int]:
        """What an operator's command sees: queue → messages."""
        return {name: row.messages for name, row in (await stranded_queues(self.store.state, "shop")).items()}


@pytest.fixture
async def world(caplog: pytest.LogCaptureFixture) -> AsyncIterator[World]:
    caplog.set_level(logging.INFO)
    made = World()
    await made.start()
    yield made
    await made.stop()


async def test_the_queue_of_a_renamed_handler_is_found_at_the_next_start(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """It stays bound and goes on filling; without a word the messages wait for ever."""
    _, first = await world.process(OLD)
    await world.clock.advance(10)
    await world.end(first)
    await world.fill(OLD, 3)

    watch, _ = await world.process(NEW)
    await world.clock.advance(5)

    text = f"queue {OLD}: no handler of shop reads it any more; 3 messages wait in it"
    assert (text,) == watch.issues()
    assert {OLD: 3} == await world.stranded()
    assert [("WARNING", f"queue.stranded {text}")] == [
        (record.levelname, record.getMessage().partition(": name it")[0]) for record in caplog.records
    ]


async def test_the_count_follows_the_queue_and_the_log_does_not(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """One line says it; how bad it is by now is in the health body."""
    _, first = await world.process(OLD)
    await world.clock.advance(10)
    await world.end(first)
    watch, _ = await world.process(NEW)
    await world.clock.advance(5)
    await world.fill(OLD, 2)
    await world.clock.advance(2 * MINUTE)

    assert watch.issues()[0].endswith("2 messages wait in it")
    assert 1 == len(caplog.records)


async def test_the_old_release_of_a_rolling_deploy_keeps_its_queue_from_being_called_stranded(world: World) -> None:
    """A false alarm at every deploy would teach people to overlook the true one."""
    _, old = await world.process(OLD)
    await world.clock.advance(10)
    new, _ = await world.process(NEW)
    await world.process(NEW)
    await world.clock.advance(20 * MINUTE)
    while_both_run = new.issues()

    await world.end(old)
    await world.clock.advance(5 * MINUTE)

    assert () == while_both_run
    assert 1 == len(new.issues())


async def test_a_queue_that_is_read_again_is_as_before(world: World) -> None:
    """A release that is rolled back, or a handler that was given the old queue, ends it by itself."""
    _, first = await world.process(OLD)
    await world.clock.advance(10)
    await world.end(first)
    watch, _ = await world.process(NEW)
    await world.clock.advance(5)
    assert {OLD: 0} == await world.stranded()

    await world.process(OLD, NEW)
    await world.clock.advance(10 * MINUTE)

    assert {} == await world.stranded()
    assert () == watch.issues()


async def test_a_queue_that_was_deleted_is_forgotten(world: World) -> None:
    """What the operator has mended must not be reported for ever."""
    _, first = await world.process(OLD)
    await world.clock.advance(10)
    await world.end(first)
    watch, _ = await world.process(NEW)
    await world.clock.advance(5)

    world.broker.server.delete_queue(OLD)
    await world.clock.advance(2 * MINUTE)

    assert () == watch.issues()
    assert [NEW] == list(await world.store.state.all("queue/shop"))


async def test_a_broker_that_is_away_hides_nothing_and_invents_nothing(world: World) -> None:
    """Whether an unread queue is still there cannot be known; what was known stays."""
    _, first = await world.process(OLD)
    await world.clock.advance(10)
    await world.end(first)
    world.broker.lose_connection()
    unknown, second = await world.process(NEW)
    await world.clock.advance(5)
    assert () == unknown.issues()

    world.broker.restore_connection()
    await world.clock.advance(MINUTE)
    world.broker.lose_connection()
    await world.clock.advance(2 * MINUTE)

    assert 1 == len(unknown.issues())
    world.broker.restore_connection()
    await world.end(second)


async def test_a_store_that_is_away_is_the_supervisors_to_tell(world: World) -> None:
    """The loop ends in the error that every loop ends in."""
    watch = QueueWatch(
        "shop", dict.fromkeys([NEW], TYPES), world.store.state, world.store.leases, world.broker, clock=world.clock
    )
    await world.store.stop()
    turn = asyncio.create_task(watch.run_once())
    await world.clock.advance(5)

    with pytest.raises(StoreUnavailable):
        await turn
    await world.store.start()


async def test_rows_of_another_release_that_cannot_be_read_say_nothing(world: World) -> None:
    """A newer release may keep more there; its rows are not ours to judge by."""
    await world.store.state.put("queue/shop", OLD, b"not json")

    assert {} == await world.stranded()
