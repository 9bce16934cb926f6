"""RabbitMQ taken down under load: every submit has one outcome, and what was confirmed is in its queue."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace

import pika
import pytest

from spoolproof.brokers.rabbitmq import RabbitMQBroker
from spoolproof.clock import SystemClock
from spoolproof.errors import BrokerBlocked, BrokerUnavailable, WindowFull
from spoolproof.message import Outgoing
from spoolproof.ports.broker import Confirmed, ConnectionState, Incoming, PublishOutcome, Returned, Unknown
from spoolproof.testing.conformance import eventually, holds_for
from spoolproof.testing.conformance._broker import Outcomes, consume, make_topology, publish
from spoolproof.testing.conformance._messages import make_outgoing
from spoolproof.testing.servers import RabbitMQServer

pytestmark = [pytest.mark.integration, pytest.mark.servers]

BACK_SECONDS = 30.0  #: a node on a busy machine, with its quorum queues, is back within this


DECLARED_SECONDS = 6.0  #: what the server keeps of its queues is written every five


class Load:
    """Publishes as fast as there is room until told to end; keeps every outcome."""

    def __init__(self, broker: RabbitMQBroker, make: Callable[[], Outgoing] = make_outgoing) -> None:
        self._broker = broker
        self._make = make
        self._is_ending = False
        self.submitted: set[str] = set()
        self.answers: list[tuple[str, PublishOutcome]] = []

    async def run(self) -> None:
        while not self._is_ending:
            await self._broker.wait_for_room(0.05)
            for _ in range(min(self._broker.room(), 32)):
                outgoing = self._make()
                try:
                    self._broker.submit(outgoing, outgoing.message.id, self._sink)
                except (BrokerUnavailable, WindowFull):
                    break
                self.submitted.add(outgoing.message.id)
            await asyncio.sleep(0)  # one burst a turn: the loop is also the broker's

    async def end(self) -> None:
        """Stop publishing and wait for the last answer."""
        self._is_ending = True
        await eventually(lambda: len(self.answers) >= len(self.submitted), BACK_SECONDS)

    def ids(self, outcome: type) -> list[str]:
        return [id for id, answer in self.answers if isinstance(answer, outcome)]

    def _sink(self, pairs: Sequence[tuple[object, PublishOutcome]]) -> None:
        self.answers.extend((str(token), outcome) for token, outcome in pairs)


async def content(broker: RabbitMQBroker, queue: str) -> list[str]:
    """Take everything out of a queue; return the ids in order."""
    end = make_outgoing(destination=f"queue:{queue}")
    assert [Confirmed()] == await publish(broker, end)
    arrivals, subscription = await consume(broker, queue, prefetch=1000)
    found: list[str] = []
    while end.message.id not in found[-1000:]:
        for delivery in (await arrivals.reach(len(found) + 1, BACK_SECONDS))[len(found) :]:
            delivery.ack()
            found.append(delivery.message.id)
    await subscription.cancel()
    return found[: found.index(end.message.id)]


def stopped(rabbitmq: RabbitMQServer) -> None:
    rabbitmq.restart()


def killed(rabbitmq: RabbitMQServer) -> None:
    rabbitmq.kill()
    rabbitmq.start()


def connections_closed(rabbitmq: RabbitMQServer) -> None:
    rabbitmq.rabbitmqctl("close_all_connections", "--global", "by the test")


@pytest.mark.parametrize("fault", [stopped, killed, connections_closed])
async def test_whatever_happens_to_the_broker_confirmed_messages_are_in_the_queue(
    rabbitmq: RabbitMQServer,
    rabbitmq_url: str,
    make_broker: Callable[..., RabbitMQBroker],
    fault: Callable[[RabbitMQServer], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A confirm is the one thing the outbox trusts: it deletes the row (L1, L3, L24)."""
    topology = make_topology()
    broker = make_broker()
    await broker.start(topology)
    load = Load(broker)
    running = asyncio.create_task(load.run())
    await eventually(lambda: len(load.ids(Confirmed)) > 500)
    # RabbitMQ 3.10 killed within seconds of declaring a quorum queue may have it without a leader for ever
    await asyncio.sleep(DECLARED_SECONDS if fault is killed else 0)

    await asyncio.to_thread(fault, rabbitmq)
    before = len(load.ids(Confirmed))
    await eventually(lambda: len(load.ids(Confirmed)) > before + 500, BACK_SECONDS)
    await load.end()
    await running
    assert "broker.connection.lost connection=publish-0" in caplog.text, "the fault was not felt"

    answered = [id for id, _ in load.answers]
    assert load.submitted == set(answered)
    assert len(answered) == len(set(answered)), "a submit had more than one outcome"
    assert set() == set(load.ids(Confirmed)) - set(await content(broker, topology.queues[0].name))
    assert len(answered) == len(load.ids(Confirmed)) + len(load.ids(Unknown))


async def test_messages_survive_a_restart_and_the_return_is_used_within_a_second(
    rabbitmq: RabbitMQServer, rabbitmq_url: str, make_broker: Callable[..., RabbitMQBroker]
) -> None:
    """L3, E3: persistent on durable queues; and a probe notices the broker long before the back-off would."""
    topology = make_topology()
    broker = make_broker()
    await broker.start(topology)
    sent = [make_outgoing() for _ in range(50)]
    await publish(broker, *sent)

    await asyncio.to_thread(rabbitmq.stop)
    await eventually(lambda: broker.room() == 0)
    await holds_for(lambda: broker.room() == 0, seconds=6.0)  # by now the rounds are seconds apart
    await asyncio.to_thread(rabbitmq.start)
    accepted_at = SystemClock().monotonic()
    assert await broker.wait_for_room(BACK_SECONDS)

    assert SystemClock().monotonic() - accepted_at <= 1.0
    await eventually(lambda: broker.status().state is ConnectionState.CONNECTED, BACK_SECONDS)
    assert [outgoing.message.id for outgoing in sent] == await content(broker, topology.queues[0].name)


async def test_deliveries_of_a_lost_connection_are_stale_and_come_again(
    rabbitmq: RabbitMQServer, rabbitmq_url: str, make_broker: Callable[..., RabbitMQBroker]
) -> None:
    """L11, L12: an old tag on a new channel would settle somebody else's message."""
    topology = make_topology()
    broker = make_broker()
    await broker.start(topology)
    sent = [make_outgoing() for _ in range(5)]
    await publish(broker, *sent)
    arrivals, subscription = await consume(broker, topology.queues[0].name)
    old = await arrivals.reach(5)

    await asyncio.to_thread(connections_closed, rabbitmq)
    again = (await arrivals.reach(10, BACK_SECONDS))[5:]

    assert [False] * 5 == [delivery.ack() for delivery in old]
    assert [outgoing.message.id for outgoing in sent] == [delivery.message.id for delivery in again]
    assert [1] * 5 == [delivery.delivery_count for delivery in again]
    assert [True] * 5 == [delivery.ack() for delivery in again]
    assert [False] * 5 == [delivery.ack() for delivery in old]
    assert subscription.is_active
    await subscription.cancel()
    assert [] == await content(broker, topology.queues[0].name)


async def test_an_alarm_stops_publishing_only_and_makes_no_duplicates(
    rabbitmq: RabbitMQServer, rabbitmq_url: str, make_broker: Callable[..., RabbitMQBroker]
) -> None:
    """L28: acks go on, on their own connection; what the broker had read is confirmed when it goes on."""
    topology = make_topology(queues={"in": ("test.in",), "out": ("test.out",)})
    incoming, outgoing_queue = (spec.name for spec in topology.queues)
    broker = make_broker()
    await broker.start(topology)
    await publish(broker, *(make_outgoing("test.in") for _ in range(40)))
    arrivals, _ = await consume(broker, incoming, prefetch=10)
    await arrivals.reach(10)
    load = Load(broker, lambda: make_outgoing("test.out"))
    running = asyncio.create_task(load.run())
    await eventually(lambda: len(load.ids(Confirmed)) > 100)

    await asyncio.to_thread(rabbitmq.rabbitmqctl, "set_vm_memory_high_watermark", "0")
    try:
        await eventually(lambda: broker.status().is_blocked, BACK_SECONDS)
        with pytest.raises(BrokerBlocked):
            broker.submit(make_outgoing(), 1, Outcomes())
        for done in range(40):
            (await arrivals.reach(done + 1))[done].ack()
        assert 0 == broker.room()
    finally:
        await asyncio.to_thread(rabbitmq.rabbitmqctl, "set_vm_memory_high_watermark", "0.6")
    await eventually(lambda: not broker.status().is_blocked, BACK_SECONDS)
    before = len(load.ids(Confirmed))
    await eventually(lambda: len(load.ids(Confirmed)) > before + 100, BACK_SECONDS)
    await load.end()
    await running

    assert load.submitted == set(load.ids(Confirmed))
    assert len(load.submitted) == len(load.answers)
    assert sorted(load.submitted) == sorted(await content(broker, outgoing_queue))


async def test_unrouted_under_load_is_never_counted_as_delivered(
    rabbitmq_url: str, make_broker: Callable[..., RabbitMQBroker]
) -> None:
    """L2: the broker acks what it returns, often many with one ack."""
    topology = make_topology()
    queue = topology.queues[0].name
    subscriber = make_broker()
    await subscriber.start(topology)
    broker = make_broker()  # of a service that publishes, and knows nothing of the queue
    await broker.start(replace(topology, queues=()))
    load = Load(broker)
    running = asyncio.create_task(load.run())
    await eventually(lambda: len(load.ids(Confirmed)) > 500)

    await asyncio.to_thread(_unbind, rabbitmq_url, queue, topology.exchange, "test.happened")
    await eventually(lambda: len(load.ids(Returned)) > 500, BACK_SECONDS)
    operator = make_broker()  # binds again by declaring again
    await operator.start(topology)
    before = len(load.ids(Confirmed))
    await eventually(lambda: len(load.ids(Confirmed)) > before + 500, BACK_SECONDS)
    await load.end()
    await running

    assert [] == load.ids(Unknown)
    assert load.ids(Confirmed) == await content(broker, queue)
    assert len(load.submitted) == len(load.ids(Confirmed)) + len(load.ids(Returned))


async def test_a_frozen_broker_does_not_hold_up_the_stop(
    rabbitmq: RabbitMQServer, rabbitmq_url: str, make_broker: Callable[..., RabbitMQBroker]
) -> None:
    """pika's close waits for ever for a peer that says nothing; a deploy must not."""
    broker = make_broker()
    await broker.start(make_topology())
    outcomes = Outcomes()
    await asyncio.to_thread(rabbitmq.freeze)
    try:
        broker.submit(make_outgoing(), 1, outcomes)
        async with asyncio.timeout(12.0):
            await broker.stop()
    finally:
        await asyncio.to_thread(rabbitmq.thaw)

    assert ConnectionState.DISCONNECTED == broker.status().state
    assert [Unknown] == [type(outcome) for outcome in outcomes.by_token().values()]


async def test_of_two_nodes_one_may_freeze_and_all_flows_again_within_fifteen_seconds(
    rabbitmq_url: str, make_broker: Callable[..., RabbitMQBroker], caplog: pytest.LogCaptureFixture
) -> None:
    """A frozen node keeps its connections and answers nothing; heartbeats alone showed it after half a minute."""
    topology = make_topology()
    with RabbitMQServer() as other:
        for url in (other.url, rabbitmq_url):
            await make_broker(url).start(topology)
        broker = make_broker(other.url, rabbitmq_url)
        await broker.start(topology)
        arrived: set[str] = set()

        def take(delivery: Incoming) -> None:
            arrived.add(delivery.message.id)
            delivery.ack()

        await broker.subscribe(topology.queues[0].name, 100, take)
        load = Load(broker)
        running = asyncio.create_task(load.run())
        await eventually(lambda: len(load.ids(Confirmed)) > 100)

        await asyncio.to_thread(other.freeze)
        try:
            frozen_at = SystemClock().monotonic()
            before = len(load.ids(Confirmed))
            await eventually(lambda: len(arrived & set(load.ids(Confirmed)[before:])) > 600, 15.0)
            assert SystemClock().monotonic() - frozen_at <= 15.0
            await load.end()
            await running
        finally:
            await asyncio.to_thread(other.thaw)
        assert "nothing heard for 10 s" in caplog.text or "no confirm for 10 s" in caplog.text
        await broker.stop()


def _unbind(url: str, queue: str, exchange: str, key: str) -> None:
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        connection.channel().queue_unbind(queue, exchange, key)
