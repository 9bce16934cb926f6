"""Bounds an attempt in time, and arms a timer only for one that suspends.

A timer costs several times what the rest of a policy does. What a coroutine does before it first waits cannot be cut
off anyway, so that part runs first, stepped by hand; from there on `send`, `throw` and `close` are forwarded exactly.

Only our own expiry is translated. `Task.uncancel()` counts: an outside cancellation that arrives in the same turn wins.
A body that swallows our cancellation is awaited, and a value it still returns is kept: a known outcome beats an unknown
one."""

from __future__ import annotations

import asyncio
import functools
import inspect
import types
from collections.abc import Callable, Coroutine, Generator
from types import AsyncGeneratorType, CoroutineType, GeneratorType, NoneType
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
def rest_of(coroutine: Coroutine[Any, Any, Any], waited_for: Any) -> Generator[Any, Any, Any]:
    """Run the rest of a coroutine that has been stepped to its first wait."""
    while True:
        try:
            try:
                sent = yield waited_for
            except GeneratorExit:
                coroutine.close()  # which the collector may have done before
                raise
            except BaseException as error:  # a cancellation: the body must see it, whatever it is
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
    expiry = Expiry(
        call.clock, min(_NEVER if own_at is None else own_at, _NEVER if call.deadline_at is None else call.deadline_at)
    )
    try:
        value = await rest_of(coroutine, waited_for)
    except asyncio.CancelledError as error:
        if expiry.claim():
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
        if expiry.claim():
            raise TimeoutError(f"took longer than {seconds:g} s") from error
        raise
    except BaseException:
        expiry.disarm()
        raise
    expiry.disarm()
    return value


_PLAIN = frozenset({NoneType, bool, int, float, str, bytes, tuple, list, dict})


def is_awaitable(value: object, function: Callable[..., Any] | None = None) -> bool:
    """Whether a function's result has to be awaited; cheap for the plain values that most results are.

    Asks the class: a proxy would answer for something else, or raise. function: what gave the value; TypeError if it is
    a generator function.
    """
    kind = type(value)
    if kind in _PLAIN:
        return False
    if kind is GeneratorType or kind is AsyncGeneratorType:
        if inspect.isawaitable(value):  # of the old sort, made by `types.coroutine`
            return True
        if function is not None:
            refuse_generators(function, is_result=True)
        return False
    if kind.__module__ == "contextlib" and hasattr(kind, "_recreate_cm") and function is not None:
        raise _is_too_late(function, "returned a context manager", "its block")
    return kind is CoroutineType or (hasattr(kind, "__await__") and inspect.isawaitable(value))


def refuse_generators(function: Callable[..., Any], *, is_result: bool = False) -> None:
    """Raise TypeError for a function whose work happens after it has returned: a generator, a context manager.

    is_result: it has returned a generator, and a decorator around one makes no difference.
    """
    inner: Any = function
    while isinstance(inner, functools.partial):
        inner = inner.func
    if getattr(inner, "__globals__", {}).get("__name__") == "contextlib" and hasattr(inner, "__wrapped__"):
        raise _is_too_late(inner, "is a context manager", "its block")
    if is_result and not isinstance(inner, type):
        inner = inspect.unwrap(inner)
    for one in (inner, None if isinstance(inner, type) else getattr(inner, "__call__", None)):  # noqa: B004
        if inspect.isgeneratorfunction(one) or inspect.isasyncgenfunction(one):
            raise _is_too_late(inner, "is a generator function", "its first item")


def _is_too_late(function: Any, what: str, begin: str) -> TypeError:
    while isinstance(function, functools.partial):
        function = function.func
    name = getattr(function, "__qualname__", type(function).__qualname__)
    return TypeError(
        f"{name!r} {what}: protection would end before {begin} begins; protect the block that uses it with "
        "`async with policy.permit()`, or the calls inside it"
    )


async def await_it(awaitable: Any) -> Any:
    """Turn any awaitable into a coroutine, which can be stepped by hand."""
    return await awaitable


def close_it(awaitable: Any) -> None:
    """End an awaitable that nobody will await, if it is one that can be ended."""
    close = getattr(awaitable, "close", None)
    if close is not None:
        close()
