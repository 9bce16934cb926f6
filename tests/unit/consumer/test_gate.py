"""The gate opens by itself, whatever its questions to the store met on the way."""

from __future__ import annotations

import asyncio
from typing import cast

from spoolproof.backoff import system_random
from spoolproof.clock import SystemClock
from spoolproof.consumer.gate import Gate
from spoolproof.errors import StoreBusy, StoreUnavailable
from spoolproof.lifecycle.supervisor import Supervisor
from spoolproof.ports.store import Store


class Answering:
    """A store as the gate sees it: each ping ends as the next of `answers` says, then well."""

    def __init__(self, *answers: Exception) -> None:
        self.answers = list(answers)

    async def ping(self) -> None:
        if self.answers:
            raise self.answers.pop(0)


async def test_who_waits_before_a_shut_gate_may_have_enough() -> None:
    """L9: RabbitMQ takes a delivery away from a consumer that keeps it for half an hour, and counts that."""
    clock = SystemClock()
    supervisor = Supervisor(clock, system_random())
    gate = Gate(cast(Store, Answering(*[StoreUnavailable("away")] * 100)), clock=clock, spawn=supervisor.spawn)

    assert await gate.wait(until=clock.monotonic() - 1)  # an open gate keeps nobody
    gate.shut(StoreUnavailable("away"))

    assert not await gate.wait(until=clock.monotonic() + 0.01)
    await supervisor.stop()


async def test_a_store_that_is_away_and_then_busy_opens_the_gate_in_the_end() -> None:
    """A busy store refuses a ping with a limit, not an outage; the gate must not stay shut for good over it."""
    supervisor = Supervisor(SystemClock(), system_random())
    store = Answering(StoreUnavailable("away"), StoreBusy(1, 1, "reads"))
    gate = Gate(cast(Store, store), clock=SystemClock(), spawn=supervisor.spawn)

    gate.shut(StoreUnavailable("away"))
    async with asyncio.timeout(5):
        await gate.wait()

    assert (None, []) == (gate.shut_reason, store.answers)
    await supervisor.stop()
