"""The relay against the in-memory store and broker, which fail on command."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from random import Random

import pytest

from spoolproof.backoff import system_random
from spoolproof.brokers.memory import MemoryBroker, MemoryBrokerServer
from spoolproof.clock import SystemClock
from spoolproof.errors import StoreUnavailable
from spoolproof.ids import Ids
from spoolproof.lifecycle.membership import Holding, Membership
from spoolproof.lifecycle.supervisor import Supervisor
from spoolproof.message import Message, Outgoing
from spoolproof.outbox.relay import Relay
from spoolproof.ports.broker import Incoming, QueueSpec, Topology
from spoolproof.ports.dead_letters import DeadLetterFilter
from spoolproof.ports.leases import Process
from spoolproof.ports.outbox import RowRef
from spoolproof.ports.services import Block
from spoolproof.stores.memory import MemoryStore

BLOCK = Block(0, 16)
TOPOLOGY = Topology(
    service="t",
    exchange="x",
    queues=(QueueSpec(name="t.q", types=("known",), delivery_limit=50),),
    tiers_seconds=(1,),
)


class Rig:
    """One relay with its leases, a broker and a consumer that notes what arrives."""

    def __init__(self) -> None:
        self.clock = SystemClock()
        self.ids = Ids(self.clock)
        self.supervisor = Supervisor(self.clock, system_random())
        self.store = MemoryStore(clock=self.clock, ids=self.ids, outbox_rows_max=100_000)
        self.server = MemoryBrokerServer()
        self.broker = MemoryBroker(clock=self.clock, spawn=self.supervisor.spawn, server=self.server)
        self.shards = Holding(BLOCK.lease_kind, BLOCK.lease_names, self.clock, 10.0)
        self.relay = Relay(
            *(self.store.outbox, self.store.dead_letters, self.store.wakeup, self.broker, self.shards),
            clock=self.clock,
            ids=self.ids,
        )
        self.arrived: list[Message] = []

    async def start(self) -> None:
        await self.store.start()
        await self.broker.start(TOPOLOGY)
        await self.broker.subscribe("t.q", 1000, self._note)
        process = Process(id=self.ids.uuid7(), service="t", host="h", pid=1, roles=(BLOCK.lease_kind,))
        membership = Membership(
            process,
            self.store.leases,
            [self.shards],
            lease_seconds=15.0,
            clock=self.clock,
            ids=self.ids,
            random=system_random(),
        )
        await self.supervisor.run(membership)
        await self.supervisor.run(self.relay)

    async def stop(self) -> None:
        await self.supervisor.stop_loops()
        await self.broker.stop()
        await self.store.stop()
        await self.supervisor.stop()

    def _note(self, delivery: Incoming) -> None:
        self.arrived.append(delivery.message)
        delivery.ack()

    async def publish(
        self, number: int, *, key: str | None = None, type: str = "known", unrouted: bool = False
    ) -> None:
        message = Message(
            id=self.ids.message_id(),
            type=type,
            source="t",
            time=self.clock.now(),
            body=str(number).encode(),
            key=key,
        )
        await self.store.outbox.append([Outgoing(message=message, may_be_unrouted=unrouted)], None)
        self.store.wakeup.notify()

    async def until(self, condition: Callable[[], bool], seconds: float = 10.0) -> None:
        async with asyncio.timeout(seconds):
            while not condition():
                await asyncio.sleep(0.002)

    async def until_empty(self, seconds: float = 10.0) -> None:
        async with asyncio.timeout(seconds):
            while (await self.store.outbox.backlog()).rows or self.server.depth("t.q"):
                await asyncio.sleep(0.005)


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    made = Rig()
    await made.start()
    yield made
    await made.stop()


def numbers(messages: list[Message], key: str | None = None) -> list[int]:
    return [int(message.body) for message in messages if key is None or message.key == key]


def first_arrivals(values: list[int]) -> list[int]:
    return list(dict.fromkeys(values))


async def test_every_row_arrives_once_and_leaves_the_outbox(rig: Rig) -> None:
    """V1 without faults: nothing is sent twice when nothing fails."""
    for number in range(300):
        await rig.publish(number)

    await rig.until_empty()

    assert list(range(300)) == sorted(numbers(rig.arrived))


async def test_a_row_stays_until_a_broker_that_is_away_is_back(rig: Rig) -> None:
    """S9, E3: an outage costs no attempt and the return is used at once."""
    rig.broker.lose_connection()
    await rig.publish(1)
    await asyncio.sleep(0)
    assert 1 == (await rig.store.outbox.backlog()).rows

    rig.broker.restore_connection()
    await rig.until_empty(3.0)

    assert [1] == numbers(rig.arrived)


async def test_a_confirmed_row_that_cannot_be_deleted_yet_is_not_sent_again(rig: Rig) -> None:
    """An outage of the store must not republish what a living process knows to be confirmed."""
    original = rig.store.outbox.remove
    fails = 5

    async def flaky(refs: Sequence[RowRef]) -> int:
        nonlocal fails
        if fails:
            fails -= 1
            raise StoreUnavailable("planted")
        return await original(refs)

    rig.store.outbox.remove = flaky  # type: ignore[method-assign]
    for number in range(20):
        await rig.publish(number)

    await rig.until_empty()

    assert 0 == fails
    assert list(range(20)) == sorted(numbers(rig.arrived))


async def test_a_message_nobody_wants_becomes_a_dead_letter_after_bounded_attempts(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """L2: confirmed but unroutable is not delivered."""
    monkeypatch.setattr("spoolproof.limits.UNROUTABLE_DELAYS_SECONDS", (0.01, 0.01))
    await rig.publish(1, type="nobody")
    await rig.publish(2)

    await rig.until_empty()

    (record,) = await rig.store.dead_letters.search(DeadLetterFilter())
    assert ("relay:events", "unroutable", "nobody") == (record.consumer, record.reason, record.message.type)
    assert [2] == numbers(rig.arrived)


async def test_the_first_return_says_what_to_do_and_a_thousand_more_say_nothing(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Six minutes later it is a dead letter, and whoever declared the event has long looked elsewhere."""
    monkeypatch.setattr("spoolproof.limits.UNROUTABLE_DELAYS_SECONDS", (0.01, 0.01))
    for number in range(5):
        await rig.publish(number, type="nobody")
    await rig.publish(5, type="nobody.else")

    await rig.until_empty()

    lines = [message for message in caplog.messages if message.startswith("relay.returned")]
    assert ["relay.returned type=nobody", "relay.returned type=nobody.else"] == [
        line.partition(" destination")[0] for line in sorted(lines)
    ]
    assert "no queue is bound for this type" in lines[0]
    assert "attempt 1 of 6" in lines[0]
    assert "may_be_unrouted=True" in lines[0]


async def test_a_message_that_may_be_unrouted_counts_as_delivered(rig: Rig) -> None:
    """An event nobody subscribes to yet must not fill the dead letters."""
    await rig.publish(1, type="nobody", unrouted=True)

    await rig.until_empty()

    assert [] == list(await rig.store.dead_letters.search(DeadLetterFilter()))


async def test_a_full_queue_costs_no_attempt(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """S9: a nack is the queue's trouble."""
    monkeypatch.setattr("spoolproof.limits.NACK_PAUSE_FIRST_SECONDS", 0.01)
    rig.broker.nack_next(3)
    await rig.publish(1)

    await rig.until_empty()

    assert [1] == numbers(rig.arrived)
    assert [] == list(await rig.store.dead_letters.search(DeadLetterFilter()))


async def test_a_late_committer_with_a_lower_id_is_found(rig: Rig) -> None:
    """L27: no cursor is final."""
    async with rig.store.transaction() as early:
        message = Message(id=rig.ids.message_id(), type="known", source="t", time=rig.clock.now(), body=b"1", key=None)
        await rig.store.outbox.append([Outgoing(message=message)], early)
        await asyncio.sleep(0)
    await rig.publish(2)

    await rig.until_empty(6.0)

    assert [1, 2] == sorted(numbers(rig.arrived))


@pytest.mark.parametrize("seed", range(12))
async def test_first_deliveries_of_a_key_come_in_order_whatever_fails(
    rig: Rig, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S1, S2, S7 under lost connections (arrived or not), nacks and alarms, drawn by a seed."""
    monkeypatch.setattr("spoolproof.limits.NACK_PAUSE_FIRST_SECONDS", 0.01)
    random = Random(seed)
    keys = ["a", "b", "c"]
    for number in range(240):
        await rig.publish(number, key=keys[number % 3])
        draw = random.random()
        if draw < 0.03:
            rig.broker.lose_connection(has_arrived=random.random() < 0.5)
            rig.supervisor.spawn(_later(rig.broker.restore_connection, random.uniform(0, 0.01)), "restore")
        elif draw < 0.06:
            rig.broker.nack_next(random.randint(1, 5))
        elif draw < 0.08:
            rig.broker.block()
            rig.supervisor.spawn(_later(rig.broker.unblock, random.uniform(0, 0.01)), "unblock")
        elif draw < 0.4:
            await asyncio.sleep(random.uniform(0, 0.003))

    await rig.until_empty(20.0)

    for index, key in enumerate(keys):
        assert list(range(index, 240, 3)) == first_arrivals(numbers(rig.arrived, key))


async def _later(action: Callable[[], None], seconds: float) -> None:
    await asyncio.sleep(seconds)
    action()


async def test_a_drain_deletes_what_was_confirmed(rig: Rig) -> None:
    """A clean end leaves no duplicates for the next start."""
    for number in range(100):
        await rig.publish(number)
    await rig.until(lambda: len(rig.arrived) > 10)

    await rig.supervisor.drain([rig.relay], 1.0)

    left = (await rig.store.outbox.backlog()).rows
    assert 100 == left + len(rig.arrived)
