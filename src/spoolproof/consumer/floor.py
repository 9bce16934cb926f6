"""Who may run handlers in this process: everybody beside each other, or one alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final

from spoolproof import limits


class Floor:
    """One per process. Whoever wants it alone waits until the handlers that run have ended, but not for a slow one
    longer than for a usual one; the others wait for him."""

    def __init__(self) -> None:
        self._running = 0
        self._wanted_alone = 0
        self._one = asyncio.Lock()
        self._changed = asyncio.Event()
        self.shared: Final = _Shared(self)

    async def enter(self) -> None:
        """Begin to run beside others."""
        while self._wanted_alone:
            await self._change()
        self._running += 1

    def leave(self) -> None:
        """Have run beside others."""
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


class _Shared:
    """`async with`: run beside others. One for all: a generator for each delivery would cost more than the rest."""

    def __init__(self, floor: Floor) -> None:
        self._floor = floor

    async def __aenter__(self) -> None:
        await self._floor.enter()

    async def __aexit__(self, *_: object) -> None:
        self._floor.leave()
