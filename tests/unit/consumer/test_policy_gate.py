"""The gate that a policy's breaker keeps before a queue."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import msgspec
import pytest

from spoolproof import Delivery, RegistrationError, Service, event
from spoolproof.brokers.memory import MemoryBroker
from spoolproof.consumer.policy_gate import Intake, intake_of, rest_of
from spoolproof.policies import Breaker, Classifier, Consecutive, Policy, Registry, Retry
from spoolproof.policies.classifier import DEFAULT
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


@pytest.mark.parametrize(
    ("policies", "intake"),
    [
        ([FakePolicy()], Intake(10, 20)),
        ([FakePolicy(share=0.5)], Intake(5, 10)),
        ([FakePolicy(share=0.01)], Intake(1, 1)),
        ([FakePolicy("half_open")], Intake(2, 2)),
        ([FakePolicy("open", until=60)], Intake(0, 0, holds=2)),
        ([FakePolicy("open", until=301)], Intake(0, 0)),
        ([FakePolicy("isolated")], Intake(0, 0)),
        ([FakePolicy("open", until=1, gates=False)], Intake(10, 20)),
        ([FakePolicy(), FakePolicy("half_open")], Intake(2, 2)),
        ([FakePolicy("half_open"), FakePolicy(share=0.1)], Intake(1, 2)),
        ([FakePolicy("half_open"), FakePolicy("isolated"), FakePolicy("open", until=1)], Intake(0, 0)),
    ],
)
def test_of_several_policies_the_strictest_rules(policies: list[FakePolicy], intake: Intake) -> None:
    """A message needs all of them."""
    assert intake == intake_of(policies, concurrency=10, prefetch=20)


@pytest.mark.parametrize(
    ("policies", "seconds"),
    [
        ([FakePolicy()], 5.0),
        ([FakePolicy("open", until=1.0)], 1.005),
        ([FakePolicy("open", until=1.0, gates=False)], 5.0),
        ([FakePolicy(share=0.5), FakePolicy("open", until=1.0)], 0.25),
        ([FakePolicy("half_open")], 5.0),
    ],
)
def test_the_gate_looks_again_when_something_is_due(policies: list[FakePolicy], seconds: float) -> None:
    """An open breaker needs no timer of its own; somebody has to look."""
    assert seconds == pytest.approx(rest_of(policies))


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


async def test_an_open_breaker_stops_intake_and_unstarted_messages_go_back() -> None:
    """The queue keeps them, where any process may take them; what runs finishes."""
    policy = FakePolicy()
    shop = Shop(policy)
    async with shop.running_service():
        shop.may_end.clear()
        await shop.publish(*range(20))
        await until(lambda: shop.running == CONCURRENCY)

        policy.become("open", until=60)
        await until(lambda: shop.ready() == 20 - CONCURRENCY)
        shop.may_end.set()
        await until(lambda: len(shop.seen) == CONCURRENCY)
        await turns()

        assert CONCURRENCY == len(shop.seen)
        assert 20 - CONCURRENCY == shop.ready()
        assert not shop.service.runtime._local().unsubscribed


async def test_everything_is_processed_once_the_breaker_has_closed() -> None:
    """Q27: an outage costs time and nothing else."""
    policy = FakePolicy("open", until=60)
    shop = Shop(policy)
    async with shop.running_service():
        await shop.publish(*range(20))
        await turns()
        assert [] == shop.seen

        policy.become("closed")
        await until(lambda: len(shop.seen) == 20)

        assert set(range(20)) == set(shop.seen)
        assert {1} == set(shop.attempts)


async def test_half_open_lets_in_as_many_messages_as_there_may_be_probes() -> None:
    """The message's own call is the probe; nobody else runs into the dependency."""
    policy = FakePolicy("half_open")
    shop = Shop(policy)
    async with shop.running_service():
        shop.may_end.clear()
        await shop.publish(*range(20))
        await until(lambda: shop.running == policy.probes_max)
        await turns()

        assert policy.probes_max == shop.running
        assert 20 - policy.probes_max == shop.ready()

        policy.become("closed")
        await until(lambda: shop.running == CONCURRENCY)


async def test_probes_that_fail_again_and_again_wear_out_no_message() -> None:
    """L9: given back at each failed probe, the head of the queue would reach the broker's delivery limit."""
    policy = FakePolicy("half_open")
    shop = Shop(policy)
    async with shop.running_service():
        shop.may_end.clear()
        await shop.publish(*range(20))
        await until(lambda: shop.running == policy.probes_max)
        for _ in range(60):
            policy.become("open", until=1)
            await turns(20)
            policy.become("half_open")
            await turns(20)

        assert {0} == set(shop.deliveries())
        shop.may_end.set()
        policy.become("closed")
        await until(lambda: len(shop.seen) == 20)
        assert [] == await shop.dead()


async def test_a_ramping_breaker_lets_in_its_share() -> None:
    """A recovering backend dies under full load."""
    policy = FakePolicy("closed", share=0.5)
    shop = Shop(policy)
    async with shop.running_service():
        shop.may_end.clear()
        await shop.publish(*range(20))
        await until(lambda: shop.running == CONCURRENCY // 2)
        await turns()
        assert CONCURRENCY // 2 == shop.running
        assert 20 - PREFETCH // 2 == shop.ready()

        policy.admitted_share = 1.0  # no transition: the gate looks by itself
        await until(lambda: shop.running == CONCURRENCY)
        shop.may_end.set()
        await until(lambda: len(shop.seen) == 20)


async def test_a_service_drains_while_its_gate_is_shut_or_half_open() -> None:
    """A deploy in the middle of an outage."""
    for state in ("open", "half_open"):
        policy = FakePolicy(state, until=60)
        shop = Shop(policy)
        async with shop.running_service():
            await shop.publish(*range(5))
            await asyncio.wait_for(shop.service.drain(1.0), 5)
        assert [] == policy.watchers


async def test_registration_prepares_the_policy_and_refuses_what_is_none() -> None:
    """A typo must not leave a queue ungated."""
    policy = FakePolicy()
    Shop(policy)
    assert policy.is_gating

    with pytest.raises(RegistrationError, match="gate='psp': a Policy with a Breaker"):
        Shop("psp")


async def test_handlers_of_one_queue_share_its_gate() -> None:
    """They share its subscription."""
    shop = Shop(FakePolicy())

    with pytest.raises(RegistrationError, match="gate=psp; handlers of one queue share them"):

        @shop.service.on("other.type", queue=QUEUE, concurrency=CONCURRENCY, prefetch=PREFETCH)
        async def other(payload: dict) -> None:  # type: ignore[type-arg]
            pass


# --- with the real policy --------------------------------------------------------------------------------------------

MESSAGES = 1000
TRIP_VOLUME = 10


class Dependency:
    """Counts the calls that reach it; refuses connections while it is away."""

    def __init__(self, policy: Policy) -> None:
        self.calls = 0
        self.is_away = True
        self._policy = policy

    async def reach(self, order: Order) -> None:
        self.calls += 1
        await asyncio.sleep(0)
        if self.is_away:
            raise ConnectionRefusedError(111, "connection refused")

    def __call__(self, order: Order) -> object:
        return self._policy.call(self.reach, order)


def gating_policy(registry: Registry, classify: Classifier = DEFAULT) -> Policy:
    return Policy(
        "psp",
        Retry(3, delay_seconds=0),
        Breaker(Consecutive(TRIP_VOLUME), open_seconds=0.2, open_factor=1, open_jitter=0, ramp_seconds=0.5),
        registry=registry,
        idempotent=True,
        classify=classify,
        lint_ignore={"W1"},
    )


async def test_an_outage_burns_no_attempt_and_calls_hardly_anybody() -> None:
    """Q27: connections refused, 1,000 messages queued."""
    registry = Registry(environ={})
    policy = gating_policy(registry)
    shop = Shop(policy, registry)
    dependency = Dependency(policy)
    shop.call = dependency
    changes: list[str] = []
    policy.watch(lambda change: changes.append(change.new))
    async with shop.running_service():
        await shop.publish(*range(MESSAGES))
        await until(lambda: changes.count("half_open") >= 5, 10)
        probes = changes.count("half_open")
        calls = dependency.calls
        dependency.is_away = False
        await until(lambda: len(set(shop.seen)) == MESSAGES, 40)

        assert calls <= TRIP_VOLUME + CONCURRENCY + probes
        assert set(range(MESSAGES)) == set(shop.seen)
        assert [] == await shop.dead()
        assert {1} == set(shop.attempts)


async def test_messages_that_fail_for_reasons_of_their_own_leave_the_gate_alone() -> None:
    """Q27: a queue full of them runs on, into the dead letters."""
    registry = Registry(environ={})
    policy = gating_policy(registry, Classifier().permanent(LookupError))
    shop = Shop(policy, registry)

    async def refuse(order: Order) -> None:
        raise LookupError(f"no such customer: {order.n}")

    shop.call = lambda order: policy.call(refuse, order)
    async with shop.running_service():
        await shop.publish(*range(100))
        await until(lambda: _has(shop, 100))

        assert "closed" == policy.state
        assert {"permanent"} == {reason for reason, _ in await shop.dead()}


async def _has(shop: Shop, count: int) -> bool:
    return len(await shop.dead()) == count
