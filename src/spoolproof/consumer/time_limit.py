"""Runs a handler under its time limit, and arms a timer only for one that suspends.

A timer costs as much as a small handler does. What a coroutine does before it first waits cannot be cut off anyway, so
that part runs first, without one; a handler that never waits pays for none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator
from typing import Any


async def within(coroutine: Coroutine[Any, Any, object], seconds: float) -> object:
    """Return what `coroutine` returns. Raises what it raises, or TimeoutError after `seconds` of waiting."""
    try:
        waited_for = coroutine.send(None)
    except StopIteration as end:
        result: object = end.value
        return result
    async with asyncio.timeout(seconds):
        return await _Rest(coroutine, waited_for)


class _Rest:
    """The rest of a coroutine that has run to its first wait."""

    __slots__ = ("_coroutine", "_waited_for")

    def __init__(self, coroutine: Coroutine[Any, Any, object], waited_for: object) -> None:
        self._coroutine = coroutine
        self._waited_for = waited_for

    def __await__(self) -> Generator[Any, Any, object]:
        waited_for = self._waited_for
        while True:
            try:
                try:
                    sent = yield waited_for
                except BaseException as error:  # a cancellation, the timer's or a drain's: the coroutine must see it
                    waited_for = self._coroutine.throw(error)
                else:
                    waited_for = self._coroutine.send(sent)
            except StopIteration as end:
                result: object = end.value
                return result
