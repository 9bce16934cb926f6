"""The memory store's bell: an event of this process's loop."""

from __future__ import annotations

import asyncio


class MemoryWakeUp:
    def __init__(self) -> None:
        self._bell = asyncio.Event()

    def notify(self) -> None:
        self._bell.set()

    async def wait(self, timeout_seconds: float) -> bool:
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._bell.wait()
        except TimeoutError:
            return False
        # a ring stays until it is heard, so one between two waits is not lost
        self._bell.clear()
        return True
