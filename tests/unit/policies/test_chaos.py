"""Faults on purpose."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest

from spoolproof.errors import AttemptTimeout, PolicyConfigError, PolicyUsageError
from spoolproof.policies import Chaos, Kind, Policy, Registry, Retry, Timeout, events, report
from spoolproof.testing.clock import ManualClock

Make = Callable[..., Policy]


class Away(Exception):
    failure_kind = "transient"
    is_unknown = False


class Picky(Exception):
    """Cannot be copied: it takes more than it keeps."""

    def __init__(self, host: str, *, port: int) -> None:
        super().__init__(f"{host}:{port}")


async def work(*_: Any) -> str:
    return "done"


def work_sync(*_: Any) -> str:
    return "done"


async def struck(policy: Policy, calls: int) -> str:
    """Which of so many calls went wrong: `x` and `.`."""
    results = [await policy.result(work, number) for number in range(calls)]
    return "".join("." if result.is_ok else "x" for result in results)


async def test_the_same_seed_gives_the_same_sequence_and_another_seed_another(make: Make) -> None:
    """A failure that chaos found can be found again."""
    seen = [await struck(make(Chaos(0.5, seed=seed, fault=Away), name=f"p{n}"), 40) for n, seed in enumerate((7, 7, 8))]

    assert seen[0] == seen[1]
    assert seen[0] != seen[2]
    assert 10 < seen[0].count("x") < 30


@pytest.mark.parametrize(("rate", "expected"), [(0.0, "." * 50), (1.0, "x" * 50)])
async def test_the_ends_of_the_rate_are_never_and_always(make: Make, rate: float, expected: str) -> None:
    """Rate 1 is how one fault is tested; a rate of 0 may be shipped."""
    assert expected == await struck(make(Chaos(rate, fault=Away)), 50)


async def test_attempts_that_the_predicate_refuses_draw_nothing(make: Make) -> None:
    """Other traffic must not change which of the meant calls are struck."""
    every = await struck(make(Chaos(0.5, seed=3, fault=Away), name="every"), 20)
    even = await struck(make(Chaos(0.5, seed=3, fault=Away, when=lambda number: number % 2 == 0), name="even"), 40)

    assert "." * 20 == even[1::2]
    assert every == even[0::2]


async def test_a_policy_with_chaos_in_it_may_be_shipped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Inert without the variable and without a test clock; the variable is asked for at each attempt."""
    policy = Policy("shipped", Chaos(1, fault=Away), registry=Registry({}))

    inert = await struck(policy, 3)
    monkeypatch.setenv("SPOOLPROOF_CHAOS", "true")
    no_switch = await struck(policy, 3)
    monkeypatch.setenv("SPOOLPROOF_CHAOS", "1")

    assert ("...", "...", "xxx") == (inert, no_switch, await struck(policy, 3))


async def test_where_the_environment_switched_it_on_a_warning_a_minute_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Somebody who wonders why a service fails finds the reason in its log, and not ten thousand times."""
    monkeypatch.setenv("SPOOLPROOF_CHAOS", "1")
    clock = ManualClock()
    policy = Policy("psp", Chaos(0, unknown=True), registry=Registry({}), clock=clock)
    caplog.set_level(logging.WARNING, "spoolproof.policies")
    seen = []

    for _ in range(3):
        await struck(policy, 5)
        seen.append(len(caplog.records))
        await clock.advance(30)

    assert [1, 1, 2] == seen
    assert "policy=psp behaviour=unknown rate=0; unset SPOOLPROOF_CHAOS" in caplog.messages[0]


async def test_a_test_clock_switches_it_on_without_a_warning(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    """A test that uses chaos meant it."""
    caplog.set_level(logging.WARNING, "spoolproof.policies")

    assert "xx" == await struck(make(Chaos(1, fault=Away)), 2)
    assert [] == [one for one in caplog.messages if "chaos" in one]


async def test_unknown_does_the_work_and_loses_the_answer(make: Make) -> None:
    """An effect that happened although the call failed: retried, it happens twice where idempotency is missing."""
    charged: list[str] = []

    async def charge(order: str) -> None:
        charged.append(order)

    careful = make(Retry(3, delay_seconds=0), Chaos(1, unknown=True), name="careful")
    bold = make(Retry(3, delay_seconds=0), Chaos(1, unknown=True), name="bold", idempotent=True)
    ends = [await policy.result(charge, policy.name) for policy in (careful, bold)]

    assert ["careful", "bold", "bold", "bold"] == charged
    assert [AttemptTimeout, AttemptTimeout] == [type(end.error) for end in ends]
    assert [(Kind.TIMEOUT, True)] * 2 == [(end.verdict.kind, end.verdict.is_unknown) for end in ends]


async def test_what_the_work_raises_is_not_hidden_by_a_lost_answer(make: Make) -> None:
    """A known failure beats an unknown one."""

    async def fails() -> None:
        raise Away

    with pytest.raises(Away):
        await make(Chaos(1, unknown=True)).call(fails)


@pytest.mark.parametrize("result", [None, False, 0, "other"])
async def test_any_result_may_stand_in_for_the_real_one(make: Make, result: object) -> None:
    """An empty answer is the fault that most code has never seen."""
    assert result is await make(Chaos(1, result=result)).call(work)


async def test_each_attempt_gets_an_exception_of_its_own(make: Make) -> None:
    """One object raised for ever would collect tracebacks and notes, and tell each caller of the others."""
    fault = Away("gone")
    policy = make(Chaos(1, fault=fault))

    first, second = [(await policy.result(work)).error for _ in range(2)]

    assert first is not second
    assert fault not in (first, second)
    assert fault.__traceback__ is None
    assert ["gone", "gone"] == [str(first), str(second)]


async def test_an_exception_that_cannot_be_copied_is_raised_itself(make: Make) -> None:
    """Better one object than no fault."""
    fault = Picky("db", port=5432)

    assert fault is (await make(Chaos(1, fault=fault)).result(work)).error


async def test_a_function_may_make_the_exception(make: Make) -> None:
    """For errors whose text or class changes."""
    numbers = iter(range(10))
    policy = make(Chaos(1, fault=lambda: Away(next(numbers))))

    assert ["0", "1"] == [str((await policy.result(work)).error) for _ in range(2)]


async def test_another_behaviour_may_be_async_or_not(make: Make) -> None:
    """It is called with the arguments of the call."""

    async def slowly(number: int) -> int:
        await asyncio.sleep(0)
        return number * 2

    assert 42 == await make(Chaos(1, behaviour=slowly), name="a").call(work, 21)
    assert 63 == await make(Chaos(1, behaviour=lambda number: number * 3), name="b").call(work, 21)


async def test_latency_counts_towards_the_time_limit(make: Make, clock: ManualClock) -> None:
    """A slow dependency is what a timeout is for."""
    policy = make(Timeout(2), Chaos(1, latency_seconds=3))

    async with clock.auto_advance():
        result = await policy.result(work)

    assert AttemptTimeout is type(result.error)
    assert 2.0 == result.elapsed_seconds


async def test_a_cancellation_is_no_failure(make: Make) -> None:
    """Q1: chaos shows that a service takes one for what it is."""
    with pytest.raises(asyncio.CancelledError) as caught:
        await make(Chaos(1, cancel=True)).call(work)

    assert Kind.CANCELLED is report(caught.value).verdict.kind


@pytest.mark.parametrize(
    ("chaos", "expected"),
    [
        (Chaos(1, fault=Away), Away),
        (Chaos(1, result="other"), "other"),
        (Chaos(1, behaviour=lambda: "else"), "else"),
        (Chaos(1, latency_seconds=3), "done"),
        (Chaos(1, unknown=True), AttemptTimeout),
        (Chaos(1, hang=True), PolicyUsageError),
        (Chaos(0, fault=Away), "done"),
    ],
    ids=repr,
)
def test_sync_functions_go_wrong_in_the_same_ways(
    make: Make, clock: ManualClock, chaos: Chaos, expected: object
) -> None:
    """Only a hang cannot be made: nobody could end the thread."""
    result = make(chaos, Retry(1)).result_sync(work_sync)

    assert expected == (type(result.error) if result.error else result.value)
    assert ([3.0] if chaos.way == "latency_seconds" else []) == clock.blocking_sleeps


def test_a_sync_function_may_be_cancelled_too(make: Make) -> None:
    """As a signal handler or a framework does it."""
    with pytest.raises(asyncio.CancelledError):
        make(Chaos(1, cancel=True)).call_sync(work_sync)


def test_chaos_reaches_the_threads_of_sync_attempts(make: Make) -> None:
    """An attempt with a time limit runs in a thread of its own, with the context of its caller."""
    assert Away is type(make(Timeout(5), Chaos(1, fault=Away)).result_sync(work_sync).error)


async def test_each_fault_is_told(make: Make, told: list[events.Event]) -> None:
    """So that a fault made on purpose can be told from a real one."""
    policy = make(Chaos(1, fault=Away), name="told").for_key("eu")

    await policy.result(work)

    found = [event for event in told if isinstance(event, events.ChaosInjected)]
    assert [events.ChaosInjected(policy="told", key="eu", behaviour="fault")] == found


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"rate": 1.5, "hang": True}, "rate=1.5: a number from 0 to 1"),
        ({"rate": True, "hang": True}, "rate=True: a number from 0 to 1"),
        ({"rate": float("nan"), "hang": True}, "rate=nan: a number from 0 to 1"),
        ({"seed": 0.5, "hang": True}, "seed=0.5: a whole number"),
        ({}, "exactly one of fault, latency_seconds, result"),
        ({"hang": True, "result": None}, r"behaviour=\['result', 'hang'\]: exactly one of"),
        ({"latency_seconds": -1}, "latency_seconds=-1: a number from 0 to 3,600"),
        ({"latency_seconds": "3"}, "latency_seconds='3': a number from 0 to 3,600"),
        ({"fault": KeyboardInterrupt}, "fault=<class 'KeyboardInterrupt'>: an Exception"),
        ({"fault": "lost"}, "fault='lost': an Exception"),
        ({"behaviour": "else"}, "behaviour='else': a function"),
        ({"hang": True, "when": True}, "when=True: a function"),
    ],
)
def test_a_chaos_that_cannot_be_is_refused(given: dict[str, Any], expected: str) -> None:
    """When it is declared: in the outage it was meant for is too late."""
    with pytest.raises(PolicyConfigError, match=expected):
        Chaos(**given)


def test_every_fault_is_reported_at_once() -> None:
    """Nobody wants to find them one start at a time."""
    with pytest.raises(PolicyConfigError) as caught:
        Chaos(2, seed="x", latency_seconds=-1)  # type: ignore[arg-type]

    assert 3 == len(caught.value.faults)


def test_equal_declarations_look_equal_and_others_do_not() -> None:
    """A registry takes a name twice only for the same parts, and knows parts by how they look."""
    assert repr(Chaos(0.5, fault=Away("x"))) == repr(Chaos(0.5, fault=Away("x")))
    assert "Chaos(0.5, seed=0, fault=Away('x'))" == repr(Chaos(0.5, fault=Away("x")))
    assert "Chaos(1, seed=2, when=work_sync, behaviour=work)" == repr(
        Chaos(1, seed=2, when=work_sync, behaviour=work)  # type: ignore[arg-type]
    )
    assert "Chaos(1, seed=0, hang=True)" == repr(Chaos(1, hang=True))
