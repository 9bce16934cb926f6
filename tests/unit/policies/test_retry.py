"""When a call is tried again, how long it waits for that, and what ends the wait."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from spoolproof.clock import SYSTEM
from spoolproof.errors import Action
from spoolproof.policies import (
    Breaker,
    Classifier,
    Consecutive,
    Fallback,
    Kind,
    Policy,
    PolicyUsageError,
    Registry,
    Retry,
    events,
    report,
    within_delivery,
)
from spoolproof.policies.call import Call
from spoolproof.policies.judging.verdict import verdict_of
from spoolproof.policies.parts.ranges import Settings
from spoolproof.policies.running.retry import Drain, Stop, Wait, next_step
from spoolproof.testing.clock import ManualClock

from .conftest import settle

Make = Callable[..., Policy]
FORMS = pytest.mark.parametrize("form", ["async", "sync"])


def ended(policy: Policy, clock: ManualClock, form: str, function: Callable[[], Any]) -> Any:
    """Return how a call ends that has ten minutes for it."""
    if form == "sync":
        return policy.result_sync(function)

    async def run() -> Any:
        async def work() -> Any:
            return function()

        task = asyncio.ensure_future(policy.result(work))
        await clock.advance(600)
        return task.result()

    return asyncio.run(run())


def refuse() -> None:
    raise ConnectionRefusedError


# --- the decision ----------------------------------------------------------------------------------------------------


class Highest:
    """Chance that always gives the most."""

    def uniform(self, low: float, high: float) -> float:
        return high


class Owner:
    name, key, clock = "psp", None, SYSTEM

    def __init__(self, is_idempotent: bool) -> None:
        self.is_idempotent = is_idempotent


@pytest.mark.parametrize(
    ("kind", "given", "expected"),
    [
        (Kind.TRANSIENT, {}, Wait(1.0)),
        (Kind.TRANSIENT, {"tries": 2}, Wait(2.0)),
        (Kind.OVERLOADED, {}, Wait(1.0)),
        (Kind.TIMEOUT, {}, Wait(1.0)),
        (Kind.RATE_LIMITED, {}, Wait(1.0)),
        (Kind.LOCAL, {}, Stop("local")),
        (Kind.CANCELLED, {}, Stop("cancelled")),
        (Kind.DEADLINE, {}, Stop("deadline")),
        (Kind.PERMANENT, {}, Stop("permanent")),
        (Kind.BUG, {}, Stop("permanent")),
        (Kind.TRANSIENT, {"tries": 3}, Stop("attempts")),
        (Kind.TRANSIENT, {"attempts_max": 1}, Stop("nested")),
        (Kind.TRANSIENT, {"is_unknown": True}, Stop("unknown")),
        (Kind.TRANSIENT, {"is_unknown": True, "is_idempotent": True}, Wait(1.0)),
        (Kind.TRANSIENT, {"asked": 0.5}, Wait(1.0)),
        (Kind.TRANSIENT, {"asked": 50.0}, Wait(50.0 * 1.1)),
        (Kind.TRANSIENT, {"asked": 60.5}, Stop("retry_after")),
        (Kind.TRANSIENT, {"asked": 5.0, "left": 4.9}, Stop("retry_after")),
        (Kind.TRANSIENT, {"asked": 5.0, "left": 5.4}, Stop("deadline")),
        (Kind.TRANSIENT, {"left": 1.0}, Stop("deadline")),
        (Kind.TRANSIENT, {"left": 1.1}, Wait(1.0)),
        (Kind.RATE_LIMITED, {"cooldown": 3.0}, Wait(3.0 * 1.1)),
        (Kind.RATE_LIMITED, {"cooldown": 3.0, "asked": 2.0}, Wait(2.0 * 1.1)),
        (Kind.TRANSIENT, {"cooldown": 3.0}, Wait(1.0)),
        (Kind.TRANSIENT, {"is_delivery": True, "tries": 2}, Wait(2.0)),
        (Kind.TRANSIENT, {"is_delivery": True, "asked": 2.0}, Stop("inline")),
    ],
)
def test_what_follows_a_failed_attempt(kind: Kind, given: dict[str, Any], expected: Stop | Wait) -> None:
    """All of section 5 but the budget and the drain."""
    settings = Settings(
        attempts=3,
        delay_seconds=1.0,
        delay_factor=2.0,
        delay_seconds_max=20.0,
        retry_after_seconds_max=60.0,
        inline_seconds_max=2.0,
    )
    call = Call()
    call.owner = Owner(given.get("is_idempotent", False))
    call.tries = given.get("tries", 1)
    call.now = 100.0
    call.deadline_at = 100.0 + given["left"] if "left" in given else None
    verdict = verdict_of(kind, is_unknown=given.get("is_unknown", False), retry_after_seconds=given.get("asked"))

    def step() -> Stop | Wait:
        return next_step(settings, call, verdict, given.get("attempts_max", 3), Highest(), given.get("cooldown", 0.0))

    if "is_delivery" in given:
        with within_delivery(is_again=False):
            assert expected == step()
    else:
        assert expected == step()


# --- a call ----------------------------------------------------------------------------------------------------------


@FORMS
@pytest.mark.parametrize(("bad", "value"), [(0, "good"), (2, "good"), (3, "bad")])
def test_a_result_that_is_a_failure_is_tried_again(
    make: Make, clock: ManualClock, form: str, bad: int, value: str
) -> None:
    """When all attempts are used up the last result is the answer, and known not to be one."""
    policy = make(Retry(3), classify=Classifier().result(lambda one: Kind.TRANSIENT if one == "bad" else None))
    answers = iter(["bad"] * bad + ["good"])

    result = ended(policy, clock, form, lambda: next(answers))

    assert (value, min(bad + 1, 3), Kind.TRANSIENT if value == "bad" else None) == (
        result.value,
        result.attempts,
        result.verdict.kind,
    )


@FORMS
def test_a_later_rejection_ends_the_call_with_the_dependencys_error(make: Make, clock: ManualClock, form: str) -> None:
    """What we refuse ourselves tells nobody what is wrong."""
    result = ended(make(Retry(3, delay_seconds=0.01), Breaker(Consecutive(1))), clock, form, refuse)

    assert (ConnectionRefusedError, "local", 2) == (
        type(result.error),
        report(result.error).stop_reason,
        result.attempts,
    )
    assert any(
        note.startswith("a further attempt was rejected: policy 'psp': breaker open") for note in result.error.__notes__
    )


@FORMS
def test_q13_within_a_message_delivered_again_one_attempt_is_made(make: Make, clock: ManualClock, form: str) -> None:
    """Also where nobody listens."""
    with within_delivery(is_again=True):
        result = ended(make(Retry(3)), clock, form, refuse)

    assert (1, "nested") == (result.attempts, report(result.error).stop_reason)


@FORMS
def test_a_mistake_that_no_attempt_made_is_not_tried_again(
    make: Make, clock: ManualClock, told: list[events.Event], form: str
) -> None:
    """Nothing has judged it: the function was never run."""
    policy = make(Retry(3), Fallback.last_good(key=lambda: [], age_seconds_max=5))

    result = ended(policy, clock, form, refuse)

    assert (TypeError, 0, Kind.BUG) == (type(result.error), result.attempts, report(result.error).verdict.kind)
    assert [("permanent", 0)] == [
        (event.reason, event.attempts) for event in told if isinstance(event, events.RetryStopped)
    ]


# --- a drain ---------------------------------------------------------------------------------------------------------


@FORMS
@pytest.mark.parametrize("what", ["error", "result"])
def test_a_drain_ends_a_back_off_with_what_there_is(
    clock: ManualClock, told: list[events.Event], form: str, what: str
) -> None:
    registry = Registry(environ={})
    judge = Classifier().result(lambda one: Kind.TRANSIENT if one == "bad" else None)
    policy = Policy("psp", Retry(3), classify=judge, registry=registry)
    drains: list[object] = []

    def work() -> str:
        drains.append(clock.call_at(clock.monotonic(), registry.drain))  # in the back-off, before its own timer
        if what == "error":
            raise ConnectionRefusedError
        return "bad"

    result = ended(policy, clock, form, work)

    assert (1, 1, "bad" if what == "result" else None) == (len(drains), result.attempts, result.value)
    assert Kind.TRANSIENT is result.verdict.kind
    assert ["draining"] == [event.reason for event in told if isinstance(event, events.RetryStopped)]
    if what == "error":
        known = report(result.error)
        assert ("draining", Action.DEFER) == (known.stop_reason, known.disposition and known.disposition.action)


@FORMS
def test_after_a_drain_a_service_that_starts_tries_again(clock: ManualClock, form: str) -> None:
    registry = Registry(environ={})
    policy = Policy("psp", Retry(3, delay_seconds=0.01), registry=registry)

    registry.drain()
    drained = ended(policy, clock, form, refuse)
    registry.resume()
    resumed = ended(policy, clock, form, refuse)

    assert [(1, "draining"), (3, "attempts")] == [
        (one.attempts, report(one.error).stop_reason) for one in (drained, resumed)
    ]


def test_a_drain_reaches_those_who_live_although_a_loop_has_been_closed(clock: ManualClock) -> None:
    """A service that ends must not hang on a loop that is gone."""
    drain = Drain()
    dead, alive = asyncio.new_event_loop(), asyncio.new_event_loop()
    sleepers = [loop.create_task(drain.sleep(clock, 3600)) for loop in (dead, alive)]
    for loop in (dead, alive):
        loop.run_until_complete(settle())
    dead.close()

    drain.start()

    alive.run_until_complete(asyncio.wait_for(sleepers[1], 5))
    alive.close()
    assert 0.0 == clock.monotonic()


async def test_a_drain_in_the_turn_in_which_a_back_off_ends_disturbs_nobody(clock: ManualClock) -> None:
    drain = Drain()
    faults: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context))
    sleeping = asyncio.ensure_future(drain.sleep(clock, 5))
    await settle()

    drain.start()
    clock.sleep_blocking(5)
    await settle()

    assert (True, []) == (sleeping.done(), faults)


async def test_while_a_registry_drains_nobody_begins_to_wait(clock: ManualClock) -> None:
    """The drain may begin between the decision to wait and the wait."""
    drain = Drain()
    drain.start()

    await asyncio.wait_for(drain.sleep(clock, 3600), 5)
    drain.end()
    sleeping = asyncio.ensure_future(drain.sleep(clock, 3600))
    await clock.advance(3599)

    assert not sleeping.done()
    await clock.advance(1)
    await sleeping


@pytest.mark.parametrize("is_first", [True, False])
def test_a_drain_ends_the_back_off_of_a_thread(is_first: bool) -> None:
    drain = Drain()
    sleeping = threading.Thread(target=drain.sleep_blocking, args=(SYSTEM, 3600), daemon=True)

    for step in (drain.start, sleeping.start) if is_first else (sleeping.start, drain.start):
        step()
    sleeping.join(5)

    assert not sleeping.is_alive()


async def test_a_back_off_that_would_stop_the_event_loop_is_refused() -> None:
    with pytest.raises(PolicyUsageError, match="a back-off would block the event loop"):
        Drain().sleep_blocking(SYSTEM, 3600)
