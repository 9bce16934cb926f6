"""What every call keeps to, whatever goes wrong: the properties of retry, timeout, deadline, hedge and fallback.

Each test carries the id of its property. Time is manual unless threads are named.
"""

from __future__ import annotations

import asyncio
import functools
import signal
import sys
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from spoolproof.errors import Action
from spoolproof.policies import (
    AttemptTimeout,
    Breaker,
    BreakerOpen,
    Bulkhead,
    BulkheadFull,
    Classifier,
    Consecutive,
    Deadline,
    DeadlineExceeded,
    Fallback,
    Hedge,
    Kind,
    Policy,
    PolicyUsageError,
    Rate,
    RateLimit,
    Registry,
    Retry,
    ThreadsExhausted,
    Timeout,
    deadline,
    events,
    idempotency_key,
    report,
    within_delivery,
)
from spoolproof.policies.machines.memory import Abandoned
from spoolproof.policies.running import timeout
from spoolproof.testing.clock import ManualClock

from .conftest import settle

Make = Callable[..., Policy]


class Away(Exception):
    """Refused: nothing was sent."""

    failure_kind = "transient"
    is_unknown = False


class Asked(Exception):
    """An answer with a Retry-After."""

    status = 503

    def __init__(self, retry_after: str) -> None:
        self.headers = {"Retry-After": retry_after}


class Counted:
    """A function that fails a number of times, then works."""

    def __init__(self, failures: int = 0, error: Callable[[], Exception] = Away) -> None:
        self.calls = 0
        self._failures = failures
        self._error = error

    async def __call__(self) -> str:
        return self.sync()

    def sync(self) -> str:
        self.calls += 1
        if self.calls <= self._failures:
            raise self._error()
        return "done"


async def in_time(clock: ManualClock, work: Any, *, step: float = 0.25, most: float = 200.0) -> Any:
    """Run work to its end, moving the clock on in small steps; its result, or its error."""
    task = asyncio.ensure_future(work)
    moved = 0.0
    await settle()
    while not task.done() and moved < most:
        await clock.advance(step)
        moved += step
        await settle()
    return await task


# --- Q1, Q6, Q9 -------------------------------------------------------------------------------------------------------


async def test_q01_cancelled_calls_change_no_count_and_no_state(make: Make, clock: ManualClock) -> None:
    """A client that hangs up says nothing of the dependency."""
    policy = make(Retry(3), Breaker(Consecutive(1)), Bulkhead(5), Timeout(10))
    started = 0

    async def hang() -> None:
        nonlocal started
        started += 1
        await asyncio.get_running_loop().create_future()

    tasks = [asyncio.ensure_future(policy.call(hang)) for _ in range(5)]
    await settle()
    for task in tasks:
        task.cancel()
    ended = await asyncio.gather(*tasks, return_exceptions=True)

    assert [asyncio.CancelledError] * 5 == [type(error) for error in ended]
    assert (5, "closed", 0) == (started, policy.state, policy.machines.slots.running)


async def test_q01_a_cancelled_probe_frees_its_slot_and_stays_half_open(make: Make, clock: ManualClock) -> None:
    """Else one impatient caller would keep a recovered dependency shut."""
    policy = make(Breaker(Consecutive(1), open_seconds=5, open_jitter=0, probe_successes=1), Timeout(10))
    with pytest.raises(Away):
        await policy.call(Counted(1))
    await clock.advance(5)
    probe = asyncio.ensure_future(policy.call(asyncio.get_running_loop().create_future))
    await settle()
    with pytest.raises(BreakerOpen):
        await policy.call(Counted())

    probe.cancel()
    await asyncio.gather(probe, return_exceptions=True)

    assert "half_open" == policy.state
    assert "done" == await policy.call(Counted())
    assert "closed" == policy.state


class Callable_:
    async def __call__(self, x: int) -> int:
        return x

    async def method(self, x: int) -> int:
        return x


async def test_q06_whatever_kind_of_function_is_judged_on_its_real_result(make: Make, clock: ManualClock) -> None:
    """A coroutine that nobody awaited is no success."""
    policy = make(Breaker(Consecutive(1)))

    async def plain(x: int) -> int:
        return x

    async def failing(x: int) -> int:
        raise Away

    functions = [plain, functools.partial(plain, 1), Callable_().method, Callable_(), lambda x: plain(x)]
    results = [
        await policy.call(function, *([] if isinstance(function, functools.partial) else [1])) for function in functions
    ]

    assert [1] * 5 == results
    assert [1, 1] == [await policy(plain)(1), await policy(Callable_())(1)]
    with pytest.raises(TypeError, match="nobody awaits"):
        policy(lambda x: plain(x))(1)
    with pytest.raises(Away):
        await policy.call(lambda: failing(1))
    assert "open" == policy.state


async def test_q06_short_lived_functions_are_never_confused(make: Make, clock: ManualClock) -> None:
    """Whether a function is async is never remembered by its id, which the next one may get."""
    policy = make(Breaker(Consecutive(1)))

    results = []
    for number in range(2000):
        if number % 2:

            async def one(value: int = number) -> int:
                return value

            results.append(await policy(one)())
        else:
            results.append(policy(lambda value=number: value)())

    assert list(range(2000)) == results


def test_q06_generator_functions_are_refused(make: Make, clock: ManualClock) -> None:
    """Protection would end before the first item."""
    policy = make(Timeout(5))

    def sync_generator() -> Any:
        yield 1

    async def async_generator() -> Any:
        yield 1

    for function in (sync_generator, async_generator):
        with pytest.raises(TypeError, match="permit"):
            policy(function)


def test_q09_one_policy_works_in_consecutive_and_concurrent_loops() -> None:
    """Made at import, without a loop; nothing in it belongs to one."""
    policy = Policy(
        "q9", Retry(2), Breaker(), Bulkhead(2, queue_max=50), Timeout(5), registry=Registry({}), idempotent=True
    )

    async def wait() -> int:
        await asyncio.sleep(0.01)
        return 1

    async def many() -> int:
        return sum(await asyncio.gather(*(policy.call(wait) for _ in range(5))))

    sums = [asyncio.run(many()), asyncio.run(many())]
    runs = [threading.Thread(target=lambda: sums.append(asyncio.run(many()))) for _ in range(2)]
    for run in runs:
        run.start()
    for run in runs:
        run.join()

    assert [5] * 4 == sums
    assert 0 == policy.machines.slots.running


def test_q09_sync_calls_of_several_threads_run_beside_each_other() -> None:
    """A lock held over the user's function would make them wait for each other."""
    policy = Policy("q9b", Breaker(), registry=Registry(environ={}), lint_ignore={"W1"})
    all_inside = threading.Barrier(5)

    runs = [threading.Thread(target=lambda: policy.result_sync(all_inside.wait, 30)) for _ in range(5)]
    for run in runs:
        run.start()
    for run in runs:
        run.join()

    assert not all_inside.broken


# --- Q10 to Q13: retry ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("classify", [Classifier(), Classifier().transient(Exception)])
async def test_q10_an_outer_timeout_is_never_retried(make: Make, clock: ManualClock, classify: Classifier) -> None:
    """Whoever cancelled has stopped waiting; to run again would be for nobody."""
    policy = make(Retry(5), classify=classify, idempotent=True)
    runs = 0

    async def hang() -> None:
        nonlocal runs
        runs += 1
        await asyncio.get_running_loop().create_future()

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.02):
            await policy.call(hang)
    await clock.advance(100)

    assert 1 == runs


async def test_q11_attempts_of_many_tasks_are_independent(make: Make, clock: ManualClock) -> None:
    """One policy object, twenty blocks at once."""
    policy = make(Retry(3, delay_seconds=0, budget_per_second_min=100), Breaker(Consecutive(1000)), idempotent=True)

    async def block() -> int:
        tried = 0
        async for attempt in policy.attempts():
            async with attempt:
                tried += 1
                await asyncio.sleep(0)
                if tried < 3:
                    raise Away
        return tried

    results = await in_time(clock, asyncio.gather(*(block() for _ in range(20))))

    assert [3] * 20 == results


async def test_q12_a_long_retry_after_is_not_slept(make: Make, clock: ManualClock) -> None:
    """A day in a worker's sleep is an outage of our own; the work is deferred instead."""
    policy = make(Retry(3), idempotent=True)

    with pytest.raises(Asked) as raised:
        await policy.call(Counted(9, lambda: Asked("86400")))

    assert 0.0 == clock.monotonic()
    kept = report(raised.value)
    assert ("retry_after", Action.DEFER, 86400.0) == (
        kept.stop_reason,
        kept.disposition.action,
        kept.disposition.after_seconds,
    )


@pytest.mark.parametrize("form", ["seconds", "date"])
async def test_q12_retry_after_is_a_minimum_and_nearly_exact(
    make: Make, clock: ManualClock, told: list[events.Event], form: str
) -> None:
    """Never early, and never in step with everybody else who was told the same."""
    text = "5" if form == "seconds" else format_datetime(clock.now() + timedelta(seconds=5), usegmt=True)
    policy = make(Retry(2), idempotent=True)

    await in_time(clock, policy.call(Counted(1, lambda: Asked(text))))

    (scheduled,) = [event for event in told if isinstance(event, events.RetryScheduled)]
    assert 5.0 <= scheduled.delay_seconds <= 5.5


@pytest.mark.parametrize("garbage", ["soon", "-5", "", "nan", "1e9", "Thu, 01 Jan 1970 00:00:00 GMT"])
async def test_q12_a_senseless_retry_after_is_ignored(
    make: Make, clock: ManualClock, told: list[events.Event], garbage: str
) -> None:
    policy = make(Retry(2, delay_seconds=0.1), idempotent=True)

    assert "done" == await in_time(clock, policy.call(Counted(1, lambda: Asked(garbage))))

    (scheduled,) = [event for event in told if isinstance(event, events.RetryScheduled)]
    assert scheduled.delay_seconds <= 0.1


def test_q12_the_delay_stays_finite_however_often_somebody_tries() -> None:
    from spoolproof.backoff import seeded_random
    from spoolproof.policies.parts.ranges import Settings
    from spoolproof.policies.running.retry import delay_seconds

    settings = Settings(
        attempts=10,
        delay_seconds=0.1,
        delay_factor=10,
        delay_seconds_max=20,
        retry_after_seconds_max=60,
        inline_seconds_max=2,
    )

    assert all(0 <= delay_seconds(settings, attempt, seeded_random(1)) <= 20 for attempt in (1, 17, 10_000))


@pytest.mark.parametrize("is_again", [False, True])
async def test_q13_nested_retries_add_and_never_multiply(
    registry: Registry, clock: ManualClock, told: list[events.Event], is_again: bool
) -> None:
    """Three layers of three attempts would be 27 at the bottom, just when it is down."""
    layers = [
        Policy(name, Retry(3, delay_seconds=0, budget_per_second_min=100), registry=registry, idempotent=True)
        for name in ("outer", "middle", "inner")
    ]
    failing = Counted(100)

    async def through(number: int) -> Any:
        return await layers[number].call(through, number + 1) if number < 3 else await failing()

    with within_delivery(is_again=is_again):
        result = await in_time(clock, layers[0].result(through, 1))

    assert isinstance(result.error, Away)
    assert failing.calls == 1 if is_again else 3 <= failing.calls <= 7
    assert any(isinstance(event, events.RetryNested) for event in told)


async def test_q17_the_budget_bounds_what_retries_add(make: Make, clock: ManualClock, told: list[events.Event]) -> None:
    """Two functions and three keys share the budget of their dependency."""
    policy = make(Retry(3, delay_seconds=0.5), Breaker(mode="off"), idempotent=True)
    targets = [policy, policy.for_key("a"), policy.for_key("b")]
    scheduled: list[float] = []
    unsubscribe = events.subscribe(
        lambda event: scheduled.append(clock.monotonic()) if isinstance(event, events.RetryScheduled) else None
    )
    tasks = []
    for _ in range(30):
        for number in range(20):
            tasks.append(asyncio.ensure_future(targets[number % 3].result(Counted(9))))
        await clock.advance(1)
    await in_time(clock, asyncio.gather(*tasks))
    unsubscribe()

    worst = max(sum(start <= at < start + 10 for at in scheduled) for start in range(30))
    assert 20 <= worst <= 0.2 * 200 + 10 + 0.2 * 20 + 1


# --- Q15, Q29, Q30: time ----------------------------------------------------------------------------------------------


async def test_q15_the_bodys_own_timeout_error_is_unchanged(make: Make, clock: ManualClock) -> None:
    policy = make(Timeout(10))
    own = TimeoutError("of the driver")

    async def body() -> None:
        await asyncio.sleep(0)
        raise own

    with pytest.raises(TimeoutError) as raised:
        await policy.call(body)

    assert own is raised.value


async def test_q15_an_outside_cancellation_in_the_tick_of_expiry_wins(make: Make, clock: ManualClock) -> None:
    """Who cancelled us must see CancelledError, or their own timeout would be swallowed."""
    policy = make(Timeout(5))
    task = asyncio.ensure_future(policy.call(asyncio.get_running_loop().create_future))
    await settle()

    clock.call_at(5.0, task.cancel)
    clock.sleep_blocking(5)  # fires both timers with no turn of the loop between them

    with pytest.raises(asyncio.CancelledError):
        await task


async def test_q15_a_value_returned_in_spite_of_the_expiry_is_kept(make: Make, clock: ManualClock) -> None:
    """A known outcome beats an unknown one, and no cancellation is left behind."""
    policy = make(Timeout(5))

    async def stubborn() -> str:
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            return "landed"
        return ""

    async def work() -> tuple[str, int]:
        value = await policy.call(stubborn)
        await asyncio.sleep(0)
        return value, asyncio.current_task().cancelling()

    assert ("landed", 0) == await in_time(clock, work())


async def test_q15_expiry_is_an_attempt_timeout_and_unknown(make: Make, clock: ManualClock) -> None:
    policy = make(Timeout(5))

    result = await in_time(clock, policy.result(asyncio.get_running_loop().create_future))

    assert isinstance(result.error, AttemptTimeout)
    assert (Kind.TIMEOUT, True) == (result.verdict.kind, result.verdict.is_unknown)


def test_q29_the_context_is_visible_in_the_thread_of_a_sync_attempt() -> None:
    policy = Policy("q29", Deadline(5), Timeout(2), registry=Registry(environ={}))

    left = policy.call_sync(deadline.remaining)

    assert 0 < left <= 5


def test_q29_abandoned_threads_are_counted_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each keeps its stack and whatever it hangs on."""
    registry = Registry(environ={})
    policy, other = (Policy(name, Timeout(0.001), registry=registry) for name in ("q29b", "other"))
    release = threading.Event()

    for _ in range(64):
        with pytest.raises(AttemptTimeout):
            policy.call_sync(release.wait, 30)
    for one in (policy, policy.for_key("eu")):
        with pytest.raises(ThreadsExhausted):
            one.call_sync(release.wait, 30)
    with pytest.raises(AttemptTimeout):
        other.call_sync(release.wait, 30)  # one dependency that hangs refuses no other
    release.set()

    assert _falls_to_zero(policy)
    assert _falls_to_zero(other)


def _falls_to_zero(policy: Policy) -> bool:
    """Whether its abandoned threads end."""
    ended = time.monotonic() + 30
    while policy._definition._abandoned.count and time.monotonic() < ended:
        time.sleep(0.001)
    return policy._definition._abandoned.count == 0


def test_q29_an_attempt_that_ends_just_at_its_limit_is_not_given_up(make: Make) -> None:
    """Its value is kept, and its thread is not counted: nobody would ever count it off."""
    abandoned = Abandoned()
    attempt = timeout._Attempt(make(Timeout(5)).new_call(str, (5,), {}), abandoned)

    attempt.run()

    assert (False, "5", 0) == (attempt.abandon(), attempt.value, abandoned.count)


def test_q29_ctrl_c_leaves_the_thread_to_itself_and_gives_the_slot_back() -> None:
    policy = Policy("q29c", Bulkhead(1), Timeout(30), registry=Registry(environ={}))
    waiting, release = threading.get_ident(), threading.Event()

    def interrupted() -> None:
        while not _waits_for_its_thread(waiting):
            time.sleep(0.001)
        signal.pthread_kill(waiting, signal.SIGINT)
        release.wait(30)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a run in the background may ignore it
    try:
        with pytest.raises(KeyboardInterrupt):
            policy.call_sync(interrupted)
    finally:
        signal.signal(signal.SIGINT, before)
    left = policy._definition._abandoned.count, policy.machines.slots.running
    release.set()

    assert (1, 0) == left
    assert _falls_to_zero(policy)


def _waits_for_its_thread(ident: int) -> bool:
    frame = sys._current_frames()[ident]
    while frame.f_back is not None:
        if (frame.f_code.co_name, frame.f_back.f_code.co_name) == ("wait", "run_in_thread"):
            return True
        frame = frame.f_back
    return False


async def test_q30_a_body_that_honours_cancellation_ends_at_its_deadline(make: Make, clock: ManualClock) -> None:
    policy = make(Retry(5, delay_seconds=1), Timeout(10), idempotent=True)

    with deadline.received({"Spoolproof-Deadline-Ms": "3000"}):
        result = await in_time(clock, policy.result(asyncio.get_running_loop().create_future))

    assert isinstance(result.error, DeadlineExceeded)
    assert 3.0 == pytest.approx(clock.monotonic(), abs=0.3)


async def test_q30_nested_deadlines_only_shorten_and_never_leak(make: Make, clock: ManualClock) -> None:
    outer, inner = make(Deadline(3), name="outer"), make(Deadline(10), name="inner")
    seen: list[float | None] = []

    async def body() -> None:
        seen.append(deadline.remaining())

    async def middle() -> None:
        await inner.call(body)
        seen.append(deadline.remaining())

    await outer.call(middle)
    async for attempt in outer.attempts():
        async with attempt:
            seen.append(deadline.remaining())
    async with inner.permit():
        seen.append(deadline.remaining())

    assert [3.0, 3.0, 3.0, 10.0] == seen
    assert deadline.remaining() is None


# --- Q16: hedge -------------------------------------------------------------------------------------------------------


async def test_q16_losers_are_awaited_and_discarded_results_handed_over(
    make: Make, clock: ManualClock, told: list[events.Event]
) -> None:
    """A loser that goes on would be a task nobody stops; one that finished may hold a connection."""
    discarded: list[str] = []
    policy = make(Hedge(on_discard=discarded.append), Timeout(4), idempotent=True)
    ended: list[str] = []

    async def body() -> str:
        name = f"run {len(ended) + len(asyncio.all_tasks()) * 0 + body.runs}"
        body.runs += 1
        try:
            if name == "run 0":
                await asyncio.get_running_loop().create_future()
            return name
        except asyncio.CancelledError:
            return f"{name} finished anyway"
        finally:
            ended.append(name)

    body.runs = 0
    before = len(asyncio.all_tasks())

    value = await in_time(clock, policy.call(body))

    assert "run 1" == value
    assert ["run 1", "run 0"] == ended
    assert ["run 0 finished anyway"] == discarded
    assert before == len(asyncio.all_tasks())
    assert any(isinstance(event, events.HedgeWon) for event in told)


async def test_q16_no_hedge_is_launched_after_cancellation(make: Make, clock: ManualClock) -> None:
    policy = make(Hedge(), Timeout(4), idempotent=True)
    runs = 0

    async def body() -> None:
        nonlocal runs
        runs += 1
        await asyncio.get_running_loop().create_future()

    task = asyncio.ensure_future(policy.call(body))
    await settle()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await clock.advance(10)

    assert 1 == runs
    assert {asyncio.current_task()} == asyncio.all_tasks()


async def test_q16_a_call_that_is_not_idempotent_is_not_hedged(make: Make, clock: ManualClock) -> None:
    with pytest.raises(PolicyUsageError, match="idempotent"):
        await make(Hedge(), Timeout(4)).call(Counted())


# --- Q8, Q18, Q24, Q25: what is judged and what is spent --------------------------------------------------------------


async def test_q08_a_rejection_spends_nothing_and_says_when_to_come_back(make: Make, clock: ManualClock) -> None:
    policy = make(Retry(3), Breaker(Consecutive(1)), RateLimit(5), Bulkhead(1), Timeout(5), idempotent=True)
    with pytest.raises(Away):  # a second attempt found it open: the dependency's own error is the one to show
        await in_time(clock, policy.call(Counted(9)))
    budget = policy._definition.shared.budget.available(clock.monotonic())
    before = clock.monotonic()

    errors = [(await policy.result(Counted())).error for _ in range(1000)]

    assert 1000 == len({id(error) for error in errors})
    assert all(isinstance(error, BreakerOpen) and error.retry_after_seconds > 0 for error in errors)
    assert len({_depth(error) for error in errors}) == 1
    assert before == clock.monotonic()
    assert policy._definition.shared.budget.available(clock.monotonic()) >= budget
    assert 0 == policy.machines.slots.running


async def test_q18_what_is_not_the_dependencys_fault_never_moves_the_breaker(make: Make, clock: ManualClock) -> None:
    policy = make(Retry(3), Breaker(Consecutive(1)), Bulkhead(1, queue_max=0), Timeout(10), idempotent=True)
    mistaken = Counted(9, TypeError)
    with pytest.raises(TypeError):
        await policy.call(mistaken)
    held = asyncio.ensure_future(policy.call(asyncio.get_running_loop().create_future))
    await settle()
    with pytest.raises(BulkheadFull):
        await policy.call(Counted())
    held.cancel()
    await asyncio.gather(held, return_exceptions=True)

    with deadline.received({"spoolproof-deadline-ms": "5"}):
        hasty = await in_time(clock, policy.result(asyncio.get_running_loop().create_future))

    assert isinstance(hasty.error, DeadlineExceeded)
    assert (1, "closed") == (mistaken.calls, policy.state)


async def test_q18_callers_who_all_give_up_late_do_open_it(make: Make, clock: ManualClock) -> None:
    """Else a dependency that hangs behind impatient callers would never be found out."""
    policy = make(Breaker(Consecutive(1)), Timeout(10))

    with deadline.received({"spoolproof-deadline-ms": "6000"}):
        await in_time(clock, policy.result(asyncio.get_running_loop().create_future))

    assert "open" == policy.state


@pytest.mark.parametrize(("is_idempotent", "runs"), [(False, 1), (True, 3)])
async def test_q24_an_unknown_outcome_is_attempted_again_only_when_idempotent(
    make: Make, clock: ManualClock, is_idempotent: bool, runs: int
) -> None:
    """To charge a card again because the answer was lost is to charge it twice."""
    policy = make(Retry(3, delay_seconds=0), idempotent=is_idempotent)
    lost = Counted(9, ConnectionResetError)

    result = await in_time(clock, policy.result(lost))

    assert runs == lost.calls
    action = Action.RETRY if is_idempotent else Action.PARK
    assert action is report(result.error).disposition.action


async def test_q24_one_key_on_all_attempts_and_hedges(make: Make, clock: ManualClock) -> None:
    policy = make(Retry(2, delay_seconds=0), Hedge(), Timeout(4), idempotent=False)
    keys: list[str | None] = []

    async def body() -> None:
        keys.append(idempotency_key())
        if len(keys) < 3:
            await asyncio.get_running_loop().create_future()

    await in_time(clock, policy.using(idempotency_key="order-1").call(body))

    assert ["order-1"] * 3 == keys
    assert idempotency_key() is None


async def test_q25_no_slot_is_held_in_back_off(make: Make, clock: ManualClock) -> None:
    policy = make(Retry(2, delay_seconds=10), Bulkhead(1, queue_max=0), idempotent=True)
    waiting = asyncio.ensure_future(policy.call(Counted(1)))
    await settle()

    assert "done" == await policy.call(Counted())
    assert "done" == await in_time(clock, waiting)


async def test_q25_a_rejected_attempt_spends_no_token(make: Make, clock: ManualClock) -> None:
    policy = make(RateLimit(1, burst=1, wait_seconds_max=0), Bulkhead(1, queue_max=0))
    gate = asyncio.get_running_loop().create_future()
    held = asyncio.ensure_future(policy.call(lambda: gate))
    await settle()
    await clock.advance(1)

    with pytest.raises(BulkheadFull):
        await policy.call(Counted())
    gate.set_result(None)
    await held

    assert "done" == await policy.call(Counted())


# --- Q20, Q28 ---------------------------------------------------------------------------------------------------------


async def test_q20_listeners_that_raise_reenter_or_leave_disturb_nobody(make: Make, clock: ManualClock) -> None:
    policy = make(Breaker(Consecutive(1)))
    unsubscribes: list[Callable[[], None]] = []

    def raises(event: events.Event) -> None:
        raise RuntimeError

    def reenters(event: events.Event) -> None:
        policy.state, policy.snapshot(), policy.explain()

    def leaves(event: events.Event) -> None:
        unsubscribes.pop()()

    stay = [events.subscribe(raises), events.subscribe(reenters)]
    unsubscribes.append(events.subscribe(leaves))
    with pytest.raises(Away):
        await policy.call(Counted(1))
    for unsubscribe in stay:
        unsubscribe()

    assert "open" == policy.state
    assert [] == unsubscribes
    assert not events.listeners


async def test_q28_last_good_never_answers_for_another_question(make: Make, clock: ManualClock) -> None:
    policy = make(Fallback.last_good(key=lambda product: product, age_seconds_max=300))
    answers: dict[str, Any] = {"a": "price of a"}

    async def ask(product: str) -> str:
        if isinstance(answers.get(product), str):
            return answers[product]
        raise answers.get(product) or Away()

    assert "price of a" == await policy.call(ask, "a")
    for error in (Away(), ValueError("bug")):
        answers["a"] = error
        result = await policy.result(ask, "a")
        assert (("price of a", "stale") if isinstance(error, Away) else (None, "live")) == (
            result.value,
            result.source,
        )
    assert isinstance((await policy.result(ask, "b")).error, Away)
    await clock.advance(301)
    answers["a"] = Away()
    assert isinstance((await policy.result(ask, "a")).error, Away)


async def test_q28_an_answer_that_was_given_is_not_replaced(make: Make, clock: ManualClock) -> None:
    """A 404 must not be masked, and a cancelled caller must not be answered."""

    class NotThere(Exception):
        status_code = 404

    policy = make(Fallback("instead"))

    assert isinstance((await policy.result(Counted(1, NotThere))).error, NotThere)
    assert "instead" == await policy.call(Counted(1))
    task = asyncio.ensure_future(policy.call(asyncio.get_running_loop().create_future))
    await settle()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_when_every_rung_fails_the_original_error_is_raised_with_notes(make: Make, clock: ManualClock) -> None:
    def broken(error: Exception) -> str:
        raise RuntimeError("no disk")

    with pytest.raises(Away) as raised:
        await make(Fallback(broken)).call(Counted(1))

    assert any("no disk" in note for note in raised.value.__notes__)


async def test_a_failing_rate_window_opens_and_calls_are_refused(make: Make, clock: ManualClock) -> None:
    policy = make(Breaker(Rate(0.5, window_seconds=30, calls_min=4)))
    for failures in (0, 0, 1, 1):
        await policy.result(Counted(failures))

    assert "open" == policy.state


def _depth(error: BaseException | None) -> int:
    depth, traceback = 0, error.__traceback__ if error is not None else None
    while traceback is not None:
        depth, traceback = depth + 1, traceback.tb_next
    return depth
