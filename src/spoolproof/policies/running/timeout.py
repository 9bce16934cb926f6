"""Bounds an attempt in time, and arms a timer only for one that suspends.

A timer costs several times what the rest of a policy does. What a coroutine does before it first waits cannot be cut
off anyway, so that part runs first, stepped by hand; from there on `send`, `throw` and `close` are forwarded exactly.

Only our own expiry is translated. `Task.uncancel()` counts: an outside cancellation that arrives in the same turn wins.
A body that swallows our cancellation is awaited, and a value it still returns is kept: a known outcome beats an unknown
one."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any

from spoolproof.clock import Clock
from spoolproof.errors import AttemptTimeout, DeadlineExceeded, PolicyUsageError, ThreadsExhausted
from spoolproof.policies import events
from spoolproof.policies.call import Call, _idempotency_key, current, is_delivery, is_repeating, run_now
from spoolproof.policies.deadline import ends_at
from spoolproof.policies.functions import OnDiscard, await_it, close_it, is_awaitable
from spoolproof.policies.judging.classifier import text_of
from spoolproof.policies.machines.memory import Abandoned, Counts

_NEVER = float("inf")
_fired: dict[asyncio.Task[Any], list[Expiry]] = {}  #: by task, those that have cancelled it and are not over


class Expiry:
    """A timer that cancels a task once, and knows whether it did.

    Several may be around each other in one task, and a deadline is shared: they expire in the same turn. Then the
    innermost takes the cancellation, because it knows best what was cut off, and the outer ones fire once more."""

    __slots__ = ("_at", "_cancelling", "_clock", "_task", "_timer", "has_expired")

    def __init__(self, clock: Clock, at: float) -> None:
        task = asyncio.current_task()
        if task is None:
            raise PolicyUsageError("a timeout or deadline can only cut off what runs in an asyncio task")
        self._task = task
        self._cancelling = task.cancelling()
        self._clock = clock
        self._at = at
        self.has_expired = False
        self._timer = clock.call_at(at, self._fire)

    def _fire(self) -> None:
        self.has_expired = True
        _fired.setdefault(self._task, []).append(self)
        self._task.cancel()

    def disarm(self) -> None:
        """Stop the timer and take its cancellation back."""
        self._timer.cancel()
        if self.has_expired:
            self._take_back()

    def claim(self) -> bool:
        """Disarm because a cancellation came; True if nothing else than time has cancelled the task."""
        has_expired = self.has_expired
        self.disarm()
        # one around this whose time came with ours or later: ours was due, whichever timer was quicker
        outer = [one for one in _fired.get(self._task, ()) if one._at >= self._at]
        if not (has_expired or outer) or self._task.cancelling() - len(outer) > self._cancelling:
            return False
        for one in outer:
            one._take_back()
            one._timer = one._clock.call_at(one._at, one._fire)
        return True

    def _take_back(self) -> None:
        fired = _fired[self._task]
        fired.remove(self)
        if not fired:
            del _fired[self._task]
        self.has_expired = False
        self._task.uncancel()


@types.coroutine
def _limited(
    clock: Clock, at: float, coroutine: Coroutine[Any, Any, Any], waited_for: Any, expired: Callable[[], BaseException]
) -> Generator[Any, Any, Any]:
    """Run the rest of a coroutine that has been stepped to its first wait; `expired` makes the error of one cut off."""
    expiry = Expiry(clock, at)
    try:
        while True:
            try:
                sent = yield waited_for
            except GeneratorExit:
                coroutine.close()  # which the collector may have done before
                raise
            except BaseException as error:  # a cancellation: the body must see it, whatever it is
                waited_for = coroutine.throw(error)
            else:
                if sent is None:
                    value = yield from coroutine
                    break
                waited_for = coroutine.send(sent)
    except StopIteration as end:
        value = end.value
    except asyncio.CancelledError as error:
        if expiry.claim():
            raise expired() from error
        raise
    except BaseException:
        expiry.disarm()
        raise
    expiry.disarm()
    return value


def finish(
    call: Call, coroutine: Coroutine[Any, Any, Any], waited_for: Any, at: float | None, timeout_seconds: float | None
) -> Awaitable[Any]:
    """Return what the rest of `coroutine` returns, until `at`. Raises AttemptTimeout or DeadlineExceeded."""
    return _limited(
        call.clock, _NEVER if at is None else at, coroutine, waited_for, lambda: expired(call, timeout_seconds)
    )


def expired(call: Call, timeout_seconds: float | None) -> TimeoutError:
    """Return the error of whichever limit came first; the attempt's own when both are the same."""
    own_at = None if timeout_seconds is None else call.attempt_started_at + timeout_seconds
    if own_at is None or timeout_seconds is None or (call.deadline_at is not None and call.deadline_at < own_at):
        return DeadlineExceeded(policy=call.name, has_started=True)
    if events.listeners:
        events.emit(events.AttemptTimedOut(call.name, call.key, attempt=call.attempts, timeout_seconds=timeout_seconds))
    return AttemptTimeout(policy=call.name, timeout_seconds=timeout_seconds)


async def run_limited(call: Call, coroutine: Coroutine[Any, Any, Any], timeout_seconds: float | None) -> Any:
    """Run a whole coroutine under the limits of `call`."""
    at = call.limit_at(timeout_seconds)
    try:
        waited_for = coroutine.send(None)
    except StopIteration as end:
        return end.value
    return await finish(call, coroutine, waited_for, at, timeout_seconds)


async def within(coroutine: Coroutine[Any, Any, Any], seconds: float, clock: Clock) -> Any:
    """Return what `coroutine` returns. Raises what it raises, or TimeoutError after `seconds` of waiting."""
    try:
        waited_for = coroutine.send(None)
    except StopIteration as end:
        return end.value
    at = clock.monotonic() + seconds
    return await _limited(clock, at, coroutine, waited_for, lambda: TimeoutError(f"took longer than {seconds:g} s"))


logger = logging.getLogger("spoolproof.policies")
_CLOSE_SECONDS = 1.0  #: closing must not take longer than what it makes room for


async def discard(value: object, on_discard: OnDiscard | None, call: Call) -> None:
    """Hand a result to `on_discard`; None closes what has `aclose` or `close`. Never raises but a cancellation."""
    try:
        names = ("close",) if call.is_blocking else ("aclose", "close")
        ended = on_discard(value) if on_discard is not None else _close(value, *names)
        if is_awaitable(ended):
            if call.is_blocking:
                close_it(ended)
                raise TypeError(f"what ends a result of type {type(value).__name__} is async; here it has to block")
            await within(await_it(ended), _CLOSE_SECONDS, call.clock)
    except Exception as error:  # it would replace the answer that the caller gets
        logger.error("policies.on_discard_failed policy=%s error=%s", call.name, text_of(error))


def _close(value: object, *names: str) -> object:
    for name in names:
        if callable(getattr(type(value), name, None)):
            return getattr(value, name)()
    return None


_OF_CALLS: tuple[contextvars.ContextVar[Any], ...] = (ends_at, is_repeating, is_delivery, _idempotency_key)


class _Attempt:
    """One attempt in a thread: it ends, or is abandoned, whichever is first."""

    __slots__ = ("abandoned", "call", "done", "error", "is_abandoned", "value")

    def __init__(self, call: Call, abandoned: Abandoned) -> None:
        self.call = call
        self.abandoned = abandoned
        self.done = threading.Event()
        self.is_abandoned = False
        self.value: Any = None
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self.value = self.call.function(*self.call.args, **self.call.kwargs)
        except BaseException as error:  # whatever it is, it belongs to the caller
            self.error = error
        with self.abandoned.lock:
            self.done.set()
            is_late = self.is_abandoned
            if is_late and self.abandoned.count:  # 0 in a child that was forked here
                self.abandoned.count -= 1
        if is_late:
            run_now(discard(self.value, None, self.call))

    def abandon(self) -> bool:
        """Leave the thread to itself; False if it has ended meanwhile."""
        with self.abandoned.lock:
            if self.done.is_set():
                return False
            self.is_abandoned = True
            self.abandoned.count += 1
            return True


def run_in_thread(call: Call, timeout_seconds: float, abandoned: Abandoned, counts: Counts) -> Any:
    """Return what the function returns, run in a thread with a copy of this context. Raises what it raises,
    AttemptTimeout, DeadlineExceeded, or ThreadsExhausted when too many threads hang."""
    if abandoned.count >= abandoned.maximum:
        raise ThreadsExhausted(policy=call.name, abandoned=abandoned.count)
    limit_at = call.limit_at(timeout_seconds)
    attempt = _Attempt(call, abandoned)
    context = contextvars.copy_context()
    for variable in _OF_CALLS:
        context.run(variable.set, current(variable))  # for a thread that outlives the call they still hold
    call.has_started = True
    counts.attempts += 1
    threading.Thread(target=context.run, args=(attempt.run,), name="spoolproof.attempt", daemon=True).start()
    try:
        is_done = attempt.done.wait(None if limit_at is None else max(0.0, limit_at - call.now))
    except BaseException:  # Ctrl-C in the waiting thread
        attempt.abandon()
        raise
    if not is_done and attempt.abandon():
        raise expired(call, timeout_seconds)
    error, attempt.error = attempt.error, None
    if error is None:
        return attempt.value
    try:
        raise error
    finally:
        del error  # a traceback that refers to itself would live until the next collection
