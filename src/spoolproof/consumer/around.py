"""What an application puts around every attempt: the place for tenants, audits, and tools that watch for errors."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any

from spoolproof.consumer.delivery import Delivery
from spoolproof.errors import RegistrationError

CallNext = Callable[[], Awaitable[object]]
Around = Callable[[Delivery, CallNext], Coroutine[Any, Any, object]]


class HandleAround:
    """Those of one service; the first registered is the outermost."""

    def __init__(self) -> None:
        self._functions: list[Around] = []

    def __bool__(self) -> bool:
        return bool(self._functions)

    def add(self, function: Around) -> None:
        """Register one. Raises RegistrationError."""
        if not inspect.iscoroutinefunction(function):
            raise RegistrationError(f"@service.around_handle on {function!r}: write `async def f(delivery, call_next)`")
        self._functions.append(function)

    async def through(self, delivery: Delivery, call: CallNext) -> object:
        """Make a call through all of them; returns what the outermost returns."""
        for function in reversed(self._functions):
            call = partial(function, delivery, call)
        return await call()
