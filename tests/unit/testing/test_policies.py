"""What tests of code with policies use: each does what it says, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from spoolproof.errors import PolicyUsageError
from spoolproof.policies import (
    Adaptive,
    Breaker,
    BreakerOpen,
    Bulkhead,
    Consecutive,
    Fallback,
    Policy,
    Rate,
    RateLimit,
    Registry,
    Retry,
    Slow,
    Timeout,
    events,
)
from spoolproof.policies.call import Call
from spoolproof.testing.clock import ManualClock
from spoolproof.testing.policies import assert_inflight_max, attempts_capped, captured, force_open, isolated

Make = Callable[..., Policy]


class Away(Exception):
    failure_kind = "transient"
    is_unknown = False


async def fine() -> str:
    return "fine"


async def away() -> None:
    raise Away


@pytest.fixture
def clock() -> Iterator[ManualClock]:
    with ManualClock().active() as clock:
        yield clock


@pytest.fixture
def registry() -> Registry:
    return Registry(environ={})


@pytest.fixture
def make(registry: Registry, clock: ManualClock) -> Make:
    def make(*parts: Any, name: str = "psp", **settings: Any) -> Policy:
        return Policy(name, *parts, registry=registry, **settings)

    return make


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


# --- events ----------------------------------------------------------------------------------------------------------


async def test_captured_gets_the_events_of_the_block_and_of_one_policy_if_asked(make: Make) -> None:
    """Else a test of one dependency breaks when another is added."""
    psp, stock = make(Timeout(1)), make(Timeout(1), name="stock")

    with captured() as everything, captured(stock) as of_stock:
        await psp.call(fine)
        await stock.call(fine)
    await stock.call(fine)

    assert ["psp", "psp", "stock", "stock"] == [event.policy for event in everything]
    assert [events.AttemptEnded, events.CallEnded] == [type(event) for event in of_stock]
    assert () == events.listeners


# --- the breaker -----------------------------------------------------------------------------------------------------


async def test_a_breaker_forced_open_rejects_and_is_afterwards_what_it_was(make: Make) -> None:
    """Also what it had counted, in the window and in a row: the next failure is the one that opens it."""
    psp = make(Breaker(Consecutive(3) | Rate(0.5, calls_min=4)))
    protected = psp(fine)
    await protected()
    await psp.result(away)
    await psp.result(away)

    with captured(psp) as told, force_open(psp, 30):
        assert ("open", 30.0) == (psp.state, psp.open_until_seconds)
        with pytest.raises(BreakerOpen):
            await protected()
        with pytest.raises(BreakerOpen):
            await psp.call(fine)
    changes = [(event.old, event.new) for event in told if isinstance(event, events.BreakerChanged)]

    assert [("closed", "open"), ("open", "closed")] == changes
    assert "closed" == psp.state
    await psp.result(away)
    assert "open" == psp.state


async def test_a_breaker_forced_open_for_longer_than_its_setting_allows_probes_only_then(
    make: Make, clock: ManualClock
) -> None:
    """The test says how long, not the policy."""
    psp = make(Breaker(Consecutive(3), open_seconds=1, open_seconds_max=5, probe_successes=1))

    with force_open(psp, seconds=100):
        await clock.advance(99.9)
        assert "open" == psp.state
        await clock.advance(0.1)
        assert "half_open" == psp.state
        assert "fine" == await psp.call(fine)
        assert "closed" == psp.state

    assert "closed" == psp.state


@pytest.mark.parametrize("state", ["open", "half_open", "isolated"])
async def test_a_breaker_that_was_not_closed_is_again_what_it_was(make: Make, clock: ManualClock, state: str) -> None:
    """With the time it had left, less what passed."""
    psp = make(Breaker(Consecutive(1), open_seconds=10, open_jitter=0))
    if state == "isolated":
        psp.isolate("maintenance", ttl_seconds=50)
    else:
        await psp.result(away)
    if state == "half_open":
        await clock.advance(10)
    assert state == psp.state

    with force_open(psp, 1):
        await clock.advance(2)
        assert "half_open" == psp.state

    assert state == psp.state
    assert {"open": 8.0, "half_open": 0.0, "isolated": 48.0}[state] == pytest.approx(psp.open_until_seconds)


async def test_who_waits_for_admission_is_woken_when_the_block_ends(make: Make) -> None:
    """A consumer's gate watches the breaker; it must not stay shut after the test."""
    psp = make(Breaker())
    with force_open(psp, 1000):
        waiting = asyncio.ensure_future(psp.wait_admission(500))
        await settle()
        assert not waiting.done()

    assert await asyncio.wait_for(waiting, 1)


async def test_the_verdict_of_a_call_that_began_while_it_was_forced_open_counts_for_nothing(make: Make) -> None:
    """Else a test's last call decides what the next test finds."""
    psp = make(Breaker(Consecutive(1)))
    with force_open(psp, 1000):
        psp.probe_now("let one in")
        async with psp.permit() as permit:
            permit.failure()
    psp.reset("closed again")
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def fails_later() -> None:
        begun.set()
        await go_on.wait()
        raise Away

    running = asyncio.ensure_future(psp.result(fails_later))
    await begun.wait()
    with force_open(psp):
        pass
    go_on.set()
    await running

    assert "closed" == psp.state


def test_what_cannot_be_forced_open_says_so(make: Make) -> None:
    """A breaker that would reject nothing makes a test pass for the wrong reason."""
    with pytest.raises(PolicyUsageError, match="no Breaker"), force_open(make(Timeout(1), name="none")):
        pass
    with pytest.raises(PolicyUsageError, match="rejects nothing"), force_open(make(Breaker(mode="observe"))):
        pass
    with pytest.raises(ValueError, match="above 0"), force_open(make(Breaker(), name="zero"), 0):
        pass


# --- attempts --------------------------------------------------------------------------------------------------------


async def test_capped_attempts_hold_for_every_form_and_key_and_end_with_the_block(
    make: Make, clock: ManualClock
) -> None:
    """Functions were protected at import; the cap reaches them all the same."""
    psp = make(Retry(4, delay_seconds=0.01, budget_per_second_min=100), idempotent=True)
    made: list[str] = []

    @psp
    async def protected() -> None:
        made.append("protected")
        raise Away

    async def again() -> None:
        made.append("called")
        raise Away

    old = psp.for_key("old")
    async with clock.auto_advance():
        with attempts_capped(psp, 2):
            for policy in (psp, old, psp.for_key("new")):
                assert 2 == (await policy.result(again)).attempts
            with pytest.raises(Away):
                await protected()
            assert 2 == made.count("protected")
            with attempts_capped(psp, 1):
                assert 1 == (await psp.result(again)).attempts
            with attempts_capped(psp, 9):
                assert 2 == (await psp.result(again)).attempts

        for policy in (psp, old, psp.for_key("new"), psp.for_key("newest")):
            assert 4 == (await policy.result(again)).attempts


def test_attempts_that_cannot_be_capped_say_so(make: Make) -> None:
    """A cap that caps nothing is a mistake in the test."""
    with pytest.raises(PolicyUsageError, match="no Retry"), attempts_capped(make(Timeout(1)), 1):
        pass
    with pytest.raises(ValueError, match="whole number"), attempts_capped(make(Retry(3), name="zero"), 0):
        pass


# --- calls in flight -------------------------------------------------------------------------------------------------


async def test_calls_in_flight_are_counted_whatever_their_form(make: Make) -> None:
    """Decorated before, called, and as blocks: a limit that one form goes around is no limit."""
    psp = make(Bulkhead(10))
    go_on = asyncio.Event()
    protected = psp(go_on.wait)
    await psp.call(fine)  # so that its short way exists already

    async def block() -> None:
        async with psp.permit():
            await go_on.wait()

    async def run() -> None:
        calls = [protected(), psp.call(go_on.wait), psp.result(go_on.wait), block()]
        tasks = [asyncio.ensure_future(call) for call in calls]
        await settle()
        go_on.set()
        await asyncio.gather(*tasks)

    with assert_inflight_max(psp, 4) as inflight:
        await run()
    assert (4, 0) == (inflight.seen_max, inflight.running)

    go_on.clear()
    with pytest.raises(AssertionError, match=r"4 calls .* expected at most 3"), assert_inflight_max(psp, 3):
        await run()


async def test_those_who_queue_are_not_in_flight(make: Make) -> None:
    """What the dependency does not see is no load."""
    psp = make(Bulkhead(2))

    with assert_inflight_max(psp, 2) as inflight:
        assert ["fine"] * 6 == await asyncio.gather(*(psp.call(slow) for _ in range(6)))

    assert 2 == inflight.seen_max


async def slow() -> str:
    await asyncio.sleep(0.001)
    return "fine"


async def test_failed_cancelled_and_timed_out_calls_are_no_longer_in_flight(make: Make, clock: ManualClock) -> None:
    """Else the count only grows."""
    psp = make(Retry(2, delay_seconds=0.01), Timeout(1), idempotent=True)

    async with clock.auto_advance():
        with assert_inflight_max(psp, 1) as inflight:
            await psp.result(away)
            assert "AttemptTimeout" == type((await psp.result(clock.sleep, 100)).error).__name__
            cancelled = asyncio.ensure_future(psp.call(asyncio.Event().wait))
            await asyncio.sleep(0)
            cancelled.cancel()
            await asyncio.gather(cancelled, return_exceptions=True)
            async for attempt in psp.attempts():
                async with attempt:
                    if inflight.running != 1:
                        pytest.fail("a block is not counted")

    assert (1, 0) == (inflight.seen_max, inflight.running)


def test_sync_calls_on_threads_are_counted(registry: Registry) -> None:
    """Threads are where a limit is easiest to get wrong."""
    psp = Policy("psp", Bulkhead(3), registry=registry)
    together = threading.Barrier(3)

    with assert_inflight_max(psp, 3) as inflight:
        threads = [threading.Thread(target=psp.call_sync, args=(together.wait, 10)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert (3, 0) == (inflight.seen_max, inflight.running)
    assert () == events.listeners


async def test_an_error_of_the_block_is_not_hidden_by_the_count(make: Make) -> None:
    """The first failure is the one to read."""
    psp = make(Bulkhead(10))
    before = psp.machines.pipeline

    with pytest.raises(ZeroDivisionError), assert_inflight_max(psp, 0):
        await psp.call(fine)
        _ = 1 / 0

    assert before is psp.machines.pipeline


# --- registry --------------------------------------------------------------------------------------------------------


async def test_isolated_policies_begin_as_new_and_are_afterwards_what_they_were(
    make: Make, registry: Registry, clock: ManualClock
) -> None:
    """Counts, breakers, isolations, cooldowns and budget: a test finds none of them, and leaves none."""
    rule = Consecutive(3) | Rate(0.5, calls_min=10) | Slow(0.5, slow_seconds=5)
    counted = make(Retry(1, budget_ratio=0, budget_per_second_min=0.1), Breaker(rule))
    budget = counted._definition._budget
    shut = make(Breaker(), name="shut")
    key = counted.for_key("a")
    await counted.result(away)
    await key.result(away)
    assert budget.spend(0.0)
    shut.isolate("maintenance")
    shut.machines.cooldown.start(clock.monotonic(), 30)
    before = [one.snapshot() for one in registry.all()]
    counts = counted.machines.circuit.tally.counts()  # type: ignore[union-attr]

    with isolated(registry):
        assert ["closed"] * 3 == [one.state for one in registry.all()]
        assert "fine" == await shut.call(fine)
        for _ in range(9):
            await counted.result(away)
            await key.result(away)
        assert "open" == counted.state == key.state
        assert 1.0 == budget.available(0.0)
        counted.for_key("made inside")
        Policy("made-inside", Timeout(1), registry=registry)
        registry.reload({"SPOOLPROOF_POLICY_PSP_CONSECUTIVE": "7"})
        registry.drain()

    assert before == [one.snapshot() for one in registry.all()]
    assert counts == counted.machines.circuit.tally.counts()  # type: ignore[union-attr]
    assert 0.0 == budget.available(0.0)
    assert ["psp", "shut"] == registry.names()
    assert ["a"] == list(counted._definition.children())
    assert 3 == counted._definition.values.consecutive
    assert not registry.drain_switch.is_draining


async def test_a_policy_used_by_the_machines_clock_works_by_a_manual_one_and_again_by_the_machines() -> None:
    """Policies of a module live through all tests, and clocks do not agree on what time it is."""
    registry = Registry(environ={})
    psp = Policy("psp", Breaker(Consecutive(1), open_seconds=10, open_jitter=0), registry=registry)
    await psp.result(away)
    psp.reset("before the test")

    for _ in range(2):
        with isolated(registry), ManualClock().active() as clock:
            await psp.result(away)
            assert 10.0 == psp.open_until_seconds
            await clock.advance(10)
            assert "half_open" == psp.state

    await psp.result(away)
    assert 0 < psp.open_until_seconds <= 10


async def test_limits_begin_as_new_by_whatever_clock_and_are_afterwards_what_they_were() -> None:
    """For a bucket and a queue no time passes until a clock is beyond what they saw: a test would wait for ever."""
    registry = Registry(environ={})
    bucket = Policy("bucket", RateLimit(2, per_seconds=1000, wait_seconds_max=0), registry=registry)
    queue = Policy("queue", Bulkhead(1, wait_seconds_max=5), registry=registry)

    async def taken() -> list[bool]:
        return [(await bucket.result(fine)).is_ok for _ in range(3)]

    async def hold(clock: ManualClock) -> list[bool]:
        held = [asyncio.ensure_future(queue.result(clock.sleep, 3)) for _ in range(2)]
        await clock.advance(6)
        return [(await one).is_ok for one in held]

    before = await taken(), await asyncio.gather(*(queue.call(slow) for _ in range(2)))
    inside = []
    for _ in range(2):
        with isolated(registry), ManualClock().active() as clock:
            inside.append((await taken(), await hold(clock)))

    assert ([True, True, False], ["fine", "fine"]) == before
    assert [([True, True, False], [True, True])] * 2 == inside
    assert [False, False, False] == await taken()


async def test_a_token_that_comes_back_late_does_not_count_twice() -> None:
    """A call that was admitted before the test and rejected in it gives nothing to the test's bucket."""
    registry = Registry(environ={})
    psp = Policy("psp", RateLimit(2, per_seconds=1000, wait_seconds_max=0), registry=registry)
    tokens = psp.machines.tokens
    assert tokens is not None
    permit = tokens.enter(Call(), 0.0)

    with isolated(registry):
        tokens.enter(Call(), 0.0)
        tokens._refund(permit, 1.0)
        assert 1.0 == pytest.approx(tokens.available(0.0))

    assert 1.0 == pytest.approx(tokens.available(0.0))


async def test_a_limit_that_moved_in_the_test_is_back_where_it_was() -> None:
    """Else the order of tests decides how many calls the next one may make at once."""
    registry = Registry(environ={})
    psp = Policy("psp", Bulkhead(Adaptive(limit_initial=10, limit_max=40)), registry=registry)
    slots = psp.machines.slots
    assert slots is not None
    own = slots._adaptive
    slots.resize(33)

    with isolated(registry):
        assert 10 == slots.limit
        assert own is not slots._adaptive
        await psp.call(fine)

    assert own is slots._adaptive
    assert own is not None
    assert own.limit == slots.limit


async def test_answers_of_before_are_not_known_in_the_test_nor_its_own_afterwards() -> None:
    """A stale answer that another test left behind makes a failing call look like a working one."""
    registry = Registry(environ={})
    fallback = Fallback.last_good(age_seconds_max=1e6)
    psp = Policy("psp", fallback, Timeout(5), registry=registry)
    outcomes = iter(["before", None, "inside", None])

    async def ask() -> str:
        answer = next(outcomes)
        if answer is None:
            raise Away
        return answer

    await psp.call(ask)
    with isolated(registry):
        assert Away is type((await psp.result(ask)).error)
        await psp.call(ask)

    assert ("before", "stale") == ((last := await psp.result(ask)).value, last.source)


def test_a_registry_that_drains_does_not_drain_in_the_test() -> None:
    """A service that was stopped in one test must not keep the next one from trying again."""
    registry = Registry(environ={})
    registry.drain()

    with isolated(registry):
        assert not registry.drain_switch.is_draining

    assert registry.drain_switch.is_draining
