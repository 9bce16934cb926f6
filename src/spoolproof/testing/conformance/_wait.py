"""Waiting for a condition with a deadline: the only way a conformance test lets time pass.

A test states what must become true (`eventually`) or what must not happen while the other side has every chance to
(`holds_for`, short, and only where no event can be awaited because none may come).
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import TypeVar

from spoolproof.clock import SystemClock

_POLL_SECONDS = 0.005
_CLOCK = SystemClock()

T = TypeVar("T")
Condition = Callable[[], bool | Awaitable[bool]]


async def eventually(condition: Condition, seconds: float = 5.0) -> None:
    """Return once `condition` (plain or async) is true. Raises AssertionError after `seconds`."""
    deadline = _CLOCK.monotonic() + seconds
    while not await _is_true(condition):
        if _CLOCK.monotonic() >= deadline:
            raise AssertionError(f"not true within {seconds} s: {_text_of(condition)}")
        await _CLOCK.sleep(_POLL_SECONDS)


async def holds_for(condition: Condition, seconds: float = 0.1) -> None:
    """Return after `seconds` in which `condition` was true at every look. Raises AssertionError at the first miss."""
    deadline = _CLOCK.monotonic() + seconds
    while _CLOCK.monotonic() < deadline:
        if not await _is_true(condition):
            raise AssertionError(f"no longer true: {_text_of(condition)}")
        await _CLOCK.sleep(_POLL_SECONDS)


def monotonic() -> float:
    """Return the seconds of the real clock, for measuring."""
    return _CLOCK.monotonic()


async def within(awaitable: Awaitable[T], seconds: float = 5.0) -> T:
    """Return the result of `awaitable`. Raises TimeoutError after `seconds`."""
    async with asyncio.timeout(seconds):
        return await awaitable


async def _is_true(condition: Condition) -> bool:
    answer = condition()
    return bool(await answer if inspect.isawaitable(answer) else answer)


def _text_of(condition: Condition) -> str:
    try:
        return inspect.getsource(condition).strip()
    except (OSError, TypeError):
        return repr(condition)
