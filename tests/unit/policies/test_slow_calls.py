"""What a slow rule measures in a policy: the time the dependency has a call, and nothing of our own making."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from spoolproof.policies import Breaker, Bulkhead, Consecutive, Policy, RateLimit, Retry, Slow, Timeout, events
from spoolproof.testing.clock import ManualClock

from .conftest import settle

Make = Callable[..., Policy]

SLOW = Slow(0.5, slow_seconds=0.5, calls_min=5)


async def answer() -> None:
    """Come back at once."""


@pytest.mark.parametrize("is_listened_to", [False, True])
@pytest.mark.parametrize("key", [None, "tenant"])
async def test_q18_waiting_for_a_token_is_not_slow(
    make: Make, clock: ManualClock, is_listened_to: bool, key: str | None
) -> None:
    """A dependency that answers at once must not be given up because our own rate limit has a queue."""
    policy = make(Breaker(SLOW), RateLimit(10, burst=1, wait_seconds_max=2), Timeout(10))
    used = policy if key is None else policy.for_key(key)
    unsubscribe = events.subscribe(lambda _: None) if is_listened_to else lambda: None

    calls = [asyncio.ensure_future(used.call(answer)) for _ in range(15)]
    await clock.advance(2)
    unsubscribe()

    assert all(call.done() for call in calls)
    assert "closed" == used.state
    assert used.machines.circuit is not None
    assert 0 == used.machines.circuit.tally.counts()["slow"]


async def test_q18_a_call_refused_after_a_wait_for_a_slot_is_not_slow(make: Make, clock: ManualClock) -> None:
    policy = make(Breaker(SLOW), Bulkhead(1, queue_max=20, wait_seconds_max=1), Timeout(10))
    held = asyncio.ensure_future(policy.call(asyncio.get_running_loop().create_future))
    await settle()

    refused = [asyncio.ensure_future(policy.result(answer)) for _ in range(9)]
    await clock.advance(2)
    held.cancel()
    await asyncio.gather(held, return_exceptions=True)

    assert {"BulkheadFull"} == {type(one.result().error).__name__ for one in refused}
    assert "closed" == policy.state


async def test_q19_a_call_is_slow_so_long_after_its_wait(make: Make, clock: ManualClock) -> None:
    """While it is in flight: a dependency that hangs behind a queue is found out all the same."""
    policy = make(Breaker(SLOW), RateLimit(10, burst=1, wait_seconds_max=2), Timeout(10))
    hanging: Any = asyncio.get_running_loop().create_future

    calls = [asyncio.ensure_future(policy.result(hanging)) for _ in range(6)]  # the last begins at 0.5 s
    await clock.advance(0.85)
    early = policy.state
    await clock.advance(0.1)

    assert ("closed", "open") == (early, policy.state)
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)


async def test_a_probe_that_waits_for_a_token_has_not_failed(make: Make, clock: ManualClock) -> None:
    policy = make(
        Breaker(Consecutive(1) | SLOW, open_seconds=5, open_jitter=0, probe_successes=2),
        RateLimit(1, burst=1, wait_seconds_max=2),
    )
    await policy.result(_fail)
    await clock.advance(5)

    first = await policy.result(answer)
    second = asyncio.ensure_future(policy.result(answer))  # in a second
    await clock.advance(0.9)
    meanwhile = policy.state
    await clock.advance(0.2)

    assert ("half_open", "closed") == (meanwhile, policy.state)
    assert (True, True) == (first.is_ok, second.result().is_ok)


async def test_around_retry_all_attempts_together_are_slow(make: Make, clock: ManualClock) -> None:
    """There a breaker judges calls (W3), and the caller has waited for all of it."""
    policy = make(Breaker(Slow(0.5, slow_seconds=5, calls_min=1)), Retry(2, delay_seconds=0), idempotent=True)

    async def fails_late() -> None:
        await clock.sleep(3)
        raise ConnectionRefusedError

    calling = asyncio.ensure_future(policy.result(fails_late))
    await clock.advance(4.9)
    early = policy.state
    await clock.advance(0.1)

    assert ("closed", "open") == (early, policy.state)
    await clock.advance(2)
    assert calling.done()


async def _fail() -> None:
    raise ConnectionRefusedError
