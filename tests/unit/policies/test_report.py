"""What a failed call says of the breakers it met: whoever holds the work behind it goes by that."""

from __future__ import annotations

import asyncio

import pytest

from spoolproof.errors import Action, BreakerOpen
from spoolproof.policies import Breaker, Consecutive, Policy, Registry, Retry, Timeout, report
from spoolproof.policies.judging.report import kept_report
from spoolproof.testing.clock import ManualClock


class World:
    """A registry of its own, and policies in it."""

    def __init__(self) -> None:
        self.registry = Registry(environ={})

    def breaker(self, name: str, consecutive: int = 1, **settings: float) -> Policy:
        breaker = Breaker(Consecutive(consecutive), open_seconds=5, open_factor=1, open_jitter=0, **settings)
        return Policy(name, breaker, idempotent=True, registry=self.registry, lint_ignore={"W1"})


@pytest.fixture
def world() -> World:
    return World()


async def refuse() -> None:
    raise ConnectionRefusedError("refused")


async def failure(policy: Policy, function: object = refuse) -> Exception:
    result = await policy.result(function)  # type: ignore[arg-type]
    assert result.error is not None
    return result.error


async def test_a_failure_under_a_closed_breaker_and_one_that_opened_it_differ(world: World) -> None:
    policy = world.breaker("psp", consecutive=2)

    told = [report(await failure(policy)).is_breaker_closed for _ in range(3)]

    assert [True, False, False] == told


async def test_without_a_breaker_nothing_says_outage(world: World) -> None:
    policy = Policy("psp", Timeout(5), registry=world.registry)

    assert report(await failure(policy)).is_breaker_closed
    assert report(ConnectionRefusedError()).is_breaker_closed
    assert not report(BreakerOpen("psp", "open", "x", 1.0)).is_breaker_closed


async def test_a_failed_probe_and_one_that_says_nothing_leave_it_not_closed(manual_clock: ManualClock) -> None:
    """A day into an outage its probes must not look like the fault of the message that makes them."""
    policy = World().breaker("psp")
    await failure(policy)

    await manual_clock.advance(5)
    assert "half_open" == policy.state
    neutral = await failure(policy, _mistaken)
    assert "half_open" == policy.state
    failed = await failure(policy)

    assert [False, False] == [report(neutral).is_breaker_closed, report(failed).is_breaker_closed]


async def test_a_rejection_while_the_share_grows_is_still_of_the_outage(manual_clock: ManualClock) -> None:
    policy = World().breaker("psp", ramp_seconds=100, probe_successes=1)
    await failure(policy)
    await manual_clock.advance(5)
    await policy.call(asyncio.sleep, 0)
    assert "closed" == policy.state

    errors = [(await policy.result(asyncio.sleep, 0)).error for _ in range(5)]

    rejections = [error for error in errors if isinstance(error, BreakerOpen)]
    assert rejections
    assert not any(report(one).is_breaker_closed for one in rejections)


async def test_a_breaker_inside_another_policy_counts(world: World) -> None:
    """The outer one has no breaker, or one that sees too little; the message waits out the outage all the same."""
    outer, inner = Policy("outer", Retry(1), registry=world.registry, idempotent=True), world.breaker("inner")

    async def hang() -> None:
        raise TimeoutError

    error = await failure(outer, lambda: inner.call(hang))

    known = report(error)
    assert known.disposition is not None
    assert (False, Action.DEFER) == (known.is_breaker_closed, known.disposition.action)


async def test_an_error_raised_again_by_its_library_does_not_speak_of_the_call_before(
    manual_clock: ManualClock,
) -> None:
    """One object for every failure: what was an outage yesterday is none today."""
    shared = TimeoutError("always the same")

    async def hang() -> None:
        raise shared

    world = World()
    await failure(world.breaker("one"), hang)
    assert not report(shared).is_breaker_closed
    await manual_clock.advance(1)

    await failure(world.breaker("two", consecutive=5), hang)

    assert report(shared).is_breaker_closed


async def test_what_a_policy_knew_is_kept_on_the_error(world: World) -> None:
    error = await failure(Policy("psp", Retry(1), registry=world.registry))

    kept = kept_report(error)

    assert kept is report(error)
    assert kept is not None
    assert (1, "attempts") == (kept.attempts, kept.stop_reason)


def test_what_no_policy_has_seen_has_no_report() -> None:
    assert kept_report(ValueError("mine")) is None
    assert kept_report(BreakerOpen("psp", "open", "x", 1.0)) is not None


async def _mistaken() -> None:
    raise TypeError("a bug of the caller's")


async def test_a_breaker_that_was_turned_off_while_open_confirms_no_outage(clock: ManualClock, world: World) -> None:
    """It learns nothing any more, so a message that fails for ever would be deferred for ever."""
    policy = world.breaker("psp")
    await failure(policy)
    world.registry.reload({"SPOOLPROOF_POLICY_PSP_MODE": "off"})

    error = await failure(policy)

    assert report(error).is_breaker_closed
    assert report(error).disposition is not None
