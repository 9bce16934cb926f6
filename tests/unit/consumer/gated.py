"""A service whose only queue is gated, and a policy whose breaker a test sets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import msgspec

from spoolproof import Delivery, Service, event
from spoolproof.brokers.memory import MemoryBroker
from spoolproof.policies import Registry
from spoolproof.ports.dead_letters import DeadLetterFilter
from spoolproof.settings import Settings

QUEUE = "gated.orders"
CONCURRENCY = 4
PREFETCH = 8


@event("gated.order")
class Order(msgspec.Struct):
    n: int


class FakePolicy:
    """A policy whose breaker a test sets."""

    def __init__(self, state: str = "closed", *, share: float = 1.0, until: float = 0.0, gates: bool = True) -> None:
        self.name = "psp"
        self.state = state
        self.admitted_share = share
        self.open_until_seconds = until
        self.probes_max = 2
        self.gates = gates
        self.is_gating = False
        self.watchers: list[Callable[[object], None]] = []

    def watch(self, callback: Callable[[object], None]) -> Callable[[], None]:
        self.watchers.append(callback)
        return lambda: self.watchers.remove(callback)

    def gating(self) -> None:
        self.is_gating = True

    def become(self, state: str, *, until: float = 0.0, share: float = 1.0) -> None:
        self.state, self.open_until_seconds, self.admitted_share = state, until, share
        for watcher in list(self.watchers):
            watcher(None)


class Shop:
    """A service whose only queue is gated, and what its handler saw."""

    def __init__(self, gate: object, policies: Registry | None = None, concurrency: int = CONCURRENCY) -> None:
        settings = Settings(store="memory://", broker="memory://")
        self.service = Service("gated", settings=settings, policies=policies or Registry(environ={}))
        self.seen: list[int] = []
        self.running = 0
        self.running_max = 0
        self.attempts: list[int] = []
        self.call: Callable[[Order], object] = lambda order: None
        self.may_end = asyncio.Event()
        self.may_end.set()

        @self.service.on(Order, queue=QUEUE, concurrency=concurrency, prefetch=PREFETCH, gate=gate, dedupe="none")  # type: ignore[arg-type]
        async def handle(order: Order, delivery: Delivery) -> None:
            self.running += 1
            self.running_max = max(self.running, self.running_max)
            self.attempts.append(delivery.attempt)
            try:
                await self.may_end.wait()
                result = self.call(order)
                if asyncio.iscoroutine(result):
                    await result
                self.seen.append(order.n)
            finally:
                self.running -= 1

    @asynccontextmanager
    async def running_service(self) -> AsyncIterator[Shop]:
        await self.service.start()
        try:
            yield self
        finally:
            self.may_end.set()
            await self.service.stop()

    @property
    def server(self) -> MemoryBroker:
        inner = self.service.runtime.broker.inner
        assert isinstance(inner, MemoryBroker)
        return inner

    def ready(self) -> int:
        return self.server.server.depth(QUEUE)

    def deliveries(self) -> list[int]:
        return [entry.delivery_count for entry in self.server.server.queues[QUEUE].ready]

    async def publish(self, *numbers: int) -> None:
        for n in numbers:
            await self.service.publish(Order(n))
        await until(lambda: self.arrived(len(numbers)))

    async def arrived(self, _count: int) -> bool:
        return (await self.service.runtime.store.outbox.backlog()).rows == 0

    async def dead(self) -> list[tuple[str, str]]:
        found = await self.service.runtime.store.dead_letters.search(DeadLetterFilter(limit=5000))
        return [(record.reason, record.error) for record in found]


async def until(condition: Callable[[], object], seconds: float = 5.0) -> None:
    async with asyncio.timeout(seconds):
        while True:
            answer = condition()
            if await answer if asyncio.iscoroutine(answer) else answer:
                return
            await asyncio.sleep(0.005)


async def turns(count: int = 100) -> None:
    """Let everything happen that needs no time."""
    for _ in range(count):
        await asyncio.sleep(0)
