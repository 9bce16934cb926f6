"""Races: what the loser leaves behind, who is asked what a lost race means, and when the next one starts."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Any

import pytest

from spoolproof.policies import Bulkhead, Hedge, Policy, PolicyUsageError, Retry, Timeout, events
from spoolproof.policies.machines.memory import Latencies
from spoolproof.policies.running.hedge import HedgeNode
from spoolproof.testing.clock import ManualClock

Make = Callable[..., Policy]


async def test_a_hedge_that_was_not_admitted_does_not_hide_the_first_attempts_error(
    make: Make, clock: ManualClock
) -> None:
    """Its rejection would end the call, though the dependency's own error may be tried again."""
    policy = make(Retry(2, delay_seconds=0), Hedge(), Bulkhead(1, queue_max=0), Timeout(4), idempotent=True)
    calls = 0

    async def refused() -> None:
        nonlocal calls
        calls += 1
        await clock.sleep(2)
        raise ConnectionRefusedError

    result = asyncio.ensure_future(policy.result(refused))
    await clock.advance(10)

    assert (ConnectionRefusedError, 2) == (type(result.result().error), calls)


async def test_the_wait_before_a_hedge_follows_what_is_seen(make: Make, clock: ManualClock) -> None:
    """Also where no breaker asks for the time: latencies of 0 would keep the first guess for ever."""
    policy = make(Hedge(), Timeout(40), idempotent=True)

    for _ in range(50):
        call = asyncio.ensure_future(policy.call(clock.sleep, 0.5))
        await clock.advance(0.5)
        await call

    node = policy.machines.pipeline.root
    assert isinstance(node, HedgeNode)
    assert 0.5 == pytest.approx(node.delay_seconds())


def _stubborn(clock: ManualClock) -> Callable[[], Any]:
    """Return a function whose first run finishes although it was cancelled, after the second has won."""
    names = iter(["first", "second"])

    async def stubborn() -> str:
        name = next(names)
        try:
            await clock.sleep(1.5 if name == "first" else 0.1)
        except asyncio.CancelledError:
            await clock.sleep(1)
        return name

    return stubborn


async def test_what_a_discard_raises_does_not_replace_the_answer(
    make: Make, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    def discard(_: object) -> None:
        raise ValueError("https://user:secret@psp/charge")

    policy = make(Hedge(on_discard=discard), Timeout(4), idempotent=True)
    call = asyncio.ensure_future(policy.call(_stubborn(clock)))

    await clock.advance(10)

    assert "second" == call.result()
    assert "policies.on_discard_failed policy=psp error=ValueError: https://psp/charge" in caplog.text


async def test_q16_an_answer_that_is_cancelled_away_is_handed_over(make: Make, clock: ManualClock) -> None:
    """Whoever cancels while the loser is awaited never sees the winner's response; it has to be closed."""
    discarded: list[str] = []
    policy = make(Hedge(on_discard=discarded.append), Timeout(4), idempotent=True)
    call = asyncio.ensure_future(policy.call(_stubborn(clock)))

    await clock.advance(1.2)  # the second has won, the first does not end
    call.cancel()
    await clock.advance(10)

    assert (True, ["first", "second"]) == (call.cancelled(), sorted(discarded))


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with Python 3.12")
async def test_attempts_that_end_as_they_start_are_seen(make: Make, clock: ManualClock) -> None:
    """An eager task factory runs a task as it is made; nobody would be woken by its end."""
    asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined,unused-ignore]
    policy = make(Hedge(), Timeout(4), idempotent=True)

    async def at_once() -> str:
        return "answer"

    try:
        assert "answer" == await asyncio.wait_for(policy.call(at_once), 5)
    finally:
        asyncio.get_running_loop().set_task_factory(None)


async def test_a_race_that_is_closed_leaves_nobody_running(make: Make, clock: ManualClock) -> None:
    """A coroutine that is dropped can await nothing; its attempts are cancelled all the same."""
    policy = make(Hedge(), Bulkhead(2), Timeout(4), idempotent=True)

    async def begin() -> None:
        call = policy.call(asyncio.get_running_loop().create_future)
        call.send(None)
        await asyncio.sleep(0)
        call.close()

    await begin()
    await clock.advance(0)

    assert (0, 1) == (policy.machines.slots.running, len(asyncio.all_tasks()))


async def test_every_cancellation_reaches_an_attempt_that_swallowed_the_first(make: Make, clock: ManualClock) -> None:
    """As it would without a hedge: a service that stops must not wait for ever."""
    policy = make(Hedge(), idempotent=True)

    async def stubborn() -> None:
        try:
            await clock.sleep(3600)
        except asyncio.CancelledError:
            await clock.sleep(3600)

    call = asyncio.ensure_future(policy.call(stubborn))
    await clock.advance(0)
    call.cancel()
    await clock.advance(1)
    is_done_at_first = call.done()
    call.cancel()
    await clock.advance(1)

    assert (False, True) == (is_done_at_first, call.cancelled())


def test_only_the_latest_calls_say_how_slow_is_slow() -> None:
    """A dependency that has become slower for good would be hedged at every call."""
    latencies = Latencies()
    seen = []

    for seconds in [1.0] * 49 + [1.0] + [1.0] * 150 + [2.0] * 10 + [2.0] + [2.0] * 189 + [0.5] * 200:
        latencies.add(seconds)
        seen.append(latencies.percentile())

    assert [None, 1.0] == seen[48:50]
    assert [1.0, 2.0] == seen[
        208:210
    ]  # 10 of the latest 200 are above the 95th percentile, from the next on it is theirs
    assert [2.0, 0.5] == [seen[399], seen[-1]]


def test_a_sync_call_is_not_hedged(make: Make, clock: ManualClock) -> None:
    """A thread cannot be cancelled, so the loser could not be ended."""
    with pytest.raises(PolicyUsageError, match="policy 'psp': Hedge is for async functions only"):
        make(Hedge(), idempotent=True).call_sync(int)


async def test_an_attempt_that_is_cancelled_from_inside_cancels_the_call(make: Make, clock: ManualClock) -> None:
    """Somebody wanted it to end; an answer of the other one would hide that."""
    policy = make(Hedge(), Bulkhead(2), Timeout(4), idempotent=True)
    begun = 0

    async def work() -> str:
        nonlocal begun
        begun += 1
        await clock.sleep(2)
        if begun == 2:
            raise asyncio.CancelledError
        return "answer"

    call = asyncio.ensure_future(policy.call(work))
    await clock.advance(2)

    assert (2, True, 0) == (begun, call.cancelled(), policy.machines.slots.running)
    assert 1 == len(asyncio.all_tasks())


async def test_without_budget_no_hedge_is_launched_and_none_is_asked_for_again(make: Make, clock: ManualClock) -> None:
    policy = make(Retry(1, budget_ratio=0, budget_per_second_min=0.1), Hedge(3), Timeout(4), idempotent=True)
    budget = policy._definition.shared.budget
    assert budget.spend(clock.monotonic())
    begun = []

    async def work() -> str:
        begun.append(clock.monotonic())
        await clock.sleep(3)
        return "answer"

    call = asyncio.ensure_future(policy.call(work))
    await clock.advance(1)
    budget.configure(budget_ratio=0, budget_per_second_min=100)
    await clock.advance(2)

    assert ("answer", [0.0]) == (call.result(), begun)


async def test_q16_of_two_that_answer_in_one_turn_the_first_wins(
    make: Make, clock: ManualClock, told: list[events.Event], caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody has to be told of the other's answer, unless it was asked for."""
    policy = make(Hedge(), Bulkhead(2), Timeout(4), idempotent=True)
    faults: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context))
    gate = asyncio.get_running_loop().create_future()
    numbers = iter([1, 2])

    async def work() -> int:
        number = next(numbers)
        await asyncio.shield(gate)
        return number

    call = asyncio.ensure_future(policy.call(work))
    await clock.advance(1)
    gate.set_result(None)
    await clock.advance(0)

    assert (1, None, 0, []) == (call.result(), next(numbers, None), policy.machines.slots.running, faults)
    assert "" == caplog.text
    assert ([1], []) == (
        [event.attempt - 1 for event in told if isinstance(event, events.HedgeLaunched)],
        [event for event in told if isinstance(event, events.HedgeWon)],
    )
