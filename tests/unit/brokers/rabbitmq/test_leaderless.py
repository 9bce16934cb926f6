"""A queue without a leader costs what goes to it and comes from it, and nothing else: against a scripted broker."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from pika import spec
from tests.unit.brokers.rabbitmq.conftest import TOPOLOGY

from spoolproof import limits
from spoolproof.brokers.rabbitmq import RabbitMQBroker
from spoolproof.clock import SystemClock
from spoolproof.ports.broker import Barred, Confirmed, ConnectionState, QueueSpec, Unknown
from spoolproof.testing.clock import ManualClock
from spoolproof.testing.conformance import eventually
from spoolproof.testing.conformance._broker import Outcomes
from spoolproof.testing.conformance._messages import make_outgoing

TWO = replace(
    TOPOLOGY,
    queues=tuple(QueueSpec(name=f"scripted.{name}", types=(f"test.{name}",), delivery_limit=20) for name in "ab"),
)


async def confirm(server: Any, broker: RabbitMQBroker, type: str) -> None:
    """Publish a message of a type and confirm it alone."""
    outcomes = Outcomes()
    broker.submit(make_outgoing(type), 1, outcomes)
    tag = len(server.published) + 1
    await eventually(lambda: len(server.published) == tag)
    server.ack(tag)
    await eventually(lambda: outcomes.pairs == [(1, Confirmed())])


async def test_publishes_to_a_queue_that_confirms_nothing_keep_no_others_waiting(
    server: Any, broker: RabbitMQBroker, clock: ManualClock
) -> None:
    """They would fill the window, and then nothing of this process would be published any more."""
    await confirm(server, broker, "test.b")
    stuck = Outcomes()
    for number in range(40):
        broker.submit(make_outgoing("test.a"), number, stuck)
    await eventually(lambda: len(server.published) == 41)

    for _ in range(6):
        await confirm(server, broker, "test.b")
        await server.live_on(clock, 1)
    assert {Barred} == {type(outcome) for outcome in stuck.by_token().values()}
    assert 40 == len(stuck.pairs)
    assert limits.PUBLISH_WINDOW == broker.room()
    assert any("has no leader" in issue for issue in broker.status().issues)

    trial, others, before = Outcomes(), Outcomes(), len(server.published)
    broker.submit(make_outgoing("test.a"), 1, trial)
    broker.submit(make_outgoing("test.a"), 1, others)
    await eventually(lambda: [Barred] == [type(outcome) for _, outcome in others.pairs])
    await eventually(lambda: len(server.published) == before + 1)
    server.ack(before + 1)
    await eventually(lambda: trial.pairs == [(1, Confirmed())])
    await confirm(server, broker, "test.a")
    assert () == broker.status().issues


async def test_a_kind_of_which_others_are_confirmed_is_not_silent(
    server: Any, broker: RabbitMQBroker, clock: ManualClock
) -> None:
    """One lost confirm says nothing of the queue."""
    await confirm(server, broker, "test.b")
    late = Outcomes()
    broker.submit(make_outgoing("test.a"), 1, late)
    await eventually(lambda: len(server.published) == 2)
    for _ in range(12):
        await confirm(server, broker, "test.a")
        await confirm(server, broker, "test.b")
        await server.live_on(clock, 1)

    assert [Unknown] == [type(outcome) for _, outcome in late.pairs]


async def test_the_first_publish_of_a_channel_is_waited_for_alone_only_for_a_moment(
    server: Any, broker: RabbitMQBroker, clock: ManualClock
) -> None:
    """If it goes to a queue without a leader, every connection would carry that one and be given up, for ever."""
    broker.submit(make_outgoing("test.a"), 1, Outcomes())
    assert 0 == broker.room()

    await server.live_on(clock, limits.FRESH_CHANNEL_SECONDS + 1.5)

    await confirm(server, broker, "test.b")
    assert limits.PUBLISH_WINDOW - 1 == broker.room()


@pytest.mark.parametrize("way", ["leaderless", "kept_waiting"])
async def test_a_queue_that_cannot_be_consumed_leaves_the_others_alone(
    server: Any, make_broker: Any, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RabbitMQ closes the connection over it, and did so after every reconnect."""
    monkeypatch.setattr(limits, "TRIAL_SECONDS", 0.3)
    getattr(server, way).add("scripted.a")
    broker = make_broker(server.url, clock=SystemClock())
    await broker.start(TWO)
    waiting = await broker.subscribe("scripted.a", 1, lambda _: None)
    flowing = await broker.subscribe("scripted.b", 1, lambda _: None)

    await eventually(lambda: flowing.is_active and broker.status().state is ConnectionState.CONNECTED, 10.0)
    await eventually(lambda: sum(one.queue == "scripted.a" for one in server.asked if is_consume(one)) >= 3, 10.0)
    consumes_of_b = sum(one.queue == "scripted.b" for one in server.asked if is_consume(one))
    assert consumes_of_b <= 3, "it was torn along more than once"
    assert flowing.is_active
    assert not waiting.is_active
    assert any("scripted.a is not consumed" in issue for issue in broker.status().issues)

    getattr(server, way).clear()
    await eventually(lambda: waiting.is_active, 10.0)
    assert () == broker.status().issues


async def test_a_declaration_without_an_answer_keeps_nobody_else_waiting(
    server: Any, make_broker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new quorum queue whose nodes are gone is declared for ever."""
    monkeypatch.setattr(limits, "DECLARE_PATIENCE_SECONDS", 0.3)
    server.undeclarable.add("scripted.a")
    broker = make_broker(server.url, clock=SystemClock())
    await broker.start(TWO)
    flowing = await broker.subscribe("scripted.b", 1, lambda _: None)

    await eventually(lambda: flowing.is_active and broker.room() > 0)
    assert any("scripted.a: the broker does not answer" in issue for issue in broker.status().issues)
    assert "scripted.b" in [one.queue for one in server.asked if is_bind(one)]


def is_consume(method: Any) -> bool:
    return isinstance(method, spec.Basic.Consume)


def is_bind(method: Any) -> bool:
    return isinstance(method, spec.Queue.Bind)
