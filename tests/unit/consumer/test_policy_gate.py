"""The gate that a policy's breaker keeps before a queue."""

from __future__ import annotations

import asyncio

import pytest

from spoolproof import RegistrationError
from spoolproof.consumer.policy_gate import Intake, PolicyGate, intake_of, rest_of
from spoolproof.errors import BrokerUnavailable
from spoolproof.policies import Breaker, Classifier, Consecutive, Policy, Registry, Retry
from spoolproof.policies.judging.classifier import DEFAULT

from .gated import CONCURRENCY, PREFETCH, QUEUE, FakePolicy, Order, Shop, turns, until


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


def test_nothing_is_held_for_a_probe_that_the_broker_would_not_wait_for() -> None:
    """Held beyond a third of its consumer timeout, deliveries are taken back again and again, and given up."""
    policies = [FakePolicy("open", until=60)]

    assert Intake(0, 0, holds=2) == intake_of(policies, concurrency=10, prefetch=20, hold_seconds=60.0)
    assert Intake(0, 0) == intake_of(policies, concurrency=10, prefetch=20, hold_seconds=59.0)


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


class Refusing:
    """A worker whose broker is stopped."""

    def limit_lanes(self, intake: Intake) -> None:
        """Nothing is there to limit."""

    async def take_in(self, intake: Intake) -> None:
        raise BrokerUnavailable("the broker is stopped")


async def test_a_gate_that_cannot_start_watches_nothing() -> None:
    """Policies outlive services: each failed start would leave one more watcher on them."""
    policy = FakePolicy()

    with pytest.raises(BrokerUnavailable):
        await PolicyGate("q", [policy], Refusing(), concurrency=1, prefetch=2).start()

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
