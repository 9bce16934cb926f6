"""Answers in place of the dependency: whose turn it is, for how long, and what is said when nobody has one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from typing import Any

import pytest

from spoolproof.policies import Classifier, Fallback, Kind, Policy, PolicyUsageError, events
from spoolproof.policies.machines.memory import ENTRIES_MAX, Answers
from spoolproof.policies.running.fallback import UnwantedResult
from spoolproof.testing.clock import ManualClock

Make = Callable[..., Policy]
FORMS = pytest.mark.parametrize("form", ["async", "sync"])
BAD = Classifier().result(lambda value: Kind.TRANSIENT if value == "bad" else None)


def ended(policy: Policy, clock: ManualClock, form: str, function: Callable[..., Any], *args: Any) -> Any:
    """Return how a call ends that has a minute for it."""
    if form == "sync":
        return policy.result_sync(function, *args)

    async def run() -> Any:
        async def work(*args: Any) -> Any:
            return function(*args)

        task = asyncio.ensure_future(policy.result(work, *args))
        await clock.advance(60)
        return task.result()

    return asyncio.run(run())


def refuse() -> None:
    raise ConnectionRefusedError


def broken(error: Exception) -> str:
    raise OSError(f"no disk, after {type(error).__name__}")


@FORMS
def test_the_first_rung_that_has_an_answer_gives_it(
    make: Make, clock: ManualClock, told: list[events.Event], form: str
) -> None:
    policy = make(Fallback.last_good(age_seconds_max=5).then(broken, "third", "fourth"))

    result = ended(policy, clock, form, refuse)

    assert ("third", "fallback", Kind.TRANSIENT) == (result.value, result.source, result.verdict.kind)
    assert [("psp", "fallback", 3)] == [
        (event.policy, event.source, event.rung) for event in told if isinstance(event, events.FallbackUsed)
    ]


def test_a_longer_chain_keeps_what_the_shorter_one_was_given() -> None:
    first = Fallback("a", rung_seconds=3)

    longer = first.then("b", "c")

    assert (("a",), ("a", "b", "c"), {"rung_seconds": 3}) == (first.rungs, longer.rungs, longer.given)


@FORMS
def test_when_every_rung_fails_the_error_says_why_for_each(make: Make, clock: ManualClock, form: str) -> None:
    result = ended(make(Fallback(broken, broken)), clock, form, refuse)

    assert (ConnectionRefusedError, "live") == (type(result.error), result.source)
    assert [
        "fallback 1 failed too: OSError: no disk, after ConnectionRefusedError",
        "fallback 2 failed too: OSError: no disk, after ConnectionRefusedError",
    ] == result.error.__notes__


@FORMS
def test_a_good_result_is_not_replaced_and_a_bad_one_is(make: Make, clock: ManualClock, form: str) -> None:
    """A rung is told which result it stands in for."""
    given: list[Any] = []
    policy = make(Fallback(lambda error: given.append(error) or "instead"), classify=BAD)

    good, bad = (ended(policy, clock, form, lambda value=value: value) for value in ("good", "bad"))

    assert [("good", "live"), ("instead", "fallback")] == [(one.value, one.source) for one in (good, bad)]
    assert [(UnwantedResult, "bad", "unwanted result of type str")] == [
        (type(one), one.value, str(one)) for one in given
    ]


@FORMS
def test_a_bad_result_that_nothing_replaces_is_returned(make: Make, clock: ManualClock, form: str) -> None:
    """The caller sees what the dependency said, not an error of ours."""
    result = ended(make(Fallback(broken), classify=BAD), clock, form, lambda: "bad")

    assert ("bad", None, "live", Kind.TRANSIENT) == (result.value, result.error, result.source, result.verdict.kind)


@FORMS
def test_an_answer_that_was_given_is_not_replaced(make: Make, clock: ManualClock, form: str) -> None:
    policy = make(Fallback("instead"), classify=Classifier().permanent(LookupError))

    def not_there() -> None:
        raise LookupError

    assert LookupError is type(ended(policy, clock, form, not_there).error)


@FORMS
def test_a_generator_is_an_answer_like_any_other(make: Make, clock: ManualClock, form: str) -> None:
    """A function that streams may well have a stream for a fallback."""

    def stream(error: Exception) -> Generator[int, None, None]:
        yield 1

    result = ended(make(Fallback(stream)), clock, form, refuse)

    assert [1] == list(result.value)


async def test_an_async_rung_has_its_time_and_the_next_one_its_turn(make: Make, clock: ManualClock) -> None:
    begun: list[tuple[str, float]] = []

    async def slow(error: Exception) -> str:
        begun.append(("slow", clock.monotonic()))
        await clock.sleep(3)
        return "too late"

    async def quick(error: Exception) -> str:
        begun.append(("quick", clock.monotonic()))
        await clock.sleep(1.9)
        return "in time"

    call = asyncio.ensure_future(make(Fallback(slow, quick, rung_seconds=2)).result(refuse))
    await clock.advance(4)

    assert ("in time", "fallback") == (call.result().value, call.result().source)
    assert [("slow", 0.0), ("quick", 2.0)] == begun


class Awaitable:
    """Something to await that cannot be closed."""

    def __await__(self) -> Generator[None, None, str]:
        yield
        return "never"


async def _never(error: Exception) -> str:
    return "never"


@pytest.mark.parametrize("rung", [_never, lambda error: Awaitable()], ids=["coroutine", "awaitable"])
def test_a_sync_call_passes_over_an_async_rung(make: Make, clock: ManualClock, rung: Any) -> None:
    """It is closed: nobody else would."""
    result = make(Fallback(rung, "second")).result_sync(refuse)
    alone = make(Fallback(rung), name="alone").result_sync(refuse)

    assert "second" == result.value
    assert ["fallback 1 failed too: TypeError: rung 1 is async; a sync call cannot await it"] == alone.error.__notes__


@FORMS
def test_q28_last_good_needs_a_key_to_tell_questions_apart(make: Make, clock: ManualClock, form: str) -> None:
    """Refused before the call: else the answer for one customer were given to another in the next outage."""
    runs: list[str] = []

    result = ended(make(Fallback.last_good(age_seconds_max=5)), clock, form, runs.append, "customer")

    assert (PolicyUsageError, []) == (type(result.error), runs)
    assert str(result.error).startswith("policy 'psp': Fallback.last_good needs key= for a function with arguments")


@FORMS
def test_q28_the_last_good_answer_is_given_until_it_is_too_old(make: Make, clock: ManualClock, form: str) -> None:
    policy = make(Fallback.last_good(age_seconds_max=100))
    answers: list[Any] = ["first"]

    def work() -> str:
        if not answers:
            raise ConnectionRefusedError
        return str(answers.pop())

    def call() -> Any:
        return policy.result_sync(work) if form == "sync" else asyncio.run(policy.result(work))

    seen = [call()]
    for seconds in (100, 0.1):
        clock.sleep_blocking(seconds)
        seen.append(call())

    assert [("first", "live"), ("first", "stale"), (None, "live")] == [(one.value, one.source) for one in seen]


def test_of_too_many_answers_the_one_not_used_for_longest_goes() -> None:
    """Memory is bounded, and what is asked for again and again stays."""
    answers = Answers()
    for number in range(ENTRIES_MAX):
        answers.keep((number,), number, 0.0)
    assert (0,) == answers.find((0,), 5.0, 5.0)
    answers.keep((1,), "new", 0.0)

    for number in range(2):
        answers.keep((f"further {number}",), number, 0.0)

    assert [(0,), ("new",), None, None, (4,)] == [answers.find((number,), 5.0, 0.0) for number in range(5)]
    assert ENTRIES_MAX == len(answers._entries)
