"""Publishes on their way into SQS: what is asked of it, and what is told of them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine
from typing import Any

import pytest

from spoolproof import limits
from spoolproof.brokers.sqs.client import SqsError, Trouble
from spoolproof.brokers.sqs.names import Names
from spoolproof.brokers.sqs.sender import Sender
from spoolproof.brokers.sqs.topology import Declarer
from spoolproof.clock import SystemClock
from spoolproof.errors import BrokerUnavailable
from spoolproof.message import Outgoing
from spoolproof.ports.broker import NACKED, Barred, Confirmed, PublishOutcome, QueueSpec, Topology, Unknown
from spoolproof.testing.conformance import eventually
from spoolproof.testing.conformance._broker import Outcomes
from spoolproof.testing.conformance._messages import make_outgoing

TOPOLOGY = Topology(
    service="shop",
    exchange="events",
    queues=(
        QueueSpec(name="orders", types=("order",), delivery_limit=5),
        QueueSpec(name="steps.fifo", types=(), delivery_limit=5),
    ),
    tiers_seconds=limits.TIERS_SECONDS,
)


class Answering:
    """The clients of an SQS in which every queue exists. `fault`: what sends end in."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, list[dict[str, Any]]]] = []
        self.fault: Exception | None = None

    async def sqs(self, operation: str, **arguments: Any) -> dict[str, Any]:
        if operation == "get_queue_url":
            return {"QueueUrl": arguments["QueueName"]}
        if self.fault is not None:
            raise self.fault
        entries = arguments["Entries"]
        self.sent.append((arguments["QueueUrl"], entries))
        return {"Successful": [{"Id": one["Id"]} for one in entries]}


def spawn(work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
    return asyncio.get_running_loop().create_task(work, name=name)


class World:
    """A sender, and what it met."""

    def __init__(self) -> None:
        clock: Any = SystemClock()
        self.clients = Answering()
        clients: Any = self.clients
        self.troubles: list[SqsError] = []
        declarer = Declarer(TOPOLOGY, Names(""), clients, clock)
        self.sender = Sender(TOPOLOGY, declarer, clients, clock=clock, spawn=spawn, on_trouble=self.troubles.append)
        self.sender.open(True)

    async def publish(self, *sent: Outgoing) -> list[PublishOutcome]:
        outcomes = Outcomes()
        for number, one in enumerate(sent):
            self.sender.submit(one, number, outcomes)
        await eventually(lambda: len(outcomes.pairs) == len(sent))
        answers = outcomes.by_token()
        return [answers[number] for number in range(len(sent))]


def head_of(entry: dict[str, Any]) -> dict[str, Any]:
    return dict(json.loads(entry["MessageAttributes"]["spoolproof"]["StringValue"]))


@pytest.mark.parametrize("seconds", limits.TIERS_SECONDS)
async def test_every_tier_waits_as_long_as_sqs_lets_it_and_says_when_it_is_due(seconds: int) -> None:
    """SQS refuses more than 15 minutes; the tiers go up to six hours."""
    world = World()
    before = SystemClock().now().timestamp()

    assert [Confirmed()] == await world.publish(make_outgoing(destination=f"delay:{seconds}", routing_key="orders"))

    ((queue, (entry,)),) = world.clients.sent
    assert ("orders", min(seconds, 900)) == (queue, entry["DelaySeconds"])
    assert (seconds > 900) == ("due" in head_of(entry))
    if seconds > 900:
        assert 0 <= head_of(entry)["due"] - before - seconds < 5


async def test_a_delay_for_a_fifo_queue_waits_in_a_queue_of_the_service() -> None:
    """A FIFO queue has no delay of a single message; that queue knows where it goes from there."""
    world = World()

    await world.publish(make_outgoing(destination="delay:60", routing_key="steps.fifo"))

    ((queue, (entry,)),) = world.clients.sent
    assert ("shop-delay", 60) == (queue, entry["DelaySeconds"])
    assert "steps.fifo" == head_of(entry)["to"]
    assert "MessageGroupId" not in entry


async def test_a_batch_has_ten_messages_and_what_sns_takes_at_most() -> None:
    """One byte more, and all ten are refused."""
    world = World()
    small = [make_outgoing(destination="queue:orders") for _ in range(25)]
    large = [make_outgoing(destination="queue:steps.fifo", body=b"1" * 90_000) for _ in range(5)]

    assert {Confirmed()} == set(await world.publish(*small, *large))

    sizes = sorted((queue, len(entries)) for queue, entries in world.clients.sent)
    assert [("orders", 5), ("orders", 10), ("orders", 10)] == sizes[:3]
    assert [("steps.fifo", 1), ("steps.fifo", 2), ("steps.fifo", 2)] == sizes[3:]


@pytest.mark.parametrize(
    ("trouble", "expected"),
    [
        (Trouble.AWAY, Unknown),
        (Trouble.THROTTLED, type(NACKED)),
        (Trouble.CREDENTIALS, Barred),
        (Trouble.DENIED, Barred),
        (Trouble.MISSING, Barred),
    ],
)
async def test_an_outage_costs_no_message_anything_and_is_told(trouble: Trouble, expected: type) -> None:
    """Rows stay where they are, uncounted; a throttled destination rests."""
    world = World()
    world.clients.fault = SqsError(trouble, "…")

    outcomes = await world.publish(*(make_outgoing(destination="queue:orders") for _ in range(3)))

    assert {expected} == {type(one) for one in outcomes}
    assert {trouble} == {one.trouble for one in world.troubles}


async def test_what_nobody_foresaw_leaves_no_publish_without_an_answer() -> None:
    """A bug of ours, or of botocore: the relay would wait for ever."""
    world = World()
    world.clients.fault = KeyError("oops")

    assert [Unknown("KeyError: 'oops'")] == await world.publish(make_outgoing(destination="queue:orders"))


async def test_a_publisher_that_is_not_open_takes_nothing_and_room_counts_bytes_too() -> None:
    """256 messages of 256 KiB would be 64 MiB on their way."""
    world = World()
    outcomes = Outcomes()
    taken = 0
    while world.sender.room():
        world.sender.submit(make_outgoing(destination="queue:orders", body=b"1" * 200_000), taken, outcomes)
        taken += 1
    await eventually(lambda: len(outcomes.pairs) == taken)
    world.sender.open(False)

    assert taken < limits.PUBLISH_WINDOW
    with pytest.raises(BrokerUnavailable):
        world.sender.submit(make_outgoing(), "late", outcomes)
