"""The properties of bulkhead, rate limit, retry budget and adaptive limit, on the machines and through a policy."""

from __future__ import annotations

import asyncio
import heapq
import threading
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from spoolproof.backoff import seeded_random
from spoolproof.errors import BulkheadFull, DeadlineExceeded, RateLimited
from spoolproof.policies import (
    Adaptive,
    Breaker,
    Bulkhead,
    Consecutive,
    Deadline,
    Policy,
    RateLimit,
    Registry,
    Retry,
    events,
)
from spoolproof.policies.call import Call
from spoolproof.policies.judging.verdict import SUCCESS
from spoolproof.policies.machines.adaptive import AdaptiveLimit
from spoolproof.policies.machines.budget import Budget
from spoolproof.policies.machines.tokens import Tokens
from spoolproof.testing.clock import ManualClock

from ..doses import MACHINE_EXAMPLES, MACHINE_SECONDS, examples
from .conftest import settle

Make = Callable[..., Policy]


# --- bulkhead ---------------------------------------------------------------------------------------------------------


async def held(policy: Policy, count: int, **options: Any) -> tuple[list[asyncio.Task[Any]], asyncio.Event]:
    """Start calls that run until the event is set."""
    release = asyncio.Event()
    tasks = [asyncio.ensure_future(policy.using(**options).call(release.wait)) for _ in range(count)]
    await settle()
    return tasks, release


async def test_calls_beyond_limit_and_queue_are_refused_with_the_numbers(make: Make, clock: ManualClock) -> None:
    policy = make(Bulkhead(2, queue_max=1, wait_seconds_max=5))
    tasks, release = await held(policy, 3)

    with pytest.raises(BulkheadFull) as raised:
        await policy.call(asyncio.sleep, 0)
    release.set()
    await asyncio.gather(*tasks)

    assert (2, 1) == (raised.value.running, raised.value.queued)
    assert (0, 0) == (policy.machines.slots.running, policy.machines.slots.queued)


async def test_a_wait_that_is_over_is_refused_and_leaves_the_queue(make: Make, clock: ManualClock) -> None:
    policy = make(Bulkhead(1, queue_max=5, wait_seconds_max=2))
    tasks, release = await held(policy, 2)

    await clock.advance(2)

    assert isinstance(tasks[1].exception(), BulkheadFull)
    assert 0 == policy.machines.slots.queued
    release.set()
    await tasks[0]


async def test_a_deadline_that_ends_the_wait_says_so(make: Make, clock: ManualClock) -> None:
    policy = make(Deadline(1), Bulkhead(1, wait_seconds_max=30))
    tasks, release = await held(policy, 2)

    await clock.advance(1.5)
    release.set()

    assert isinstance(tasks[1].exception(), DeadlineExceeded)
    assert tasks[1].exception().has_started is False
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_higher_lanes_go_first_and_a_full_queue_refuses_the_newest_of_the_lowest(
    make: Make, clock: ManualClock
) -> None:
    policy = make(Bulkhead(1, queue_max=3, wait_seconds_max=60))
    (first,), release = await held(policy, 1)
    order: list[str] = []

    def queue(lane: str, name: str) -> asyncio.Task[Any]:
        return asyncio.ensure_future(policy.using(lane=lane).call(order.append, name))

    waiting = [queue("background", "b1"), queue("background", "b2"), queue("normal", "n1")]
    await settle()
    waiting.append(queue("critical", "c1"))
    await settle()
    release.set()
    ended = await asyncio.gather(first, *waiting, return_exceptions=True)

    assert ["c1", "n1", "b1"] == order
    assert [BulkheadFull] == [type(error) for error in ended if isinstance(error, Exception)]


@pytest.mark.parametrize("turns", range(6))
@pytest.mark.parametrize("part", [Bulkhead(1, queue_max=9), RateLimit(1, burst=1, queue_max=9, wait_seconds_max=60)])
async def test_q07_a_waiter_cancelled_at_any_await_point_loses_no_permit(
    make: Make, clock: ManualClock, part: Any, turns: int
) -> None:
    """Granted and cancelled in the same turn: the slot must go to the next, not to nobody."""
    policy = make(part)
    (first,), release = await held(policy, 1)
    waiter = asyncio.ensure_future(policy.call(asyncio.sleep, 0))
    following = asyncio.ensure_future(policy.call(asyncio.sleep, 0, "reached"))
    await settle()

    release.set()
    if isinstance(part, RateLimit):
        clock.sleep_blocking(1)
    for _ in range(turns):
        await asyncio.sleep(0)
    waiter.cancel()
    await settle()
    await clock.advance(5)

    assert "reached" == await asyncio.wait_for(following, 5)
    await asyncio.gather(first, waiter, return_exceptions=True)
    if isinstance(part, Bulkhead):
        assert (0, 0) == (policy.machines.slots.running, policy.machines.slots.queued)


def test_q07_a_closed_loop_takes_no_slot_with_it() -> None:
    """A waiter whose event loop ended cannot be woken; its turn goes to the next."""
    policy = Policy("q7", Bulkhead(1, queue_max=9, wait_seconds_max=5), registry=Registry({}))
    slots = policy.machines.slots
    slots.enter(_call(), 0.0)

    loop = asyncio.new_event_loop()
    waiter = loop.create_task(policy.call(asyncio.sleep, 0))
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()  # with the task still waiting
    got: list[Any] = []
    thread = threading.Thread(target=lambda: got.append(policy.call_sync(lambda: "reached")))
    thread.start()
    while slots.queued < 2:
        threading.Event().wait(0.001)
    slots.leave(True, _call(), SUCCESS, 0.0)
    thread.join()
    waiter._log_destroy_pending = False
    waiter.get_coro().close()

    assert ["reached"] == got
    assert (0, 0) == (slots.running, slots.queued)


def test_q07_threads_never_exceed_the_limit_and_all_get_their_turn() -> None:
    policy = Policy("q7b", Bulkhead(3, queue_max=100, wait_seconds_max=30), registry=Registry({}))
    lock, running, most = threading.Lock(), 0, 0

    def work() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        with lock:
            running -= 1

    threads = [threading.Thread(target=lambda: [policy.call_sync(work) for _ in range(50)]) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert most <= 3
    assert (0, 0) == (policy.machines.slots.running, policy.machines.slots.queued)


# --- rate limit -------------------------------------------------------------------------------------------------------


async def test_q14_a_large_request_queued_first_is_served_first(make: Make, clock: ManualClock) -> None:
    """Small requests that slip past would starve it for ever."""
    policy = make(RateLimit(10, burst=10, wait_seconds_max=60))
    await policy.using(cost=10).call(asyncio.sleep, 0)
    order: list[str] = []

    tasks = [asyncio.ensure_future(policy.using(cost=10).call(order.append, "large"))]
    await settle()
    tasks += [asyncio.ensure_future(policy.call(order.append, "small")) for _ in range(3)]
    await clock.advance(5)
    await asyncio.gather(*tasks)

    assert ["large", "small", "small", "small"] == order


async def test_q14_a_wait_too_long_is_refused_at_once_with_the_time_to_come_back(
    make: Make, clock: ManualClock
) -> None:
    policy = make(RateLimit(1, burst=1, wait_seconds_max=1))
    await policy.call(asyncio.sleep, 0)
    waiting = asyncio.ensure_future(policy.call(asyncio.sleep, 0))
    await settle()

    with pytest.raises(RateLimited) as raised:
        await policy.call(asyncio.sleep, 0)

    assert 2.0 == pytest.approx(raised.value.retry_after_seconds)
    await clock.advance(1.1)
    await waiting
    with pytest.raises(ValueError, match="burst"):
        await policy.using(cost=2).call(asyncio.sleep, 0)


class RateModel(RuleBasedStateMachine):
    """Over any span, grants ≤ burst + rate × span; and nobody is refused who must not be."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = Tokens("psp", None, rate=5, per_seconds=1, burst=8, wait_seconds_max=0, queue_max=0)
        self.now = 0.0
        self.level = 8.0
        self.grants: list[tuple[float, float]] = []

    @rule(cost=st.sampled_from([1.0, 2.5, 8.0]))
    def ask(self, cost: float) -> None:
        try:
            assert self.tokens.enter(_call(cost=cost), self.now)
        except RateLimited as error:
            self._refused(cost, error)
            return
        assert self.level >= cost - 1e-6
        self.level -= cost
        self.grants.append((self.now, cost))

    def _refused(self, cost: float, error: RateLimited) -> None:
        assert self.level < cost + 1e-6
        assert error.retry_after_seconds > 0

    @rule(seconds=st.floats(0.01, 2))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.level = min(8.0, self.level + 5 * seconds)

    @invariant()
    def no_span_has_more_than_its_share(self) -> None:
        total = 0.0
        for at, cost in reversed(self.grants[-30:]):
            total += cost
            assert total <= 8 + 5 * (self.now - at) + 1e-6


# --- budget -----------------------------------------------------------------------------------------------------------


class BudgetModel(RuleBasedStateMachine):
    """Against the list of everything in ten one-second buckets."""

    def __init__(self) -> None:
        super().__init__()
        self.budget = Budget(0.2, 1.0)
        self.now = 0.0
        self.calls: list[int] = []
        self.retries: list[int] = []

    def _in_window(self, seconds: list[int]) -> int:
        return sum(int(self.now) - 10 < second <= int(self.now) for second in seconds)

    @rule(count=st.integers(1, 20))
    def call(self, count: int) -> None:
        for _ in range(count):
            self.budget.note_call(self.now)
            self.calls.append(int(self.now))

    @rule()
    def retry(self) -> None:
        allowed = 0.2 * self._in_window(self.calls) + 10 - self._in_window(self.retries) >= 1
        assert allowed == self.budget.spend(self.now)
        if allowed:
            self.retries.append(int(self.now))

    @rule(seconds=st.sampled_from([0.1, 1.0, 4.0, 30.0]))
    def pass_time(self, seconds: float) -> None:
        self.now = round(self.now + seconds, 3)

    @invariant()
    def never_above_the_share(self) -> None:
        assert self._in_window(self.retries) <= 0.2 * len(self.calls) + 10 * (1 + len(self.retries) // 10)
        assert self.budget.available(self.now) >= 0


# --- adaptive ---------------------------------------------------------------------------------------------------------


def test_q26_the_limit_finds_the_servers_capacity_and_finds_it_again() -> None:
    """A server of capacity 50 under a demand of 500: within 40 to 75 from 60 s to 900 s, and again 240 s after its
    latency doubles. A limit that measures against its own queue runs away to the maximum."""
    limit = AdaptiveLimit("psp", None, limit_initial=20, limit_min=1, limit_max=200)
    source = seeded_random(7)
    ends: list[tuple[float, float]] = []  # (end, start) of calls in flight
    now, seen = 0.0, {}
    free = [0.0] * 50  # when each of the server's workers is free
    heapq.heapify(free)
    while now < 1500.0:
        base = 0.1 if now < 900.0 else 0.2
        while len(ends) < min(limit.limit, 500):
            start = max(now, heapq.heappop(free))
            end = start + base * source.uniform(0.9, 1.1)
            heapq.heappush(free, end)
            heapq.heappush(ends, (end, now))
        now, began = heapq.heappop(ends)
        limit.sample(now - began, len(ends) + 1, now)
        seen[int(now)] = limit._limit

    steady = [value for second, value in seen.items() if 60 <= second < 900]
    later = [value for second, value in seen.items() if second >= 1140]
    assert 40 <= min(steady)
    assert max(steady) <= 75
    assert 40 <= min(later)
    assert max(later) <= 75


def test_q26_idleness_changes_nothing() -> None:
    limit = AdaptiveLimit("psp", None, limit_initial=20, limit_min=1, limit_max=200)

    moves = [limit.sample(0.1, 1, number / 10) for number in range(2000)]

    assert {None} == set(moves)
    assert 20 == limit._limit


async def test_q26_cancelled_calls_are_no_samples(make: Make, clock: ManualClock, told: list[events.Event]) -> None:
    policy = make(Bulkhead(Adaptive(limit_initial=100)))
    for _ in range(3):
        tasks, _ = await held(policy, 100)
        await clock.advance(2)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    assert [] == [event for event in told if isinstance(event, events.LimitChanged)]


def _call(lane: str = "normal", cost: float = 1.0) -> Call:
    call = Call()
    call.lane = lane
    call.cost = cost
    return call


async def test_q25_a_token_around_retry_is_spent_by_the_attempt_that_was_made(make: Make, clock: ManualClock) -> None:
    """The breaker that the first attempt has opened rejects the second; the dependency was reached all the same."""
    policy = make(
        RateLimit(1, burst=1, wait_seconds_max=0),
        Retry(2, delay_seconds=0),
        Breaker(Consecutive(1)),
        idempotent=True,
        lint_ignore={"W2"},
    )

    async def refuse() -> None:
        raise ConnectionRefusedError

    with pytest.raises(ConnectionRefusedError):
        await policy.call(refuse)
    with pytest.raises(RateLimited):
        await policy.call(refuse)


_DOSE = settings(
    max_examples=min(examples(500), MACHINE_EXAMPLES),
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestRate = MACHINE_SECONDS(RateModel.TestCase)
TestBudget = MACHINE_SECONDS(BudgetModel.TestCase)
TestRate.settings = TestBudget.settings = _DOSE
