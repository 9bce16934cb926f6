"""Calls of odd functions, with odd arguments and odd errors, and what is known of them afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import types
import weakref
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest

from spoolproof.errors import Action
from spoolproof.policies import (
    AttemptTimeout,
    Breaker,
    Bulkhead,
    BulkheadFull,
    Chaos,
    Classifier,
    Consecutive,
    Deadline,
    Fallback,
    Hedge,
    Kind,
    Policy,
    PolicyUsageError,
    Rate,
    RateLimit,
    RateLimited,
    Registry,
    Retry,
    Timeout,
    deadline,
    events,
    report,
    within_delivery,
)
from spoolproof.testing.clock import ManualClock

from .conftest import settle

Make = Callable[..., Policy]


async def away(*_: object) -> None:
    raise ConnectionRefusedError


# --- functions and arguments -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", [Retry(2), Hedge()], ids=["express", "pipeline"])
@pytest.mark.parametrize("name", ["function", "self", "args", "call"])
async def test_an_argument_may_have_any_name(make: Make, clock: ManualClock, part: Any, name: str) -> None:
    policy = make(part, Timeout(5), idempotent=True)

    async def named(**given: int) -> dict[str, int]:
        return given

    given: dict[str, Any] = {name: 1}
    called = [
        await policy.call(named, **given),
        await policy.using(lane="critical").call(named, **given),
        (await policy.result(named, **given)).value,
        await policy(named)(**given),
    ]

    assert [given] * 4 == called


def test_an_argument_of_a_sync_function_may_have_any_name(make: Make, clock: ManualClock) -> None:
    policy = make(Retry(2))
    given: dict[str, Any] = {"function": 1, "self": 2}

    assert given == policy.call_sync(dict, **given) == policy.result_sync(dict, **given).value


@pytest.mark.parametrize(
    "parts",
    [[Retry(2)], [Retry(2), Timeout(5)], [Fallback.last_good(age_seconds_max=9)], [Retry(2), Chaos(fault=ValueError)]],
)
async def test_q06_a_generator_functions_work_is_never_begun_unprotected(
    make: Make, clock: ManualClock, parts: Any
) -> None:
    policy = make(*parts)

    def lines() -> Iterator[int]:
        yield 1

    async def rows() -> AsyncIterator[int]:
        yield 1

    for function in (lines, rows, functools.partial(lines)):
        with pytest.raises(TypeError, match="permit"):
            await policy.call(function)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="permit"):
        policy.call_sync(lines)


@contextlib.asynccontextmanager
async def _connection() -> AsyncIterator[int]:
    raise ConnectionRefusedError
    yield 1


@contextlib.contextmanager
def _connection_sync() -> Iterator[int]:
    raise ConnectionRefusedError
    yield 1


def _logged(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def logged(*args: Any) -> Any:
        return function(*args)

    return logged


class _Client:
    @staticmethod
    async def ask() -> int:
        return 1


@pytest.mark.parametrize(
    "function",
    [
        _connection,
        _connection_sync,
        functools.partial(_connection),
        _Client,
        staticmethod(_logged),
        classmethod(_logged),
    ],
    ids=["async manager", "manager", "partial", "class", "static", "class method"],
)
def test_what_does_its_work_after_it_has_returned_is_refused_where_it_is_decorated(make: Make, function: Any) -> None:
    """Making a context manager succeeds at once; its failures would count as successes, and nothing tried again."""
    with pytest.raises(TypeError, match=r"permit\(\)|policy\.call|outside"):
        make(Retry(2))(function)
    with pytest.raises(TypeError, match=r"permit\(\)|policy\.call|outside"):
        Timeout(5)(function)


@pytest.mark.parametrize("parts", [[Retry(2)], [Retry(2), Timeout(5)], [Hedge()], [Retry(2), Chaos(fault=ValueError)]])
async def test_a_context_manager_or_generator_that_hides_behind_a_function_is_refused_when_it_comes(
    make: Make, clock: ManualClock, parts: Any
) -> None:
    policy = make(*parts, idempotent=True)

    def lines() -> Iterator[int]:
        yield 1

    for function in (lambda: _connection(), _logged(_connection), _logged(lines)):
        with pytest.raises(TypeError, match="permit"):
            await policy.call(function)
        if not isinstance(parts[0], Hedge):
            with pytest.raises(TypeError, match="permit"):
                policy.call_sync(function)


def test_a_decorator_that_uses_a_generator_up_is_a_function_like_any_other(make: Make) -> None:
    @functools.wraps(_logged)
    def total() -> int:
        return sum(number for number in (1, 2))

    assert (3, _Client) == (make(Retry(2))(total)(), type(make(Retry(2)).call_sync(_Client)))


async def test_a_function_may_return_a_generator_that_is_elsewhere(make: Make, clock: ManualClock) -> None:
    policy = make(Retry(2), Timeout(5))
    numbers = (number for number in (1, 2))

    assert numbers is await policy.call(lambda: numbers)
    assert numbers is policy.call_sync(lambda: numbers)


def test_a_callable_object_that_is_a_generator_is_refused(make: Make) -> None:
    class Lines:
        def __call__(self) -> Iterator[int]:
            yield 1

    with pytest.raises(TypeError, match="Lines' is a generator function"):
        make(Retry(2))(Lines())


async def test_q06_a_coroutine_of_the_old_sort_is_awaited(make: Make, clock: ManualClock) -> None:
    @types.coroutine
    def old() -> Generator[Any, Any, str]:
        yield from asyncio.sleep(0).__await__()
        return "value"

    assert "value" == await make(Retry(2), Timeout(5)).call(old)


async def test_a_result_is_not_asked_anything(make: Make, clock: ManualClock) -> None:
    """Proxies of frameworks raise where there is nothing behind them yet."""

    class Proxy:
        def __getattr__(self, name: str) -> object:
            raise RuntimeError("nothing is bound here")

    policy, proxy = make(Retry(2), Timeout(5)), Proxy()

    assert proxy is await policy.call(lambda: proxy)
    assert proxy is policy.call_sync(lambda: proxy)


async def test_a_sync_function_may_not_give_what_nobody_awaits(make: Make, clock: ManualClock) -> None:
    """Also what cannot be closed: awaited later, it would run unprotected."""
    policy = make(Bulkhead(1))

    def begin() -> asyncio.Future[None]:
        return asyncio.get_running_loop().create_future()

    with pytest.raises(TypeError, match="begin' returned Future, which nobody awaits"):
        policy.call_sync(begin)
    assert 0 == policy.machines.slots.running


def test_the_arguments_of_a_partial_are_in_no_error(make: Make, clock: ManualClock) -> None:
    with pytest.raises(TypeError) as raised:
        make(Retry(2)).call_sync(functools.partial(away, "secret"))

    assert "secret" not in str(raised.value)


def test_a_cost_no_float_can_hold_is_refused(make: Make) -> None:
    with pytest.raises(PolicyUsageError, match="cost="):
        make(RateLimit(5)).using(cost=10**400)


# --- what is known afterwards ----------------------------------------------------------------------------------------


async def test_a_result_says_how_long_a_success_took(make: Make, clock: ManualClock) -> None:
    """Also where no part asks for the time."""
    call = asyncio.ensure_future(make(Retry(2)).result(clock.sleep, 2))

    await clock.advance(2)

    assert 2.0 == call.result().elapsed_seconds


async def test_a_result_with_an_error_is_never_called_a_success(make: Make, clock: ManualClock) -> None:
    """An error from before the first attempt has a verdict too."""
    result = await make(Hedge(), Timeout(5)).result(away)

    assert (PolicyUsageError, Kind.BUG) == (type(result.error), result.verdict.kind)


async def test_a_question_that_cannot_be_kept_is_refused_before_the_call(make: Make, clock: ManualClock) -> None:
    """Found out after it, the answer would be lost, and what the call did as well."""
    policy = make(Fallback.last_good(key=lambda sku: [sku], age_seconds_max=9), Retry(1))
    calls = []

    async def price(sku: str) -> None:
        calls.append(sku)

    with pytest.raises(TypeError, match="unhashable"):
        await policy.call(price, "a")

    assert [] == calls


async def test_chaos_does_not_hide_the_last_good_answer(make: Make, clock: ManualClock) -> None:
    """What chaos is put around is the same function each time."""
    answers = [10]
    chaos = Chaos(1, fault=ConnectionRefusedError, when=lambda sku: not answers)
    policy = make(Fallback.last_good(key=lambda sku: sku, age_seconds_max=9), Retry(1), chaos)

    async def price(sku: str) -> int:
        return answers.pop()

    first, second = await policy.result(price, "a"), await policy.result(price, "a")

    assert [("live", 10), ("stale", 10)] == [(first.source, first.value), (second.source, second.value)]


async def test_a_timeout_around_retry_has_a_verdict_and_a_fallback(make: Make, clock: ManualClock) -> None:
    """What it cuts off inside looks cancelled there; it is not the caller who cancelled."""
    parts = (Timeout(20), Retry(3))
    bare = make(*parts, name="bare")
    replaced = make(Fallback("other"), *parts, name="replaced")

    calls = [asyncio.ensure_future(one.result(clock.sleep, 60)) for one in (bare, replaced)]
    await clock.advance(20)

    error = calls[0].result().error
    assert isinstance(error, AttemptTimeout)
    assert (Kind.TIMEOUT, Action.PARK, 20.0) == (
        report(error).verdict.kind,
        error.disposition and error.disposition.action,
        report(error).elapsed_seconds,
    )
    assert ("fallback", "other") == (calls[1].result().source, calls[1].result().value)


async def test_a_rejection_between_retry_and_attempt_is_not_tried_again(make: Make, clock: ManualClock) -> None:
    """A part in between keeps the bulkhead out of the attempt; the verdict of the attempt before must not stand in."""
    policy = make(Retry(3, delay_seconds=1), Bulkhead(1, queue_max=0), Deadline(60))
    call = asyncio.ensure_future(policy.result(away))
    await settle()
    other = asyncio.ensure_future(policy.call(clock.sleep, 50))
    await clock.advance(10)

    result = call.result()
    assert (ConnectionRefusedError, "local", 1) == (
        type(result.error),
        report(result.error).stop_reason,
        result.attempts,
    )
    await clock.advance(50)
    await other


async def test_a_sync_limit_between_retry_and_attempt_is_each_attempts_own(clock: ManualClock) -> None:
    policy = Policy(
        "psp",
        Retry(3, delay_seconds=2),
        Timeout(1),
        Deadline(60),
        Breaker(),
        registry=Registry(environ={}),
        sync="cooperative",
    )
    calls = []

    def refused() -> str:
        calls.append(clock.monotonic())
        if len(calls) < 3:
            clock.sleep_blocking(0.9)
            raise ConnectionRefusedError
        return "third"

    assert "third" == await asyncio.to_thread(policy.call_sync, refused)


async def test_a_back_off_on_the_event_loops_thread_is_our_mistake_and_not_an_outage(
    make: Make, clock: ManualClock
) -> None:
    """A fallback would hide it for ever."""

    def refused() -> None:
        raise ConnectionRefusedError

    with pytest.raises(PolicyUsageError) as raised:
        make(Fallback("other"), Retry(3)).call_sync(refused)

    assert (Kind.BUG, ConnectionRefusedError) == (report(raised.value).verdict.kind, type(raised.value.__cause__))


@pytest.mark.parametrize("form", ["express", "pipeline", "sync"])
async def test_while_a_dependency_asks_for_less_no_attempt_is_made(
    make: Make, clock: ManualClock, told: list[events.Event], form: str
) -> None:
    parts = [Fallback.last_good(age_seconds_max=5)] if form == "pipeline" else []
    policy = make(*parts, Retry(1), Bulkhead(1), classify=Classifier().rate_limited(LookupError))
    runs: list[float] = []

    def busy() -> None:
        runs.append(clock.monotonic())
        raise LookupError

    async def call() -> Exception | None:
        if form == "sync":
            return policy.result_sync(busy).error
        try:
            await policy.call(busy)
        except Exception as error:
            return error
        return None

    errors = [await call()]
    for seconds in (0.25, 0.75):
        await clock.advance(seconds)
        errors.append(await call())

    assert [LookupError, RateLimited, LookupError] == [type(error) for error in errors]
    assert isinstance(errors[1], RateLimited)
    assert ("cooldown", 0.75) == (errors[1].by, errors[1].retry_after_seconds)
    assert ([0.0, 1.0], 0) == (runs, policy.machines.slots.running)
    assert ["cooldown"] == [event.by for event in told if isinstance(event, events.CallRejectedBy)]


@pytest.mark.parametrize("form", ["async", "sync"])
async def test_a_rejection_outside_retry_is_told_once(
    make: Make, clock: ManualClock, told: list[events.Event], form: str
) -> None:
    policy = make(Bulkhead(1, queue_max=0), Retry(3))

    async with policy.permit():
        error = (policy.result_sync(int) if form == "sync" else await policy.result(int)).error

    assert isinstance(error, BulkheadFull)
    assert (0, "") == (report(error).attempts, report(error).stop_reason)
    assert [("bulkhead", str(error))] == [
        (event.by, event.reason) for event in told if isinstance(event, events.CallRejectedBy)
    ]


@pytest.mark.parametrize("form", ["async", "sync"])
async def test_a_breaker_around_retry_counts_a_success_when_it_ends(make: Make, clock: ManualClock, form: str) -> None:
    """Counted when it began, a slow one would be gone from the window before its time."""
    policy = make(Breaker(Rate(0.5, window_seconds=10, calls_min=2)), Retry(1), sync="cooperative")

    if form == "sync":
        policy.call_sync(clock.sleep_blocking, 9)
    else:
        call = asyncio.ensure_future(policy.call(clock.sleep, 9))
        await clock.advance(9)
        await call
    await clock.advance(4)
    await policy.result(away)

    assert "open" == policy.state


def test_a_bulkhead_around_retry_gives_its_slot_back_on_a_thread(make: Make, clock: ManualClock) -> None:
    policy = make(Bulkhead(1), Retry(2, delay_seconds=0))
    runs: list[int] = []

    def work() -> str:
        runs.append(policy.machines.slots.running)
        if len(runs) == 1:
            raise ConnectionRefusedError
        return "value"

    assert ("value", [1, 1], 0) == (policy.call_sync(work), runs, policy.machines.slots.running)


async def test_what_never_waits_arms_no_timer(make: Make, clock: ManualClock) -> None:
    """A timer costs more than the rest of the policy."""

    async def at_once() -> str:
        return "value"

    assert "value" == await make(Timeout(20), Retry(2), Timeout(10)).call(at_once)
    assert [] == clock._timers


async def test_a_429_that_asks_for_no_time_is_tried_again_after_the_cooldown(make: Make, clock: ManualClock) -> None:
    """Any sooner we would refuse the attempt ourselves, so that it was never tried again at all."""
    policy = make(Retry(3, delay_seconds=0), classify=Classifier().rate_limited(LookupError))
    answers: list[Any] = [LookupError(), "value"]
    at = []

    async def busy() -> str:
        at.append(clock.monotonic())
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return str(answer)

    call = asyncio.ensure_future(policy.call(busy))
    await clock.advance(2)

    assert "value" == call.result()
    assert 1.0 <= at[1] <= 1.1


async def test_what_is_put_off_is_deferred_and_not_counted(clock: ManualClock) -> None:
    """A message must not lose an attempt because the process ends, or because its back-off is too long to hold a
    worker: it would have been tried again."""
    registry = Registry(environ={})
    policy = Policy("psp", Retry(3, delay_seconds=50, inline_seconds_max=0), registry=registry, idempotent=True)

    async def reset() -> None:
        raise ConnectionResetError

    with within_delivery(is_again=False):
        inline = await policy.result(reset)
    registry.drain()
    draining = await policy.result(reset)

    assert [("inline", Action.DEFER), ("draining", Action.DEFER)] == [
        (report(one.error).stop_reason, report(one.error).disposition.action)  # type: ignore[arg-type,union-attr]
        for one in (inline, draining)
    ]


# --- errors of every make --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Frozen(Exception):
    """Allows no attribute, and so no note."""

    failure_kind: ClassVar[str] = "transient"
    is_unknown: ClassVar[bool] = False
    code: int = 0


def _failing_rung(_: Exception) -> None:
    raise ValueError("rung")


@pytest.mark.parametrize(
    ("parts", "classify"),
    [
        ((Fallback(_failing_rung), Retry(2, delay_seconds=0), Bulkhead(1)), Classifier()),
        ((Retry(2, delay_seconds=0), Breaker(Consecutive(1)), Bulkhead(1)), Classifier()),
        ((Retry(2, delay_seconds=0), Bulkhead(1)), Classifier().transient(lambda error: 1 / 0)),
    ],
    ids=["fallback", "rejected later", "rule"],
)
async def test_an_error_that_takes_no_note_comes_through(
    make: Make, clock: ManualClock, parts: Any, classify: Classifier
) -> None:
    """Adding one raises, which would replace the error and lose its slot."""
    policy = make(*parts, classify=classify)
    error = Frozen(5)

    async def fails() -> None:
        raise error

    with pytest.raises(Frozen) as raised:
        await policy.call(fails)

    assert raised.value is error
    assert policy.machines.slots.running == 0


async def test_an_error_raised_again_and_again_tells_of_its_last_call_only(make: Make, clock: ManualClock) -> None:
    """Some libraries keep one object: its notes would grow for ever, and tell of calls long past."""
    policy = make(Fallback(_failing_rung), Retry(2, delay_seconds=0, budget_per_second_min=100))
    error = ConnectionRefusedError()

    async def refused() -> None:
        raise error

    async def slow() -> None:
        await clock.sleep(3)
        raise error

    for _ in range(20):
        await policy.result(refused)
    call = asyncio.ensure_future(policy.result(slow))
    await clock.advance(10)
    await call

    assert [
        "fallback 1 failed too: ValueError: rung",
        "policy 'psp': attempt 2 of 2, 6 s, stopped by: attempts",
    ] == error.__notes__


async def test_no_secret_of_a_rung_is_in_a_note(make: Make, clock: ManualClock) -> None:
    def rung(_: Exception) -> None:
        raise ValueError("https://user:secret@cache/prices?token=secret")

    result = await make(Fallback(rung), Retry(1)).result(away)

    assert "secret" not in "".join(result.error.__notes__)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("asked", "seconds"),
    [("5", 5.0), (7, 7.0), (-3, 1.0), (float("nan"), 1.0), (object(), 1.0), (True, 1.0), (10**400, 300.0)],
)
async def test_q12_a_senseless_retry_after_on_our_own_kind_of_error_is_ignored(
    make: Make, clock: ManualClock, asked: object, seconds: float
) -> None:
    """It met arithmetic on the way out, and the slot was lost."""

    class Busy(Exception):
        failure_kind = "rate_limited"
        is_unknown = False
        retry_after_seconds = asked

    async def busy() -> None:
        raise Busy

    policy = make(Bulkhead(1))

    with pytest.raises(Busy):
        await policy.call(busy)

    assert (0, seconds) == (policy.machines.slots.running, policy.machines.cooldown.until)


@pytest.mark.parametrize(
    "parts",
    [
        (Fallback("other"), Retry(2, delay_seconds=0)),
        (Fallback(_failing_rung), Retry(2, delay_seconds=0), Breaker()),
        (Retry(2, delay_seconds=0), Timeout(5)),
    ],
    ids=["fallback", "failing fallback", "express"],
)
async def test_a_failed_call_leaves_nothing_to_the_collector(make: Make, clock: ManualClock, parts: Any) -> None:
    """In an outage every call fails; what each held would pile up until the next collection."""

    class Held:
        pass

    left: list[weakref.ref[Held]] = []
    policy = make(*parts)

    async def refused() -> None:
        held = Held()
        left.append(weakref.ref(held))
        raise ConnectionRefusedError

    gc.disable()
    try:
        await policy.result(refused)
        await settle()
        alive = [one for one in left if one() is not None]
    finally:
        gc.enable()

    assert [] == alive


def test_a_failed_attempt_in_a_thread_leaves_nothing_to_the_collector() -> None:
    class Held:
        pass

    left: list[weakref.ref[Held]] = []
    policy = Policy("psp", Timeout(5), registry=Registry(environ={}))

    def refused() -> None:
        held = Held()
        left.append(weakref.ref(held))
        raise ConnectionRefusedError

    gc.disable()
    try:
        with pytest.raises(ConnectionRefusedError):
            policy.call_sync(refused)
        alive = [one for one in left if one() is not None]
    finally:
        gc.enable()

    assert [] == alive


class Hostile(Exception):
    """Raises at whatever it is asked."""

    def __getattr__(self, name: str) -> object:
        raise RuntimeError(name)

    def __setattr__(self, name: str, value: object) -> None:
        raise RuntimeError(name)

    def __str__(self) -> str:
        raise RuntimeError("str")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("eq")

    def __bool__(self) -> bool:
        raise RuntimeError("bool")

    __hash__ = None  # type: ignore[assignment]


@pytest.mark.parametrize("wrap", [lambda error: error, lambda error: ExceptionGroup("several", [error])])
async def test_an_error_that_raises_at_every_question_comes_through(
    make: Make, clock: ManualClock, wrap: Callable[[Exception], Exception]
) -> None:
    """And it is judged as what it is, not as a mistake in somebody's rule."""
    parts = (Fallback(_failing_rung), Retry(2, delay_seconds=0), Breaker(), Bulkhead(1), Timeout(5))
    policy = make(*parts, idempotent=True)
    error = wrap(Hostile())

    async def fails() -> None:
        raise error

    result = await policy.result(fails)

    assert result.error is error
    verdict = result.verdict
    assert (Kind.TRANSIENT, True, 0) == (verdict.kind, verdict.is_unknown, policy.machines.slots.running)
    assert "rule" not in verdict.reason
    assert Kind.TRANSIENT is report(error).verdict.kind


def test_a_cooperative_function_is_told_how_long_it_has(clock: ManualClock) -> None:
    """Nobody can cut it off: it has to look for itself."""
    registry = Registry(environ={})
    limited = Policy("psp", Timeout(5), registry=registry, sync="cooperative")
    shortened = Policy("erp", Deadline(3), Timeout(2), registry=registry, sync="cooperative")

    around = Policy("fx", Timeout(4), Retry(1), registry=registry, sync="cooperative")

    assert (5.0, 2.0, 4.0, None) == (
        limited.call_sync(deadline.remaining),
        shortened.call_sync(deadline.remaining),
        around.call_sync(deadline.remaining),
        deadline.remaining(),
    )
