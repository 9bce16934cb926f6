"""Bounds an attempt in time, and arms a timer only for one that suspends.

A timer costs several times what the rest of a policy does. What a coroutine does before it first waits cannot be cut
off anyway, so that part runs first, stepped by hand; from there on `send`, `throw` and `close` are forwarded exactly.

Only our own expiry is translated. `Task.uncancel()` counts: an outside cancellation that arrives in the same turn wins.
A body that swallows our cancellation is awaited, and a value it still returns is kept: a known outcome beats an unknown
one."""

from __future__ import annotations

import asyncio
import inspect
import types
from collections.abc import Coroutine, Generator
from types import CoroutineType
from typing import Any, ClassVar

from spoolproof.clock import Clock
from spoolproof.errors import AttemptTimeout, DeadlineExceeded, PolicyUsageError
from spoolproof.policies import events
from spoolproof.policies.call import Call
from spoolproof.policies.part import Part


class Timeout(Part):
    """Bounds each attempt to `timeout_seconds` (default 10, 0.001 to 3,600), or to the caller's deadline if that is
    nearer.

    Its expiry raises AttemptTimeout, the caller's deadline DeadlineExceeded; both are TimeoutErrors, and whether the
    effect happened is unknown. A body that ignores its cancellation is waited for.
    """

    kind: ClassVar[str] = "timeout"
    settings: ClassVar[tuple[str, ...]] = ("timeout_seconds",)

    def __init__(self, timeout_seconds: float | None = None) -> None:
        super().__init__({"timeout_seconds": timeout_seconds})


class Expiry:
    """A timer that cancels a task once, and knows whether it did."""

    __slots__ = ("_cancelling", "_task", "_timer", "has_expired")

    def __init__(self, clock: Clock, at: float) -> None:
        task = asyncio.current_task()
        if task is None:
            raise PolicyUsageError("a timeout or deadline can only cut off what runs in an asyncio task")
        self._task = task
        self._cancelling = task.cancelling()
        self.has_expired = False
        self._timer = clock.call_at(at, self._fire)

    def _fire(self) -> None:
        self.has_expired = True
        self._task.cancel()

    def disarm(self) -> bool:
        """Stop the timer and take its cancellation back; True if nothing else has cancelled the task."""
        self._timer.cancel()
        if not self.has_expired:
            return False
        return self._task.uncancel() <= self._cancelling


@types.coroutine
def rest_of(coroutine: Coroutine[Any, Any, Any], waited_for: Any) -> Generator[Any, Any, Any]:
    """Run the rest of a coroutine that has been stepped to its first wait."""
    while True:
        try:
            try:
                sent = yield waited_for
            except BaseException as error:  # a cancellation or a close: the body must see it, whatever it is
                waited_for = coroutine.throw(error)
            else:
                waited_for = coroutine.send(sent)
        except StopIteration as end:
            return end.value


async def finish(
    call: Call, coroutine: Coroutine[Any, Any, Any], waited_for: Any, timeout_seconds: float | None
) -> Any:
    """Return what the rest of `coroutine` returns, under its limits. Raises AttemptTimeout or DeadlineExceeded."""
    own_at = None if timeout_seconds is None else call.attempt_started_at + timeout_seconds
    expiry = Expiry(call.clock, _nearest(own_at, call.deadline_at))
    try:
        value = await rest_of(coroutine, waited_for)
    except asyncio.CancelledError as error:
        if expiry.disarm():
            raise expired(call, own_at, timeout_seconds) from error
        raise
    except BaseException:
        expiry.disarm()
        raise
    expiry.disarm()
    return value


def expired(call: Call, own_at: float | None, timeout_seconds: float | None) -> TimeoutError:
    """Return the error of whichever limit came first; the attempt's own when both are the same."""
    if own_at is None or timeout_seconds is None or (call.deadline_at is not None and call.deadline_at < own_at):
        return DeadlineExceeded(policy=call.name, has_started=True)
    if events.listeners:
        events.emit(
            events.AttemptTimedOut(
                policy=call.name, key=call.key, attempt=call.attempts, timeout_seconds=timeout_seconds
            )
        )
    return AttemptTimeout(policy=call.name, timeout_seconds=timeout_seconds)


def _nearest(own_at: float | None, deadline_at: float | None) -> float:
    if own_at is None:
        return float("inf") if deadline_at is None else deadline_at
    return own_at if deadline_at is None else min(own_at, deadline_at)


async def run_limited(call: Call, coroutine: Coroutine[Any, Any, Any], timeout_seconds: float | None) -> Any:
    """Run a whole coroutine under the limits of `call`."""
    try:
        waited_for = coroutine.send(None)
    except StopIteration as end:
        return end.value
    return await finish(call, coroutine, waited_for, timeout_seconds)


async def within(coroutine: Coroutine[Any, Any, Any], seconds: float, clock: Clock) -> Any:
    """Return what `coroutine` returns. Raises what it raises, or TimeoutError after `seconds` of waiting."""
    try:
        waited_for = coroutine.send(None)
    except StopIteration as end:
        return end.value
    expiry = Expiry(clock, clock.monotonic() + seconds)
    try:
        value = await rest_of(coroutine, waited_for)
    except asyncio.CancelledError as error:
        if expiry.disarm():
            raise TimeoutError(f"took longer than {seconds:g} s") from error
        raise
    except BaseException:
        expiry.disarm()
        raise
    expiry.disarm()
    return value


def is_awaitable(value: object) -> bool:
    """Whether a function's result has to be awaited; cheap for the plain values that most results are."""
    return type(value) is CoroutineType or (hasattr(value, "__await__") and inspect.isawaitable(value))


async def await_it(awaitable: Any) -> Any:
    """Turn any awaitable into a coroutine, which can be stepped by hand."""
    return await awaitable
