"""What an application does when its service starts and stops: before the first delivery, and after the last.

The store is there in both. What a start hook raises ends the start; the stop hooks run even so, newest first.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack

from spoolproof.errors import RegistrationError

Hook = Callable[[], object]


class Hooks:
    """Those of one service. lifespan: a context manager around its run, entered before the start hooks."""

    def __init__(self) -> None:
        self._at_start: list[Hook] = []
        self._at_stop: list[Hook] = []
        self.lifespan: Callable[[], AbstractAsyncContextManager[object]] | None = None
        self._open: AsyncExitStack | None = None

    def __bool__(self) -> bool:
        """Tell whether there are any."""
        return bool(self._at_start or self._at_stop or self.lifespan)

    def add(self, hook: Hook, *, is_start: bool) -> None:
        """Register a function without parameters, plain or async. Raises RegistrationError."""
        which = "on_start" if is_start else "on_stop"
        if not callable(hook) or inspect.isgeneratorfunction(hook) or inspect.isasyncgenfunction(hook):
            raise RegistrationError(
                f"@service.{which} on {hook!r}: a function without parameters, `def` or `async def`"
            )
        (self._at_start if is_start else self._at_stop).append(hook)

    async def start(self) -> None:
        """Run the start hooks, in order of their registration."""
        self._open = AsyncExitStack()
        if self.lifespan is not None:
            await self._open.enter_async_context(self.lifespan())
        for hook in self._at_stop:
            self._open.push_async_callback(_run, hook)
        for hook in self._at_start:
            await _run(hook)

    async def stop(self) -> None:
        """Run the stop hooks, newest first, all of them whatever one raises. Harmless before `start`."""
        stack, self._open = self._open, None
        if stack is not None:
            await stack.aclose()


async def _run(hook: Hook) -> None:
    result = hook()
    if inspect.isawaitable(result):
        await result
