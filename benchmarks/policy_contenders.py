"""Everything that protects a call in P9 and P10: ours and the peers, each as `operation → protected operation`.

A factory is called inside the running event loop, because some peers ask for it when they are made. Numbers are the
same on all sides where a peer has the setting: 3 attempts, 32 running at once, 10 s a call.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

Operation = Callable[[], Awaitable[str]]
Factory = Callable[[Operation], Operation]

ATTEMPTS = 3
RUNNING_MAX = 32
TIMEOUT_SECONDS = 10
OPEN_SECONDS = 3600


async def suspends_never() -> str:
    return "done"


async def suspends_once() -> str:
    await asyncio.sleep(0)
    return "done"


async def fails() -> str:
    raise ConnectionRefusedError("nobody listens")


def bare(operation: Operation) -> Operation:
    return operation


# --- ours ------------------------------------------------------------------------------------------------------------


def _policy(*parts: Any) -> Any:
    from spoolproof.policies import Policy, Registry

    return Policy("bench", *parts, idempotent=True, registry=Registry())


def _pipeline_parts(*breaker: Any, **settings: Any) -> tuple[Any, ...]:
    from spoolproof.policies import Breaker, Bulkhead, Retry, Timeout

    return Retry(ATTEMPTS), Breaker(*breaker, **settings), Bulkhead(RUNNING_MAX), Timeout(TIMEOUT_SECONDS)


def our_pipeline(operation: Operation) -> Operation:
    return _policy(*_pipeline_parts())(operation)


def our_pipeline_call(operation: Operation) -> Operation:
    call = _policy(*_pipeline_parts()).call
    return lambda: call(operation)


def our_standard(operation: Operation) -> Operation:
    from spoolproof.policies import Deadline

    return _policy(Deadline(30), *_pipeline_parts())(operation)


def our_retry(operation: Operation) -> Operation:
    from spoolproof.policies import Retry

    return _policy(Retry(ATTEMPTS))(operation)


def our_breaker(operation: Operation) -> Operation:
    from spoolproof.policies import Breaker

    return _policy(Breaker())(operation)


def our_bulkhead(operation: Operation) -> Operation:
    from spoolproof.policies import Bulkhead

    return _policy(Bulkhead(RUNNING_MAX))(operation)


def our_timeout(operation: Operation) -> Operation:
    from spoolproof.policies import Timeout

    return _policy(Timeout(TIMEOUT_SECONDS))(operation)


def our_deadline(operation: Operation) -> Operation:
    from spoolproof.policies import Deadline

    return _policy(Deadline(30))(operation)


def our_rate_limit(operation: Operation) -> Operation:
    from spoolproof.policies import RateLimit

    return _policy(RateLimit(1_000_000, per_seconds=0.1))(operation)  # more than can be asked for: nobody waits


def our_fallback(operation: Operation) -> Operation:
    from spoolproof.policies import Fallback

    return _policy(Fallback("cached"))(operation)


def our_open_breaker(operation: Operation) -> Operation:
    from spoolproof.policies import Breaker, Consecutive

    return _policy(Breaker(Consecutive(1), open_seconds=OPEN_SECONDS))(operation)


def our_open_pipeline(operation: Operation) -> Operation:
    from spoolproof.policies import Consecutive

    return _policy(*_pipeline_parts(Consecutive(1), open_seconds=OPEN_SECONDS))(operation)


# --- stacks of peers -------------------------------------------------------------------------------------------------


def nopanic_stack(operation: Operation) -> Operation:
    import nopanic

    return nopanic.compose(
        nopanic.retry(attempts=ATTEMPTS),
        nopanic.circuit_breaker(),
        nopanic.bulkhead(RUNNING_MAX),
        nopanic.timeout(TIMEOUT_SECONDS),
    )(operation)


def interlock_stack(operation: Operation) -> Operation:
    import interlock

    builder = interlock.Pipeline.builder().retry(attempts=ATTEMPTS)  # tenacity's retry, which the package takes over
    builder = builder.circuit_breaker(interlock.CircuitBreaker(name="bench-stack")).bulkhead(RUNNING_MAX)
    return builder.timeout(TIMEOUT_SECONDS).build()(operation)


def hyx_stack(operation: Operation) -> Operation:
    from hyx.bulkhead import bulkhead
    from hyx.circuitbreaker import consecutive_breaker
    from hyx.retry import retry
    from hyx.timeout import timeout

    inner = bulkhead(RUNNING_MAX, 3 * RUNNING_MAX)(timeout(TIMEOUT_SECONDS)(operation))
    return retry(attempts=ATTEMPTS)(consecutive_breaker()(inner))


def tenacity_retry(operation: Operation) -> Operation:
    import tenacity

    return tenacity.retry(
        stop=tenacity.stop_after_attempt(ATTEMPTS), wait=tenacity.wait_random_exponential(0.1, 20), reraise=True
    )(operation)


def stamina_retry(operation: Operation) -> Operation:
    import stamina

    return stamina.retry(on=Exception, attempts=ATTEMPTS)(operation)


def asyncio_timeout(operation: Operation) -> Operation:
    async def limited() -> str:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            return await operation()

    return limited


# --- single peers ----------------------------------------------------------------------------------------------------


def circuitbreaker_breaker(operation: Operation, threshold: int = 5) -> Operation:
    import circuitbreaker

    return circuitbreaker.CircuitBreaker(threshold, OPEN_SECONDS, name=f"bench-{threshold}-{id(operation)}")(operation)


def aiobreaker_breaker(operation: Operation, threshold: int = 5) -> Operation:
    from datetime import timedelta

    import aiobreaker

    return aiobreaker.CircuitBreaker(threshold, timedelta(seconds=OPEN_SECONDS))(operation)


def pybreaker_breaker(operation: Operation, threshold: int = 5) -> Operation:
    import pybreaker

    breaker = pybreaker.CircuitBreaker(threshold, OPEN_SECONDS)

    async def guarded() -> str:
        with breaker.calling():
            return await operation()

    return guarded


def purgatory_breaker(operation: Operation, threshold: int = 5) -> Operation:
    import purgatory

    return purgatory.AsyncCircuitBreakerFactory(threshold, OPEN_SECONDS)("bench")(operation)


def hyx_breaker(operation: Operation, threshold: int = 5) -> Operation:
    from hyx.circuitbreaker import consecutive_breaker

    return consecutive_breaker(failure_threshold=threshold, recovery_time_secs=OPEN_SECONDS)(operation)


def nopanic_breaker(operation: Operation, threshold: int = 10) -> Operation:
    import nopanic

    return nopanic.circuit_breaker(min_calls=threshold, reset_timeout=OPEN_SECONDS)(operation)


def interlock_breaker(operation: Operation, threshold: int = 10) -> Operation:
    import interlock

    config = interlock.Config(minimum_number_of_calls=threshold, wait_duration_in_open=OPEN_SECONDS)
    return interlock.CircuitBreaker(name=f"bench-{threshold}", config=config)(operation)


def hyx_bulkhead(operation: Operation) -> Operation:
    from hyx.bulkhead import bulkhead

    return bulkhead(RUNNING_MAX, 3 * RUNNING_MAX)(operation)


# --- open breakers ---------------------------------------------------------------------------------------------------


def opened(breaker: Callable[[Operation, int], Operation]) -> Factory:
    """Return a factory of the same breaker with the lowest threshold; see `open_it`."""
    return lambda operation: breaker(operation, 1)


async def open_it(protected: Operation) -> Operation:
    """Open a breaker around `fails` and return what it protects, which rejects from now on."""
    for _ in range(3):
        with contextlib.suppress(Exception):
            await protected()
    return protected
