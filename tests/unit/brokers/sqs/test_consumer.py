"""Subscriptions of SQS where it answers as no server does on demand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import pytest

from spoolproof.brokers.given_up import Place
from spoolproof.brokers.sqs.client import SqsError, Trouble
from spoolproof.brokers.sqs.consumer import Consumers
from spoolproof.brokers.sqs.wire import encode
from spoolproof.clock import SystemClock
from spoolproof.testing.conformance import eventually
from spoolproof.testing.conformance._broker import Arrivals
from spoolproof.testing.conformance._messages import make_message


class Answering:
    """Clients, declarer and publisher of one queue. `receives`: what each receive in turn ends in, then nothing."""

    def __init__(self, *receives: dict[str, Any] | Exception) -> None:
        self._receives = list(receives)
        self.extends_fail = False
        self.asked: list[str] = []

    async def url(self, queue: str) -> str:
        return queue

    async def sqs(self, operation: str, **arguments: Any) -> dict[str, Any]:
        self.asked.append(operation)
        if operation == "receive_message":
            await asyncio.sleep(0.01 if self._receives else 0.1)
            answer = self._receives.pop(0) if self._receives else {}
            if isinstance(answer, Exception):
                raise answer
            return answer
        failed = [{"Id": one["Id"], "Code": "ReceiptHandleIsInvalid"} for one in arguments["Entries"]]
        return {"Failed": failed if self.extends_fail else []}


def message(number: int) -> dict[str, Any]:
    wire = encode(make_message())
    return {"ReceiptHandle": str(number), "Body": wire.body, "MessageAttributes": wire.attributes}


@pytest.fixture
async def tasks() -> AsyncIterator[list[asyncio.Task[None]]]:
    made: list[asyncio.Task[None]] = []
    yield made
    for task in made:
        task.cancel()
    await asyncio.gather(*made, return_exceptions=True)


def make(answering: Answering, tasks: list[asyncio.Task[None]], troubles: list[SqsError]) -> Consumers:
    def spawn(work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        tasks.append(asyncio.get_running_loop().create_task(work, name=name))
        return tasks[-1]

    async def ready() -> None:
        return

    world: Any = answering
    clock: Any = SystemClock()
    return Consumers(
        *(world, world, world),
        wait_seconds=1,
        visibility_seconds=1,
        clock=clock,
        spawn=spawn,
        ready=ready,
        on_trouble=troubles.append,
    )


async def test_what_nobody_foresaw_ends_no_subscription(tasks: list[asyncio.Task[None]]) -> None:
    """A queue that is not read any more, in a process that looks healthy."""
    troubles: list[SqsError] = []
    answering = Answering(KeyError("oops"), {"Messages": [{"Body": "no handle"}]}, {"Messages": [message(1)]})
    arrivals = Arrivals()

    subscription = make(answering, tasks, troubles).subscribe(Place("q", "q"), 10, arrivals)

    await arrivals.reach(1)
    assert subscription.is_active
    assert [Trouble.AWAY] * 2 == [one.trouble for one in troubles]


async def test_a_message_that_cannot_be_kept_from_others_is_stale(tasks: list[asyncio.Task[None]]) -> None:
    """Somebody else may have it: what is said of it here counts no more, and makes room."""
    answering = Answering({"Messages": [message(1)]})
    answering.extends_fail = True
    arrivals = Arrivals()
    consumers = make(answering, tasks, [])
    subscription = consumers.subscribe(Place("q", "q"), 1, arrivals)
    tasks.append(asyncio.get_running_loop().create_task(consumers.keep_held()))

    (delivery,) = await arrivals.reach(1)

    await eventually(lambda: delivery.is_stale and not subscription.held)
    assert (False, False, False) == (delivery.ack(), delivery.nack(), delivery.reject())
    assert "delete_message_batch" not in answering.asked
