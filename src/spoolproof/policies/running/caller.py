"""The forms a call takes: decorator, `call`, `call_sync`, `result`, `attempts`, `permit`."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Generic, ParamSpec, TypeVar, cast, overload

from spoolproof.errors import BreakerOpen
from spoolproof.policies.call import Call, Options, run_now
from spoolproof.policies.functions import is_coroutine_function, refuse_generators
from spoolproof.policies.judging.verdict import SUCCESS, Verdict
from spoolproof.policies.running.block import Attempts, Block
from spoolproof.policies.running.runner import Runner

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Result(Generic[T]):
    """How a call ended, as a value. value: None if it failed. error: None if it did not.

    source: `live`, `stale` or `fallback`. attempts: begun. verdict: of the last attempt, success if it was one.
    """

    value: T | None
    error: Exception | None
    source: str
    attempts: int
    elapsed_seconds: float
    verdict: Verdict

    @property
    def is_ok(self) -> bool:
        """Whether there is a value, from wherever."""
        return self.error is None


class Caller:
    """Everything a user calls, on a policy or on a policy with options for the calls made through it."""

    _runner: Runner
    _options: Options | None = None

    def __call__(self, function: Callable[P, T]) -> Callable[P, T]:
        """Protect a function, `async def` or `def`; its signature is kept.

        Raises TypeError for a generator function or a context manager, whose protection would end before it begins: use
        `permit()`; and for what is no function, such as a class, of which only the making would be protected.
        """
        refuse_generators(function)
        if isinstance(function, type):
            raise TypeError(
                f"{function.__qualname__!r} is a class: only the making of one would be protected, not its methods; "
                "protect those, or make one with policy.call(…) or policy.call_sync(…)"
            )
        if isinstance(function, staticmethod | classmethod):
            raise TypeError(f"{function!r} is not a function; put @staticmethod and @classmethod outside the policy")
        if not callable(function):
            raise TypeError(f"{function!r} is not a function")
        is_async = is_coroutine_function(function)
        self._runner.check_function(function, is_async)
        turn_away, new_call, run = self._runner.turn_away, self._runner.new_call, self._runner.run
        options = self._options

        async def protected(*args: P.args, **kwargs: P.kwargs) -> Any:
            turn_away()
            return await run(new_call(function, args, kwargs, options))

        def protected_sync(*args: P.args, **kwargs: P.kwargs) -> Any:
            return self._run_sync(new_call(function, args, kwargs, options))

        made = functools.update_wrapper(protected if is_async else protected_sync, function)
        return cast("Callable[P, T]", made)

    @overload
    def call(
        self, function: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Coroutine[Any, Any, T]: ...
    @overload
    def call(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, T]: ...
    def call(self, function: Callable[P, Any], /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, Any]:
        """Call a function once under the policy and return its result; an awaitable result is awaited inside.

        Raises what the function raises, BreakerOpen, BulkheadFull, RateLimited, AttemptTimeout or DeadlineExceeded.
        """
        return self._run(self._new(function, args, kwargs))

    def call_sync(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """The same for a sync function. Raises TypeError when it returns an awaitable, PolicyUsageError when it would
        have to wait on a thread that runs an event loop, ThreadsExhausted when too many attempts hang."""
        value: T = self._run_sync(self._new(function, args, kwargs))
        return value

    async def result(self, function: Callable[P, Any], /, *args: P.args, **kwargs: P.kwargs) -> Result[Any]:
        """Call a function and return how that ended; raises only cancellation."""
        return await self._try(self._new(function, args, kwargs))

    def result_sync(self, function: Callable[P, Any], /, *args: P.args, **kwargs: P.kwargs) -> Result[Any]:
        """The same for a sync function."""
        call = self._new(function, args, kwargs)
        call.is_blocking = True
        return run_now(self._try(call))

    async def _try(self, call: Call) -> Result[Any]:
        try:
            self._runner.turn_away()
        except BreakerOpen as rejection:
            call.started_at = call.clock.monotonic()
            return _result(call, None, rejection)
        try:
            value = await self._runner.run(call)
        except Exception as error:
            return _result(call, None, error)
        return _result(call, value, None)

    def attempts(self) -> Attempts:
        """Return an iteration over runs of one block, until one succeeds: no Hedge, no Fallback. Independent each time.

        ``async for attempt in policy.attempts(): async with attempt: …``, in sync code without both `async`. A run that
        is not entered raises PolicyUsageError.
        """
        return self._runner.open_attempts(self._new(_block, (), {}))

    def permit(self) -> Block:
        """Return a context manager that protects a block which runs once: no Retry, no Hedge, no Fallback.

        ``async with policy.permit() as permit: …``, in sync code `with`; say `permit.failure("transient")` for what
        raises nothing. A sync block is not cut off: `deadline.remaining()` tells how long it has.
        """
        return self._runner.open_block(self._new(_block, (), {}))

    def _new(self, function: Callable[..., Any], args: Any, kwargs: Any) -> Call:
        return self._runner.new_call(function, args, kwargs, self._options)

    def _run_sync(self, call: Call) -> Any:
        call.is_blocking = True
        return run_now(self._run(call))

    async def _run(self, call: Call) -> Any:
        self._runner.turn_away()
        return await self._runner.run(call)


class Using(Caller):
    """A policy with options for the calls made through it."""

    def __init__(self, runner: Runner, options: Options) -> None:
        self._runner = runner
        self._options = options

    def __reduce__(self) -> tuple[Any, ...]:
        return Using, (self._runner, self._options)


def _block() -> None:
    """Stands for the block of `permit()` and `attempts()`."""


def _result(call: Call, value: Any, error: Exception | None) -> Result[Any]:
    call.now = call.clock.monotonic()  # a success that nobody measures leaves it at the beginning
    return Result(
        value=value,
        error=error,
        source=call.source,
        attempts=call.attempts,
        elapsed_seconds=call.now - call.started_at,
        verdict=call.verdict or SUCCESS,
    )
