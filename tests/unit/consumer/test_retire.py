"""Retiring a queue on a broker that is slow to give it out, and gives it out again."""

from __future__ import annotations

from typing import Any, cast

import pytest
from tests.unit.consumer.test_suspects import FakeDelivery

from spoolproof.consumer import retire
from spoolproof.ids import Ids
from spoolproof.message import Message
from spoolproof.ports.broker import Broker, GivenUp, OnIncoming
from spoolproof.ports.dead_letters import DeadLetterFilter
from spoolproof.stores.memory import MemoryStore
from spoolproof.testing.clock import ManualClock

QUEUE = "shop.old"


class SlowBroker:
    """Has messages in the queue and among those given up there; begins with the latter at the third look, and loses
    its connection once before."""

    def __init__(self, messages: list[Message]) -> None:
        self.messages = messages
        self.looks = 0

    async def subscribe(self, source: str | GivenUp, prefetch: int, on_delivery: OnIncoming) -> SlowBroker:
        self.on_delivery = on_delivery
        if source == QUEUE:
            for is_stale in (True, True, False):
                self.deliver(self.messages[:50], is_stale=is_stale)
        return self

    @property
    def is_active(self) -> bool:
        self.looks += 1
        if self.looks == 3:
            self.deliver(self.messages[50:])
        return self.looks >= 3

    def deliver(self, messages: list[Message], *, is_stale: bool = False) -> None:
        for message in messages:
            delivery = cast(Any, FakeDelivery(message, 0))
            delivery.is_stale = is_stale
            self.on_delivery(delivery)

    async def cancel(self) -> None: ...

    async def depth(self, queue: str) -> int:
        return 0


async def test_nothing_is_taken_for_empty_that_is_not_given_out_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was given up there would be deleted with the queue."""
    monkeypatch.setattr(retire, "_QUIET_SECONDS", 0.05)
    clock = ManualClock()
    ids = Ids(clock)
    store = MemoryStore(clock=clock, ids=ids, outbox_rows_max=1000)
    await store.start()
    messages = [Message(id=f"m{n}", type="order", source="s", time=clock.now(), body=b"{}") for n in range(60)]
    mover = retire._Mover(store, QUEUE, None, clock, ids)

    assert 60 == await mover.empty(cast(Broker, SlowBroker(messages)))

    assert 60 == len(await store.dead_letters.search(DeadLetterFilter()))
