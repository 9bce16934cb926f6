"""Who may run handlers in this process: everybody beside each other, or one alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from spoolproof import limits


class Floor:
    """One per process. Whoever wants it alone waits until the handlers that run have ended, but not for a slow one
    longer than for a usual one; the others wait for him."""

    def __init__(self) -> None:
        self._running = 0
        self._wanted_alone = 0
        self._one = asyncio.Lock()
        self._changed = asyncio.Event()

    @asynccontextmanager
    async def shared(self) -> AsyncIterator[None]:
        """Run beside others."""
        while self._wanted_alone:
            await self._change()
        self._running += 1
        try:
            yield
        finally:
            self._running -= 1
            self._changed.set()

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """Run while nobody else does."""
        self._wanted_alone += 1
        try:
            async with self._one:
                with suppress(TimeoutError):
                    async with asyncio.timeout(limits.HANDLER_SECONDS):
                        while self._running:
                            await self._change()
                yield
        finally:
            self._wanted_alone -= 1
            self._changed.set()

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()
