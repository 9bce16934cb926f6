"""Both ways a call can take give the same answer and leave the same counts."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

import pytest

from spoolproof.policies import (
    Breaker,
    BreakerOpen,
    Bulkhead,
    Consecutive,
    Deadline,
    Fallback,
    Policy,
    Rate,
    RateLimit,
    Registry,
    Retry,
    Slow,
    Timeout,
    express,
    report,
)
from spoolproof.testing.clock import ManualClock

SHAPES: dict[str, Callable[[], list[Any]]] = {
    "retry": lambda: [Retry(3)],
    "breaker": lambda: [Breaker(Consecutive(3))],
    "rate breaker": lambda: [Breaker(Rate(0.5, window_seconds=1, calls_min=4))],
    "count breaker": lambda: [Breaker(Rate(0.5, window_calls=10, calls_min=4))],
    "ramping breaker": lambda: [Breaker(Rate(0.5, window_seconds=10, calls_min=4), ramp_seconds=2)],
    "slow calls": lambda: [Breaker(Slow(0.4, slow_seconds=0.1, calls_min=4))],
    "slow calls that may wait": lambda: [
        Breaker(Slow(0.4, slow_seconds=0.1, calls_min=4)),
        RateLimit(3, per_seconds=1, wait_seconds_max=0.2),
        Bulkhead(2, queue_max=1),
    ],
    "bulkhead": lambda: [Bulkhead(2, queue_max=1)],
    "timeout": lambda: [Timeout(0.5)],
    "deadline": lambda: [Deadline(0.7)],
    "rate limit": lambda: [RateLimit(3, per_seconds=1, wait_seconds_max=0.2)],
    "fallback": lambda: [Fallback("other")],
    "standard": lambda: [
        Deadline(3),
        Retry(3),
        Breaker(Consecutive(4), open_seconds=1),
        RateLimit(20, per_seconds=1),
        Bulkhead(2, queue_max=1),
        Timeout(0.5),
    ],
    "with fallback": lambda: [Fallback("other"), Deadline(3), Retry(2), Breaker(Consecutive(4)), Timeout(0.5)],
}
ENDS = [
    ("value", None),
    ("value", None),
    ("value", None),
    ("refused", ConnectionRefusedError),
    ("reset", ConnectionResetError),
    ("bug", TypeError),
    ("own timeout", TimeoutError),
]


async def _play(clock: ManualClock, policy: Policy, seed: int) -> list[object]:
    source = random.Random(seed)
    told: list[object] = []

    async def operation(number: int, error: type[Exception] | None, seconds: float) -> int:
        if seconds:
            await clock.sleep(seconds)
        if error is not None:
            raise error(f"{number}")
        return number

    protected = policy(operation)

    async def one(number: int, error: type[Exception] | None, seconds: float, how: str) -> None:
        try:
            run = protected if how == "decorator" else lambda *args: policy.call(operation, *args)
            told.append((number, await run(number, error, seconds)))
        except asyncio.CancelledError:
            told.append((number, "cancelled"))
        except BreakerOpen as raised:
            told.append((number, str(raised), raised.disposition and raised.disposition.action))
        except Exception as raised:
            known = report(raised)
            told.append((number, type(raised), str(raised), known, tuple(getattr(raised, "__notes__", ()))))

    tasks = []
    for number in range(60):
        _, error = source.choice(ENDS)
        seconds = source.choice([0.0, 0.0, 0.0, 0.1, 0.6, 0.9])
        tasks.append(asyncio.create_task(one(number, error, seconds, source.choice(["decorator", "call"]))))
        for _ in range(3):
            await asyncio.sleep(0)
        if source.random() < 0.1:
            source.choice(tasks).cancel()
        await clock.advance(source.choice([0.0, 0.0, 0.05, 0.3, 2.0]))
        machines = policy.machines
        told.append((policy.state, machines.slots and (machines.slots.running, machines.slots.queued)))
        if machines.circuit is not None:
            circuit = machines.circuit
            told.append((circuit.epoch, circuit.successes_total, circuit.failures_total, circuit.tally.consecutive))
        told.append(policy._definition.shared.budget.available(clock.monotonic()))
    await clock.advance(60.0)
    await asyncio.gather(*tasks)
    return told


@pytest.mark.parametrize("shape", SHAPES)
async def test_the_express_way_ends_every_call_as_the_pipeline_does(
    shape: str, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two ways are two places to be wrong: on the same calls they must tell the same, to the last count and note."""
    for seed in range(20):
        heard = []
        for is_on in (True, False):
            monkeypatch.setattr(express, "is_on", is_on)
            with (again := ManualClock()).active():
                policy = Policy(
                    "psp",
                    *SHAPES[shape](),
                    idempotent=seed % 2 == 0,
                    registry=Registry(environ={}),
                    random=random.Random(1),
                )
                assert is_on is (policy.express() is not None)
                heard.append(await _play(again, policy, seed))

        assert heard[1] == heard[0]
