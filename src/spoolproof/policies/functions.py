"""What a function is, and what it gives: told apart before and after it is called."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from types import AsyncGeneratorType, CoroutineType, GeneratorType, NoneType
from typing import Any

OnDiscard = Callable[[Any], object]
"""What ends a result that nobody gets."""

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


def is_coroutine_function(function: Callable[..., Any]) -> bool:
    """Whether calling it gives a coroutine, as far as its declaration says: looks through partials and `__call__`."""
    while isinstance(function, functools.partial):
        function = function.func
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004
