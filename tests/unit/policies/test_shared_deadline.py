"""Limits around each other that end in the same turn: on a real clock, where both timers fire before anybody runs."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from spoolproof.policies import (
    Breaker,
    Bulkhead,
    Consecutive,
    Deadline,
    DeadlineExceeded,
    Fallback,
    Policy,
    Registry,
    Timeout,
    events,
)
from spoolproof.policies.running import timeout

_SECONDS = 0.03


def _policy(name: str, *parts: Any) -> Policy:
    return Policy(name, *parts, registry=Registry(environ={}), lint_ignore={"W1"})


async def test_q18_a_shared_deadline_is_the_verdict_of_the_innermost(told: list[events.Event]) -> None:
    """Else a dependency that hangs is never blamed where callers bring a deadline: each call looks cancelled."""
    outer = _policy("shop", Deadline(_SECONDS))
    inner = _policy("psp", Breaker(Consecutive(2)), Bulkhead(1), Timeout(_SECONDS * 1.5))

    async def order() -> None:
        await inner.call(asyncio.get_running_loop().create_future)

    ends = []
    for _ in range(2):
        try:
            await outer.call(order)
        except DeadlineExceeded as error:
            ends.append(error.policy)

    verdicts = [
        event.verdict.kind for event in told if isinstance(event, events.AttemptEnded) and event.policy == "psp"
    ]
    assert (["psp", "psp"], ["timeout", "timeout"], "open") == (ends, verdicts, inner.state)
    assert (0, {}) == (inner.machines.slots.running, timeout._fired)


async def test_q30_who_answers_at_a_shared_deadline_does_not_outlive_it() -> None:
    """The inner fallback has an answer; the call around it goes on waiting, and is cut off all the same."""
    outer, inner = _policy("shop", Deadline(_SECONDS)), _policy("psp", Fallback("stale"), Timeout(10))
    answers = []

    async def order() -> None:
        answers.append(await inner.call(asyncio.get_running_loop().create_future))
        await asyncio.sleep(10)

    started = time.monotonic()
    result = await outer.result(order)

    assert (["stale"], DeadlineExceeded) == (answers, type(result.error))
    assert time.monotonic() - started < 5
    task = asyncio.current_task()
    assert task is not None
    assert 0 == task.cancelling()


async def test_q15_an_outside_cancellation_in_the_turn_of_a_shared_deadline_wins() -> None:
    outer, inner = _policy("shop", Deadline(_SECONDS)), _policy("psp", Timeout(10))

    async def order() -> None:
        await inner.call(asyncio.get_running_loop().create_future)

    task = asyncio.ensure_future(outer.call(order))
    await asyncio.sleep(0)
    time.sleep(_SECONDS * 1.5)  # both timers and the cancellation are due in one turn
    task.cancel()
    await asyncio.wait([task])

    assert (True, {}) == (task.cancelled(), timeout._fired)
