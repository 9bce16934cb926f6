"""What a consumer does with deliveries that went stale in its hands."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import msgspec

from spoolproof import Service, event, limits
from spoolproof.brokers.memory import MemoryBroker
from spoolproof.ports.dead_letters import DeadLetterFilter
from spoolproof.settings import Settings

ORDERS = 8


@event("worker.order")
class Order(msgspec.Struct):
    n: int


async def test_connections_lost_while_a_handler_is_busy_make_no_dead_letter() -> None:
    """S9, S7: each reconnect delivers a prefetch anew while the stale ones still wait; nacking what finds no room would
    bring it back at once, up to the broker's delivery limit within milliseconds."""
    service = Service("worker", settings=Settings(store="memory://", broker="memory://"))
    may_go_on = asyncio.Event()
    seen: list[int] = []

    @service.on(Order, queue="worker.orders", concurrency=1, prefetch=4)
    async def handle(order: Order) -> None:
        await may_go_on.wait()
        seen.append(order.n)

    await service.start()
    try:
        store, broker = service.runtime.store, service.runtime.broker.inner
        assert isinstance(broker, MemoryBroker)
        for n in range(ORDERS):
            await service.publish(Order(n), key="one")
        await until(lambda: is_empty(store))
        for _ in range(4):
            broker.lose_connection()
            broker.restore_connection()
            for _ in range(200):  # turns of the event loop: a message nacked in a circle goes around in each
                await asyncio.sleep(0)
        may_go_on.set()

        async def has_ended() -> bool:
            return len(seen) + len(await store.dead_letters.search(DeadLetterFilter())) >= ORDERS

        await until(has_ended)

        assert [] == list(await store.dead_letters.search(DeadLetterFilter()))
        assert list(range(ORDERS)) == seen
    finally:
        await service.stop()


async def test_more_restarts_than_the_delivery_limit_make_no_dead_letter() -> None:
    """S9, L9: at each deploy what waits for a handler goes back; the broker counts that, though nobody has run it."""
    service = Service("worker")
    may_go_on = asyncio.Event()
    seen: list[int] = []

    @service.on(Order, queue="worker.orders", concurrency=1, prefetch=4, timeout=900)
    async def handle(order: Order) -> None:
        await may_go_on.wait()
        seen.append(order.n)

    async with service.test() as app:
        broker = service.runtime.broker.inner
        assert isinstance(broker, MemoryBroker)
        for n in range(4):
            await app.publish(Order(n))
        for _ in range(limits.DELIVERY_LIMIT + 10):
            broker.lose_connection()
            broker.restore_connection()
            for _ in range(20):  # turns of the event loop: time for a delivery, and for a copy
                await asyncio.sleep(0)
            await app.clock.advance(1)
        may_go_on.set()
        await app.advance(5)

        assert not app.dead_letters
        assert [0, 1, 2, 3] == sorted(seen)


async def test_what_went_stale_before_it_began_is_left_to_its_next_delivery() -> None:
    """Run all the same it is run twice for certain, which a handler without an inbox does not absorb."""
    service = Service("worker", settings=Settings(store="memory://", broker="memory://"))
    may_go_on = asyncio.Event()
    seen: list[int] = []

    @service.on(Order, queue="worker.orders", concurrency=1, prefetch=4, dedupe="none")
    async def handle(order: Order) -> None:
        seen.append(order.n)
        await may_go_on.wait()

    await service.start()
    try:
        broker = service.runtime.broker.inner
        assert isinstance(broker, MemoryBroker)
        for n in range(4):
            await service.publish(Order(n))
        await until(lambda: is_empty(service.runtime.store))

        async def has_begun() -> bool:
            return bool(seen)

        await until(has_begun)
        broker.lose_connection()
        broker.restore_connection()
        may_go_on.set()

        async def has_ended() -> bool:
            return 3 in seen and broker.server.depth("worker.orders") == 0

        await until(has_ended)
        assert sorted([seen[0], 0, 1, 2, 3]) == sorted(seen)  # the first was running when the connection went
    finally:
        await service.stop()


async def is_empty(store: object) -> bool:
    return (await store.outbox.backlog()).rows == 0  # type: ignore[attr-defined]


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(5):
        while not await condition():
            await asyncio.sleep(0.005)
