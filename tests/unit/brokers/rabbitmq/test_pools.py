"""Several connections of a purpose, against scripted nodes: one that is lost costs nobody more than itself."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from pika import spec
from tests.unit.brokers.rabbitmq.conftest import TOPOLOGY, ScriptedServer

from spoolproof import limits
from spoolproof.brokers.rabbitmq import RabbitMQBroker
from spoolproof.clock import SystemClock
from spoolproof.errors import BrokerBlocked
from spoolproof.ports.broker import Confirmed, ConnectionState, Unknown
from spoolproof.testing.conformance import eventually
from spoolproof.testing.conformance._broker import Outcomes
from spoolproof.testing.conformance._messages import make_outgoing


@pytest.fixture
async def other() -> AsyncIterator[ScriptedServer]:
    scripted = ScriptedServer()
    await scripted.start()
    yield scripted
    await scripted.stop()


@pytest.fixture
async def pool(server: ScriptedServer, other: ScriptedServer, make_broker: Any) -> RabbitMQBroker:
    """Two connections of each purpose over two nodes, all there."""
    broker: RabbitMQBroker = make_broker(server.url, other.url, clock=SystemClock())
    await broker.start(TOPOLOGY)
    await eventually(lambda: all(one.state is ConnectionState.CONNECTED for one in broker.status().connections))
    await eventually(lambda: broker.room() == 2)
    return broker


async def open_windows(broker: RabbitMQBroker, *nodes: ScriptedServer) -> None:
    outcomes = Outcomes()
    for number in range(len(nodes)):
        broker.submit(make_outgoing(), number, outcomes)
    await eventually(lambda: all(len(node.sent) == 1 for node in nodes))
    for node in nodes:
        node.ack(1)
    await eventually(lambda: len(outcomes.pairs) == len(nodes))


async def test_each_purpose_is_spread_over_the_nodes_and_named(
    server: ScriptedServer, other: ScriptedServer, pool: RabbitMQBroker
) -> None:
    """Two publish connections at one node would be lost together."""
    by_purpose: dict[str, set[str]] = {}
    for one in pool.status().connections:
        by_purpose.setdefault(one.purpose, set()).add(one.url)
    both = {node.url.replace("guest:guest", "guest:***") for node in (server, other)}

    assert {"publish": both, "consume": both} == by_purpose
    assert ["publish-0", "publish-1", "consume-0", "consume-1"] == [one.name for one in pool.status().connections]


async def test_what_a_lost_connection_carried_is_unknown_and_goes_out_through_the_other(
    server: ScriptedServer, other: ScriptedServer, pool: RabbitMQBroker
) -> None:
    """The relay sends an unknown row again at once; it must not wait for a dead node."""
    await open_windows(pool, server, other)
    sent, outcomes = [make_outgoing() for _ in range(20)], Outcomes()
    for number, one in enumerate(sent):
        pool.submit(one, number, outcomes)
    await eventually(lambda: len(server.sent) + len(other.sent) == 22)
    assert 11 == len(server.sent) == len(other.sent)

    await server.stop()
    await eventually(lambda: len(outcomes.pairs) == 10)
    assert {Unknown} == {type(outcome) for _, outcome in outcomes.pairs}
    assert ConnectionState.CONNECTED == pool.status().state
    again = Outcomes()
    for number, _ in outcomes.pairs:
        pool.submit(sent[int(str(number))], number, again)
    await eventually(lambda: len(other.sent) == 21)
    other.ack(21, multiple=True)

    await eventually(lambda: len(again.pairs) == 10)
    assert {Confirmed()} == {outcome for _, outcome in again.pairs}
    assert {one.message.id for one in sent} <= set(other.published)
    await server.start()


async def test_an_id_that_is_open_on_one_connection_is_not_sent_on_another(
    server: ScriptedServer, other: ScriptedServer, pool: RabbitMQBroker
) -> None:
    """Two copies on their way at once could arrive around their successor."""
    await open_windows(pool, server, other)
    one, outcomes = make_outgoing(), Outcomes()
    pool.submit(one, "first", outcomes)
    pool.submit(one, "second", outcomes)
    await eventually(lambda: one.message.id in server.published + other.published)
    node = server if one.message.id in server.published else other
    node.ack(2)

    await eventually(lambda: node.published[1:] == [one.message.id] * 2)
    node.ack(3)
    await eventually(lambda: [("first", Confirmed()), ("second", Confirmed())] == outcomes.pairs)


async def test_an_alarm_blocks_when_it_blocks_every_publish_connection(
    server: ScriptedServer, other: ScriptedServer, pool: RabbitMQBroker
) -> None:
    """One node's notice comes before the other's: until then there is a way."""
    await open_windows(pool, server, other)
    server.block(True)
    await eventually(lambda: pool.room() == limits.PUBLISH_WINDOW)
    assert not pool.status().is_blocked
    other.block(True)
    await eventually(lambda: pool.status().is_blocked)
    with pytest.raises(BrokerBlocked):
        pool.submit(make_outgoing(), 1, Outcomes())
    server.block(False)
    await eventually(lambda: pool.room() == limits.PUBLISH_WINDOW)


async def test_subscriptions_of_a_lost_connection_reopen_on_the_other_within_a_second_and_stay(
    server: ScriptedServer, other: ScriptedServer, pool: RabbitMQBroker
) -> None:
    """A dead node must not keep its half of the queues until it is back."""
    subscriptions = [await pool.subscribe("scripted.q", 1, lambda _: None) for _ in range(4)]
    assert all(one.is_active for one in subscriptions)
    began_at = SystemClock().monotonic()

    await server.stop()
    consumes = (spec.Basic.Consume,)
    await eventually(lambda: 4 == sum(isinstance(one, consumes) for one in other.asked), 1.0)
    await eventually(lambda: all(one.is_active for one in subscriptions), 1.0)

    assert SystemClock().monotonic() - began_at < 1.0
    assert ConnectionState.CONNECTED == pool.status().state
    await server.start()


async def test_while_a_message_is_suspected_all_goes_through_one_connection(
    server: ScriptedServer, other: ScriptedServer, pool: RabbitMQBroker
) -> None:
    """Only where it is alone on its way can the message be found that ends channels."""
    await open_windows(pool, server, other)
    bad, outcomes = make_outgoing(), Outcomes()
    for count in (1, 2):
        await eventually(lambda: pool.room() > 0)
        before = len(server.sent) + len(other.sent)
        pool.submit(bad, 1, outcomes)
        await eventually(lambda b=before: len(server.sent) + len(other.sent) == b + 1)
        node = server if bad.message.id == (server.published or [""])[-1] else other
        node.close_channel(406, "PRECONDITION_FAILED - too large")
        await eventually(lambda c=count: len(outcomes.pairs) == c)

    assert ["Unknown", "Refused"] == [type(outcome).__name__ for _, outcome in outcomes.pairs]
