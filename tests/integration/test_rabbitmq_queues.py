"""Messages and queues that are not as they should be: one bad one must not harm its neighbours."""

from __future__ import annotations

import asyncio
import logging
import struct
from collections.abc import Callable
from typing import Any

import pika
import pytest
import uvloop

from spoolproof.brokers.rabbitmq import RabbitMQBroker
from spoolproof.errors import EncodeError
from spoolproof.message import Outgoing
from spoolproof.ports.broker import (
    Barred,
    Confirmed,
    ConnectionState,
    PublishOutcome,
    Refused,
    Topology,
    Unknown,
)
from spoolproof.testing.conformance import eventually
from spoolproof.testing.conformance._broker import CONNECT_SECONDS, Arrivals, Outcomes, consume, make_topology, publish
from spoolproof.testing.conformance._messages import make_outgoing
from spoolproof.testing.servers import RabbitMQServer
from spoolproof.testing.servers.ports import free_port, release_port

pytestmark = [pytest.mark.integration, pytest.mark.servers]

Make = Callable[..., RabbitMQBroker]


class MillisecondHeader:
    """Properties with one header of AMQP's timestamp type, in milliseconds, as some clients write it."""

    INDEX = 60

    def encode(self) -> list[bytes]:
        table = b"\x04sent" + b"T" + struct.pack(">Q", 1_700_000_000_000)
        return [struct.pack(">HI", 1 << 13, len(table)), table]


def as_operator(url: str, work: Callable[[Any], Any]) -> Any:
    """Do something on a channel of plain pika."""
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        return work(connection.channel())


async def test_a_header_nobody_can_decode_stops_no_consumer(rabbitmq_url: str, make_broker: Make) -> None:
    """L17: it would close the connection, be delivered again, and close it again, for ever."""
    topology = make_topology()
    queue = topology.queues[0].name
    broker = make_broker()
    await broker.start(topology)
    before, after = make_outgoing(), make_outgoing()
    await publish(broker, before)
    await asyncio.to_thread(
        as_operator, rabbitmq_url, lambda channel: channel.basic_publish("", queue, b"body", MillisecondHeader())
    )
    await publish(broker, after)
    since = broker.status().connections[1].since

    arrivals, _ = await consume(broker, queue)
    first, bad, last = await arrivals.reach(3)

    assert [before.message.id, "", after.message.id] == arrivals.ids
    assert [None, None, None] == [first.fault, bad.fault, last.fault]
    assert (b"body", {"sent": 1_700_000_000_000}) == (bad.message.body, bad.message.headers)
    assert bad.ack()
    assert since == broker.status().connections[1].since


async def outcomes_of(broker: RabbitMQBroker, sent: list[Outgoing]) -> tuple[dict[str, PublishOutcome], int]:
    """Send until each has an outcome that says something; return these by id, and how many rounds it took."""
    verdicts: dict[str, PublishOutcome] = {}
    rounds = 0
    while left := [one for one in sent if one.message.id not in verdicts]:
        rounds += 1
        outcomes = Outcomes()
        for count, one in enumerate(left, 1):
            assert await broker.wait_for_room(CONNECT_SECONDS)
            broker.submit(one, one.message.id, outcomes)
            if broker.room() == 0:
                await eventually(lambda c=count, o=outcomes: len(o.pairs) >= c, CONNECT_SECONDS)
        await eventually(lambda o=outcomes, all=left: len(o.pairs) >= len(all), CONNECT_SECONDS)
        verdicts |= {str(id): one for id, one in outcomes.by_token().items() if not isinstance(one, Unknown)}
    return verdicts, rounds


async def test_of_a_hundred_messages_only_the_one_without_an_exchange_waits(make_broker: Make) -> None:
    """L25: the broker closes the channel over one message, and with it the confirms of all the others."""
    broker = make_broker()
    await broker.start(make_topology())
    await publish(broker, make_outgoing())  # opens the window
    lost = make_outgoing(destination="exchange:nobody.made.this")
    sent = [*(make_outgoing() for _ in range(60)), lost, *(make_outgoing() for _ in range(39))]

    verdicts, rounds = await outcomes_of(broker, sent)

    assert isinstance(verdicts.pop(lost.message.id), Barred)
    assert ({Confirmed()}, 2) == (set(verdicts.values()), rounds)
    assert "nobody.made.this" in broker.status().issues[0]


async def test_of_a_hundred_messages_only_the_one_the_broker_cannot_take_is_refused(
    rabbitmq: RabbitMQServer, make_broker: Make
) -> None:
    """A message over the broker's own limit closes the channel each time; its neighbours must go on without it."""
    broker = make_broker()
    await asyncio.to_thread(rabbitmq.rabbitmqctl, "eval", "application:set_env(rabbit, max_message_size, 1000).")
    try:
        await broker.start(make_topology())
        await publish(broker, make_outgoing())  # opens the window
        large = make_outgoing(body=b"x" * 2000)
        sent = [*(make_outgoing() for _ in range(60)), large, *(make_outgoing() for _ in range(39))]

        verdicts, _ = await outcomes_of(broker, sent)
    finally:
        await asyncio.to_thread(rabbitmq.rabbitmqctl, "eval", "application:unset_env(rabbit, max_message_size).")

    refused = verdicts.pop(large.message.id)
    assert isinstance(refused, Refused)
    assert (406, True) == (refused.code, "larger than configured max size 1000" in refused.detail)
    assert {Confirmed()} == set(verdicts.values())


async def test_a_deleted_queue_is_reported_made_again_and_consumed_again(
    rabbitmq_url: str, make_broker: Make, caplog: pytest.LogCaptureFixture
) -> None:
    """L18: the broker cancels the consumer; a process that looks healthy and consumes nothing is the worst case."""
    topology = make_topology()
    queue = topology.queues[0].name
    broker = make_broker()
    await broker.start(topology)
    arrivals, subscription = await consume(broker, queue)

    await asyncio.to_thread(as_operator, rabbitmq_url, lambda channel: channel.queue_delete(queue))
    await eventually(lambda: any("vanished" in issue for issue in broker.status().issues), CONNECT_SECONDS)
    await eventually(lambda: subscription.is_active, CONNECT_SECONDS)
    outgoing = make_outgoing()

    assert [Confirmed()] == await publish(broker, outgoing)
    await arrivals.reach(1)
    assert [outgoing.message.id] == arrivals.ids
    assert f"topology.queue_missing queue={queue}" in caplog.text
    assert f"consumer.lost queue={queue}" in caplog.text
    assert f"consumer.found queue={queue}" in caplog.text


Delete = Callable[[Any, Topology], object]


@pytest.mark.parametrize(
    ("delete", "destination", "lost"),
    [
        (lambda channel, topology: channel.queue_delete(f"{topology.service}.delay.1s"), "delay:1", "queue"),
        (lambda channel, topology: channel.exchange_delete(f"{topology.service}.delay.1s"), "delay:1", "exchange"),
        (lambda channel, topology: channel.exchange_delete(topology.exchange), "events", "exchange"),
        (lambda channel, topology: unbind(channel, topology), "events", None),
    ],
    ids=["delay queue", "delay exchange", "event exchange", "binding"],
)
async def test_what_we_declared_and_miss_is_declared_again_and_what_needs_it_waits(
    rabbitmq_url: str,
    make_broker: Make,
    caplog: pytest.LogCaptureFixture,
    delete: Delete,
    destination: str,
    lost: str | None,
) -> None:
    """Deleted by mistake, it was never made again: retries blocked their lanes and accepted events became dead letters,
    counted as if nobody had ever subscribed to them."""
    topology = make_topology()
    queue = topology.queues[0].name
    broker = make_broker()
    await broker.start(topology)
    arrivals, _ = await consume(broker, queue)
    await eventually(lambda: broker.status().issues == ())
    await asyncio.to_thread(as_operator, rabbitmq_url, lambda channel: delete(channel, topology))

    outgoing = make_outgoing(destination=destination, routing_key=queue if destination == "delay:1" else None)
    outcomes: list[PublishOutcome] = []

    async def is_taken() -> bool:
        outcomes.extend(await publish(broker, outgoing))
        return outcomes[-1] == Confirmed()

    await eventually(is_taken, CONNECT_SECONDS)
    await arrivals.reach(1)
    assert [outgoing.message.id] == arrivals.ids
    assert {Barred, Confirmed} == {type(one) for one in outcomes}
    assert (lost is None) or any(f"{lost} " in issue and "vanished" in issue for issue in broker.status().issues)
    assert (lost is None) or f"topology.{lost}_missing" in caplog.text
    assert "broker.barred" in caplog.text
    assert "broker.admitted" in caplog.text


def unbind(channel: Any, topology: Topology) -> None:
    channel.queue_unbind(topology.queues[0].name, topology.exchange, "test.happened")


async def test_a_permission_that_is_missing_for_a_while_stops_only_what_needs_it(
    rabbitmq: RabbitMQServer, rabbitmq_url: str, make_broker: Make
) -> None:
    """Taken away by mistake and given back, it made a dead letter of each event that was accepted in between."""
    vhost = rabbitmq_url.rpartition("/")[2]
    topology = make_topology()

    def let_write(pattern: str) -> None:
        rabbitmq.rabbitmqctl("set_permissions", "-p", vhost, "guest", ".*", pattern, ".*")
        rabbitmq.rabbitmqctl("close_all_connections", "--vhost", vhost, "permissions changed")  # it keeps them in mind

    broker = make_broker()
    await broker.start(topology)
    events, direct = make_outgoing(), make_outgoing(destination=f"queue:{topology.queues[0].name}")
    assert [Confirmed(), Confirmed()] == await publish(broker, events, direct)

    await asyncio.to_thread(let_write, "amq.default")
    refused, taken = (await outcomes_of(broker, [events, direct]))[0].values()
    assert {Barred, Confirmed} == {type(refused), type(taken)}
    assert any("ACCESS_REFUSED" in issue for issue in broker.status().issues)
    await asyncio.to_thread(let_write, ".*")
    verdicts, _ = await outcomes_of(broker, [events])

    assert {Confirmed()} == set(verdicts.values())
    await eventually(lambda: not any("ACCESS_REFUSED" in issue for issue in broker.status().issues), CONNECT_SECONDS)


async def test_a_broker_with_small_frames_gets_what_fits_them(rabbitmq: RabbitMQServer, make_broker: Make) -> None:
    """The size is agreed on with the broker; 8192 is the least that RabbitMQ 4.1 takes from a client."""
    await asyncio.to_thread(rabbitmq.rabbitmqctl, "eval", "application:set_env(rabbit, frame_max, 8192).")
    try:
        broker = make_broker()
        await broker.start(make_topology())
        large = make_outgoing(body=b"x" * 100_000, headers={"text": "x" * 7000})

        assert [Confirmed()] == await publish(broker, large)
        with pytest.raises(EncodeError, match="frame_max is 8192"):
            broker.submit(make_outgoing(headers={"text": "x" * 8192}), 1, Outcomes())
        assert [Confirmed()] == await publish(broker, make_outgoing())
    finally:
        await asyncio.to_thread(rabbitmq.rabbitmqctl, "eval", "application:set_env(rabbit, frame_max, 131072).")


async def test_the_consumer_timeout_of_the_broker_is_learnt_when_it_strikes(
    rabbitmq: RabbitMQServer, make_broker: Make
) -> None:
    """Nothing in the protocol tells it, and what holds deliveries for longer wears them out up to a dead letter."""

    def set_timeout(milliseconds: int, tick: int) -> None:
        values = {"consumer_timeout": milliseconds, "channel_tick_interval": tick}
        settings = ", ".join(f"application:set_env(rabbit, {name}, {value})" for name, value in values.items())
        rabbitmq.rabbitmqctl("eval", f"{settings}.")

    await asyncio.to_thread(set_timeout, 500, 200)
    try:
        topology = make_topology()
        broker = make_broker()
        await broker.start(topology)
        assert broker.status().consumer_timeout_seconds is None
        arrivals, _ = await consume(broker, topology.queues[0].name)
        await publish(broker, make_outgoing())

        await eventually(lambda: broker.status().consumer_timeout_seconds == 0.5, CONNECT_SECONDS)

        assert "unsettled for 0.5 s, its consumer timeout" in broker.status().issues[-1]
        assert (await arrivals.reach(2, CONNECT_SECONDS))[1].ack()
    finally:
        await asyncio.to_thread(set_timeout, 1_800_000, 60_000)


async def test_a_queue_that_vanished_while_we_were_away_is_reported_before_it_is_made_again(
    rabbitmq: RabbitMQServer, rabbitmq_url: str, make_broker: Make
) -> None:
    """Declaring it silently would hide that everything in it is gone."""
    topology = make_topology()
    dead = f"{topology.queues[0].name}.dead"
    broker = make_broker()
    await broker.start(topology)

    await asyncio.to_thread(as_operator, rabbitmq_url, lambda channel: channel.queue_delete(dead))
    assert () == broker.status().issues
    await asyncio.to_thread(rabbitmq.rabbitmqctl, "close_all_connections", "--global", "by the test")
    await eventually(lambda: len(broker.status().issues) == 1, CONNECT_SECONDS)

    assert dead in broker.status().issues[0]
    await eventually(lambda: broker.status().state is ConnectionState.CONNECTED, CONNECT_SECONDS)
    passive = await asyncio.to_thread(
        as_operator, rabbitmq_url, lambda channel: channel.queue_declare(dead, passive=True).method.message_count
    )
    assert 0 == passive


async def test_a_queue_with_other_arguments_is_used_as_it_is_and_listed(rabbitmq_url: str, make_broker: Make) -> None:
    """Somebody else's queue: without a dead-letter exchange a reject would drop the message, so it goes back."""
    topology = make_topology()
    queue = topology.queues[0].name
    await asyncio.to_thread(as_operator, rabbitmq_url, lambda channel: channel.queue_declare(queue, durable=True))
    broker = make_broker()
    await broker.start(topology)
    outgoing = make_outgoing()
    await publish(broker, outgoing)
    arrivals, _ = await consume(broker, queue)

    (first,) = await arrivals.reach(1)
    assert first.reject()
    _, second = await arrivals.reach(2)

    assert [0, 1] == [first.delivery_count, second.delivery_count]
    (issue,) = broker.status().issues
    assert queue in issue
    assert "used as it is" in issue


async def test_a_subscription_to_a_queue_nobody_made_begins_when_it_is_there(
    rabbitmq_url: str, make_broker: Make
) -> None:
    """A queue of others is not ours to declare; until it exists an issue says so, and nothing else is harmed."""
    broker = make_broker()
    await broker.start(make_topology())
    arrivals = Arrivals()
    subscription = await broker.subscribe("somebody.elses", 10, arrivals)
    (issue,) = broker.status().issues
    assert "somebody.elses is not consumed" in issue

    def make_it(channel: Any) -> None:
        channel.queue_declare("somebody.elses", durable=True)
        channel.basic_publish("", "somebody.elses", b"{}")

    await asyncio.to_thread(as_operator, rabbitmq_url, make_it)
    await arrivals.reach(1)

    assert subscription.is_active
    assert (ConnectionState.CONNECTED, ()) == (broker.status().state, broker.status().issues)


async def test_the_second_of_two_urls_is_used_when_the_first_is_dead(rabbitmq_url: str, make_broker: Make) -> None:
    """A7: one node of two is gone; nobody waits."""
    port = free_port()
    try:
        broker = make_broker(f"amqp://127.0.0.1:{port}", rabbitmq_url)
        await broker.start(make_topology())

        assert {Confirmed()} == set(await publish(broker, make_outgoing()))
    finally:
        release_port(port)


@pytest.mark.parametrize(
    ("change", "outcome"),
    [(("guest:guest", "guest:hush-hush"), "authentication_refused"), (("/test-", "/no-such-"), "vhost_refused")],
)
async def test_wrong_credentials_are_an_error_of_their_own(
    rabbitmq_url: str, make_broker: Make, caplog: pytest.LogCaptureFixture, change: tuple[str, str], outcome: str
) -> None:
    """Trying again will not help until somebody acts; it goes on all the same, because credentials rotate."""
    broker = make_broker(rabbitmq_url.replace(*change), is_required=False)

    await broker.start(make_topology())
    await eventually(lambda: f"outcome={outcome}" in caplog.text, CONNECT_SECONDS)

    assert {logging.ERROR} == {record.levelno for record in caplog.records if record.name == "spoolproof.broker"}
    assert "hush" not in caplog.text
    assert all(one.retry_at for one in broker.status().connections if one.state is ConnectionState.DISCONNECTED)


def test_it_runs_on_uvloop(rabbitmq_url: str) -> None:
    """The fastest loop is the one many services run on."""

    async def main(topology: Topology) -> tuple[list[PublishOutcome], int]:
        from spoolproof.backoff import system_random
        from spoolproof.clock import SystemClock

        broker = RabbitMQBroker(
            [rabbitmq_url],
            clock=SystemClock(),
            random=system_random(),
            spawn=lambda work, name: asyncio.get_running_loop().create_task(work, name=name),
            retry_first_seconds=1.0,
            is_required=True,
            rounds_max=3,
        )
        await broker.start(topology)
        outcomes = await publish(broker, *(make_outgoing() for _ in range(300)))
        arrivals, _ = await consume(broker, topology.queues[0].name, prefetch=400)
        settled = sum(delivery.ack() for delivery in await arrivals.reach(300))
        await broker.stop()
        return outcomes, settled

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        outcomes, settled = runner.run(main(make_topology()))

    assert ({Confirmed()}, 300) == (set(outcomes), settled)
