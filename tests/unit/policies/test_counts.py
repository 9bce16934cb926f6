"""What a policy counts, for whoever reads it: nobody has to listen, and a keyed child counts for itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from spoolproof.errors import BreakerOpen
from spoolproof.policies import Breaker, Bulkhead, Consecutive, Fallback, Policy, Retry
from spoolproof.testing.clock import ManualClock

Make = Callable[..., Policy]


async def away() -> None:
    raise ConnectionRefusedError


async def works() -> int:
    return 1


async def test_calls_attempts_and_retries_are_counted_without_a_listener(make: Make, clock: ManualClock) -> None:
    policy = make(Retry(2, delay_seconds=0))

    await policy.call(works)
    await policy.result(away)
    policy.call_sync(int)

    counts = policy.machines.counts
    assert {("success", "live"): 2, ("transient", "live"): 1} == counts.calls()
    assert (4, 1, {"attempts": 1}) == (counts.attempts, counts.retries, counts.stopped)


async def test_what_an_open_breaker_refuses_is_counted_by_it(make: Make, clock: ManualClock) -> None:
    """It goes straight to the caller, past everything else that counts."""
    policy = make(Breaker(Consecutive(1)), Bulkhead(1))
    await policy.result(away)

    for _ in range(3):
        with pytest.raises(BreakerOpen):
            await policy.call(works)

    assert {"breaker": 3} == policy.machines.counts.rejections()
    assert {("transient", "live"): 1, ("local", "live"): 3} == policy.machines.counts.calls()
    assert policy.machines.circuit is not None
    assert {"open": 1} == policy.machines.circuit.transitions


async def test_a_full_bulkhead_and_where_answers_come_from_are_counted(make: Make, clock: ManualClock) -> None:
    policy = make(Fallback("other"), Bulkhead(1, queue_max=0))
    may_go = asyncio.Event()
    running = asyncio.ensure_future(policy.call(may_go.wait))
    await asyncio.sleep(0)

    assert "other" == await policy.call(works)
    may_go.set()
    await running

    counts = policy.machines.counts
    assert {("local", "fallback"): 1, ("success", "live"): 1} == counts.calls()
    assert ({"bulkhead": 1}, 1) == (counts.rejections(), counts.attempts)


async def test_a_key_counts_for_itself(make: Make, clock: ManualClock) -> None:
    policy = make(Retry(2))

    await policy.for_key("a").call(works)

    assert ({}, {("success", "live"): 1}) == (
        policy.machines.counts.calls(),
        policy.for_key("a").machines.counts.calls(),
    )


async def test_a_block_is_a_call_and_its_run_an_attempt(make: Make, clock: ManualClock) -> None:
    policy = make(Bulkhead(1))

    async with policy.permit():
        pass

    assert ({("success", "live"): 1}, 1) == (policy.machines.counts.calls(), policy.machines.counts.attempts)
