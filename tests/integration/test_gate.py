"""A gated queue on a real broker: RabbitMQ counts what goes back to it, and gives up on what goes back too often."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec
import pytest

from spoolproof import Defer, Delivery, Service, event, limits
from spoolproof.consumer.part import ConsumerPart
from spoolproof.policies import Registry
from spoolproof.ports.dead_letters import DeadLetterFilter
from spoolproof.settings import Settings

pytestmark = pytest.mark.servers

MESSAGES = 30
PROBES = limits.DELIVERY_LIMIT + 10


@event("gate.order")
class Order(msgspec.Struct):
    n: int


class Breaker:
    """A policy whose breaker the test sets."""

    name = "psp"
    admitted_share = 1.0
    open_until_seconds = 1.0
    probes_max = 1
    gates = True
    state = "closed"

    def __init__(self) -> None:
        self._watchers: list[Callable[[object], None]] = []

    def watch(self, callback: Callable[[object], None]) -> Callable[[], None]:
        self._watchers.append(callback)
        return lambda: self._watchers.remove(callback)

    def gating(self) -> None:
        pass

    def become(self, state: str) -> None:
        self.state = state
        for watcher in list(self._watchers):
            watcher(None)


async def until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


async def test_an_outage_of_more_probes_than_the_delivery_limit_makes_no_dead_letter(rabbitmq_url: str) -> None:
    """L9: the head of the queue is there at every failed probe; gone back at each, RabbitMQ would dead-letter it."""
    breaker = Breaker()
    service = Service("gate", settings=Settings(store="memory://", broker=rabbitmq_url), policies=Registry(environ={}))
    done: dict[int, int] = {}
    probes = 0

    @service.on(Order, concurrency=4, prefetch=8, gate=breaker, dedupe="none")
    async def handle(order: Order, delivery: Delivery) -> None:
        nonlocal probes
        if breaker.state == "half_open":
            probes += 1
            breaker.become("open")
            raise Defer(3)
        if breaker.state != "closed":
            raise Defer(3)
        done[order.n] = delivery.attempt

    breaker.become("open")
    await service.start()
    try:
        for n in range(MESSAGES):
            await service.publish(Order(n))
        async with asyncio.timeout(90):
            while probes < PROBES:
                breaker.become("half_open")
                await asyncio.sleep(0.02)
        breaker.become("closed")
        await until(lambda: len(done) == MESSAGES)

        assert {1} == set(done.values())
        assert [] == list(await service.runtime.store.dead_letters.search(DeadLetterFilter()))
    finally:
        await service.stop()


async def test_a_breaker_that_flaps_more_often_than_the_delivery_limit_makes_no_dead_letter(rabbitmq_url: str) -> None:
    """L9: what waits behind the first few of a large prefetch goes back at each trip, and RabbitMQ counts that."""
    breaker = Breaker()
    breaker.open_until_seconds = 2 * limits.GATE_HOLD_SECONDS_MAX
    service = Service("gate", settings=Settings(store="memory://", broker=rabbitmq_url), policies=Registry(environ={}))
    done: dict[int, int] = {}
    may_end = asyncio.Event()

    @service.on(Order, concurrency=2, prefetch=MESSAGES, gate=breaker, dedupe="none")
    async def handle(order: Order, delivery: Delivery) -> None:
        await may_end.wait()
        done[order.n] = delivery.attempt

    await service.start()
    try:
        for n in range(MESSAGES):
            await service.publish(Order(n))
        await until(lambda: sum(worker.in_flight for worker in service.runtime.part(ConsumerPart).workers) == 2)
        for _ in range(PROBES):
            breaker.become("open")
            await asyncio.sleep(0.05)
            breaker.become("closed")
            await asyncio.sleep(0.05)
        may_end.set()
        await until(lambda: len(done) == MESSAGES)

        assert {1} == set(done.values())
        assert [] == list(await service.runtime.store.dead_letters.search(DeadLetterFilter()))
    finally:
        await service.stop()


async def test_an_open_breaker_leaves_the_queue_to_others(rabbitmq_url: str) -> None:
    """A process whose way to the dependency is cut must not sit on messages another one could handle."""
    breaker = Breaker()
    settings = Settings(store="memory://", broker=rabbitmq_url)
    done: dict[str, int] = {"cut": 0, "fine": 0}
    may_end = asyncio.Event()

    def process(name: str, **options: object) -> Service:
        service = Service("gate", settings=settings, policies=Registry(environ={}))

        @service.on(Order, queue="gate.orders", concurrency=2, prefetch=10, dedupe="none", **options)  # type: ignore[arg-type]
        async def handle(order: Order) -> None:
            await may_end.wait()
            done[name] += 1

        return service

    cut, fine = process("cut", gate=breaker), process("fine")
    await cut.start()
    try:
        for n in range(MESSAGES):
            await cut.publish(Order(n))
        await until(lambda: sum(worker.in_flight for worker in cut.runtime.part(ConsumerPart).workers) == 2)
        breaker.become("isolated")
        await fine.start()
        may_end.set()
        await until(lambda: sum(done.values()) == MESSAGES)

        assert {"cut": 2, "fine": MESSAGES - 2} == done
    finally:
        await fine.stop()
        await cut.stop()
