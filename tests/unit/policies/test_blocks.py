"""Blocks: `permit()` and `attempts()` where they are entered late, twice, or left in another context."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from spoolproof.errors import Action
from spoolproof.policies import (
    AttemptTimeout,
    Breaker,
    BreakerOpen,
    Bulkhead,
    BulkheadFull,
    Consecutive,
    Deadline,
    DeadlineExceeded,
    Kind,
    Policy,
    PolicyUsageError,
    RateLimited,
    Registry,
    Retry,
    Timeout,
    deadline,
    events,
    idempotency_key,
    report,
)
from spoolproof.policies.call import current, is_repeating
from spoolproof.policies.judging.verdict import SUCCESS
from spoolproof.policies.running import timeout
from spoolproof.testing.clock import ManualClock

from .conftest import settle

Make = Callable[..., Policy]


async def test_q30_a_stream_nobody_reads_to_its_end_leaks_neither_slot_nor_deadline(
    make: Make, clock: ManualClock
) -> None:
    """The loop closes it in a context of its own. A slot would be lost, and 30 s later every call of this task cut."""
    policy = make(Deadline(30), Bulkhead(1, queue_max=0))

    async def stream() -> AsyncIterator[int]:
        async with policy.permit():
            yield 1
            yield 2

    async for _ in stream():
        break
    gc.collect()
    await settle()

    assert (0, None) == (policy.machines.slots.running, deadline.remaining())


async def test_a_stream_that_was_tried_again_and_dropped_lets_others_try_again(make: Make, clock: ManualClock) -> None:
    policy = make(Retry(3, delay_seconds=0), Bulkhead(1, queue_max=0))

    async def stream() -> AsyncIterator[int]:
        async for attempt in policy.attempts():
            async with attempt as permit:
                if permit.attempt == 1:
                    raise ConnectionRefusedError
                yield permit.attempt

    reading = stream()
    task = asyncio.ensure_future(anext(reading))
    await clock.advance(1)
    assert 2 == await task
    del reading, task
    gc.collect()
    await settle()

    assert (0, None) == (policy.machines.slots.running, current(is_repeating) or None)


async def test_q30_blocks_that_end_in_the_order_they_began_leave_no_deadline(make: Make, clock: ManualClock) -> None:
    """Two streams read side by side; the first to begin ends first."""
    policy = make(Deadline(30))
    first, second = policy.permit(), policy.permit()

    await first.__aenter__()
    await second.__aenter__()
    await first.__aexit__(None, None, None)
    between = deadline.remaining()
    await second.__aexit__(None, None, None)

    assert (30.0, None) == (between, deadline.remaining())


@pytest.mark.parametrize("form", ["permit", "attempts"])
async def test_a_block_is_entered_once(make: Make, clock: ManualClock, form: str) -> None:
    """Its permits would be given back twice."""
    policy = make(Retry(3), Breaker(), Bulkhead(2))
    block: Any = policy.permit() if form == "permit" else await anext(policy.attempts())

    async with block:
        with pytest.raises(PolicyUsageError, match="entered before"):
            await block.__aenter__()
        assert 1 == policy.machines.slots.running
    with pytest.raises(PolicyUsageError, match="entered before"):
        await block.__aenter__()

    assert 0 == policy.machines.slots.running


@pytest.mark.parametrize("form", ["permit", "attempts"])
async def test_a_blocks_time_begins_when_it_is_entered(make: Make, clock: ManualClock, form: str) -> None:
    """It may be made long before, in the constructor of a client for example."""
    policy = make(Deadline(30), Retry(2), Timeout(10))

    async def work() -> None:
        block: Any = policy.permit() if form == "permit" else await anext(policy.attempts())
        await clock.sleep(20)
        async with block:
            await clock.sleep(9)

    task = asyncio.ensure_future(work())
    await clock.advance(29.5)

    assert task.done()
    task.result()


@pytest.mark.parametrize("asked", ["5", -5, float("nan"), object()])
async def test_a_block_may_quote_a_header_as_it_is(make: Make, clock: ManualClock, asked: Any) -> None:
    """A TypeError at the end of the block would lose its slot."""
    policy = make(Bulkhead(1))

    async with policy.permit() as permit:
        permit.failure("rate_limited", retry_after_seconds=asked)

    assert 0 == policy.machines.slots.running
    assert (5.0 if asked == "5" else 1.0) == policy.machines.cooldown.until


async def test_q24_the_idempotency_key_is_read_inside_blocks_too(make: Make, clock: ManualClock) -> None:
    policy = make(Retry(2, delay_seconds=0))
    seen = []

    async for attempt in policy.using(idempotency_key="k").attempts():
        async with attempt:
            seen.append(idempotency_key())
            if len(seen) == 1:
                raise ConnectionRefusedError
    async with policy.using(idempotency_key="other").permit():
        seen.append(idempotency_key())

    assert (["k", "k", "other"], None) == (seen, idempotency_key())


async def test_the_end_of_every_block_is_told(make: Make, clock: ManualClock, told: list[events.Event]) -> None:
    """Metrics that count only the calls that fail show an outage where there is none."""
    policy = make(Retry(2, delay_seconds=0))

    async def run(form: str, error: BaseException | None) -> None:
        if form == "permit":
            async with policy.permit():
                if error is not None:
                    raise error
            return
        async for attempt in policy.attempts():
            async with attempt:
                if error is not None:
                    raise error

    for form in ("permit", "attempts"):
        for error in (None, ValueError(), asyncio.CancelledError()):
            try:
                await run(form, error)
            except (ValueError, asyncio.CancelledError):
                continue

    ends = [event.result for event in told if isinstance(event, events.CallEnded)]
    assert ["success", "bug", "cancelled"] * 2 == ends


async def test_a_drain_starts_no_further_run_of_a_block_that_declared_its_failure(clock: ManualClock) -> None:
    registry = Registry(environ={})
    policy = Policy("psp", Retry(3, delay_seconds=60), registry=registry)
    runs = 0

    async def work() -> None:
        nonlocal runs
        async for attempt in policy.attempts():
            async with attempt as permit:
                runs += 1
                permit.failure("transient")

    task = asyncio.ensure_future(work())
    await settle()
    registry.drain()
    await settle()

    assert (True, 1) == (task.done(), runs)


def test_a_block_that_cannot_be_timed_gives_its_permits_back() -> None:
    """Without a task there is nothing to cut off."""
    policy = Policy("psp", Bulkhead(1), Timeout(1), registry=Registry(environ={}))
    loop = asyncio.new_event_loop()
    errors = []

    def enter() -> None:
        try:
            policy.permit().__aenter__().send(None)
        except PolicyUsageError as error:
            errors.append(error)
        loop.stop()

    loop.call_soon(enter)
    loop.run_forever()
    loop.close()

    assert (1, 0) == (len(errors), policy.machines.slots.running)


async def test_a_timeout_around_retry_bounds_all_runs_of_a_block_together(make: Make, clock: ManualClock) -> None:
    """And the one inside bounds each."""
    policy = make(Timeout(12), Retry(10, delay_seconds=0, budget_per_second_min=100), Timeout(5), idempotent=True)
    begun = []

    async def work() -> None:
        async for attempt in policy.attempts():
            async with attempt:
                begun.append(clock.monotonic())
                await clock.sleep(60)

    task = asyncio.ensure_future(work())
    await clock.advance(60)

    assert ([0.0, 5.0, 10.0], DeadlineExceeded) == (begun, type(task.exception()))
    assert 12.0 == pytest.approx(report(task.exception()).elapsed_seconds)  # type: ignore[arg-type]


async def test_a_timeout_around_retry_bounds_a_block_that_runs_once(make: Make, clock: ManualClock) -> None:
    policy = make(Timeout(3), Retry(2))

    async def work() -> None:
        async with policy.permit():
            await clock.sleep(60)

    task = asyncio.ensure_future(work())
    await clock.advance(4)

    assert AttemptTimeout is type(task.exception())


@pytest.mark.parametrize("parts", [[Timeout(3), Breaker()], [Retry(2), Timeout(3), Breaker()]])
async def test_a_timeout_around_a_breaker_bounds_each_run_of_a_block(
    make: Make, clock: ManualClock, parts: list[Any]
) -> None:
    """Only one around Retry bounds them together."""
    policy = make(*parts)

    async def work() -> None:
        async for attempt in policy.attempts():
            async with attempt:
                await clock.sleep(60)

    task = asyncio.ensure_future(work())
    await clock.advance(4)

    assert AttemptTimeout is type(task.exception())


def _ends(told: list[events.Event]) -> list[tuple[str, int]]:
    return [(event.result, event.attempts) for event in told if isinstance(event, events.CallEnded)]


async def _entered(policy: Policy, form: str) -> None:
    block: Any = policy.permit() if form == "permit" else await anext(policy.attempts())
    async with block:
        await asyncio.get_running_loop().create_future()


@pytest.mark.parametrize("reason", ["our own proxy is away", None])
async def test_a_block_may_say_that_its_run_means_nothing(make: Make, clock: ManualClock, reason: str | None) -> None:
    """Whatever it raises: only the block knows that nothing was sent."""
    policy = make(Breaker(Consecutive(1)), Bulkhead(1))

    with pytest.raises(ConnectionResetError) as raised:
        async with policy.permit() as permit:
            permit.neutral() if reason is None else permit.neutral(reason)
            raise ConnectionResetError

    known = report(raised.value)
    assert ("closed", 0) == (policy.state, policy.machines.slots.running)
    assert (Kind.LOCAL, False, reason or "declared by the block", Action.DEFER) == (
        known.verdict.kind,
        known.verdict.is_unknown,
        known.verdict.reason,
        known.disposition and known.disposition.action,
    )


@pytest.mark.parametrize("form", ["permit", "attempts"])
async def test_a_block_that_declared_its_success_is_one_whatever_it_raises(
    make: Make, clock: ManualClock, told: list[events.Event], form: str
) -> None:
    """Of several declarations the first counts; what it raises is not tried again, and judged as what it is."""
    policy = make(Retry(3), Breaker(Consecutive(1)), Bulkhead(1))

    with pytest.raises(ConnectionRefusedError) as raised:
        block: Any = policy.permit() if form == "permit" else await anext(policy.attempts())
        async with block as permit:
            permit.success()
            permit.failure("transient")
            raise ConnectionRefusedError

    assert ("closed", 0, 1) == (policy.state, policy.machines.slots.running, policy.machines.circuit.successes_total)
    assert Kind.TRANSIENT is report(raised.value).verdict.kind
    assert [("AttemptEnded", SUCCESS), ("CallEnded", None)] == [
        (type(event).__name__, getattr(event, "verdict", None)) for event in told
    ]


@pytest.mark.parametrize("parts", [[], [Retry(3)]], ids=["once", "retry"])
@pytest.mark.parametrize("form", ["permit", "attempts"])
async def test_a_block_is_refused_during_a_cooldown(
    make: Make, clock: ManualClock, told: list[events.Event], form: str, parts: list[Any]
) -> None:
    """Told once, and not tried again: a back-off would outlast what it waits for."""
    policy = make(*parts, Bulkhead(1))
    async with policy.permit() as permit:
        permit.failure("rate_limited", retry_after_seconds=5)
    told.clear()

    with pytest.raises(RateLimited) as raised:
        await _entered(policy, form)

    assert ("cooldown", 5.0) == (raised.value.by, raised.value.retry_after_seconds)
    assert "local" * (form == "attempts" and len(parts)) == report(raised.value).stop_reason
    assert [("local", 1)] == _ends(told)
    assert ["cooldown"] == [event.by for event in told if isinstance(event, events.CallRejectedBy)]
    assert 0 == policy.machines.slots.running


async def test_a_block_waits_its_turn_and_its_limit_begins_with_it(make: Make, clock: ManualClock) -> None:
    policy = make(Bulkhead(1, wait_seconds_max=5), Timeout(10))

    async def work(seconds: float) -> float:
        async with policy.permit():
            await clock.sleep(seconds)
        return clock.monotonic()

    first, second = asyncio.ensure_future(work(4)), asyncio.ensure_future(work(9))
    await clock.advance(13)

    assert (4.0, 13.0) == (first.result(), second.result())


@pytest.mark.parametrize("form", ["permit", "attempts"])
async def test_a_block_that_is_cancelled_is_told_so_and_leaves_no_timer(
    make: Make, clock: ManualClock, told: list[events.Event], form: str
) -> None:
    """A cancellation from outside is none of its limit, although both look the same inside."""
    policy = make(Retry(3), Bulkhead(1), Timeout(10), idempotent=True)
    task = asyncio.ensure_future(_entered(policy, form))
    await clock.advance(1)

    task.cancel()
    await clock.advance(20)

    assert (True, 0, {}) == (task.cancelled(), policy.machines.slots.running, timeout._fired)
    assert [("cancelled", 1)] == _ends(told)
    assert [] == [event for event in told if isinstance(event, events.AttemptTimedOut)]


async def test_a_block_that_is_cancelled_in_its_back_off_is_told_so(
    make: Make, clock: ManualClock, told: list[events.Event]
) -> None:
    policy = make(Retry(3), Bulkhead(1))

    async def work() -> None:
        async for attempt in policy.attempts():
            async with attempt as permit:
                permit.failure("transient", retry_after_seconds=30)

    task = asyncio.ensure_future(work())
    await clock.advance(29)
    task.cancel()
    await clock.advance(0)

    assert (True, 0) == (task.cancelled(), policy.machines.slots.running)
    assert [("cancelled", 1)] == _ends(told)


async def test_a_block_that_is_cancelled_in_the_queue_is_told_so(
    make: Make, clock: ManualClock, told: list[events.Event]
) -> None:
    policy = make(Retry(3), Bulkhead(1, wait_seconds_max=60))

    async with policy.permit():
        task = asyncio.ensure_future(_entered(policy, "attempts"))
        await clock.advance(1)
        task.cancel()
        await clock.advance(0)

        assert (True, 0, 1) == (task.cancelled(), policy.machines.slots.queued, policy.machines.slots.running)
        assert [("cancelled", 1)] == _ends(told)


async def test_a_drain_ends_the_back_off_of_a_block_with_its_error(clock: ManualClock) -> None:
    registry = Registry(environ={})
    policy = Policy("psp", Retry(3, delay_seconds=60), registry=registry)
    error = ConnectionRefusedError()

    async def work() -> None:
        async for attempt in policy.attempts():
            async with attempt:
                raise error

    task = asyncio.ensure_future(work())
    await settle()
    registry.drain()
    await settle()

    assert task.exception() is error
    known = report(error)
    assert ("draining", 1, Action.DEFER) == (
        known.stop_reason,
        known.attempts,
        known.disposition and known.disposition.action,
    )


# --- on a thread -----------------------------------------------------------------------------------------------------


def test_a_sync_block_is_admitted_judged_and_told_how_long_it_has(make: Make, clock: ManualClock) -> None:
    policy = make(Deadline(30), Breaker(Consecutive(2)), Bulkhead(1, wait_seconds_max=0), Timeout(5))
    with policy.using(idempotency_key="k").permit() as permit:
        within = (deadline.remaining(), idempotency_key(), permit.attempt, policy.machines.slots.running)
        with pytest.raises(BulkheadFull), policy.permit():
            pass
    for _ in range(2):
        with pytest.raises(ConnectionRefusedError), policy.permit():
            raise ConnectionRefusedError

    assert (5.0, "k", 1, 1) == within
    assert ("open", 0, None) == (policy.state, policy.machines.slots.running, deadline.remaining())
    with pytest.raises(BreakerOpen), policy.permit():
        pass


def test_a_sync_block_may_run_again(make: Make, clock: ManualClock) -> None:
    policy = make(Retry(3, delay_seconds=2), Bulkhead(1, wait_seconds_max=0), Timeout(5), idempotent=True)
    seen: list[tuple[int, bool]] = []

    for attempt in policy.attempts():
        with attempt as permit:
            seen.append((permit.attempt, bool(current(is_repeating))))
            if len(seen) < 3:
                raise ConnectionRefusedError

    assert [(1, False), (2, True), (3, True)] == seen
    assert (0, None) == (policy.machines.slots.running, current(is_repeating))


def test_a_sync_block_that_fails_to_the_end_raises_what_it_raised(make: Make, clock: ManualClock) -> None:
    policy = make(Retry(2, delay_seconds=0), idempotent=True)
    runs = 0

    with pytest.raises(ConnectionRefusedError) as raised:
        for attempt in policy.attempts():
            with attempt:
                runs += 1
                raise ConnectionRefusedError

    assert (2, "attempts") == (runs, report(raised.value).stop_reason)


def test_a_sync_block_is_not_begun_after_its_deadline(make: Make, clock: ManualClock) -> None:
    policy = make(Retry(3, delay_seconds=0), Timeout(5), idempotent=True)

    with deadline.received({deadline.HEADER: "0"}), pytest.raises(DeadlineExceeded), policy.permit():
        pytest.fail("it ran")


async def test_a_sync_block_on_an_event_loop_is_a_forgotten_async(make: Make, clock: ManualClock) -> None:
    """It would run without its time limit, and a back-off would stop everything on the loop."""
    policy = make(Retry(2), Bulkhead(1), Timeout(5))

    with pytest.raises(PolicyUsageError, match="async with"), policy.permit():
        pytest.fail("it ran")
    with pytest.raises(PolicyUsageError, match="async for"):
        for _ in policy.attempts():
            pytest.fail("it ran")
    with pytest.raises(PolicyUsageError, match="async with"):
        async for attempt in policy.attempts():
            with attempt:
                pytest.fail("it ran")
    assert 0 == policy.machines.slots.running


async def test_a_run_that_is_not_entered_is_an_error_and_not_an_unprotected_run(make: Make, clock: ManualClock) -> None:
    """`async with attempt` is easily forgotten, and everything seems to work until the outage."""
    policy = make(Retry(3))
    runs: list[str] = []

    with pytest.raises(PolicyUsageError, match="async with attempt"):
        async for _ in policy.attempts():
            runs.append("async")

    assert ["async"] == runs


def test_a_sync_run_that_is_not_entered_is_an_error_too(make: Make, clock: ManualClock) -> None:
    with pytest.raises(PolicyUsageError, match="with attempt"):
        for _ in make(Retry(3)).attempts():
            pass


async def test_a_run_that_is_left_at_once_without_being_entered_warns(make: Make, clock: ManualClock) -> None:
    """As Python does of a coroutine that nobody awaited: there is nobody left to raise an error to."""

    async def get() -> str:
        async for _ in make(Retry(3)).attempts():
            return "unprotected"
        return ""

    with pytest.warns(RuntimeWarning, match="not entered"):
        assert "unprotected" == await get()
