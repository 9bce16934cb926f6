"""The same on asyncio's loop and on uvloop, in real time: cancellation and timers are where loops differ."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop

from spoolproof.policies import (
    AttemptTimeout,
    Breaker,
    Bulkhead,
    BulkheadFull,
    Deadline,
    Hedge,
    Policy,
    RateLimit,
    RateLimited,
    Registry,
    Retry,
    Timeout,
)

Run = Callable[[Coroutine[Any, Any, Any]], Any]
RUNS = [pytest.param(asyncio.run, id="asyncio"), pytest.param(uvloop.run, id="uvloop")]


def policy(*parts: Any) -> Policy:
    return Policy("psp", *parts, registry=Registry({}), idempotent=True, lint_ignore={"W1", "W2", "W3", "W6"})


async def forever() -> None:
    await asyncio.get_running_loop().create_future()


@pytest.mark.parametrize("run", RUNS)
def test_an_attempt_is_cut_off_and_tried_again(run: Run) -> None:
    tries: list[int] = []

    async def work() -> str:
        tries.append(1)
        if len(tries) < 3:
            await forever()
        return "done"

    assert "done" == run(policy(Deadline(5), Retry(3, delay_seconds=0.001), Breaker(), Timeout(0.01)).call(work))


@pytest.mark.parametrize("run", RUNS)
def test_a_cancellation_from_outside_stays_one(run: Run) -> None:
    async def work() -> tuple[bool, int]:
        task = asyncio.ensure_future(policy(Retry(3), Timeout(5)).call(forever))
        await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.wait([task])
        return task.cancelled(), len(asyncio.all_tasks())

    assert (True, 1) == run(work())


@pytest.mark.parametrize("run", RUNS)
def test_an_outer_timeout_is_the_outer_ones(run: Run) -> None:
    async def work() -> str:
        try:
            async with asyncio.timeout(0.02):
                await policy(Timeout(5)).call(forever)
        except AttemptTimeout:
            return "ours"
        except TimeoutError:
            return "theirs"
        return "none"

    assert "theirs" == run(work())


@pytest.mark.parametrize("run", RUNS)
def test_waiters_are_served_refused_and_hedged(run: Run) -> None:
    limited = policy(RateLimit(1000, burst=1), Bulkhead(1, queue_max=2, wait_seconds_max=5))

    async def work() -> list[str]:
        calls = (limited.result(asyncio.sleep, 0.01, str(number)) for number in range(5))
        results = await asyncio.gather(*calls)
        assert {BulkheadFull, RateLimited, type(None)} >= {type(result.error) for result in results}
        return [result.value for result in results if result.is_ok]

    assert ["0", "1", "2"] == run(work())[:3]


@pytest.mark.parametrize("run", RUNS)
def test_a_hedge_wins_and_leaves_nothing_behind(run: Run) -> None:
    started: list[int] = []

    async def ask() -> int:
        started.append(1)
        if len(started) == 1:
            await forever()
        return len(started)

    async def work() -> tuple[int, int]:
        return await policy(Hedge(), Timeout(0.2)).call(ask), len(asyncio.all_tasks())

    assert (2, 1) == run(work())
