"""How long deliveries are held depends on the broker's limit, never on the one it usually has."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from spoolproof import Service, event, limits
from spoolproof.brokers.memory import MemoryBroker
from spoolproof.clock import SystemClock
from spoolproof.consumer.patience import Patience
from spoolproof.ports.broker import BrokerStatus, ConnectionState
from spoolproof.ports.dead_letters import DeadLetterFilter
from spoolproof.settings import Settings
from spoolproof.testing.clock import ManualClock
from spoolproof.testing.conformance import eventually, holds_for

STATUS = BrokerStatus(kind="memory", state=ConnectionState.CONNECTED, is_blocked=False, connections=())


class Telling:
    """A broker that says after which time it has taken deliveries back."""

    def __init__(self) -> None:
        self.shown: float | None = None

    def status(self) -> BrokerStatus:
        return replace(STATUS, consumer_timeout_seconds=self.shown)


@pytest.mark.parametrize(
    ("timeout", "hold", "leave", "away"),
    [(1800.0, 300.0, 600.0, 60), (60.0, 20.0, 20.0, 60), (2.0, 2 / 3, 2 / 3, 5), (0.01, 0.01 / 3, 0.01 / 3, 1)],
)
def test_at_most_a_third_of_the_limit_is_waited(timeout: float, hold: float, leave: float, away: int) -> None:
    """Two thirds are for the handler's run: together they end before the broker takes the delivery back."""
    broker: Any = Telling()
    patience = Patience(timeout, broker, ManualClock())

    assert (10 + hold, 10 + leave) == (patience.hold_until(10.0), patience.leave_at(10.0))
    assert away == patience.away_seconds


async def test_a_limit_that_the_broker_has_shown_is_learnt() -> None:
    """The two settings are in different hands; told apart by nothing, each outage would cost every message its life."""
    broker: Any = Telling()
    clock = ManualClock()
    patience = Patience(1800.0, broker, clock)
    patience.hold_until(0.0)

    broker.shown = 30.0
    await clock.advance(limits.CONSUMER_TIMEOUT_ASKED_SECONDS)

    assert 10.0 == patience.hold_until(0.0)
    assert 10.0 == patience.hold_seconds


@event("patience.order")
class Order(msgspec.Struct):
    n: int


class SkippingClock(SystemClock):
    """The machine's clock, some seconds on."""

    skipped_seconds = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.skipped_seconds


async def test_what_waited_for_a_lane_for_too_long_goes_back_as_a_copy() -> None:
    """Behind a slow handler the last of a prefetch would begin when the broker is about to take it back."""
    clock = SkippingClock()
    settings = Settings(store="memory://", broker="memory://")
    service = Service("patience", settings=settings, clock=clock)
    runs: list[int] = []
    may_end = asyncio.Event()

    @service.on(Order, queue="patience.orders", concurrency=1, prefetch=6, dedupe="none")
    async def handle(order: Order) -> None:
        runs.append(order.n)
        await may_end.wait()

    await service.start()
    try:
        broker = service.runtime.broker.inner
        assert isinstance(broker, MemoryBroker)
        for n in range(6):
            await service.publish(Order(n), key="one")
        await eventually(lambda: runs == [0] and broker.server.depth("patience.orders") == 0)
        await holds_for(lambda: len(runs) == 1)

        clock.skipped_seconds = limits.CONSUMER_TIMEOUT_SECONDS / 3
        may_end.set()

        await eventually(lambda: len(broker.server.due_times()) == 5)
        assert [0] == runs
        assert [] == list(await service.runtime.store.dead_letters.search(DeadLetterFilter()))
    finally:
        await service.stop()
